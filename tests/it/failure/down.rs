//! Spillway is down for longer than Kubernetes is patient with pods on a node that does not answer.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use world::control_plane::{Component, ControllerOptions, SchedulerOptions, place_of, wait_until};

use super::tidy;
use crate::scenario::{Extender, PATIENCE, Places, Scenario, dedicated_first};

/// A node that is silent for so long counts as lost; 50 s by default.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn nothing_that_burst_is_evicted_while_spillway_is_down() {
    // Five minutes by default; a pod that nobody has written on is evicted after this time.
    let flags = vec!["--node-monitor-period=1s".to_owned()];
    let impatient = |builder: world::control_plane::Builder| {
        builder
            .api_server_flag("--default-not-ready-toleration-seconds=2")
            .api_server_flag("--default-unreachable-toleration-seconds=2")
            .node_lease(Duration::from_secs(8))
            .controllers(ControllerOptions { node_monitor_grace_period: Some(GRACE), flags, ..ControllerOptions::new() })
    };
    let scenario = Scenario::with(Extender::Absent, SchedulerOptions::new(), impatient).await.expect("a cluster");
    scenario.dedicated(2, "1").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("thumbs", "thumbs", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.start().await;
    scenario.job("thumbs", 6, "1", json!({})).await;
    assert_eq!(scenario.all_bound("thumbs", 6).await.counts(), (2, 4, 0));
    wait_until("tolerations without a time limit", PATIENCE, async || {
        scenario.places("thumbs").await.virtual_.iter().try_for_each(|pod| tidy(pod, false))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    let before = scenario.places("thumbs").await;

    scenario.kill();
    // Its kubelet says that it is not ready.
    stranger(&scenario, "stranger").await;
    scenario.node_down("virtual-0", true).await;
    evicted(&scenario, "stranger").await;
    unharmed(&scenario, &before).await;
    scenario.node_down("virtual-0", false).await;
    node(&scenario, "virtual-0", "True").await;

    // Nobody hears of it any more, nor of a dedicated node. One that goes on reporting keeps the cluster from being taken for cut
    // off as a whole, in which case nobody is evicted anywhere.
    stranger(&scenario, "second-stranger").await;
    scenario.plane.stop(Component::Kwok);
    let reports = async {
        loop {
            report(&scenario, "dedicated-1").await;
            sleep(Duration::from_secs(1)).await;
        }
    };
    let silent = async {
        node(&scenario, "virtual-0", "Unknown").await;
        evicted(&scenario, "second-stranger").await;
        let ordinary = before.dedicated.iter().find(|pod| place_of(pod) == Some("dedicated-0")).expect("one pod each");
        evicted(&scenario, ordinary.metadata.name.as_deref().expect("a name")).await;
        unharmed(&scenario, &before).await;
    };
    tokio::select! {
        () = reports => {}
        () = silent => {}
    }

    // All come back; nothing has happened.
    scenario.plane.start(Component::Kwok).await.expect("KWOK");
    node(&scenario, "virtual-0", "True").await;
    scenario.start().await;
    scenario.virtual_node_ready("virtual-0").await;
    unharmed(&scenario, &before).await;
}

/// A pod on the virtual node, bound by hand, and written on by nobody: what happens to it would happen to the others.
async fn stranger(scenario: &Scenario, name: &str) {
    scenario.pod(name, name, "0", json!({"nodeSelector": {"backend": "virtual-0"}})).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "virtual-0"}});
    let bound: kube::Result<Value> = scenario.pods().create_subresource("binding", name, &PostParams::default(), &binding).await;
    bound.expect("members of system:masters may bind anywhere");
}

async fn evicted(scenario: &Scenario, name: &str) {
    wait_until(&format!("{name} is evicted"), PATIENCE, async || {
        let left = scenario.pods().get_opt(name).await?;
        ensure!(left.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()), "it is still there");
        Ok(())
    })
    .await
    .expect("what the others are kept from");
}

/// The pods that were on the virtual node are there still, and nobody deletes one.
async fn unharmed(scenario: &Scenario, before: &Places) {
    let after = scenario.places("thumbs").await;
    let uids = |pods: &[Pod]| -> BTreeSet<String> { pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect() };
    let lost: Vec<String> = uids(&before.virtual_).difference(&uids(&after.virtual_)).cloned().collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(after.virtual_.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()), "{:?}", after.counts());
}

/// Waits until the condition Ready of a Node has this status.
async fn node(scenario: &Scenario, name: &str, status: &str) {
    let nodes: Api<Node> = Api::all(scenario.client.clone());
    wait_until(&format!("{name}: Ready={status}"), PATIENCE, async || {
        let conditions = nodes.get(name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|one| one.type_ == "Ready").context("no condition")?;
        ensure!(ready.status == status, "{ready:?}");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

/// What a kubelet says every few seconds.
async fn report(scenario: &Scenario, name: &str) {
    let leases: Api<Lease> = Api::namespaced(scenario.client.clone(), "kube-node-lease");
    let patch = json!({"spec": {"renewTime": MicroTime(jiff::Timestamp::now())}});
    leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("KWOK has made it");
}
