//! What stands in for the internet: requests for Azure Resource Manager go to a port of this machine. No token is ever sent to
//! an `http` URL by Azure's library, so the change happens below it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Request, StatusCode};
use azure_core::time::{Duration, OffsetDateTime};

use super::server::TOKEN;

/// Carries requests to `base`, and remembers what the checker objected to.
#[derive(Clone, Debug)]
pub(super) struct Loopback {
    base: String,
    client: reqwest::Client,
    pub(super) violations: Arc<Mutex<Vec<String>>>,
}

impl Loopback {
    pub(super) fn new(base: String) -> Loopback {
        Loopback { base, client: reqwest::Client::new(), violations: Arc::default() }
    }
}

#[async_trait]
impl HttpClient for Loopback {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let lost = |error: reqwest::Error| azure_core::Error::new(azure_core::error::ErrorKind::Io, error);
        let url = request.url().as_str().replacen("https://management.azure.com", &self.base, 1);
        assert!(url.starts_with(&self.base), "{url} is not Azure Resource Manager");
        let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes()).expect("a method");
        let mut carried = self.client.request(method.clone(), &url);
        for (name, value) in request.headers().iter() {
            if name.as_str() != "content-length" {
                carried = carried.header(name.as_str(), value.as_str());
            }
        }
        let Body::Bytes(body) = request.body().clone() else { panic!("a body that streams") };
        let answer = carried.body(body).send().await.map_err(lost)?;
        let status = StatusCode::from(answer.status().as_u16());
        let mut headers = Headers::new();
        for (name, value) in answer.headers() {
            headers.insert(name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned());
        }
        let body = answer.bytes().await.map_err(lost)?;
        let text = String::from_utf8_lossy(&body);
        if text.contains("stoplight.io/prism/errors") {
            let objection = format!("{method} {url}: {text}");
            self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(objection);
        }
        Ok(AsyncRawResponse::from_bytes(status, headers, body))
    }
}

/// Gives out the one token that the double takes.
#[derive(Debug)]
pub(super) struct Static;

#[async_trait]
impl TokenCredential for Static {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["https://management.azure.com/.default"]);
        Ok(AccessToken::new(TOKEN, OffsetDateTime::now_utc() + Duration::hours(1)))
    }
}
