//! Several policies for one pod, and objects that make no sense.

use serde_json::{Value, json};

use crate::scenario::{Extender, Scenario, assert_ordinary_pending, dedicated_first, record};

/// Where a new pod goes, and by which policy.
async fn goes(scenario: &Scenario, name: &str, app: &str) -> (String, String) {
    scenario.pod(name, app, "1", json!({})).await;
    let pod = scenario.bound(name).await;
    (record(&pod).virtual_node.to_string(), record(&pod).policy.to_string())
}

fn pair(virtual_node: &str, policy: &str) -> (String, String) {
    (virtual_node.to_owned(), policy.to_owned())
}

#[tokio::test]
async fn the_heavier_policy_decides_and_bad_input_leaves_the_last_good_one_in_force() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("cheap", "0.01").await;
    scenario.virtual_node("dear", "0.05").await;
    scenario.policy("heavy", "both", dedicated_first(&["dear"]), json!({"weight": 200})).await;
    scenario.policy("light", "both", dedicated_first(&["cheap"]), json!({"weight": 100})).await;
    scenario.start().await;

    assert_weights(&scenario).await;
    assert_bad_policies(&scenario).await;
    assert_bad_virtual_nodes(&scenario).await;
    assert_bad_budgets(&scenario).await;
}

async fn assert_weights(scenario: &Scenario) {
    assert_eq!(goes(scenario, "both-0", "both").await, pair("dear", "heavy"));
    // Held by the heavier one, a pod waits, although the other would take it.
    scenario.policy("heavy", "both", dedicated_first(&["dear"]), json!({"weight": 200, "stopPolicy": "Hold"})).await;
    scenario.object_condition("BurstPolicy", "heavy", "Ready", "True", "Accepted").await;
    scenario.pod("both-1", "both", "1", json!({})).await;
    assert_eq!(scenario.event("both-1", "PolicyHeld").await, "does not burst: the policy is stopped (spec.stopPolicy)");
    assert_ordinary_pending(&scenario.settled("both", (0, 1, 1)).await.pending[0]);
    // When it is gone the other one decides, about those that wait, too.
    scenario.delete("BurstPolicy", "heavy").await;
    scenario.settled("both", (0, 2, 0)).await;
    let record = record(&scenario.get("both-1").await);
    assert_eq!((&*record.virtual_node, &*record.policy), ("cheap", "light"));
    assert_eq!(goes(scenario, "both-2", "both").await, pair("cheap", "light"));
    // Made again under the same name and lighter than the other, it decides nothing.
    scenario.policy("heavy", "both", dedicated_first(&["dear"]), json!({"weight": 50})).await;
    scenario.object_condition("BurstPolicy", "heavy", "Ready", "True", "Accepted").await;
    assert_eq!(goes(scenario, "both-3", "both").await, pair("cheap", "light"));
}

async fn assert_bad_policies(scenario: &Scenario) {
    let condition = |expression: &str| json!({"matchConditions": [{"name": "small", "expression": expression}]});
    let good = condition("object.spec.containers.size() == 1");
    scenario.policy("cel", "cel", dedicated_first(&["cheap"]), good).await;
    assert_eq!(goes(scenario, "cel-0", "cel").await, pair("cheap", "cel"));
    for (round, expression) in
        ["object.spec.(", "object.spec.containers.size()", "nothing.known == 1", "size(object.metadata.name"].iter().enumerate()
    {
        scenario.policy("cel", "cel", dedicated_first(&["dear"]), condition(expression)).await;
        let message = scenario.object_condition("BurstPolicy", "cel", "Ready", "False", "Invalid").await;
        assert!(message.starts_with("spec.matchConditions[0].expression: "), "{message}");
        // The last good one would send pods to the cheap node.
        assert_eq!(goes(scenario, &format!("cel-bad-{round}"), "cel").await, pair("cheap", "cel"));
    }
    scenario.policy("cel", "cel", dedicated_first(&["dear"]), json!({})).await;
    scenario.object_condition("BurstPolicy", "cel", "Ready", "True", "Accepted").await;
    assert_eq!(goes(scenario, "cel-good", "cel").await, pair("dear", "cel"));

    // One that was never good selects nobody.
    scenario.policy("never", "never", dedicated_first(&["cheap"]), condition("1 +")).await;
    scenario.object_condition("BurstPolicy", "never", "Ready", "False", "Invalid").await;
    scenario.pod("never-0", "never", "1", json!({})).await;
    assert_ordinary_pending(&scenario.settled("never", (0, 0, 1)).await.pending[0]);

    // Unknown names are told, and the known ones work.
    scenario.policy("unknown", "unknown", dedicated_first(&["nowhere", "cheap", "lost"]), json!({})).await;
    let message = scenario.object_condition("BurstPolicy", "unknown", "TiersResolved", "False", "UnknownVirtualNode").await;
    assert_eq!(message, "spec.tiers[].virtualNodes: there is no VirtualNode nowhere, lost");
    assert_eq!(goes(scenario, "unknown-0", "unknown").await, pair("cheap", "unknown"));
    scenario.policy("unknown", "unknown", dedicated_first(&["nowhere"]), json!({})).await;
    scenario.object_condition("BurstPolicy", "unknown", "TiersResolved", "False", "UnknownVirtualNode").await;
    scenario.pod("unknown-1", "unknown", "1", json!({})).await;
    let text = scenario.event("unknown-1", "BackendInfeasible").await;
    assert_eq!(text, "does not burst: there is no usable VirtualNode of this name");
}

fn priced(pricing: &Value) -> Value {
    json!({"inMemory": {"region": "here"}, "pricing": pricing})
}

async fn assert_bad_virtual_nodes(scenario: &Scenario) {
    let euros = json!({"currency": "EUR", "vcpuHour": "0.001", "gbHour": "0", "asOf": "2026-11-01"});
    scenario.virtual_node_with("unpriced", priced(&Value::Null), "").await;
    scenario.virtual_node_with("foreign", priced(&euros), "").await;
    let message = scenario.object_condition("VirtualNode", "unpriced", "Ready", "False", "PricesMissing").await;
    assert!(message.starts_with("spec.pricing: "), "{message}");
    let message = scenario.object_condition("VirtualNode", "foreign", "Ready", "False", "Invalid").await;
    assert!(message.starts_with("spec.pricing.currency: \"EUR\" is not allowed"), "{message}");
    let elsewhere = json!({"region": "af-south-1", "cluster": "burst", "subnets": ["subnet-0a1b2c3d"]});
    scenario.virtual_node_with("elsewhere", json!({"fargate": elsewhere, "pricing": null}), "").await;
    let message = scenario.object_condition("VirtualNode", "elsewhere", "Ready", "False", "PricesMissing").await;
    let told = "spec.pricing: no price of on-demand linux/amd64 of fargate in af-south-1 is known; set spec.pricing";
    assert!(message.starts_with(told) && message.contains("us-east-1"), "{message}");
    scenario.policy("prices", "prices", dedicated_first(&["unpriced", "foreign", "elsewhere", "dear"]), json!({})).await;
    assert_eq!(goes(scenario, "prices-0", "prices").await, pair("dear", "prices"));
    scenario.policy("priceless", "priceless", dedicated_first(&["unpriced"]), json!({})).await;
    scenario.pod("priceless-0", "priceless", "1", json!({})).await;
    let text = scenario.event("priceless-0", "BackendInfeasible").await;
    assert_eq!(text, "does not burst: nobody told what the virtual node costs");

    // A good one that goes bad stays in force as it was.
    scenario.virtual_node_spec("cheap", priced(&euros), "").await;
    scenario.object_condition("VirtualNode", "cheap", "Ready", "False", "Invalid").await;
    assert_eq!(goes(scenario, "both-4", "both").await, pair("cheap", "light"));
    let hourly = record(&scenario.get("both-4").await).hourly;
    assert_eq!(hourly, "0.01".parse().expect("money"), "at its last good price");
    // And prices that come open what had none.
    scenario.virtual_node_spec("unpriced", json!({"inMemory": {"region": "here"}}), "0.002").await;
    scenario.object_condition("VirtualNode", "unpriced", "Ready", "True", "Open").await;
    scenario.settled("priceless", (0, 1, 0)).await;
    assert_eq!(goes(scenario, "prices-1", "prices").await, pair("unpriced", "prices"));
}

async fn assert_bad_budgets(scenario: &Scenario) {
    let budget = |name: &str, spec: Value| json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "BurstBudget", "metadata": {"name": name}, "spec": spec});
    let scope = json!({"policies": ["capped"]});
    scenario
        .apply(budget("foreign", json!({"amount": "1", "currency": "EUR", "period": "Month", "scope": scope})))
        .await
        .expect("a budget");
    let message = scenario.object_condition("BurstBudget", "foreign", "Ready", "False", "Invalid").await;
    assert!(message.starts_with("spec.currency: \"EUR\" is not allowed"), "{message}");

    // Nobody knows what it would allow, so it allows nothing. When it is gone, the good one holds.
    let good = json!({"amount": "0.10", "currency": "USD", "period": "Month", "scope": scope});
    scenario.apply(budget("cap", good)).await.expect("a budget");
    scenario.object_condition("BurstBudget", "cap", "Ready", "True", "Accepted").await;
    scenario.policy("capped", "capped", dedicated_first(&["dear"]), json!({})).await;
    scenario.job("capped", 20, "1", json!({})).await;
    scenario.settled("capped", (0, 0, 20)).await;
    let texts = scenario.events_of("capped-", "BudgetUnusable").await;
    assert_eq!(texts, ["does not burst: the budget foreign is not usable (its condition Ready says why)"]);
    scenario.delete("BurstBudget", "foreign").await;
    scenario.settled("capped", (0, 2, 18)).await;
}
