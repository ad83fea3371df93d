//! Spillway is down for longer than Kubernetes is patient with pods on a node that does not answer.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};
use world::control_plane::{SchedulerOptions, wait_until};

use super::tidy;
use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, dedicated_first};

#[tokio::test]
async fn nothing_that_burst_is_evicted_while_spillway_is_down() {
    // Five minutes by default; a pod that nobody has written on is evicted after this time.
    let impatient = |builder: world::control_plane::Builder| {
        builder
            .api_server_flag("--default-not-ready-toleration-seconds=2")
            .api_server_flag("--default-unreachable-toleration-seconds=2")
    };
    let scenario = Scenario::with(Extender::Absent, SchedulerOptions::new(), impatient).await.expect("a cluster");
    scenario.dedicated(1, "1").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("thumbs", "thumbs", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.start().await;
    scenario.job("thumbs", 5, "1", json!({})).await;
    assert_eq!(scenario.all_bound("thumbs", 5).await.counts(), (1, 4, 0));
    wait_until("tolerations without a time limit", PATIENCE, async || {
        scenario.places("thumbs").await.virtual_.iter().try_for_each(|pod| tidy(pod, false))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    let before = scenario.places("thumbs").await;

    scenario.kill();
    // Bound by hand, and written on by nobody: what happens to it would happen to the others.
    scenario.pod("stranger", "stranger", "0", json!({"nodeSelector": {"backend": "virtual-0"}})).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "stranger"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "virtual-0"}});
    let bound: kube::Result<Value> =
        scenario.pods().create_subresource("binding", "stranger", &PostParams::default(), &binding).await;
    bound.expect("members of system:masters may bind anywhere");
    scenario.node_down("virtual-0", true).await;
    wait_until("the stranger is evicted", PATIENCE, async || {
        let left = scenario.plane.pods(NAMESPACE, "app=stranger").await?;
        ensure!(left.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()), "it is still there");
        Ok(())
    })
    .await
    .expect("what the others are kept from");
    let after = scenario.places("thumbs").await;
    let uids = |pods: &[Pod]| -> Vec<Option<String>> { pods.iter().map(|pod| pod.metadata.uid.clone()).collect() };
    assert_eq!(uids(&after.virtual_), uids(&before.virtual_));
    assert!(after.virtual_.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()), "{:?}", after.counts());

    // Both come back; nothing has happened.
    scenario.node_down("virtual-0", false).await;
    scenario.start().await;
    scenario.virtual_node_ready("virtual-0").await;
    assert_eq!(scenario.places("thumbs").await.counts(), (1, 4, 0));
}
