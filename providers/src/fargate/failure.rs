//! What the words of AWS mean.
//!
//! ECS refuses in three places: as an exception, as a failure in a successful answer, and as the reason why an accepted task
//! stopped. The same sentences occur in all of them.

use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::{Error, ErrorKind, Operation, StartFailure};

/// AWS's sentences can be long, and some quote the request.
const WORDS_BYTES: usize = 1024;

/// An error of a call.
pub(super) fn error<E>(error: &SdkError<E, HttpResponse>, operation: Operation) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let code = error.meta().code().unwrap_or_default();
    let message = error.meta().message().unwrap_or_default();
    match error {
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => refusal(code, message, status, operation),
        _ => unanswered(error, operation),
    }
}

/// AWS said no. `code` is the constant part, `message` the sentence.
pub(super) fn refusal(code: &str, message: &str, status: Option<u16>, operation: Operation) -> Error {
    let words = match (code, status) {
        ("", Some(status)) => format!("HTTP {status}"),
        _ => format!("{code}: {message}"),
    };
    told(exception(code, message, status), operation, &words)
}

/// Never sent, or no answer in time. Without credentials nothing is signed; then a human must act.
pub(super) fn unanswered(error: &(dyn std::error::Error + 'static), operation: Operation) -> Error {
    let words = DisplayErrorContext(error).to_string();
    let unsigned = chain_mentions(error, "credential");
    told(if unsigned { ErrorKind::Denied } else { ErrorKind::Unavailable }, operation, &words)
}

/// An error in AWS's own words.
pub(super) fn told(kind: ErrorKind, operation: Operation, words: &str) -> Error {
    let end = (0..=WORDS_BYTES.min(words.len())).rev().find(|end| words.is_char_boundary(*end)).unwrap_or(0);
    Error::new(kind, super::NAME, operation).because(words[..end].to_owned())
}

/// An error with AWS's own words, for a log.
pub(super) fn display(error: &Error) -> String {
    let source = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

fn chain_mentions(error: &(dyn std::error::Error + 'static), word: &str) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.to_string().to_ascii_lowercase().contains(word) {
            return true;
        }
        next = error.source();
    }
    false
}

/// What an exception means. `code` is the constant part, `message` the sentence.
pub(super) fn exception(code: &str, message: &str, status: Option<u16>) -> ErrorKind {
    if let Some(kind) = sentence(message) {
        return kind;
    }
    match code {
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "SlowDown" => ErrorKind::Throttled { retry_after: None },
        "AccessDeniedException"
        | "AccessDenied"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "BlockedException"
        // Nothing about the pod: the backend is set up wrongly, and a human must look.
        | "ClusterNotFoundException"
        | "PlatformUnknownException" => ErrorKind::Denied,
        "ConflictException" | "ResourceExistsException" => ErrorKind::Conflict,
        "ResourceNotFoundException" | "NoSuchResourceException" => ErrorKind::NotFound,
        "ClientException"
        | "InvalidParameterException"
        | "UnsupportedFeatureException"
        | "PlatformTaskDefinitionIncompatibilityException"
        | "InvalidRequestException"
        | "ValidationException" => ErrorKind::Invalid,
        "ServerException" | "InternalServiceError" | "InternalFailure" | "ServiceUnavailable" => ErrorKind::Unavailable,
        _ => match status {
            Some(429) => ErrorKind::Throttled { retry_after: None },
            Some(401 | 403) => ErrorKind::Denied,
            Some(400..500) => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        },
    }
}

/// What a sentence says by itself, wherever it stands.
pub(super) fn sentence(words: &str) -> Option<ErrorKind> {
    let words = words.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if says(&CAPACITY) {
        Some(ErrorKind::NoCapacity)
    } else if says(&QUOTA) {
        Some(ErrorKind::QuotaExceeded)
    } else if says(&["rate exceeded", "too many requests", "too many concurrent attempts"]) {
        Some(ErrorKind::Throttled { retry_after: None })
    } else if says(&[
        "not authorized to perform",
        "unable to assume the role",
        "error retrieving subnet information",
        "error retrieving security group information",
        "cluster is inactive",
        "capacity provider was not found",
        "not associated with the cluster",
    ]) {
        Some(ErrorKind::Denied)
    } else {
        None
    }
}

/// A failure in the answer to RunTask, which is no exception.
pub(super) fn refused(reason: &str, detail: &str) -> ErrorKind {
    if let Some(kind) = sentence(reason).or_else(|| sentence(detail)) {
        return kind;
    }
    match reason {
        "RESOURCE:ENI" | "RESOURCE:CPU" | "RESOURCE:MEMORY" | "AGENT" => ErrorKind::NoCapacity,
        "INACTIVE" | "LOCATION" => ErrorKind::Denied,
        "ATTRIBUTE" => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}

/// No room for this size here and now, or no address left in the subnet.
const CAPACITY: [&str; 3] = ["capacity is unavailable at this time", "insufficientfreeaddresses", "not enough free addresses"];
const QUOTA: [&str; 2] = ["reached the limit on the number of", "service quota"];

/// What kind of reason an accepted task gives for never having run.
pub(super) fn start_failure(words: &str) -> StartFailure {
    let words = words.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if says(&CAPACITY) {
        StartFailure::NoCapacity
    } else if says(&QUOTA) {
        StartFailure::QuotaExceeded
    } else if says(&["cannotpull"]) {
        StartFailure::Image
    } else if says(&[
        "cannotstartcontainer",
        "cannotcreatecontainer",
        "cannotinspectcontainer",
        "containerruntime",
        "dockertimeout",
    ]) {
        StartFailure::Container
    } else if says(&[
        "resourceinitializationerror",
        "network interface",
        "resource:eni",
        "secretsmanager",
        "cannotcreatevolume",
        "efs",
        "access denied",
        "accessdenied",
        "internalerror: unable to get",
    ]) {
        StartFailure::Configuration
    } else {
        StartFailure::Unknown
    }
}

/// The word that kubelets use for what happened to a container, from ECS's reason.
pub(super) fn container_reason(words: &str) -> Option<&'static str> {
    let known = [
        ("outofmemory", "OOMKilled"),
        ("cannotpull", "ImagePullBackOff"),
        ("cannotstartcontainer", "RunContainerError"),
        ("cannotcreatecontainer", "CreateContainerError"),
        ("containerruntime", "RunContainerError"),
        ("resourceinitializationerror", "CreateContainerConfigError"),
    ];
    let words = words.to_ascii_lowercase();
    known.into_iter().find(|(part, _)| words.contains(part)).map(|(_, word)| word)
}

#[cfg(test)]
mod tests;
