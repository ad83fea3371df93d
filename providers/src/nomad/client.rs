//! One agent over HTTP: calls, their limits, and what its errors mean.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Connection, NAME, Settings};
use crate::{Error, ErrorKind, Operation, Secret, body};

/// An agent refuses the 101st connection of one address (`http_max_conns_per_client`). These, the event stream and a few of
/// other programs stay below.
const CALLS_AT_ONCE: usize = 24;
const STREAMS_AT_ONCE: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read: 10,000 allocations with their tasks' events take about 50 MB.
const ANSWER_BYTES: usize = 128 << 20;
/// How much of an agent's words goes into an error.
const WORDS: usize = 1000;
const TOKEN_HEADER: &str = "X-Nomad-Token";

/// A client of one agent, for one namespace. Clones share connections and limits.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    /// Without a slash at the end.
    address: Arc<str>,
    token: Option<Secret>,
    /// `region` and `namespace`, which every call carries.
    scope: Arc<[(String, String)]>,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    authorities: Option<Arc<rustls::ClientConfig>>,
}

/// An answer and what its headers say.
pub(super) struct Answer<T> {
    pub(super) body: T,
    /// Whether the servers have a leader; without one nothing is placed.
    pub(super) leader: bool,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

/// Bytes as they come. Holds one of the connections for streams.
pub(super) type Bytes = BoxStream<'static, Result<Vec<u8>, Error>>;

// === impl Client ===

impl Client {
    /// A client; fails on an address or a certificate that cannot be used.
    pub(super) fn new(connection: &Connection, settings: &Settings) -> Result<Client, Error> {
        let invalid = |what: String| Error::new(ErrorKind::Invalid, NAME, Operation::Observe).because(what);
        let address = connection.address.trim_end_matches('/');
        if !address.starts_with("https://") && !address.starts_with("http://") {
            return Err(invalid(format!("address: {address:?} is no http or https URL")));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(CALLS_AT_ONCE)
            // One connection for each call, so that the limit above is the limit there.
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let mut authorities = None;
        if let Some(pem) = &connection.authorities {
            let unusable = |error: String| invalid(format!("certificate authority: {error}"));
            let certificates =
                reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unusable(error.to_string()))?;
            if certificates.is_empty() {
                return Err(unusable("no certificate in the PEM".to_owned()));
            }
            builder = builder.tls_certs_only(certificates);
            authorities = Some(Arc::new(trusting(pem).map_err(unusable)?));
        }
        let http = builder.build().map_err(|error| invalid(error.to_string()))?;
        let scope = [("region", &settings.region), ("namespace", &settings.namespace)];
        Ok(Client {
            http,
            address: address.into(),
            token: connection.token.clone(),
            scope: scope.map(|(name, value)| (name.to_owned(), value.clone())).into(),
            calls: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
            streams: Arc::new(Semaphore::new(STREAMS_AT_ONCE)),
            authorities,
        })
    }

    /// A GET with a JSON answer.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        operation: Operation,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Answer<T>, Error> {
        self.call(operation, self.request(Method::GET, path, query)).await
    }

    /// All pages of a list, at most `limit` items.
    pub(super) async fn pages<T: DeserializeOwned>(
        &self,
        operation: Operation,
        path: &str,
        query: &[(&str, &str)],
        limit: usize,
    ) -> Result<Answer<Vec<T>>, Error> {
        const PER_PAGE: &str = "1000";
        let mut all = Answer { body: Vec::new(), leader: true, next: None };
        loop {
            let mut query = query.to_vec();
            query.push(("per_page", PER_PAGE));
            let next = all.next.take();
            if let Some(next) = &next {
                query.push(("next_token", next));
            }
            let page: Answer<Vec<T>> = self.get(operation, path, &query).await?;
            all.body.extend(page.body);
            all.leader &= page.leader;
            // A page that leads to itself would be read for ever.
            all.next = page.next.filter(|token| Some(token) != next.as_ref());
            if all.next.is_none() || all.body.len() >= limit {
                all.body.truncate(limit);
                return Ok(all);
            }
        }
    }

    /// A PUT or POST of JSON with a JSON answer.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        operation: Operation,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: &(impl Serialize + Sync),
    ) -> Result<T, Error> {
        Ok(self.call(operation, self.request(method, path, query).json(body)).await?.body)
    }

    /// A DELETE; what is gone already is no error.
    pub(super) async fn delete(&self, operation: Operation, path: &str, query: &[(&str, &str)]) -> Result<(), Error> {
        let _turn = self.turn().await;
        let sent = self.request(Method::DELETE, path, query).timeout(CALL_TIMEOUT).send().await;
        match accepted(operation, sent.map_err(|error| unreachable(operation, error))?).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Bytes for as long as they come. `silence` is how long nothing may come.
    pub(super) async fn stream(
        &self,
        operation: Operation,
        path: &str,
        query: &[(&str, &str)],
        silence: Option<Duration>,
    ) -> Result<Bytes, Error> {
        let connection = self.connection(operation)?;
        let sent = tokio::time::timeout(CALL_TIMEOUT, self.request(Method::GET, path, query).send()).await;
        let response = match sent {
            Ok(sent) => sent.map_err(|error| unreachable(operation, error))?,
            Err(_) => return Err(Error::new(ErrorKind::Unavailable, NAME, operation).because("no answer in time")),
        };
        let bytes = accepted(operation, response).await?.bytes_stream();
        let bytes = bytes.map_ok(|bytes| bytes.to_vec()).map_err(move |error| unreachable(operation, error)).boxed();
        let silent = futures::stream::unfold((bytes, connection), move |(mut bytes, connection)| async move {
            let next = match silence {
                None => bytes.next().await,
                Some(silence) => match tokio::time::timeout(silence, bytes.next()).await {
                    Ok(next) => next,
                    Err(_) => Some(Err(Error::new(ErrorKind::Unavailable, NAME, operation).because("the stream went silent"))),
                },
            };
            next.map(|next| (next, (bytes, connection)))
        });
        Ok(silent.boxed())
    }

    /// One of the connections that stay open; refused rather than waited for, because those who have them may keep them long.
    pub(super) fn connection(&self, operation: Operation) -> Result<OwnedSemaphorePermit, Error> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let kind = ErrorKind::Throttled { retry_after: None };
            Error::new(kind, NAME, operation).because(format!("{STREAMS_AT_ONCE} streams are open at once already"))
        })
    }

    /// `ws` or `wss`, with path and query.
    pub(super) fn websocket_url(&self, path: &str, query: &[(&str, &str)]) -> Option<String> {
        let request = self.request(Method::GET, path, query).build().ok()?;
        // https becomes wss, http becomes ws.
        Some(format!("ws{}", request.url().as_str().strip_prefix("http")?))
    }

    /// The token, which a WebSocket carries in its first message.
    pub(super) fn token(&self) -> &str {
        self.token.as_ref().map(Secret::expose).unwrap_or_default()
    }

    /// Whom a WebSocket trusts, if not the system's authorities.
    pub(super) fn authorities(&self) -> Option<Arc<rustls::ClientConfig>> {
        self.authorities.clone()
    }

    async fn call<T: DeserializeOwned>(&self, operation: Operation, request: RequestBuilder) -> Result<Answer<T>, Error> {
        let _turn = self.turn().await;
        let sent = request.timeout(CALL_TIMEOUT).send().await.map_err(|error| unreachable(operation, error))?;
        let response = accepted(operation, sent).await?;
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let leader = text("X-Nomad-KnownLeader").is_none_or(|known| known == "true");
        let next = text("X-Nomad-NextToken").filter(|token| !token.is_empty());
        let bytes = body::read(response, ANSWER_BYTES).await.map_err(|error| unreachable(operation, error))?;
        let body = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(ErrorKind::Unavailable, NAME, operation).because(format!("unreadable answer: {error}"))
        })?;
        Ok(Answer { body, leader, next })
    }

    async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.calls.acquire().await.ok()
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let scope: Vec<_> = self.scope.iter().filter(|(name, _)| query.iter().all(|(asked, _)| asked != name)).collect();
        let mut request = self.http.request(method, format!("{}{path}", self.address)).query(query).query(&scope);
        if let Some(token) = &self.token {
            let value = header::HeaderValue::from_str(token.expose()).ok().map(|mut value| {
                value.set_sensitive(true);
                value
            });
            if let Some(value) = value {
                request = request.header(TOKEN_HEADER, value);
            }
        }
        request
    }
}

/// TLS that trusts these authorities only.
fn trusting(pem: &str) -> Result<rustls::ClientConfig, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

/// The response if it is one of success, else what its text says.
async fn accepted(operation: Operation, response: Response) -> Result<Response, Error> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let words = body::read(response, 64 << 10).await.unwrap_or_default();
    Err(failure(operation, status, after.map(Duration::from_secs), &String::from_utf8_lossy(&words)))
}

fn unreachable(operation: Operation, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Unavailable, NAME, operation).because(error)
}

/// What an agent's error means. Its errors are plain text, and much is told by the text alone.
pub(super) fn failure(operation: Operation, status: StatusCode, retry_after: Option<Duration>, text: &str) -> Error {
    let says = |words: &str| text.contains(words);
    let kind = match status.as_u16() {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        429 => ErrorKind::Throttled { retry_after },
        400..=499 => ErrorKind::Invalid,
        // Errors that came from another server or from a client say so in their text only.
        500..=599 if says("Permission denied") => ErrorKind::Denied,
        500..=599 if says("job already exists") => ErrorKind::Conflict,
        // Validation: a tree of what is wrong.
        500..=599 if says(" occurred:\n") => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    // The answer to a conflict of Variables shows what is in it.
    if status == StatusCode::CONFLICT {
        return Error::new(kind, NAME, operation);
    }
    let words: String = text.trim().chars().take(WORDS).collect();
    Error::new(kind, NAME, operation).because(format!("{}: {words}", status.as_u16()))
}

#[cfg(test)]
mod tests;
