//! Calls to the services of AWS of which Fargate needs a few operations only: signed JSON requests.
//!
//! A crate of the SDK for each of them takes as long to build as everything else in this one. Credentials, endpoints, patience
//! and retries are the SDK's own, as for ECS.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_ecs::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_ecs::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_ecs::error::DisplayErrorContext;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_types::service_config::ServiceConfigKey;
use policy::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::failure::{self, told};
use super::{ATTEMPT_PATIENCE, ATTEMPTS, CALL_PATIENCE, FIRST_PAUSE, LONGEST_PAUSE};
use crate::{Clock, Error, ErrorKind, Operation, body};

/// A page of a log has at most 1 MiB of text, which JSON's escapes make at most six times as long.
const MOST_BYTES: usize = 8 << 20;
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
/// Credentials are asked for again so long before they expire, and after so long where they do not say when.
const EARLY: Duration = Duration::from_secs(60);
const UNDATED: Duration = Duration::from_secs(900);

/// A service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    /// Its name in signatures and at the beginning of its host's name.
    name: &'static str,
    /// Its name in the environment and in profiles.
    id: &'static str,
    /// The first part of `X-Amz-Target`.
    target: &'static str,
}

pub(super) const LOGS: Service = Service { name: "logs", id: "CloudWatch Logs", target: "Logs_20140328" };
pub(super) const QUOTAS: Service = Service { name: "servicequotas", id: "Service Quotas", target: "ServiceQuotasV20190624" };
pub(super) const SECRETS: Service = Service { name: "secretsmanager", id: "Secrets Manager", target: "secretsmanager" };

/// Calls these services. Shows no body in any log.
pub(super) struct Signed {
    http: reqwest::Client,
    config: SdkConfig,
    /// Where ECS is, if nobody says otherwise.
    ecs: String,
    credentials: SharedCredentialsProvider,
    /// The last ones, and until when they are good.
    kept: Mutex<Option<(Credentials, SystemTime)>>,
    clock: Clock,
}

/// What the JSON protocol says of an error; the rest of the body depends on the error.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(rename = "__type", default)]
    kind: String,
    #[serde(alias = "Message", default)]
    message: String,
}

// === impl Signed ===

impl Signed {
    /// Prepares calls with what the SDK found.
    pub(super) async fn new(config: &SdkConfig, http: reqwest::Client, clock: Clock) -> Result<Signed, Error> {
        let invalid = |words: &str| told(ErrorKind::Invalid, Operation::Observe, words);
        let params = Params::builder()
            .set_region(config.region().map(ToString::to_string))
            .set_use_fips(config.use_fips())
            .set_use_dual_stack(config.use_dual_stack())
            .build()
            .map_err(|error| invalid(&error.to_string()))?;
        let resolver = DefaultResolver::new();
        let ecs = resolver.resolve_endpoint(&params).await.map_err(|error| invalid(&error.to_string()))?;
        let credentials = config.credentials_provider().ok_or_else(|| invalid("no provider of credentials"))?;
        Ok(Signed { http, config: config.clone(), ecs: ecs.url().to_owned(), credentials, kept: Mutex::default(), clock })
    }

    /// Asks for one operation and reads the answer.
    ///
    /// # Errors
    /// As ECS's: AWS's own words, with the kind that they mean.
    pub(super) async fn call<A: DeserializeOwned>(
        &self,
        service: &Service,
        name: &str,
        request: &(impl Serialize + Sync),
        operation: Operation,
    ) -> Result<A, Error> {
        let body = serde_json::to_vec(request).map_err(|error| told(ErrorKind::Invalid, operation, &error.to_string()))?;
        let answer = tokio::time::timeout(CALL_PATIENCE, self.attempts(service, name, &body, operation)).await;
        let answer = answer.unwrap_or_else(|_| {
            let words = format!("{}: no answer to {name} within {} s", service.name, CALL_PATIENCE.as_secs());
            Err(told(ErrorKind::Unavailable, operation, &words))
        })?;
        serde_json::from_slice(&answer).map_err(|error| {
            told(ErrorKind::Unavailable, operation, &format!("{}: an answer to {name} that is none: {error}", service.name))
        })
    }

    async fn attempts(&self, service: &Service, name: &str, body: &[u8], operation: Operation) -> Result<Vec<u8>, Error> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.attempt(service, name, body, operation).await {
                Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Throttled { .. }) => {
                    tokio::time::sleep(part_of(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => return answer,
            }
        }
        self.attempt(service, name, body, operation).await
    }

    async fn attempt(&self, service: &Service, name: &str, body: &[u8], operation: Operation) -> Result<Vec<u8>, Error> {
        let url = self.endpoint(service);
        let headers = self.headers(service, name, &url, body, operation).await?;
        let mut request = self.http.post(&url).timeout(ATTEMPT_PATIENCE).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(|error| failure::unanswered(&error, operation))?;
        let status = answer.status();
        let kind = answer.headers().get("x-amzn-errortype").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let read = body::read(answer, MOST_BYTES).await;
        if status.is_success() {
            return read.map_err(|error| failure::unanswered(&*error, operation));
        }
        // What is between AWS and us refuses in HTML.
        let refusal: Refusal = read.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        let kind = if refusal.kind.is_empty() { &kind } else { &refusal.kind };
        Err(failure::refusal(code(kind), &refusal.message, Some(status.as_u16()), operation))
    }

    /// The headers that make a request one of this operation by somebody whom AWS knows.
    async fn headers(
        &self,
        service: &Service,
        name: &str,
        url: &str,
        body: &[u8],
        operation: Operation,
    ) -> Result<Vec<(&'static str, String)>, Error> {
        let credentials = self.credentials(operation).await?;
        let refused = |error: &dyn std::error::Error| {
            told(ErrorKind::Invalid, operation, &format!("not signed: {}", DisplayErrorContext(error)))
        };
        let mut headers = vec![("content-type", CONTENT_TYPE.to_owned()), ("x-amz-target", format!("{}.{name}", service.target))];
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.config.region().map_or("", AsRef::as_ref))
            .name(service.name)
            .time(self.now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| refused(&error))?
            .into();
        let given = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let request = SignableRequest::new("POST", url, given, SignableBody::Bytes(body)).map_err(|error| refused(&error))?;
        let (instructions, _) = sign(request, &params).map_err(|error| refused(&error))?.into_parts();
        let (signature, _) = instructions.into_parts();
        headers.extend(signature.iter().map(|header| (header.name(), header.value().to_owned())));
        Ok(headers)
    }

    /// Credentials that are still good: what is behind them may be a call to STS, or to the machine.
    async fn credentials(&self, operation: Operation) -> Result<Credentials, Error> {
        let now = self.now();
        let mut kept = self.kept.lock().await;
        if let Some((credentials, _)) = kept.as_ref().filter(|(_, until)| now < *until) {
            return Ok(credentials.clone());
        }
        let fresh = self.credentials.provide_credentials().await;
        let fresh = fresh.map_err(|error| told(ErrorKind::Denied, operation, &DisplayErrorContext(&error).to_string()))?;
        *kept = Some((fresh.clone(), good_until(&fresh, now)));
        Ok(fresh)
    }

    /// Where a service is: where somebody says, else beside ECS.
    fn endpoint(&self, service: &Service) -> String {
        elsewhere(&self.config, service.id).unwrap_or_else(|| beside(&self.ecs, service))
    }

    fn now(&self) -> SystemTime {
        let millis = u64::try_from((self.clock)().since(Timestamp::EPOCH).as_millis()).unwrap_or(u64::MAX);
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }
}

/// Where a service is if not where AWS has it: for all services or, with more weight, for this one, by `AWS_ENDPOINT_URL` and
/// `AWS_ENDPOINT_URL_<SERVICE>` or the same in a profile; above all what tests say.
pub(super) fn elsewhere(config: &SdkConfig, id: &str) -> Option<String> {
    let everywhere = config.endpoint_url().map(str::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return everywhere;
    }
    let key = ServiceConfigKey::builder().service_id(id).env("AWS_ENDPOINT_URL").profile("endpoint_url").build().ok();
    let alone = key.and_then(|key| config.service_config()?.load_config(key));
    alone.or(everywhere)
}

/// Services of a region differ in the first part of their host's name, whatever the partition, and also with FIPS and IPv6.
fn beside(ecs: &str, service: &Service) -> String {
    ecs.replacen("//ecs", &format!("//{}", service.name), 1)
}

fn good_until(credentials: &Credentials, now: SystemTime) -> SystemTime {
    credentials.expiry().map_or_else(|| now + UNDATED, |expiry| expiry.checked_sub(EARLY).unwrap_or(now))
}

/// An error's name in `aws.protocoltests.json#FooError:http://internal.amazon.com/`.
fn code(kind: &str) -> &str {
    let kind = kind.split(':').next().unwrap_or_default();
    kind.rsplit('#').next().unwrap_or_default()
}

/// A random part, or all that were refused together come back together.
fn part_of(pause: Duration) -> Duration {
    let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(RandomState::new().hash_one(()) % millis)
}

#[cfg(test)]
mod tests;
