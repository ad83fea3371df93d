//! Budgets, limits and quotas: exact under a fan-out.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use policy::Money;
use serde_json::json;
use world::control_plane::{DedicatedNodes, place_of, wait_until};

use super::PATIENCE;
use crate::scenario::{Extender, NAMESPACE, Places, Scenario, assert_ordinary_pending, dedicated_first, record, writers};

fn money(text: Option<&str>) -> Money {
    text.unwrap_or("0").parse().expect("an amount of ours")
}

/// What the pods on virtual nodes are quoted at together.
fn quoted(places: &Places) -> Money {
    places.virtual_.iter().fold(Money::ZERO, |sum, pod| sum.saturating_add(record(pod).quote))
}

async fn assert_books(scenario: &Scenario, amount: &str, reserved: &str, remaining: &str) {
    wait_until("the books in the budget's status", PATIENCE, async || {
        let status = scenario.budget_status("cap").await;
        let limit = money(Some(amount));
        // At no time may more be authorized than the budget has.
        assert!(money(status.authorized.as_deref()) <= limit, "{status:?}");
        anyhow::ensure!(money(status.reserved.as_deref()) == money(Some(reserved)), "{status:?}");
        anyhow::ensure!(money(status.remaining.as_deref()) == money(Some(remaining)), "{status:?}");
        anyhow::ensure!(
            money(status.authorized.as_deref()) == money(Some(reserved)),
            "what nobody draws on is given back: {status:?}"
        );
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
}

#[tokio::test]
async fn a_budget_pays_to_the_cent_and_the_rest_waits_for_dedicated_nodes() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(2, "4").await;
    // 33 pods at 0.03 are 0.99; a 34th would be 1.02.
    scenario.virtual_node("virtual-0", "0.03").await;
    scenario.policy("fan-out", "fan-out", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.budget("cap", "1.00").await;
    scenario.start().await;

    scenario.job("fan-out", 200, "1", json!({})).await;
    let places = scenario.settled("fan-out", (8, 33, 159)).await;
    assert_eq!(quoted(&places), money(Some("0.99")));
    for pod in &places.pending {
        assert_ordinary_pending(pod);
        let writers = writers(pod);
        assert!(writers.iter().all(|writer| ["kube-scheduler", "kube-controller-manager"].contains(&&**writer)), "{writers:?}");
    }
    for pod in &places.virtual_ {
        assert_eq!(record(pod).budgets.iter().map(|name| &**name).collect::<Vec<_>>(), ["cap"]);
    }
    let texts = scenario.events_of("fan-out-", "BudgetExceeded").await;
    assert!(texts.iter().all(|text| text == "does not burst: the budget cap would be exceeded"), "{texts:?}");
    assert_books(&scenario, "1.00", "0.99", "0.01").await;

    // What waits is ordinary: a node that comes takes it, and costs the budget nothing.
    scenario
        .plane
        .create_dedicated_nodes(&DedicatedNodes::new("dedicated-more", 1).cpu("16").memory("64Gi"))
        .await
        .expect("a node");
    scenario.settled("fan-out", (24, 33, 143)).await;
    scenario.budget("cap", "1.05").await;
    let places = scenario.settled("fan-out", (24, 35, 141)).await;
    assert_eq!(quoted(&places), money(Some("1.05")));
    assert_books(&scenario, "1.05", "1.05", "0").await;
    scenario.object_condition("BurstBudget", "cap", "Exhausted", "True", "LimitReached").await;
}

#[tokio::test]
async fn limits_and_quotas_are_exact_under_a_fan_out() {
    let scenario = Scenario::new(Extender::Absent).await;
    for (name, price) in [("cheap", "0.01"), ("middle", "0.02"), ("dear", "0.03")] {
        scenario.virtual_node(name, price).await;
    }
    let memory = || json!({"inMemory": {"region": "here"}});
    scenario.virtual_node_status("cheap", json!({"quota": {"pods": 20}})).await;
    let limited = |cpu: &str| json!({"inMemory": {"region": "here"}, "limits": {"cpu": cpu}});
    scenario.virtual_node_spec("middle", limited("8"), "0.02").await;
    let tiers = |pods: u32| {
        json!([
            {"name": "dedicated"},
            {"name": "first", "virtualNodes": ["middle", "cheap"], "limits": {"pods": pods}},
            {"name": "second", "virtualNodes": ["dear"], "limits": {"cpu": "12"}},
        ])
    };
    scenario.policy("fan-out", "fan-out", tiers(30), json!({})).await;
    scenario.start().await;

    scenario.job("fan-out", 100, "1", json!({})).await;
    let places = scenario.settled("fan-out", (0, 40, 60)).await;
    assert_eq!(shares(&places), [20, 8, 12], "the quota of the cheap one, the limit of the next, the limit of the second tier");
    let texts = scenario.events_of("fan-out-", "LimitReached").await;
    assert!(
        texts.iter().all(|text| text == "does not burst: the limits of the tier are used up (spec.tiers[].limits)"),
        "{texts:?}"
    );
    assert_ordinary_pending(&places.pending[0]);

    // The node may take more, and the tier bounds the two together.
    scenario.virtual_node_spec("middle", limited("50"), "0.02").await;
    assert_eq!(shares(&scenario.settled("fan-out", (0, 42, 58)).await), [20, 10, 12]);
    // What is there stays when a quota shrinks, and what ends there is not replaced there.
    scenario.virtual_node_status("cheap", json!({"quota": {"pods": 5}})).await;
    let pods: Api<Pod> = Api::namespaced(scenario.client.clone(), NAMESPACE);
    let on_cheap = places.virtual_.iter().filter(|pod| place_of(pod) == Some("cheap"));
    for pod in on_cheap.take(3) {
        pods.delete(pod.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await.expect("a pod");
    }
    wait_until("the three are replaced elsewhere", PATIENCE, async || {
        let places = scenario.places("fan-out").await;
        anyhow::ensure!(shares(&places) == [17, 13, 12] && places.counts() == (0, 42, 58), "{:?}", shares(&places));
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    // More for the tier, and no limit on the node: the generation of the policy changes under the pods that wait.
    scenario.virtual_node_spec("middle", memory(), "0.02").await;
    scenario.policy("fan-out", "fan-out", tiers(45), json!({})).await;
    assert_eq!(shares(&scenario.settled("fan-out", (0, 57, 43)).await), [17, 28, 12]);
}

/// Pods on the cheap, the middle and the dear node.
fn shares(places: &Places) -> [usize; 3] {
    ["cheap", "middle", "dear"].map(|node| places.virtual_.iter().filter(|pod| place_of(pod) == Some(node)).count())
}
