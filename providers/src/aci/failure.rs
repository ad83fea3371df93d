//! What Azure's errors mean.

use std::fmt;
use std::time::Duration;

use super::wire::ErrorAnswer;
use crate::{ErrorKind, Operation, StartFailure};

/// An answer of Resource Manager that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmError {
    /// The HTTP status.
    pub status: u16,
    /// Azure's constant name; empty if it gave none.
    pub code: String,
    /// Azure's sentence.
    pub message: String,
    /// What the sentence says about a quota.
    pub quota: Option<QuotaReached>,
}

/// A quota that is used up, as an error's sentence tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaReached {
    /// Name of the quota, such as `StandardCores`.
    pub name: String,
    /// How much there may be.
    pub limit: i64,
    /// How much there is.
    pub usage: i64,
    /// How much more was asked for.
    pub requested: i64,
}

/// Azure's sentences can be pages long.
const MESSAGE_BYTES: usize = 1024;
/// Azure asks to leave a group alone that is being changed for ten seconds or more.
const TRANSITION: Duration = Duration::from_secs(10);
/// Docker Hub counts pulls per six hours; a minute is a polite time to ask again.
const REGISTRY_PAUSE: Duration = Duration::from_secs(60);

// === impl ArmError ===

impl ArmError {
    /// Reads an answer that is no success.
    pub fn new(status: u16, body: &[u8]) -> ArmError {
        let answer: ErrorAnswer = serde_json::from_slice(body).unwrap_or_default();
        let mut message = answer.error.message;
        if message.len() > MESSAGE_BYTES {
            let end = (0..=MESSAGE_BYTES).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
        }
        let quota = QuotaReached::parse(&message);
        ArmError { status, code: answer.error.code, message, quota }
    }

    /// What the caller should do about it. `retry_after` is the answer's header.
    pub fn kind(&self, operation: Operation, retry_after: Option<Duration>) -> ErrorKind {
        if self.quota.is_some() || self.code == "ContainerGroupQuotaReached" {
            return ErrorKind::QuotaExceeded;
        }
        match self.code.as_str() {
            // "The requested resource is not available in the location at this moment": this size, here, now.
            "ServiceUnavailable" if self.status == 409 => return ErrorKind::NoCapacity,
            "ContainerGroupTransitioning" => {
                return ErrorKind::Throttled { retry_after: Some(retry_after.unwrap_or(TRANSITION)) };
            }
            "RegistryErrorResponse" => {
                return ErrorKind::Throttled { retry_after: Some(retry_after.unwrap_or(REGISTRY_PAUSE)) };
            }
            // Nothing about the pod: the backend is set up wrongly, and a human must look.
            "ResourceGroupNotFound"
            | "SubscriptionNotFound"
            | "InvalidSubscriptionId"
            | "MissingSubscriptionRegistration"
            | "NoRegisteredProviderFound"
            | "LocationNotAvailableForResourceType"
            | "InvalidApiVersionParameter"
            | "ReadOnlyDisabledSubscription" => return ErrorKind::Denied,
            _ => {}
        }
        match (self.status, operation) {
            (429, _) => ErrorKind::Throttled { retry_after },
            (401 | 403, _) => ErrorKind::Denied,
            (404, Operation::Create | Operation::Observe) => ErrorKind::Denied,
            (404, _) => ErrorKind::NotFound,
            // 409 without a name that we know: somebody else's change.
            (409 | 412, _) => ErrorKind::Conflict,
            (408, _) | (500.., _) => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        }
    }
}

impl fmt::Display for ArmError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "HTTP {}", self.status)?;
        if !self.code.is_empty() {
            write!(out, " {}", self.code)?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(out, ": {}", self.message) }
    }
}

impl std::error::Error for ArmError {}

// === impl QuotaReached ===

impl QuotaReached {
    /// Reads "… quota 'StandardCores' exceeded in region 'x'. Limit: '100', Usage: '12' Requested: '90'."
    pub fn parse(message: &str) -> Option<QuotaReached> {
        let (_, rest) = message.split_once("quota '")?;
        let (name, rest) = rest.split_once('\'')?;
        if !rest.contains("exceeded") {
            return None;
        }
        let number = |label: &str| {
            let (_, rest) = rest.split_once(label)?;
            let rest = rest.trim_start().strip_prefix('\'')?;
            rest.split_once('\'')?.0.parse::<i64>().ok()
        };
        // The fraud detection's sentence stops after the limit.
        Some(QuotaReached {
            name: name.to_owned(),
            limit: number("Limit:")?,
            usage: number("Usage:").unwrap_or(0),
            requested: number("Requested:").unwrap_or(0),
        })
    }
}

/// What kind of reason an accepted group gives for never running. Azure's events have names, but the telling part is prose.
pub(super) fn start_failure(words: &str) -> StartFailure {
    let words = words.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if QuotaReached::parse(&words).is_some() || says(&["quotareached", "quota '"]) {
        StartFailure::QuotaExceeded
    } else if says(&["not available in the location", "insufficient capacity", "serviceunavailable", "out of capacity"]) {
        StartFailure::NoCapacity
    } else if says(&[
        "failed to pull image",
        "inaccessibleimage",
        "registryerrorresponse",
        "imagepull",
        "manifest unknown",
        "toomanyrequests",
    ]) {
        StartFailure::Image
    } else if says(&["subnet", "network", "azure file", "azurefile", "storage account", "failed to mount"]) {
        StartFailure::Configuration
    } else if says(&[
        "failed to start container",
        "failed to create container",
        "executable file not found",
        "error: failed to start",
    ]) {
        StartFailure::Container
    } else {
        StartFailure::Unknown
    }
}

#[cfg(test)]
mod tests;
