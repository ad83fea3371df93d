//! The endpoints as kubelets, Prometheus and a browser meet them: over a socket.

use super::*;
use crate::metrics::Limits;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

struct Running {
    address: String,
    ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let ready = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    let admin = Admin {
        metrics: Arc::new(Metrics::new("USD", Limits::STANDARD)),
        readiness: Arc::new(move || {
            if asked.load(Ordering::Relaxed) { Readiness::Ready } else { Readiness::NotReady("pods not listed yet".into()) }
        }),
        status: Arc::new(|| serde_json::json!({"leader": true, "backends": [{"node": "aci-eastus", "pods": 3}]})),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, admin, async {
        let _ = stopped.await;
    }));
    Running { address, ready, stop, server }
}

async fn get_text(url: &str) -> (u16, String, String) {
    let response = reqwest::get(url).await.expect("an answer");
    let kind = response.headers()[header::CONTENT_TYPE].to_str().expect("text").to_string();
    (response.status().as_u16(), kind, response.text().await.expect("a body"))
}

#[tokio::test]
async fn readiness_follows_the_process_and_liveness_does_not() {
    let running = start().await;
    let (ready, live) = (format!("{}/readyz", running.address), format!("{}/livez", running.address));
    let (status, _, body) = get_text(&ready).await;
    assert_eq!((status, body.as_str()), (503, "pods not listed yet\n"));
    assert_eq!(get_text(&live).await.0, 200);
    running.ready.store(true, Ordering::Relaxed);
    assert_eq!(get_text(&ready).await.0, 200);
}

#[tokio::test]
async fn metrics_say_their_format() {
    let running = start().await;
    let (status, kind, body) = get_text(&format!("{}/metrics", running.address)).await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4"));
    assert!(body.contains("\nspillway_build_info{"), "{body}");
}

#[tokio::test]
async fn the_page_shows_the_status_and_loads_nothing_else() {
    let running = start().await;
    let (status, kind, page) = get_text(&format!("{}/", running.address)).await;
    assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.contains("status.json") && !page.contains("http"), "an air-gapped cluster has the page, too");
    let (status, kind, body) = get_text(&format!("{}/status.json", running.address)).await;
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    assert_eq!(body, r#"{"backends":[{"node":"aci-eastus","pods":3}],"leader":true}"#);
}

#[tokio::test]
async fn nothing_can_be_written() {
    let running = start().await;
    for path in ["/", "/status.json", "/livez", "/readyz", "/metrics"] {
        let answer = reqwest::Client::new().post(format!("{}{path}", running.address)).body("x").send().await.expect("an answer");
        assert_eq!(answer.status(), 405, "{path}");
    }
    assert_eq!(reqwest::get(format!("{}/debug", running.address)).await.expect("an answer").status(), 404);
}

#[tokio::test]
async fn the_server_ends_when_it_is_told() {
    let running = start().await;
    running.stop.send(()).expect("it runs");
    running.server.await.expect("no panic").expect("a clean end");
    reqwest::get(format!("{}/livez", running.address)).await.expect_err("nobody listens");
}
