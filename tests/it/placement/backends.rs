//! Which of several backends.

use serde_json::{Value, json};
use world::control_plane::place_of;

use crate::scenario::{Extender, Scenario, assert_ordinary_pending, container, dedicated_first, record};

fn aci() -> Value {
    json!({"aci": {"subscriptionId": "00000000-0000-0000-0000-000000000001", "resourceGroup": "burst", "location": "westeurope"}})
}

fn fargate() -> Value {
    json!({"fargate": {"region": "eu-central-1", "cluster": "burst", "subnets": ["subnet-0123456789abcdef0"]}})
}

fn nomad() -> Value {
    json!({"nomad": {"address": "https://nomad.example:4646", "mhzPerCore": 2000}})
}

/// Cheapest first: one that nobody runs, ACI, Nomad, Fargate. There are no dedicated nodes, so everything bursts that can.
async fn stage() -> Scenario {
    let scenario = Scenario::new(Extender::Absent).await;
    let managed = json!({"inMemory": {"region": "here"}, "adopt": null});
    scenario.virtual_node_spec("managed", managed, "0.001").await;
    scenario.virtual_node_with("aci", aci(), "0.01").await;
    scenario.virtual_node_with("nomad", nomad(), "0.02").await;
    scenario.virtual_node_with("fargate", fargate(), "0.05").await;
    scenario.policy("any", "any", dedicated_first(&["managed", "fargate", "nomad", "aci"]), json!({})).await;
    scenario.policy("two", "two", dedicated_first(&["aci", "fargate"]), json!({})).await;
    scenario.policy("one", "one", dedicated_first(&["nomad"]), json!({})).await;
    scenario.start().await;
    scenario
}

/// Makes a pod and says which virtual node it is bound to.
async fn placed(scenario: &Scenario, name: &str, app: &str, more: Value) -> String {
    scenario.pod(name, app, "1", more).await;
    let pod = scenario.bound(name).await;
    let place = place_of(&pod).unwrap_or_default().to_owned();
    assert_eq!(*record(&pod).virtual_node, *place);
    place
}

#[tokio::test]
async fn the_cheapest_backend_that_is_open_and_can_run_the_pod() {
    let scenario = stage().await;
    scenario.object_condition("VirtualNode", "managed", "Ready", "False", "NoVirtualKubelet").await;
    for open in ["aci", "nomad", "fargate"] {
        scenario.object_condition("VirtualNode", open, "Ready", "True", "Open").await;
    }
    // ACI's command would replace the image's entry point.
    let args = || container("1", &json!({"args": ["--fast"]}));
    assert_eq!(placed(&scenario, "plain", "any", json!({})).await, "aci");
    assert_eq!(placed(&scenario, "args", "any", args()).await, "nomad");

    scenario.backend_healthy("nomad", false).await;
    assert_eq!(placed(&scenario, "args-closed", "any", args()).await, "fargate");
    scenario.job("any-job", 30, "1", args()).await;
    scenario.policy("job", "any-job", dedicated_first(&["aci", "fargate", "managed", "nomad"]), json!({})).await;
    let places = scenario.settled("any-job", (0, 30, 0)).await;
    assert!(places.virtual_.iter().all(|pod| place_of(pod) == Some("fargate")));
    scenario.backend_healthy("nomad", true).await;
    assert_eq!(placed(&scenario, "args-open", "any", args()).await, "nomad");

    // The Node itself is down, then up again.
    scenario.node_down("aci", true).await;
    scenario.object_condition("VirtualNode", "aci", "Ready", "False", "NodeNotReady").await;
    assert_eq!(placed(&scenario, "plain-down", "any", json!({})).await, "nomad");
    scenario.node_down("aci", false).await;
    scenario.object_condition("VirtualNode", "aci", "Ready", "True", "Open").await;
    assert_eq!(placed(&scenario, "plain-up", "any", json!({})).await, "aci");

    assert_capabilities(&scenario).await;
    assert_closed_and_reopened(&scenario).await;
    let refused = scenario.metric("spillway_bindings_total{outcome=\"refused\"}").await;
    assert!(refused.abs() < f64::EPSILON, "{refused} Bindings were refused by the API server");
}

/// A pod that no backend runs is told the rule, and stays an ordinary pending pod; one that a single backend runs goes there.
async fn assert_capabilities(scenario: &Scenario) {
    let probe = json!({"startupProbe": {"exec": {"command": ["true"]}}});
    scenario.pod("two-probe", "two", "1", container("1", &probe)).await;
    let text = scenario.event("two-probe", "BackendInfeasible").await;
    assert_eq!(text, "does not burst: ACI does not run pods with a startup probe (rule startupProbe)");
    scenario.settled("two", (0, 0, 1)).await;
    assert_ordinary_pending(&scenario.get("two-probe").await);

    let read_only = json!({"securityContext": {"readOnlyRootFilesystem": true}});
    scenario.pod("two-read-only", "two", "1", container("1", &read_only)).await;
    scenario.pod("two-plain", "two", "1", json!({})).await;
    scenario.settled("two", (0, 2, 1)).await;
    assert_eq!(place_of(&scenario.get("two-read-only").await), Some("fargate"), "the dearer one, as ACI has no such thing");
    assert_eq!(place_of(&scenario.get("two-plain").await), Some("aci"));

    // A selector that the labels of no VirtualNode satisfy.
    scenario.pod("two-gpu", "two", "1", json!({"nodeSelector": {"accelerator": "h100"}})).await;
    let text = scenario.event("two-gpu", "BackendInfeasible").await;
    assert!(text.ends_with("(rule nodeSelector)") && text.contains("accelerator"), "{text}");
    assert_ordinary_pending(&scenario.settled("two", (0, 2, 2)).await.pending[0]);
}

async fn assert_closed_and_reopened(scenario: &Scenario) {
    scenario.backend_healthy("nomad", false).await;
    scenario.job("one", 20, "1", json!({})).await;
    let texts = scenario.events_of("one-", "BackendClosed").await;
    assert_eq!(texts, ["does not burst: the backend is closed (BackendUnhealthy)"], "said once for all equal pods");
    for pod in scenario.settled("one", (0, 0, 20)).await.pending {
        assert_ordinary_pending(&pod);
    }
    scenario.backend_healthy("nomad", true).await;
    scenario.settled("one", (0, 20, 0)).await;
}
