//! Calls of Azure Resource Manager, through the pipeline of Azure's own library: request identifiers, user agent, tokens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use azure_core::error::ErrorKind as AzureErrorKind;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::{
    ClientOptions, Context, Method, Pipeline, PipelineStreamOptions, Request, RetryOptions, StatusCode, Transport, Url,
};
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::ArmError;
use super::settings::{Access, Settings};
use super::wire::{CapabilityEntry, ExecAnswer, ExecRequest, Group, GroupView, Logs, Page, UsageEntry};
use crate::{Error, ErrorKind, Operation};

const ENDPOINT: &str = "https://management.azure.com";
const SCOPE: &str = "https://management.azure.com/.default";
/// Longer than Azure takes for any of these calls on a bad day.
const TIMEOUT: Duration = Duration::from_secs(60);
/// More than 4 MB of log as JSON, and than any page.
const BODY_BYTES: usize = 16 << 20;
/// More pages than the largest quota has groups.
const PAGES: u32 = 100;

/// A client for one location and one resource group.
pub(super) struct Arm {
    pipeline: Pipeline,
    group_collection: String,
    location: String,
    api_version: String,
}

/// An answer that is a success.
struct Answer {
    body: Vec<u8>,
}

// === impl Arm ===

impl Arm {
    /// A client with these credentials. It tries every call once: who called knows what a failure means.
    pub(super) fn new(settings: &Settings, access: &Access) -> Arm {
        let mut options = ClientOptions { retry: RetryOptions::none(), ..ClientOptions::default() };
        options.transport = access.transport.clone().map(Transport::new);
        let authorization = Arc::new(BearerTokenAuthorizationPolicy::new(access.credential.clone(), [SCOPE]));
        let pipeline =
            Pipeline::new(Some("spillway"), option_env!("CARGO_PKG_VERSION"), options, Vec::new(), vec![authorization], None);
        let Settings { subscription_id, resource_group, location, .. } = settings;
        let provider = "providers/Microsoft.ContainerInstance";
        Arm {
            pipeline,
            group_collection: format!(
                "/subscriptions/{subscription_id}/resourceGroups/{resource_group}/{provider}/containerGroups"
            ),
            location: format!("/subscriptions/{subscription_id}/{provider}/locations/{location}"),
            api_version: settings.api_version().to_owned(),
        }
    }

    /// Makes a group, or makes an equal one anew.
    pub(super) async fn put(&self, name: &str, group: &Group) -> Result<GroupView, Error> {
        let url = self.url(Operation::Create, &[&self.group_collection, name], &[])?;
        self.call(Operation::Create, Method::Put, url, Some(group)).await
    }

    /// One group with its instance view.
    pub(super) async fn get(&self, operation: Operation, name: &str) -> Result<GroupView, Error> {
        let url = self.url(operation, &[&self.group_collection, name], &[])?;
        self.call::<(), _>(operation, Method::Get, url, None).await
    }

    /// All groups of the resource group, without instance views, and how many pages they took.
    pub(super) async fn list(&self) -> Result<(Vec<GroupView>, u32), Error> {
        self.pages(Operation::List, &self.group_collection).await
    }

    /// Begins to delete a group; one that is gone is no error.
    pub(super) async fn delete(&self, name: &str) -> Result<(), Error> {
        let url = self.url(Operation::Delete, &[&self.group_collection, name], &[])?;
        match self.send::<()>(Operation::Delete, Method::Delete, url, None).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Quotas of the location and what is in use.
    pub(super) async fn usages(&self) -> Result<Vec<UsageEntry>, Error> {
        Ok(self.pages(Operation::Observe, &format!("{}/usages", self.location)).await?.0)
    }

    /// What the location can run.
    pub(super) async fn capabilities(&self) -> Result<Vec<CapabilityEntry>, Error> {
        Ok(self.pages(Operation::Observe, &format!("{}/capabilities", self.location)).await?.0)
    }

    /// All output of a container, or its last lines, each with its time.
    pub(super) async fn logs(&self, name: &str, container: &str, tail: Option<u32>) -> Result<String, Error> {
        let mut query = vec![("timestamps", "true".to_owned())];
        // Azure counts in signed numbers, from one on.
        query.extend(tail.map(|tail| ("tail", tail.clamp(1, i32::MAX.unsigned_abs()).to_string())));
        let url = self.url(Operation::Logs, &[&self.group_collection, name, "containers", container, "logs"], &query)?;
        let logs: Logs = self.call::<(), _>(Operation::Logs, Method::Get, url, None).await?;
        Ok(logs.content.unwrap_or_default())
    }

    /// Starts a command.
    pub(super) async fn exec(&self, name: &str, container: &str, request: &ExecRequest) -> Result<ExecAnswer, Error> {
        let url = self.url(Operation::Exec, &[&self.group_collection, name, "containers", container, "exec"], &[])?;
        self.call(Operation::Exec, Method::Post, url, Some(request)).await
    }

    async fn pages<T: DeserializeOwned>(&self, operation: Operation, path: &str) -> Result<(Vec<T>, u32), Error> {
        let mut url = self.url(operation, &[path], &[])?;
        let mut entries = Vec::new();
        for page in 1..=PAGES {
            let answer: Page<T> = self.call::<(), _>(operation, Method::Get, url.clone(), None).await?;
            entries.extend(answer.value);
            let Some(next) = answer.next_link.filter(|next| !next.is_empty()) else { return Ok((entries, page)) };
            url = next.parse().map_err(|source: <Url as std::str::FromStr>::Err| broken(operation, source))?;
            // The token goes to nobody else, whatever an answer says.
            if !url.as_str().starts_with(&format!("{ENDPOINT}/")) {
                return Err(broken(operation, "the next page is at another host"));
            }
        }
        Err(broken(operation, format!("more than {PAGES} pages")))
    }

    fn url(&self, operation: Operation, path: &[&str], query: &[(&str, String)]) -> Result<Url, Error> {
        let mut url: Url = ENDPOINT.parse().map_err(|source: <Url as std::str::FromStr>::Err| broken(operation, source))?;
        // Whole paths were checked with the settings; names of groups and containers may be anybody's.
        let (base, names) = path.split_first().map_or(("", &[][..]), |(base, names)| (*base, names));
        url.set_path(base);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(names);
        }
        url.query_pairs_mut().append_pair("api-version", &self.api_version).extend_pairs(query);
        Ok(url)
    }

    async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        operation: Operation,
        method: Method,
        url: Url,
        body: Option<&B>,
    ) -> Result<T, Error> {
        let answer = self.send(operation, method, url, body).await?;
        serde_json::from_slice(&answer.body).map_err(|source| broken(operation, source))
    }

    async fn send<B: Serialize>(
        &self,
        operation: Operation,
        method: Method,
        url: Url,
        body: Option<&B>,
    ) -> Result<Answer, Error> {
        let exchange = self.exchange(operation, method, url, body);
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| broken(operation, format!("no answer in {TIMEOUT:?}")))?
    }

    async fn exchange<B: Serialize>(
        &self,
        operation: Operation,
        method: Method,
        url: Url,
        body: Option<&B>,
    ) -> Result<Answer, Error> {
        let mut request = Request::new(url, method);
        request.insert_header("accept", "application/json");
        if let Some(body) = body {
            request.insert_header("content-type", "application/json");
            let body = serde_json::to_vec(body).map_err(|source| super::error(ErrorKind::Invalid, operation).because(source))?;
            request.set_body(body);
        } else if method == Method::Post || method == Method::Put {
            request.insert_header("content-length", "0");
        }
        let options = PipelineStreamOptions { skip_checks: true, ..PipelineStreamOptions::default() };
        let answer = self
            .pipeline
            .stream(&Context::new(), &mut request, Some(options))
            .await
            .map_err(|error| unanswered(operation, error))?;
        let (status, headers, mut stream) = answer.deconstruct();
        let seconds = headers.get_optional_str(&"retry-after".into()).and_then(|text| text.trim().parse::<u64>().ok());
        let mut body = Vec::new();
        while let Some(chunk) = stream.next().await {
            body.extend_from_slice(&chunk.map_err(|error| unanswered(operation, error))?);
            if body.len() > BODY_BYTES {
                return Err(broken(operation, format!("an answer of more than {BODY_BYTES} bytes")));
            }
        }
        if status.is_success() {
            return Ok(Answer { body });
        }
        let error = ArmError::new(number(status), &body);
        let kind = error.kind(operation, seconds.map(Duration::from_secs));
        Err(super::error(kind, operation).because(error))
    }
}

impl fmt::Debug for Arm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Arm").field("groups", &self.group_collection).finish_non_exhaustive()
    }
}

fn number(status: StatusCode) -> u16 {
    status.into()
}

fn broken(operation: Operation, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    super::error(ErrorKind::Unavailable, operation).because(source)
}

/// No answer at all: a credential that is refused needs a human, everything else may have worked and may work again.
fn unanswered(operation: Operation, source: azure_core::Error) -> Error {
    let refused = *source.kind() == AzureErrorKind::Credential && !lost_on_the_way(&source);
    super::error(if refused { ErrorKind::Denied } else { ErrorKind::Unavailable }, operation).because(source)
}

/// Whether asking for a token failed below HTTP.
fn lost_on_the_way(error: &azure_core::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind);
        if matches!(kind, Some(AzureErrorKind::Io | AzureErrorKind::Connection)) {
            return true;
        }
        cause = error.source();
    }
    false
}
