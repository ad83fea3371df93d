//! The connection to the API server.

use std::path::Path;

use anyhow::Context;
use axum::http::{HeaderValue, header};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// A client for the cluster that a kubeconfig names, or for the one that this process runs in. It tries once: what a failure
/// means is decided by whoever asked. The API server's audit log knows it by `comment`.
///
/// # Errors
/// When there is no configuration, or one that cannot be used; the message names the file or the setting.
pub async fn connect(kubeconfig: Option<&Path>, comment: &str) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("no kubeconfig and no service account: set --kubeconfig or KUBECONFIG")?,
    };
    config.default_retry = false;
    let agent = format!("spillway/{} ({comment})", env!("CARGO_PKG_VERSION"));
    config.headers.push((header::USER_AGENT, HeaderValue::from_str(&agent).context("the name of this host")?));
    Ok(client(config)?)
}

/// The library's own client leaves Nagle's algorithm on: a request whose head and body leave in two packets then waits for a
/// delayed acknowledgement, some 40 ms for one Binding.
fn client(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        // What a proxy needs is the library's business; it says so if it was built without.
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(config.connect_timeout);
    let https = config.rustls_https_connector_with_connector(tcp)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(https));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
