//! The admin port: health, readiness, metrics, and a page that shows what this process sees.
//!
//! It is apart from the extender's port, so that a probe never waits behind kube-scheduler, and plain HTTP, because kubelets
//! and Prometheus come without a certificate. Everything is read-only and nothing on it is secret.

use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tower_http::timeout::TimeoutLayer;

/// Longer than any answer takes, shorter than the shortest usual scrape timeout.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const PAGE: &str = include_str!("admin/page.html");

/// The page loads nothing from anywhere and may be framed by nobody.
const CONTENT_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

/// Whether this replica should get work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It answers from a complete snapshot.
    Ready,
    /// What is missing, in a few words for whoever looks at the probe.
    NotReady(String),
}

/// What the endpoints show. The closures are called for each request, so they read a snapshot and return.
#[derive(Clone)]
pub struct Admin {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// For `/status.json`, which the page shows: an object whose members are values, objects, or lists of equal
    /// objects; the page makes a table of each.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// The endpoints, for [`serve`] and for tests.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/status.json", get(status))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_TIMEOUT))
        .with_state(admin)
}

/// Answers until `shutdown` ends, then finishes what was begun.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(admin)).with_graceful_shutdown(shutdown).await
}

async fn page() -> Response {
    ([(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY))], Html(PAGE)).into_response()
}

async fn status(State(admin): State<Admin>) -> Response {
    Json((admin.status)()).into_response()
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match (admin.readiness)() {
        Readiness::Ready => "ok\n".into_response(),
        Readiness::NotReady(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    // Prometheus 3 refuses a target that does not say the format.
    let format = HeaderValue::from_static(prometheus::TEXT_FORMAT);
    ([(header::CONTENT_TYPE, format)], admin.metrics.scrape()).into_response()
}

#[cfg(test)]
mod tests;
