//! A proxy in front of a Nomad agent, for what an agent does not do by itself.
//!
//! It stages faults: too many calls, rights that are gone, answers that are lost. And where the agent has no docker driver, it
//! plays one with `raw_exec`: an image is a name in [`IMAGES`], its program a program of this machine, and what the product
//! sends and sees is what it would be with docker. The agent may be the stand-in or a real one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Images that can be pulled, and the program that each starts.
const IMAGES: [(&str, &str); 1] = [("busybox:1.36", "/bin/sh")];
/// Where an image that is not among them leads.
const NO_IMAGE: &str = "/no/such/image/";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every call is answered so.
    Status(u16, &'static str),
    /// Two of four calls fail, so that one operation of two calls succeeds at times.
    HalfOfCalls,
    /// Jobs are registered, and the answer never comes.
    LostRegistration,
    /// Plans say that a quota is used up.
    Quota,
}

/// The proxy. Ends when dropped.
pub(crate) struct Front {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    agent: String,
    http: reqwest::Client,
    docker: bool,
    fault: Mutex<Option<Fault>>,
    calls: AtomicUsize,
    /// Bodies of all jobs that were registered.
    registered: Mutex<Vec<Value>>,
}

impl Front {
    /// Puts a proxy before an agent.
    pub(crate) async fn start(agent: &str) -> Front {
        let shared = Shared::new(agent).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("served");
        });
        Front { url, shared, server }
    }

    /// The same over TLS.
    pub(crate) async fn start_tls(agent: &str, certificate: &str, key: &str) -> Front {
        let shared = Shared::new(agent).await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        // Another test may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (certificate, key) = (certificate.as_bytes().to_vec(), key.as_bytes().to_vec());
        let tls = axum_server::tls_rustls::RustlsConfig::from_pem(certificate, key).await.expect("a certificate");
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let server = axum_server::from_tcp_rustls(listener, tls).expect("a server");
        let server = tokio::spawn(async move {
            server.serve(router.into_make_service()).await.expect("served");
        });
        Front { url, shared, server }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on something goes wrong, or nothing does.
    pub(crate) fn stage(&self, fault: Option<Fault>) {
        *self.shared.fault.lock().expect("no test has panicked") = fault;
    }

    /// Jobs as the product sent them.
    pub(crate) fn registered(&self) -> Vec<Value> {
        self.shared.registered.lock().expect("no test has panicked").clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let fault = *shared.fault.lock().expect("no test has panicked");
    let call = shared.calls.fetch_add(1, Ordering::Relaxed);
    match fault {
        Some(Fault::Status(status, text)) => return refuse(status, text),
        Some(Fault::HalfOfCalls) if call % 4 < 2 => return refuse(500, "rpc error: No cluster leader"),
        Some(Fault::HalfOfCalls | Fault::LostRegistration | Fault::Quota) | None => {}
    }
    if request.headers().contains_key(header::UPGRADE) {
        return tunnel(&shared, request).await;
    }
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let body = to_bytes(body, 16 << 20).await.expect("a body");
    let registers = parts.method == Method::PUT && parts.uri.path() == "/v1/jobs";
    let plans = parts.uri.path().ends_with("/plan");
    let body = if registers || plans { shared.translated(&body, registers) } else { body };
    let mut sent = shared.http.request(parts.method.clone(), format!("{}{path}", shared.agent)).body(body);
    for name in ["X-Nomad-Token", "Content-Type"] {
        if let Some(value) = parts.headers.get(name) {
            sent = sent.header(name, value);
        }
    }
    let answer = match sent.send().await {
        Ok(answer) => answer,
        Err(error) => return refuse(502, &error.to_string()),
    };
    if registers && fault == Some(Fault::LostRegistration) {
        // The connection ends in the middle of the answer.
        let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("lost"))]);
        return (StatusCode::OK, Body::from_stream(broken)).into_response();
    }
    let status = answer.status();
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers() {
        if name.as_str().starts_with("x-nomad") || name == header::CONTENT_TYPE {
            headers.insert(name, value.clone());
        }
    }
    let streamed = path.starts_with("/v1/event/stream") || path.starts_with("/v1/client/fs/");
    if streamed {
        return (status, headers, Body::from_stream(answer.bytes_stream().map_err(std::io::Error::other))).into_response();
    }
    let mut text = answer.text().await.unwrap_or_default();
    if !shared.docker {
        text = as_docker(&text);
    }
    if plans && fault == Some(Fault::Quota) {
        let mut plan: Value = serde_json::from_str(&text).expect("a plan");
        plan["FailedTGAllocs"] = json!({"pod": {"QuotaExhausted": ["default: cpu exhausted (1000 needed > 0 limit)"]}});
        text = plan.to_string();
    }
    (status, headers, text).into_response()
}

fn refuse(status: u16, text: &str) -> Response {
    (StatusCode::from_u16(status).expect("a status"), text.to_owned()).into_response()
}

impl Shared {
    async fn new(agent: &str) -> Arc<Shared> {
        let http = reqwest::Client::builder().no_proxy().http1_only().build().expect("a client");
        let nodes: Value = http.get(format!("{agent}/v1/nodes")).send().await.expect("nodes").json().await.expect("JSON");
        let docker = nodes.as_array().is_some_and(|nodes| nodes.iter().any(|node| node["Drivers"]["docker"]["Healthy"] == true));
        Arc::new(Shared {
            agent: agent.to_owned(),
            http,
            docker,
            fault: Mutex::new(None),
            calls: AtomicUsize::new(0),
            registered: Mutex::new(Vec::new()),
        })
    }

    /// The job with docker's tasks as processes.
    fn translated(&self, body: &[u8], registers: bool) -> Bytes {
        let Ok(mut body) = serde_json::from_slice::<Value>(body) else { return Bytes::copy_from_slice(body) };
        if registers {
            self.registered.lock().expect("no test has panicked").push(body["Job"].clone());
        }
        if !self.docker {
            for group in body["Job"]["TaskGroups"].as_array_mut().into_iter().flatten() {
                group["Networks"] = group["Networks"].as_array().into_iter().flatten().map(on_host).collect();
                for task in group["Tasks"].as_array_mut().into_iter().flatten().filter(|task| task["Driver"] == "docker") {
                    as_process(task);
                }
            }
        }
        Bytes::from(body.to_string())
    }
}

/// Processes have no network of their own.
fn on_host(network: &Value) -> Value {
    let mut network = network.clone();
    network["Mode"] = json!("host");
    network
}

fn as_process(task: &mut Value) {
    let config = &task["Config"];
    let image = config["image"].as_str().unwrap_or_default();
    let known = IMAGES.iter().find(|(name, _)| *name == image).map(|(_, program)| *program);
    let strings = |name: &str| config[name].as_array().into_iter().flatten().cloned().collect::<Vec<Value>>();
    let mut words = strings("entrypoint");
    match known {
        None => words = vec![json!(format!("{NO_IMAGE}{image}"))],
        Some(program) if words.is_empty() => words.push(json!(program)),
        Some(_) => {}
    }
    words.extend(strings("args"));
    let command = words.remove(0);
    task["Config"] = json!({"command": command, "args": words});
    task["Driver"] = json!("raw_exec");
    for value in task["Env"].as_object_mut().into_iter().flat_map(|env| env.values_mut()) {
        *value = json!(value.as_str().unwrap_or_default().replace("${NOMAD_ALLOC_IP_", "${NOMAD_IP_"));
    }
    if let Some(task) = task.as_object_mut() {
        task.remove("User");
    }
}

/// What the agent says of its driver, as docker says it.
fn as_docker(text: &str) -> String {
    // An agent without docker has a driver of that name, too: one that was not detected.
    let text = text.replace("\"docker\"", "\"no-docker\"").replace("\"raw_exec\"", "\"docker\"");
    let mut out = String::new();
    let mut rest = text.as_str();
    // failed to launch command with executor: … binary \"/no/such/image/x\" could not be found
    while let Some(place) = rest.find("failed to launch command with executor") {
        out.push_str(&rest[..place]);
        let after = &rest[place..];
        let end = after.find("could not be found").map_or(after.len(), |end| end + "could not be found".len());
        let told = &after[..end];
        match told.find(NO_IMAGE) {
            Some(image) => {
                let image = told[image + NO_IMAGE.len()..].split('\\').next().unwrap_or_default();
                out.push_str(&format!("Failed to pull `{image}`: not found"));
            }
            None => out.push_str(told),
        }
        rest = &after[end..];
    }
    out + rest
}

/// Carries a WebSocket: the head of the request and of the answer, then bytes both ways.
async fn tunnel(shared: &Shared, mut request: Request) -> Response {
    let host = shared.agent.trim_start_matches("http://").to_owned();
    let Ok(mut agent) = TcpStream::connect(&host).await else { return refuse(502, "no agent") };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut head = format!("GET {path} HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        let value = if name == header::HOST { host.as_str() } else { value.to_str().unwrap_or_default() };
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    agent.write_all(head.as_bytes()).await.expect("the agent takes a request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        match agent.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(_) => return refuse(502, "the agent hung up"),
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let mut lines = text.split("\r\n");
    let status: u16 = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(502);
    let mut builder = Response::builder().status(status);
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap_or(0);
        } else {
            builder = builder.header(name, value);
        }
    }
    if status != 101 {
        let mut body = vec![0; length];
        let _ = agent.read_exact(&mut body).await;
        return builder.body(Body::from(body)).expect("a response");
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(client) = upgrade.await {
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut agent).await;
        }
    });
    builder.body(Body::empty()).expect("a response")
}
