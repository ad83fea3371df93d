//! An extender that errs, is not there, or hangs: marked pods are scheduled as plain Kubernetes would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use world::control_plane::{DedicatedNodes, place_of, wait_until};

use super::serverless_first;
use crate::scenario::{Extender, PATIENCE, Scenario, dedicated_first, marked};

#[tokio::test]
async fn dedicated_nodes_go_on_filling_while_the_extender_errs_is_gone_or_hangs() {
    let scenario = Scenario::new(Extender::Configured).await;
    scenario.dedicated(2, "4").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("first", "first", serverless_first(&["virtual-0"]), json!({})).await;
    for app in ["erring", "gone", "hanging"] {
        scenario.policy(app, app, serverless_first(&["virtual-0"]), json!({})).await;
    }
    scenario.policy("overflow", "overflow", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.start().await;
    scenario.job("first", 3, "1", marked("1")).await;
    assert_eq!(scenario.all_bound("first", 3).await.counts(), (0, 3, 0));

    // 500 to everything, in Spillway's place.
    scenario.kill();
    let failing = Failing::listen(scenario.extender).await;
    scenario.job("erring", 3, "1", marked("1")).await;
    assert_eq!(scenario.all_bound("erring", 3).await.counts(), (3, 0, 0));
    assert!(failing.calls() >= 3, "{} calls", failing.calls());

    // Nobody there: the nodes fill up, and the rest waits like any unschedulable pod.
    drop(failing);
    scenario.job("gone", 3, "1", marked("1")).await;
    assert_eq!(scenario.all_bound("gone", 3).await.counts(), (3, 0, 0));
    scenario.job("overflow", 5, "1", marked("1")).await;
    wait_until("two of five find room", PATIENCE, async || {
        let counts = scenario.places("overflow").await.counts();
        anyhow::ensure!(counts == (2, 0, 3), "{counts:?}");
        Ok(())
    })
    .await
    .expect("plain Kubernetes");

    // Back again: what waits bursts.
    scenario.start().await;
    assert_eq!(scenario.all_bound("overflow", 5).await.counts(), (2, 3, 0));

    // It hangs: kube-scheduler waits a second for each marked pod, and for nobody else.
    scenario.plane.create_dedicated_nodes(&DedicatedNodes::new("dedicated-more", 1).cpu("8")).await.expect("a node");
    scenario.pause();
    let started = Instant::now();
    scenario.job("hanging", 3, "1", marked("1")).await;
    scenario.job("plain", 3, "1", json!({})).await;
    assert_eq!(scenario.all_bound("plain", 3).await.counts(), (3, 0, 0));
    assert_eq!(scenario.all_bound("hanging", 3).await.counts(), (3, 0, 0));
    assert!(started.elapsed() >= Duration::from_secs(3), "the extender was not asked: {:?}", started.elapsed());
    // What hung is ended, as its watchdog would, and started anew.
    scenario.kill();
    scenario.start().await;
    scenario.job("again", 1, "1", json!({})).await;
    scenario.all_bound("again", 1).await;
}

#[tokio::test]
async fn rights_that_are_lost_keep_nobody_from_dedicated_nodes() {
    let scenario = Scenario::new(Extender::Configured).await;
    scenario.dedicated(1, "8").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("first", "first", serverless_first(&["virtual-0"]), json!({})).await;
    scenario.start().await;
    scenario.pod("before", "first", "1", marked("1")).await;
    assert_eq!(place_of(&scenario.bound("before").await), Some("virtual-0"));

    // The guard refuses Spillway's Bindings from now on. Nothing else happens in this cluster that would wake kube-scheduler.
    let roles: Api<ClusterRole> = Api::all(scenario.client.clone());
    let mut role = roles.get("spillway").await.expect("deploy/rbac.yaml");
    let bind = |rule: &PolicyRule| rule.verbs.iter().any(|verb| verb == "bind");
    let rules = role.rules.clone();
    role.rules = rules.iter().flatten().filter(|rule| !bind(rule)).cloned().collect::<Vec<_>>().into();
    let mut role = roles.replace("spillway", &PostParams::default(), &role).await.expect("a role");
    scenario.pod("during", "first", "1", marked("1")).await;
    assert_eq!(
        scenario.event("during", "BindingRefused").await,
        "the API server refuses Spillway's Binding; its log has the answer"
    );
    assert_eq!(place_of(&scenario.bound("during").await), Some("dedicated-0"));

    role.rules = rules;
    roles.replace("spillway", &PostParams::default(), &role).await.expect("a role");
    wait_until("Spillway binds again", PATIENCE, async || {
        let name = format!("after-{}", scenario.places("first").await.counts().0);
        scenario.pod(&name, "first", "1", marked("1")).await;
        let place = scenario.bound(&name).await;
        anyhow::ensure!(place_of(&place) == Some("virtual-0"), "{:?}", place_of(&place));
        Ok(())
    })
    .await
    .expect("rights that are back");
}

/// A server that answers 500.
struct Failing {
    calls: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Failing {
    async fn listen(at: SocketAddr) -> Failing {
        // The port is free as soon as its former owner is gone, but for a moment.
        let listener =
            wait_until("the extender's port", PATIENCE, async || Ok(TcpListener::bind(at).await?)).await.expect("a port");
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One call per connection is enough for a server that fails.
                if refuse(stream).await.is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Failing { calls, task }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads one request, answers 500 and closes.
async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !complete(&request) {
        if stream.read_buf(&mut request).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await?;
    stream.shutdown().await
}

/// Whether head and body of a request are there.
fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    request.len() >= head.len() + 4 + length.unwrap_or(0)
}
