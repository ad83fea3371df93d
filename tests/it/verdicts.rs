//! When a scheduler's verdict counts, and when somebody else's business is none of Spillway's. No extender here.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use world::control_plane::{Component, DedicatedNodes, SchedulerOptions, place_of, wait_until};

use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, dedicated_first, is_refused, record};

#[tokio::test]
async fn nobody_is_evicted_for_a_pod_that_then_bursts() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.important().await;
    scenario.dedicated(2, "2").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("high", "high", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.start().await;

    // Four victims for seven pods, five times: four take their places, three burst, and nobody else is evicted.
    for round in 0..5 {
        let low = format!("low-{round}");
        for number in 0..4 {
            scenario.pod(&format!("{low}-{number}"), &low, "1", json!({})).await;
        }
        scenario.all_bound(&low, 4).await;
        for number in 0..7 {
            scenario.pod(&format!("high-{number}"), "high", "1", json!({"priorityClassName": "important"})).await;
        }
        let places = scenario.all_bound("high", 7).await;
        assert_eq!(places.counts(), (4, 3, 0), "round {round}\n{}", scenario.log());
        for pod in places.dedicated.iter().chain(&places.virtual_) {
            delete(&scenario, pod.metadata.name.as_deref().expect("a name")).await;
        }
        gone(&scenario, "high").await;
    }

    // Fewer pods than victims: none bursts, however early the victims are seen to be gone, and two are left in peace.
    for number in 0..4 {
        scenario.pod(&format!("last-{number}"), "last", "1", json!({})).await;
    }
    scenario.all_bound("last", 4).await;
    for number in 0..2 {
        scenario.pod(&format!("high-{number}"), "high", "1", json!({"priorityClassName": "important"})).await;
    }
    assert_eq!(scenario.all_bound("high", 2).await.counts(), (2, 0, 0), "{}", scenario.log());
    let left = scenario.places("last").await.dedicated;
    assert_eq!(left.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count(), 2);
}

#[tokio::test]
async fn a_verdict_that_is_older_than_the_room_is_not_acted_on() {
    // Its client sends one request a second: a verdict takes that long to arrive.
    let slow = SchedulerOptions { client_qps: 1, client_burst: 30, ..SchedulerOptions::new().named("slow") };
    let slow = SchedulerOptions { flags: vec!["--v=2".to_owned()], ..slow };
    let scenario = Scenario::with(Extender::Absent, SchedulerOptions::new(), |builder| builder.second_scheduler(slow))
        .await
        .expect("a control plane");
    scenario.dedicated(1, "2").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("late", "late", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.start().await;

    // Whatever its client has saved up is spent on pods that fit nowhere.
    for number in 0..40 {
        scenario.pod(&format!("giant-{number}"), "giant", "100", json!({"schedulerName": "slow"})).await;
    }
    let mut exercised = false;
    for attempt in 0..10 {
        let (blocker, late) = (format!("blocker-{attempt}"), format!("late-{attempt}"));
        scenario.pod(&blocker, "blocker", "2", json!({})).await;
        scenario.all_bound("blocker", 1).await;
        // A hard constraint, so that nothing but its own verdict counts.
        let spread = json!([{"maxSkew": 5, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "late"}}}]);
        scenario.pod(&late, "late", "2", json!({"schedulerName": "slow", "topologySpreadConstraints": spread})).await;
        wait_until("the attempt", 2 * PATIENCE, async || {
            let log = scenario.plane.log(Component::SecondScheduler);
            let tried =
                log.lines().any(|line| line.contains("Unable to schedule pod") && line.contains(&format!("media/{late}\"")));
            anyhow::ensure!(tried, "not tried");
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.plane.log(Component::SecondScheduler)));
        delete(&scenario, &blocker).await;
        gone(&scenario, "blocker").await;
        // Room is there, and the verdict is not: this is the trap.
        exercised = !is_refused(&scenario.get(&late).await);
        let places = scenario.all_bound("late", 1).await;
        if exercised {
            assert_eq!(places.counts(), (1, 0, 0), "{}", scenario.log());
            break;
        }
        delete(&scenario, &late).await;
        gone(&scenario, "late").await;
    }
    assert!(exercised, "the verdict was faster ten times");
}

#[tokio::test]
async fn a_pod_that_spread_blocks_waits_for_the_pods_that_open_it() {
    let scenario = Scenario::new(Extender::Absent).await;
    let zones = DedicatedNodes::new("dedicated", 2).cpu("4").memory("64Gi").zones(["a", "b"]);
    scenario.plane.create_dedicated_nodes(&zones).await.expect("nodes");
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("spread", "spread", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.start().await;

    // Zone a has one pod of the app and room, zone b has none and room for a small one only.
    scenario.pod("filler", "filler", "3500m", on("dedicated-1", json!({}))).await;
    scenario.pod("spread-0", "spread", "1", spread_over_zones()).await;
    scenario.all_bound("spread", 1).await;
    scenario.pod("blocked", "spread", "1", spread_over_zones()).await;
    scenario.refused("blocked").await;
    scenario.pod("opener", "spread", "250m", spread_over_zones()).await;
    let places = scenario.all_bound("spread", 3).await;
    assert_eq!(places.counts(), (3, 0, 0), "{}", scenario.log());
    let nodes: BTreeSet<_> = places.dedicated.iter().map(|pod| (pod.metadata.name.as_deref(), place_of(pod))).collect();
    assert!(nodes.contains(&(Some("blocked"), Some("dedicated-0"))), "{nodes:?}");

    // Nobody opens it a second time (two in zone a, one in zone b, which is too full): after the scheduler's longest
    // backoff its verdict is believed, although the snapshot shows room.
    let since = Instant::now();
    scenario.pod("stuck", "spread", "1", spread_over_zones()).await;
    scenario.refused("stuck").await;
    let places = scenario.all_bound("spread", 4).await;
    assert_eq!(places.counts(), (3, 1, 0));
    assert_eq!(&*record(&places.virtual_[0]).reason, "NoRoom");
    assert!(since.elapsed() >= Duration::from_secs(10), "after {:?}", since.elapsed());
}

fn spread_over_zones() -> Value {
    json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "spread"}}}]})
}

fn on(node: &str, mut spec: Value) -> Value {
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    spec
}

async fn delete(scenario: &Scenario, name: &str) {
    let pods: Api<Pod> = Api::namespaced(scenario.client.clone(), NAMESPACE);
    pods.delete(name, &DeleteParams::default().grace_period(0)).await.expect("a pod to delete");
}

/// Waits until no pod with label `app` is left.
async fn gone(scenario: &Scenario, app: &str) {
    scenario.plane.wait_for_pods("no pods", (NAMESPACE, &format!("app={app}")), 0, PATIENCE, |_| true).await.expect("no pods");
}
