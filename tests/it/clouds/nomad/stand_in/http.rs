//! The agent's HTTP API.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::world::{NODE, World, nanos};
use super::{exec, jobs, logs, shapes};

/// `http_max_conns_per_client`.
const CONNECTIONS: usize = 100;
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A query string.
#[derive(Clone, Default)]
pub(super) struct Query(HashMap<String, Vec<String>>);

impl Query {
    fn read(text: &str) -> Query {
        let mut query: HashMap<String, Vec<String>> = HashMap::new();
        for (name, value) in url(text) {
            query.entry(name).or_default().push(value);
        }
        Query(query)
    }

    /// The first value of a name, or nothing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).and_then(|values| values.first()).map_or("", String::as_str)
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

fn url(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let (mut out, bytes) = (Vec::new(), text.as_bytes());
        let mut place = 0;
        while place < bytes.len() {
            let hex = bytes.get(place + 1..place + 3).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
            match (bytes[place], hex) {
                (b'%', Some(byte)) => {
                    out.push(byte);
                    place += 2;
                }
                (b'+', _) => out.push(b' '),
                (byte, _) => out.push(byte),
            }
            place += 1;
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (decode(name), decode(value))).collect()
}

/// Serves until it is dropped. The 101st connection is told so and closed.
pub(super) async fn serve(listener: TcpListener, world: Arc<World>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::SeqCst);
            let answer =
                b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
            continue;
        }
        let (world, open) = (world.clone(), open.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let world = world.clone();
                async move { Ok::<_, std::convert::Infallible>(answer(&world, request.map(Body::new)).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.with_upgrades().await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// An error: plain text.
pub(super) fn refuse(status: u16, text: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.to_owned()).into_response()
}

fn headers(index: u64, leader: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("X-Nomad-Index", HeaderValue::from(index));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if leader {
        headers.insert("X-Nomad-Knownleader", HeaderValue::from_static("true"));
        headers.insert("X-Nomad-Lastcontact", HeaderValue::from_static("0"));
    }
    headers
}

fn read(world: &World, body: &Value) -> Response {
    (StatusCode::OK, headers(world.state().index, true), body.to_string()).into_response()
}

/// An answer of the agent itself, which knows no index.
fn local(body: &Value) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn written(index: u64, body: &Value) -> Response {
    (StatusCode::OK, headers(index, false), body.to_string()).into_response()
}

async fn answer(world: &Arc<World>, request: Request) -> Response {
    let query = Query::read(request.uri().query().unwrap_or_default());
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    if let Some(refused) = denied(world, &request, &query, &parts) {
        return refused;
    }
    if let ["client", "allocation", id, "exec"] = parts[..] {
        return exec::exec(world, id, &query, request);
    }
    if *request.method() == Method::GET {
        return get(world, &parts, &query).await;
    }
    let method = request.method().clone();
    let Ok(body) = to_bytes(request.into_body(), 16 << 20).await else { return refuse(400, "unexpected EOF") };
    change(world, &method, &parts, &query, &body)
}

/// 403 for a token that is unknown or has no right to it.
fn denied(world: &World, request: &Request, query: &Query, parts: &[&str]) -> Option<Response> {
    let handshake = query.get("ws_handshake") == "true";
    if world.tokens.is_empty() || handshake {
        return None;
    }
    let token = request.headers().get("X-Nomad-Token").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let allowed = match world.tokens.get(token) {
        None => false,
        Some(true) => true,
        Some(false) => ["", "default", "*"].contains(&query.get("namespace")) && parts != ["agent", "self"],
    };
    (!allowed).then(|| refuse(403, "Permission denied"))
}

async fn get(world: &Arc<World>, parts: &[&str], query: &Query) -> Response {
    wait(world, query).await;
    let found = |value: Option<Value>, what: &str| match value {
        Some(value) => read(world, &value),
        // What is read from the servers says so, also where it is not there.
        None => {
            let mut refused = refuse(404, what);
            for (name, value) in headers(world.state().index, true) {
                if let Some(name) = name.filter(|name| *name != header::CONTENT_TYPE) {
                    refused.headers_mut().insert(name, value);
                }
            }
            refused
        }
    };
    match parts {
        ["status", "leader"] => local(&json!("127.0.0.1:4647")),
        ["agent", "health"] => local(&json!({"client": {"message": "ok", "ok": true}, "server": {"message": "ok", "ok": true}})),
        ["regions"] => local(&json!(["global"])),
        ["namespaces"] => read(world, &json!([namespace()])),
        ["node", "pools"] => {
            read(world, &json!([pool("all", "Node pool with all nodes in the cluster."), pool("default", "Default node pool.")]))
        }
        ["nodes"] => {
            let mut node = shapes::node(NODE, false);
            if query.get("resources") != "true" {
                node = shapes::without(&node, &["NodeResources", "ReservedResources"]);
            }
            read(world, &json!([node]))
        }
        ["node", id] => found((*id == NODE).then(|| shapes::node(NODE, true)), "node not found"),
        ["jobs"] => {
            let state = world.state();
            let meta = query.get("meta") == "true";
            let jobs = state.jobs.iter().filter(|(id, _)| id.starts_with(query.get("prefix")));
            let body: Vec<Value> = jobs.map(|(_, job)| shapes::job_stub(job, jobs::summary(&state, job), meta)).collect();
            drop(state);
            read(world, &json!(body))
        }
        ["job", id] => {
            let job = world.state().jobs.get(*id).cloned();
            found(job, "job not found")
        }
        ["job", id, "summary"] => {
            let state = world.state();
            let summary = state.jobs.get(*id).map(|job| jobs::summary(&state, job));
            drop(state);
            found(summary, "job not found")
        }
        ["job", id, "allocations"] => listed(world, query, |it| it["JobID"] == *id),
        ["job", id, "evaluations"] => {
            let all: Vec<Value> = world.state().evaluations.values().filter(|it| it["JobID"] == *id).cloned().collect();
            read(world, &json!(all))
        }
        ["allocations"] => listed(world, query, |it| matches(query.get("filter"), it)),
        ["allocation", id] => {
            let allocation = world.state().allocations.get(*id).map(whole);
            found(allocation, "alloc not found")
        }
        ["evaluation", id] => {
            let evaluation = world.state().evaluations.get(*id).cloned();
            found(evaluation, "eval not found")
        }
        ["client", "fs", "logs", id] => logs::logs(world, id, query),
        ["client", "allocation", id, "stats"] => stats(world, id),
        ["event", "stream"] => events(world, query),
        ["acl", "token", "self"] => read(world, &own_token(world)),
        ["var", path @ ..] => {
            let variable = world.state().variables.get(&path.join("/")).cloned();
            found(variable, "variable not found")
        }
        _ => refuse(404, "Invalid URL path"),
    }
}

/// Waits until something is newer than the index that is asked with.
async fn wait(world: &World, query: &Query) {
    let Ok(index) = query.get("index").parse::<u64>() else { return };
    let text = query.get("wait").trim_end_matches('s');
    let limit = Duration::from_secs(text.parse().unwrap_or(300));
    let mut watch = world.watch();
    let _ = tokio::time::timeout(limit, watch.wait_for(|now| *now > index)).await;
}

fn change(world: &Arc<World>, method: &Method, parts: &[&str], query: &Query, body: &Bytes) -> Response {
    let namespace = if query.get("namespace").is_empty() { "default" } else { query.get("namespace") };
    match (method.as_str(), parts) {
        ("PUT" | "POST", ["jobs"]) => {
            let Ok(body) = serde_json::from_slice::<Value>(body) else { return refuse(400, "unexpected EOF") };
            match jobs::register(world, &body, namespace) {
                Ok(answer) => written(answer["Index"].as_u64().unwrap_or(0), &answer),
                Err((status, text)) => refuse(status, &text),
            }
        }
        ("PUT" | "POST", ["job", _, "plan"]) => {
            let Ok(body) = serde_json::from_slice::<Value>(body) else { return refuse(400, "unexpected EOF") };
            match jobs::plan(world, &body, namespace) {
                Ok(answer) => written(0, &answer),
                Err((status, text)) => refuse(status, &text),
            }
        }
        ("DELETE", ["job", id]) => {
            let answer = jobs::stop(world, id, query.get("purge") == "true");
            written(answer["Index"].as_u64().unwrap_or(0), &answer)
        }
        ("PUT", ["var", path @ ..]) => put_variable(world, &path.join("/"), query, body),
        ("DELETE", ["var", path @ ..]) => {
            let index = world.change(|state| {
                state.variables.remove(&path.join("/"));
                state.index
            });
            (StatusCode::NO_CONTENT, [("X-Nomad-Index", index.to_string())]).into_response()
        }
        _ => refuse(405, "Invalid method"),
    }
}

fn put_variable(world: &World, path: &str, query: &Query, body: &Bytes) -> Response {
    let Ok(given) = serde_json::from_slice::<Value>(body) else { return refuse(400, "unexpected EOF") };
    if let Some(there) = world.state().variables.get(path).filter(|_| query.get("cas") == "0") {
        let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned())];
        let index = [("X-Nomad-Index", there["ModifyIndex"].to_string())];
        return (StatusCode::CONFLICT, headers, index, there.to_string()).into_response();
    }
    let variable = world.change(|state| {
        let variable = json!({"CreateIndex": state.index, "CreateTime": nanos(), "Items": given["Items"],
            "ModifyIndex": state.index, "ModifyTime": nanos(), "Namespace": "default", "Path": path});
        state.variables.insert(path.to_owned(), variable.clone());
        variable
    });
    written(variable["ModifyIndex"].as_u64().unwrap_or(0), &variable)
}

fn listed(world: &World, query: &Query, wanted: impl Fn(&Value) -> bool) -> Response {
    let (resources, states) = (query.get("resources") == "true", query.get("task_states") != "false");
    let state = world.state();
    let mut all: Vec<&Value> = state.allocations.values().filter(|it| wanted(it)).collect();
    all.sort_by_key(|it| it["CreateIndex"].as_u64());
    let body: Vec<Value> = all.into_iter().map(|it| shapes::allocation_stub(it, resources, states)).collect();
    drop(state);
    read(world, &json!(body))
}

/// The two filters that are used: `JobID == "…"` and `JobID matches "^…"`.
fn matches(filter: &str, allocation: &Value) -> bool {
    let job = allocation["JobID"].as_str().unwrap_or_default();
    let text = |filter: &str| filter.trim().trim_matches('"').to_owned();
    match (filter.strip_prefix("JobID == "), filter.strip_prefix("JobID matches ")) {
        (Some(equal), _) => job == text(equal),
        (_, Some(pattern)) => job.starts_with(text(pattern).trim_start_matches('^')),
        (None, None) => true,
    }
}

/// One allocation: without what is empty, but for what a real agent always writes.
fn whole(allocation: &Value) -> Value {
    let mut out = shapes::sparse(&shapes::without(allocation, &["JobType", "JobVersion"]));
    if let Some(network) = allocation.get("NetworkStatus") {
        out["NetworkStatus"] = network.clone();
    }
    out
}

fn stats(world: &World, id: &str) -> Response {
    let nothing = json!({"CpuStats": {"Measured": null, "Percent": 0.0, "SystemMode": 0.0, "ThrottledPeriods": 0,
        "ThrottledTime": 0, "TotalTicks": 0.0, "UserMode": 0.0}, "DeviceStats": [], "MemoryStats": {"Cache": 0,
        "KernelMaxUsage": 0, "KernelUsage": 0, "MappedFile": 0, "MaxUsage": 0, "Measured": null, "RSS": 0, "Swap": 0, "Usage": 0}});
    let state = world.state();
    let Some(allocation) = state.allocations.get(id) else { return refuse(404, &format!("Unknown allocation {id:?}")) };
    let mut body = json!({"ResourceUsage": nothing, "Tasks": {}, "Timestamp": 0});
    // A client measures every second.
    if nanos() - allocation["CreateTime"].as_i64().unwrap_or(0) < 1_000_000_000 {
        drop(state);
        return local(&body);
    }
    for ((allocation, task), process) in &state.processes {
        if allocation == id {
            let mut usage = nothing.clone();
            let pages = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
            let pages: i64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
            usage["MemoryStats"]["RSS"] = json!(pages * 4096);
            usage["MemoryStats"]["Measured"] = json!(["RSS"]);
            body["Tasks"][task] = json!({"Pids": null, "ResourceUsage": usage, "Timestamp": nanos()});
        }
    }
    body["Timestamp"] = json!(nanos());
    drop(state);
    local(&body)
}

fn events(world: &World, query: &Query) -> Response {
    let topics = query.all("topic");
    let wanted = topics.is_empty() || topics.iter().any(|topic| topic.starts_with("Allocation") || topic.starts_with('*'));
    let receiver = world.events.subscribe();
    let past: Vec<Value> = if query.get("index").is_empty() || !wanted { Vec::new() } else { world.state().past.clone() };
    let lines = stream::unfold((past.into_iter(), receiver, true), move |(mut past, mut receiver, first)| async move {
        if let Some(event) = past.next() {
            return Some((Ok::<_, std::io::Error>(Bytes::from(format!("{event}\n"))), (past, receiver, false)));
        }
        loop {
            // A heartbeat at once tells whoever reads through a proxy that the stream is open.
            let pause = if first { Duration::ZERO } else { HEARTBEAT };
            let line = match tokio::time::timeout(pause, receiver.recv()).await {
                Ok(Ok(event)) if wanted => format!("{event}\n"),
                Ok(Ok(_)) => continue,
                Ok(Err(_)) => return None,
                Err(_) => "{}\n".to_owned(),
            };
            return Some((Ok(Bytes::from(line)), (past, receiver, false)));
        }
    });
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

fn namespace() -> Value {
    json!({"Capabilities": null, "ConsulConfiguration": null, "CreateIndex": 1, "Description": "Default shared namespace",
        "Hash": "C7UbjDwBK0dK8wQq7Izg7SJIzaV+lIo2X7wRtzY3pSw=", "Meta": null, "ModifyIndex": 1, "Name": "default",
        "NodePoolConfiguration": null, "OptionalExtraClaims": null, "Quota": "", "RequiredExtraClaims": null, "VaultConfiguration": null})
}

fn pool(name: &str, description: &str) -> Value {
    json!({"CreateIndex": 1, "Description": description, "Hash": null, "Meta": null, "ModifyIndex": 1, "Name": name,
        "NodeIdentityTTL": 86_400_000_000_000_i64, "SchedulerConfiguration": null})
}

fn own_token(world: &World) -> Value {
    let scoped = world.tokens.iter().find(|(_, all)| !**all).map(|(token, _)| token.clone()).unwrap_or_default();
    json!({"ExpirationTTL": "", "AccessorID": "88c71316-82a2-fc20-a104-ad204227d3c0", "SecretID": scoped, "Name": "spillway",
        "Type": "client", "Policies": ["spillway"], "Roles": null, "Global": false, "Hash": "", "CreateTime": "2026-11-21T09:11:52Z",
        "ExpirationTime": null, "CreateIndex": 13, "ModifyIndex": 13})
}
