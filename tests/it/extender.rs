//! Beside a kube-scheduler that asks the extender about marked pods.

mod failing;
mod preemption;
mod tls;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use world::control_plane::{DedicatedNodes, ExtenderOptions, SchedulerOptions, place_of};

use crate::scenario::{Extender, PATIENCE, Scenario, dedicated_first, marked, record};

/// Calls of kube-scheduler, all of them.
const CALLS: &str = "spillway_extender_requests_total{";

/// These virtual nodes first, then dedicated nodes.
fn serverless_first(virtual_nodes: &[&str]) -> Value {
    json!([{"name": "serverless", "virtualNodes": virtual_nodes}, {"name": "dedicated"}])
}

/// Waits until every pod with label `app` says that it is scheduled.
async fn conditions_are_right(scenario: &Scenario, app: &str, count: usize) {
    let scheduled = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|one| one.type_ == "PodScheduled" && one.status == "True")
    };
    let selector = format!("app={app}");
    let waited =
        scenario.plane.wait_for_pods("PodScheduled=True", (crate::scenario::NAMESPACE, &selector), count, PATIENCE, scheduled);
    waited.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
}

/// How many pods are on each node.
fn per_node(pods: &[Pod]) -> BTreeMap<&str, usize> {
    let mut nodes = BTreeMap::new();
    for pod in pods {
        *nodes.entry(place_of(pod).expect("a bound pod")).or_default() += 1;
    }
    nodes
}

#[tokio::test]
async fn serverless_first_as_far_as_budget_and_quota_go_and_nobody_else_is_asked_about() {
    let scenario = Scenario::new(Extender::Configured).await;
    scenario.dedicated(4, "32").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.virtual_node("virtual-1", "0.04").await;
    scenario.virtual_node_status("virtual-1", json!({"quota": {"pods": 7}})).await;
    scenario.policy("unmarked", "unmarked", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.policy("first", "first", serverless_first(&["virtual-0"]), json!({})).await;
    for app in ["capped", "exact"] {
        scenario.policy(app, app, serverless_first(&["virtual-0"]), json!({})).await;
        let spec = json!({"amount": "0.8", "currency": "USD", "period": "Month", "scope": {"policies": [app]}});
        let budget =
            json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "BurstBudget", "metadata": {"name": app}, "spec": spec});
        scenario.apply(budget).await.expect("a budget");
    }
    scenario.policy("quota", "quota", serverless_first(&["virtual-1"]), json!({})).await;
    scenario.start().await;

    // Who carries no marker is not asked about, selected or not, and nothing is written on anybody.
    scenario.job("plain", 40, "100m", json!({})).await;
    scenario.job("unmarked", 20, "100m", json!({})).await;
    for (app, count) in [("plain", 40), ("unmarked", 20)] {
        let places = scenario.all_bound(app, count).await;
        assert_eq!(places.counts(), (count, 0, 0));
        places.dedicated.iter().for_each(carries_nothing_of_spillway);
    }
    assert_eq!(scenario.metric(CALLS).await, 0.0, "{}", scenario.metrics().await);

    scenario.job("first", 100, "500m", marked("500m")).await;
    let places = scenario.all_bound("first", 100).await;
    assert_eq!(places.counts(), (0, 100, 0), "{}", scenario.log());
    for pod in &places.virtual_ {
        assert_eq!(&*record(pod).reason, "ServerlessFirst");
    }
    conditions_are_right(&scenario, "first", 100).await;
    // Refused once each, and bound before kube-scheduler comes back to them: holding by refusing would cost calls without end.
    let calls = scenario.metric(CALLS).await;
    assert!((100.0..500.0).contains(&calls), "{calls} calls for 100 pods");

    // An hour of one vCPU costs four cents: the budget pays for twenty, and the last of them spends it on itself.
    scenario.job("exact", 20, "1", marked("1")).await;
    assert_eq!(scenario.all_bound("exact", 20).await.counts(), (0, 20, 0), "{}", scenario.log());
    scenario.job("capped", 50, "1", marked("1")).await;
    assert_eq!(scenario.all_bound("capped", 50).await.counts(), (30, 20, 0), "{}", scenario.log());
    conditions_are_right(&scenario, "capped", 50).await;
    scenario.job("quota", 20, "1", marked("1")).await;
    assert_eq!(scenario.all_bound("quota", 20).await.counts(), (13, 7, 0), "{}", scenario.log());
    conditions_are_right(&scenario, "quota", 20).await;
}

fn carries_nothing_of_spillway(pod: &Pod) {
    let name = &pod.metadata.name;
    let keys = |map: &Option<BTreeMap<String, String>>| map.iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert!(!keys(&pod.metadata.annotations).iter().any(|key| key.starts_with("spillway.dev/")), "{name:?}");
    assert!(!keys(&pod.metadata.labels).iter().any(|key| key.starts_with("spillway.dev/")), "{name:?}");
    let writers = pod.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.manager.as_deref());
    assert!(writers.clone().count() > 0 && !writers.clone().any(|name| name.contains("spillway")), "{name:?}");
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    assert!(!tolerations.clone().any(|one| one.key.as_deref().is_some_and(|key| key.starts_with("spillway"))), "{name:?}");
}

#[tokio::test]
async fn packing_and_cheaper_than_dedicated_in_both_cache_modes() {
    let scenario = Scenario::new(Extender::Configured).await;
    for pool in ["packed", "spread", "wishes", "nocache"] {
        let nodes = DedicatedNodes::new(&format!("dedicated-{pool}"), 6).cpu("4").memory("64Gi").label("pool", pool);
        scenario.plane.create_dedicated_nodes(&nodes).await.expect("nodes");
    }
    let prices = json!({"currency": "USD", "vcpuHour": "0.04", "gbHour": "0.01", "asOf": "2026-11-01"});
    scenario.virtual_node_with("virtual-0", json!({"inMemory": {"region": "here"}, "pricing": prices}), "0").await;
    let tiers =
        |packing: &str| json!([{"name": "dedicated", "packing": packing}, {"name": "serverless", "virtualNodes": ["virtual-0"]}]);
    for (app, packing) in
        [("packed", "MostAllocated"), ("spread", "Spread"), ("wishes", "MostAllocated"), ("nocache", "MostAllocated")]
    {
        scenario.policy(app, app, tiers(packing), json!({})).await;
    }
    scenario.policy("first", "first", serverless_first(&["virtual-0"]), json!({})).await;
    let priced = json!([
        {"name": "dedicated", "price": {"vcpuHour": "0.05", "gibHour": "0"}},
        {"name": "serverless", "virtualNodes": ["virtual-0"]}]);
    for app in ["small", "large"] {
        scenario.policy(app, app, priced.clone(), json!({})).await;
    }
    scenario.start().await;

    // One node after the other, unless the policy or the pods want it otherwise.
    scenario.job("packed", 10, "1", in_pool("packed", marked("1"))).await;
    let packed = scenario.all_bound("packed", 10).await.dedicated;
    let mut fill: Vec<usize> = per_node(&packed).into_values().collect();
    fill.sort_unstable();
    assert_eq!(fill, [2, 4, 4]);
    scenario.job("spread", 6, "1", in_pool("spread", marked("1"))).await;
    assert_eq!(per_node(&scenario.all_bound("spread", 6).await.dedicated).len(), 6);
    let mut wishes = in_pool("wishes", marked("1"));
    wishes["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "wishes"}}}]);
    scenario.job("wishes", 6, "1", wishes).await;
    assert_eq!(per_node(&scenario.all_bound("wishes", 6).await.dedicated).len(), 6);

    // Memory is dear there: 4.1 cents against 5 for the small ones, 12 against 5 for the large ones.
    scenario.job("small", 6, "1", marked("1")).await;
    let places = scenario.all_bound("small", 6).await;
    assert_eq!(places.counts(), (0, 6, 0), "{}", scenario.log());
    for pod in &places.virtual_ {
        assert_eq!(&*record(pod).reason, "CheaperThanDedicated");
    }
    conditions_are_right(&scenario, "small", 6).await;
    let mut large = marked("1");
    large["containers"][0]["resources"]["requests"]["memory"] = json!("8Gi");
    scenario.job("large", 6, "1", large).await;
    assert_eq!(scenario.all_bound("large", 6).await.counts(), (6, 0, 0));
    assert_eq!(
        scenario.metric(CALLS).await,
        scenario.metric(r#"spillway_extender_requests_total{mode="cache",outcome="answered""#).await
    );

    // Whole nodes in every request: slower, counted as what it is, and right.
    let options =
        ExtenderOptions { node_cache_capable: false, ..ExtenderOptions::new(format!("http://{}/v1", scenario.extender)) };
    scenario.plane.start_scheduler(SchedulerOptions::new().extender(options)).await.expect("kube-scheduler");
    scenario.job("nocache", 10, "1", in_pool("nocache", marked("1"))).await;
    let packed = scenario.all_bound("nocache", 10).await.dedicated;
    assert_eq!(per_node(&packed).len(), 3);
    scenario.job("first", 10, "1", marked("1")).await;
    assert_eq!(scenario.all_bound("first", 10).await.counts(), (0, 10, 0));
    let nocache = scenario.metric(r#"spillway_extender_requests_total{mode="nocache",outcome="answered""#).await;
    assert!(nocache >= 20.0, "{}", scenario.metrics().await);
}

/// Restricts pods to the nodes of one pool.
fn in_pool(pool: &str, mut spec: Value) -> Value {
    spec["nodeSelector"] = json!({"pool": pool});
    spec
}
