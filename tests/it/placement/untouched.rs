//! Pods that no policy selects, and pods that have opted out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use world::control_plane::{place_of, wait_until};

use super::PATIENCE;
use crate::scenario::{Extender, NAMESPACE, Scenario, dedicated_first, is_refused, writers};

/// A namespace that the policy does not select.
const ELSEWHERE: &str = "elsewhere";

fn pod(name: &str, labels: &Value, more: &Value) -> Value {
    let resources = json!({"requests": {"cpu": "1", "memory": "128Mi"}});
    let mut spec = json!({"containers": [{"name": "main", "image": "registry.example/work:1", "resources": resources}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": name, "labels": labels}, "spec": spec})
}

/// Pods of every kind that Spillway leaves alone, as they are stored, by name.
async fn bystanders(scenario: &Scenario) -> anyhow::Result<BTreeMap<String, Pod>> {
    let pods: Api<Pod> = Api::all(scenario.client.clone());
    let pods = pods.list(&ListParams::default().labels("bystander=yes")).await?;
    Ok(pods.items.into_iter().map(|pod| (pod.metadata.name.clone().unwrap_or_default(), pod)).collect())
}

/// Every bystander runs or is called Unschedulable.
async fn calm(scenario: &Scenario, count: usize) -> BTreeMap<String, Pod> {
    wait_until("the bystanders are decided on", PATIENCE, async || {
        let pods = bystanders(scenario).await?;
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let open: Vec<_> =
            pods.iter().filter(|(_, pod)| phase(pod) != "Running" && !is_refused(pod)).map(|(name, _)| name).collect();
        anyhow::ensure!(pods.len() == count && open.is_empty(), "{open:?}");
        Ok(pods)
    })
    .await
    .expect("bystanders")
}

#[tokio::test]
async fn pods_that_no_policy_selects_are_never_touched() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(2, "4").await;
    scenario.virtual_node("virtual-0", "0.03").await;
    let small = json!({"matchConditions": [{"name": "small", "expression": "!has(object.spec.hostname)"}]});
    scenario.policy("fan-out", "fan-out", dedicated_first(&["virtual-0"]), small).await;
    scenario.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ELSEWHERE}})).await.expect("a namespace");
    scenario.start().await;

    // Two of each kind; eight fit on the dedicated nodes, the others wait for ever. None may run anywhere else.
    let kinds = [
        ("other-app", NAMESPACE, json!({"bystander": "yes", "app": "other"}), json!({})),
        ("no-label", NAMESPACE, json!({"bystander": "yes"}), json!({})),
        ("other-namespace", ELSEWHERE, json!({"bystander": "yes", "app": "fan-out"}), json!({})),
        ("condition", NAMESPACE, json!({"bystander": "yes", "app": "fan-out"}), json!({"hostname": "named"})),
        ("tolerant", ELSEWHERE, json!({"bystander": "yes"}), json!({"tolerations": [{"operator": "Exists"}]})),
        ("opted-out", NAMESPACE, json!({"bystander": "yes", "app": "fan-out", "spillway.dev/do-not-burst": "true"}), json!({})),
    ];
    for (place, (kind, namespace, labels, more)) in kinds.iter().enumerate() {
        let pods: Api<Pod> = Api::namespaced(scenario.client.clone(), namespace);
        for round in 0..2 {
            let manifest = pod(&format!("{kind}-{round}"), labels, more);
            pods.create(&PostParams::default(), &serde_json::from_value(manifest).expect("a pod")).await.expect("a pod");
        }
        // One kind after the other, so that the last ones find no room.
        calm(&scenario, 2 * place + 2).await;
    }
    let before = calm(&scenario, 12).await;
    let waiting: Vec<&String> = before.iter().filter(|(_, pod)| place_of(pod).is_none()).map(|(name, _)| name).collect();
    assert_eq!(waiting, ["opted-out-0", "opted-out-1", "tolerant-0", "tolerant-1"]);

    // A fan-out beside them: all of it bursts, as nothing is free.
    scenario.job("wave", 150, "1", json!({})).await;
    scenario.policy("wave", "wave", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.settled("wave", (0, 150, 0)).await;
    wait_until("the wave is tidied up", PATIENCE, async || {
        let places = scenario.places("wave").await;
        let fitted = places.virtual_.iter().filter(|pod| writers(pod).contains("spillway.dev/committer")).count();
        anyhow::ensure!(fitted == 150, "{fitted}");
        Ok(())
    })
    .await
    .expect("tolerations");

    let after = calm(&scenario, 12).await;
    for (name, pod) in &after {
        assert_eq!(Some(pod), before.get(name), "{name}: the stored object has changed");
        let writers = writers(pod);
        assert!(!writers.iter().any(|writer| writer.contains("spillway")), "{name}: {writers:?}");
        assert!(place_of(pod).is_none_or(|node| node.starts_with("dedicated")), "{name} is on {:?}", place_of(pod));
    }
    // Nor is anything told about them; that somebody has opted out is no news.
    let events: Api<Event> = Api::all(scenario.client.clone());
    for event in events.list(&ListParams::default()).await.expect("events") {
        let about = event.regarding.as_ref().and_then(|object| object.name.clone()).unwrap_or_default();
        let ours = event.reporting_controller.as_deref().is_some_and(|reporter| reporter.contains("spillway"));
        assert!(!ours || !after.contains_key(&about), "{event:?}");
    }
}
