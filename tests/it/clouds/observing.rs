//! What a backend says of itself, in `VirtualNode.status` of a real API server.

mod doubles;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use futures::future::BoxFuture;
use kube::Api;
use policy::virtual_node::Limits;
use providers::Provider;
use providers::memory::{Backend, Fault, FaultWindow, MemoryProvider, Settings};
use scheduler_extender::api::{Invalid, VirtualNode};
use scheduler_extender::observation::Pace;
use scheduler_extender::run::observing::{self, Connect};
use serde_json::json;
use world::control_plane::wait_until;

use crate::scenario::{Extender, PATIENCE, Scenario};

/// One cloud in memory behind every VirtualNode but `broken`.
struct Staged {
    provider: MemoryProvider,
    connected: AtomicUsize,
}

impl Connect for Staged {
    fn connect<'a>(&'a self, object: &'a VirtualNode) -> BoxFuture<'a, Result<Arc<dyn Provider>, Invalid>> {
        Box::pin(async {
            if object.metadata.name.as_deref() == Some("broken") {
                return Err(Invalid::new("spec.credentialsSecretRef", "media/none", "must be a Secret that Spillway may read"));
            }
            self.connected.fetch_add(1, Ordering::Relaxed);
            Ok(Arc::new(self.provider.clone()) as Arc<dyn Provider>)
        })
    }
}

/// Status and reason of the condition `BackendHealthy`.
fn health(node: &VirtualNode) -> (String, String) {
    let conditions = node.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let found = conditions.iter().find(|condition| condition.type_ == "BackendHealthy");
    found.map(|condition| (condition.status.clone(), condition.reason.clone())).unwrap_or_default()
}

async fn until(nodes: &Api<VirtualNode>, name: &str, status: &str, reason: &str) -> VirtualNode {
    let mut last = None;
    wait_until(&format!("{name}: {status}, {reason}"), PATIENCE, async || {
        let node = nodes.get(name).await?;
        let found = health(&node);
        ensure!(found == (status.to_owned(), reason.to_owned()), "{found:?}");
        last = Some(node);
        Ok(())
    })
    .await
    .expect("the condition");
    last.expect("found")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_usage_prices_and_health_are_written_and_a_backend_reopens_by_itself() {
    let scenario = Scenario::new(Extender::Absent).await;
    let nodes: Api<VirtualNode> = Api::all(scenario.client.clone());
    for (name, pricing) in [
        ("priced", json!({"currency": "USD", "vcpuHour": "0.04", "gbHour": "0.004", "asOf": "2026-11-01"})),
        ("broken", json!(null)),
    ] {
        let mut spec = json!({"inMemory": {"region": "here"}});
        if !pricing.is_null() {
            spec["pricing"] = pricing;
        }
        let object =
            json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "VirtualNode", "metadata": {"name": name}, "spec": spec});
        scenario.apply(object).await.expect("a VirtualNode");
    }
    let quota = Limits { pods: Some(50), cpu_millis: Some(100_000), memory_bytes: None };
    let cloud = Backend::new(Settings { quota, ..Settings::immediate() });
    let staged = Arc::new(Staged {
        provider: MemoryProvider::new(cloud, Arc::new(scheduler_extender::run::now)),
        connected: AtomicUsize::new(0),
    });
    let observing = tokio::spawn(observing::keep(scenario.client.clone(), staged.clone(), "USD".to_owned(), Pace::STANDARD));

    let node = until(&nodes, "priced", "True", "Answers").await;
    let status = node.status.expect("a status");
    let quota = status.quota.expect("a quota");
    assert_eq!((quota.pods, quota.cpu.map(|cpu| cpu.0)), (Some(50), Some("100000m".to_owned())));
    assert_eq!(status.usage.and_then(|usage| usage.pods), Some(0));
    assert!(status.observed_at.is_some());
    let prices = status.prices.expect("prices");
    assert_eq!((prices.vcpu_hour.as_str(), prices.source.as_str()), ("0.04", "spec.pricing"));
    assert_eq!(prices.observed_at.map(|at| at.0.to_string()), Some("2026-11-01T00:00:00Z".to_owned()));
    // What cannot be set up says which field is to blame.
    let broken = until(&nodes, "broken", "False", "NotConfigured").await;
    let message = broken.status.expect("a status").conditions[0].message.clone();
    assert!(message.contains("spec.credentialsSecretRef"), "{message}");

    // The rights are lost: nobody's patience helps. A changed specification is a reason to ask at once.
    let touch = async |minute: u32| {
        let patch = json!({"spec": {"startLatency": format!("{minute}m")}});
        nodes.patch("priced", &Default::default(), &kube::api::Patch::Merge(&patch)).await.expect("patched");
    };
    staged.provider.backend().inject(FaultWindow::from_now_on(Fault::Denied, policy::Timestamp::EPOCH));
    touch(2).await;
    until(&nodes, "priced", "False", "CredentialsRefused").await;
    let connected = staged.connected.load(Ordering::Relaxed);
    // They come back: the next question, 5 s later and with the credentials of then, reopens it.
    staged.provider.backend().clear_faults();
    let reopened = until(&nodes, "priced", "True", "Answers").await;
    assert!(staged.connected.load(Ordering::Relaxed) > connected, "asked with the credentials of before");
    assert!(reopened.status.expect("a status").quota.is_some());
    observing.abort();
}
