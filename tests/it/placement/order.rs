//! Who goes first, and when a tier opens.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use policy::Timestamp;
use serde_json::{Value, json};
use world::control_plane::DedicatedNodes;

use crate::scenario::{Extender, Scenario, dedicated_first, record};

fn names(pods: &[Pod]) -> Vec<&str> {
    let mut names: Vec<&str> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    names.sort_unstable();
    names
}

/// While the backend is closed, five pods of each class come in turn, the lowest class first.
async fn queue(scenario: &Scenario, app: &str) {
    scenario.backend_healthy("virtual-0", false).await;
    for round in 0..5 {
        for class in ["low", "middle", "high"] {
            let name = format!("{app}-{class}-{round}");
            scenario.pod(&name, app, "1", json!({"priorityClassName": class})).await;
        }
    }
    scenario.settled(app, (0, 0, 15)).await;
    scenario.backend_healthy("virtual-0", true).await;
}

#[tokio::test]
async fn priority_then_arrival_as_far_as_limits_and_budgets_go() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("virtual-0", "0.03").await;
    for (name, value) in [("low", 10), ("middle", 100), ("high", 1000)] {
        scenario.priority_class(name, value, "Never").await;
    }
    let mut limited = dedicated_first(&["virtual-0"]);
    limited[1]["limits"] = json!({"pods": 7});
    scenario.policy("limited", "limited", limited, json!({})).await;
    scenario.policy("paid", "paid", dedicated_first(&["virtual-0"]), json!({})).await;
    let spec = json!({"amount": "0.25", "currency": "USD", "period": "Month", "scope": {"policies": ["paid"]}});
    let budget = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "BurstBudget", "metadata": {"name": "cap"}, "spec": spec});
    scenario.apply(budget).await.expect("a budget");
    scenario.start().await;

    // Seven places; and 0.25, which is eight pods at 0.03.
    for (app, middle) in [("limited", 2), ("paid", 3)] {
        queue(&scenario, app).await;
        let places = scenario.settled(app, (0, 5 + middle, 10 - middle)).await;
        let mut expected: Vec<String> = (0..5).map(|round| format!("{app}-high-{round}")).collect();
        expected.extend((0..middle).map(|round| format!("{app}-middle-{round}")));
        assert_eq!(names(&places.virtual_), expected);
    }
}

/// How long a pod existed before it was decided to burst. Creation times are cut to seconds, so the truth is not longer.
fn waited(pod: &Pod) -> Duration {
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| Timestamp::from_millis(time.0.as_millisecond()));
    record(pod).at.since(created.expect("every stored pod has one"))
}

fn tiers(after: &str) -> Value {
    json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["virtual-0"], "after": after}])
}

#[tokio::test]
async fn a_tier_opens_when_its_time_has_come() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("at-once", "at-once", tiers("0s"), json!({})).await;
    scenario.policy("after", "after", tiers("3s"), json!({})).await;
    // An hour costs 0.04; so do four seconds of waiting.
    scenario.policy("auto", "auto", tiers("Auto"), json!({"waitingCost": "36"})).await;
    scenario.policy("patient", "patient", tiers("Auto"), json!({"waitingCost": "0.01"})).await;
    scenario.start().await;

    for app in ["patient", "auto", "after", "at-once"] {
        scenario.job(app, 10, "1", json!({})).await;
    }
    for (app, least) in [("after", 3), ("auto", 4)] {
        for pod in scenario.settled(app, (0, 10, 0)).await.virtual_ {
            assert!(waited(&pod) >= Duration::from_secs(least), "{app}: {:?} after {:?}", pod.metadata.name, waited(&pod));
        }
    }
    scenario.settled("at-once", (0, 10, 0)).await;
    // Four hours of waiting cost as much as bursting, so these wait; for dedicated nodes, too.
    scenario.settled("patient", (0, 0, 10)).await;
    let texts = scenario.events_of("patient-", "WaitingForDedicated").await;
    assert_eq!(texts, ["does not burst: the tier is not open yet (spec.tiers[].after)"]);
    scenario.plane.create_dedicated_nodes(&DedicatedNodes::new("dedicated", 1).cpu("6")).await.expect("a node");
    scenario.settled("patient", (6, 0, 4)).await;
    // Waiting has become dear: the rest goes at once.
    scenario.policy("patient", "patient", tiers("Auto"), json!({"waitingCost": "100000"})).await;
    scenario.settled("patient", (6, 4, 0)).await;
}
