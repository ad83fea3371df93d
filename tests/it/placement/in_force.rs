//! Policies in force: limits, the brake, audit, and selectors that change while pods wait.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use policy::Timestamp;
use scheduler_extender::api::BurstPolicy;
use serde_json::{Value, json};
use world::control_plane::wait_until;

use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, assert_ordinary_pending, dedicated_first, record};

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

fn limited(pods: u32) -> Value {
    json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["virtual-0"], "limits": {"pods": pods}}])
}

#[tokio::test]
async fn a_limit_is_exact_for_a_thousand_pods_and_a_hold_takes_effect_within_a_second() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("wide", "wide", limited(300), json!({})).await;
    // Slow enough to be stopped on the way.
    scenario.start_with(&["--bindings-per-second", "200"]).await;

    scenario.job("wide", 1000, "1", json!({})).await;
    scenario.settled("wide", (0, 300, 700)).await;

    scenario.policy("wide", "wide", limited(900), json!({})).await;
    wait_until("the wave is on its way", PATIENCE, async || {
        let virtual_ = scenario.places("wide").await.virtual_.len();
        ensure!(virtual_ > 300, "{virtual_}");
        Ok(())
    })
    .await
    .expect("a wave");
    scenario.policy("wide", "wide", limited(900), json!({"stopPolicy": "Hold"})).await;
    let held = now();
    scenario.object_condition("BurstPolicy", "wide", "Ready", "True", "Accepted").await;
    let stopped = scenario.places("wide").await;
    assert!(stopped.virtual_.len() < 800, "{:?}: too late to show anything", stopped.counts());
    scenario.settled("wide", stopped.counts()).await;
    let last = stopped.virtual_.iter().map(|pod| record(pod).at).max().expect("pods");
    assert!(last.since(held).as_millis() < 1000, "{:?} after the hold", last.since(held));

    scenario.policy("wide", "wide", limited(900), json!({})).await;
    scenario.settled("wide", (0, 900, 100)).await;
}

#[tokio::test]
async fn audit_binds_nothing_and_selectors_change_under_pods_that_wait() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("audited", "audited", dedicated_first(&["virtual-0"]), json!({"mode": "Audit"})).await;
    let allowed = json!({"namespaceSelector": {"matchLabels": {"burst": "allowed"}}});
    scenario.policy("moving", "moving", dedicated_first(&["virtual-0"]), allowed).await;
    for name in ["one", "two"] {
        scenario.policy(name, "both", dedicated_first(&["virtual-0"]), json!({})).await;
    }
    scenario.start().await;
    audit(&scenario).await;
    selectors(&scenario).await;
    conflict(&scenario).await;
}

async fn audit(scenario: &Scenario) {
    scenario.job("audited", 5, "1", json!({})).await;
    let places = scenario.settled("audited", (0, 0, 5)).await;
    for pod in &places.pending {
        let text = scenario.event(pod.metadata.name.as_deref().unwrap_or_default(), "BurstAudited").await;
        assert_eq!(text, "would burst to virtual-0 for 0.04 USD (policy in mode Audit)");
        assert_ordinary_pending(pod);
    }
    let policies: Api<BurstPolicy> = Api::all(scenario.client.clone());
    wait_until("the sum in the policy's status", PATIENCE, async || {
        let status = policies.get("audited").await?.status.unwrap_or_default();
        let audit = status.audit.unwrap_or_default();
        ensure!((audit.pods, &*audit.cost) == (5, "0.20"), "{audit:?}");
        Ok(())
    })
    .await
    .expect("what it would have cost");
    let decided = r#"spillway_decisions_total{mode="audit",namespace="media",outcome="burst",policy="audited","#;
    // The first scrape that shows a counter shows its birth.
    scenario.metrics().await;
    assert_eq!(scenario.metric(decided).await, 5.0, "{}", scenario.metrics().await);
    assert_eq!(scenario.metric("spillway_bindings_total").await, 0.0);
    assert!(scenario.metric(r#"spillway_decision_duration_seconds_count{verb="choose"}"#).await >= 5.0);

    scenario.policy("audited", "audited", dedicated_first(&["virtual-0"]), json!({"mode": "Enforce"})).await;
    scenario.settled("audited", (0, 5, 0)).await;
}

async fn label(scenario: &Scenario, value: Value) {
    let namespaces: Api<Namespace> = Api::all(scenario.client.clone());
    let patch = json!({"metadata": {"labels": {"burst": value}}});
    namespaces.patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a namespace");
}

async fn selectors(scenario: &Scenario) {
    scenario.job("moving", 3, "1", json!({})).await;
    scenario.settled("moving", (0, 0, 3)).await;
    label(scenario, json!("allowed")).await;
    scenario.settled("moving", (0, 3, 0)).await;
    label(scenario, Value::Null).await;
    // Told in the order of their watches, or not: a pod that comes right after the change may still be decided as before.
    scenario.policy("moving", "moved", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.object_condition("BurstPolicy", "moving", "Ready", "True", "Accepted").await;
    scenario.pod("moving-late", "moving", "1", json!({})).await;
    scenario.settled("moving", (0, 3, 1)).await;
    scenario.policy("moving", "moving", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.settled("moving", (0, 4, 0)).await;
}

async fn conflict(scenario: &Scenario) {
    scenario.pod("both-0", "both", "1", json!({})).await;
    let winner = record(&scenario.bound("both-0").await).policy;
    assert_eq!(&*winner, "one", "the older one, or the first by name");
    for (policy, other) in [("one", "two"), ("two", "one")] {
        let text = scenario.object_condition("BurstPolicy", policy, "Conflicting", "True", "SameWeight").await;
        assert!(text.starts_with(&format!("spec.weight: {other} has the same weight")), "{text}");
    }
    scenario.policy("two", "both", dedicated_first(&["virtual-0"]), json!({"weight": 150})).await;
    scenario.object_condition("BurstPolicy", "two", "Conflicting", "False", "NoConflict").await;
    scenario.pod("both-1", "both", "1", json!({})).await;
    assert_eq!(&*record(&scenario.bound("both-1").await).policy, "two");
}
