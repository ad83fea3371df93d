//! `spillway why`, as people and programs call it.

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::process::Command;
use world::control_plane::{User, wait_until};

use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, dedicated_first, program, record};

#[tokio::test]
async fn every_pod_has_a_reason() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(1, "2").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("fan-out", "thumbs", dedicated_first(&["virtual-0"]), json!({})).await;
    // Pays for two pods of one CPU and an hour.
    scenario.budget("nightly", "0.10").await;
    scenario.start().await;

    for name in ["old-0", "old-1"] {
        scenario.pod(name, "thumbs", "1", json!({})).await;
    }
    assert_eq!(scenario.all_bound("thumbs", 2).await.counts(), (2, 0, 0));
    for name in ["burst-0", "burst-1"] {
        scenario.pod(name, "thumbs", "1", json!({})).await;
    }
    assert_eq!(scenario.all_bound("thumbs", 4).await.counts(), (2, 2, 0));
    scenario.pod("poor", "thumbs", "1", json!({})).await;
    scenario.pod("rooted", "thumbs", "1", json!({"hostNetwork": true})).await;
    scenario.pod("elsewhere", "thumbs", "1", json!({"nodeSelector": {"disk": "ssd"}})).await;
    scenario.pod("stranger", "other", "1", json!({})).await;
    scenario.pod("guest", "other", "0", json!({})).await;
    scenario.event("poor", "BudgetExceeded").await;
    scenario.event("rooted", "BackendInfeasible").await;
    scenario.event("elsewhere", "BackendInfeasible").await;
    wait_until("the guest is bound", PATIENCE, async || {
        ensure!(scenario.places("other").await.counts() == (1, 0, 1));
        Ok(())
    })
    .await
    .expect("there is room for one that asks for nothing");

    a_pod_that_burst(&scenario).await;
    pods_that_did_not(&scenario).await;
    pods_that_wait(&scenario).await;
    who_does_not_exist(&scenario).await;
}

async fn a_pod_that_burst(scenario: &Scenario) {
    let decision = record(&scenario.get("burst-0").await);
    let text = why(scenario, &["pod/burst-0"]).await.0;
    for word in
        ["virtual-0", "fan-out", "serverless", "1000 m of CPU", "0.04", "nightly", "3600 s", "dedicated nodes have no room"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    let told = scenario.event("burst-0", "BurstSelected").await;
    assert_eq!(told, format!("bursts to virtual-0 for {} USD: dedicated nodes have no room", decision.quote));
    let machine = json_of(scenario, "burst-0").await;
    assert_eq!(machine["outcome"], "Burst");
    assert_eq!(machine["decision"]["virtualNode"], "virtual-0");
    assert_eq!(machine["decision"]["quote"], decision.quote.to_string());
    assert_eq!(machine["decision"]["budgets"], json!(["nightly"]));
}

async fn pods_that_did_not(scenario: &Scenario) {
    assert!(why(scenario, &["old-0"]).await.0.contains("dedicated node dedicated-0"));
    assert_eq!(json_of(scenario, "old-0").await, json!({"outcome": "Dedicated", "node": "dedicated-0", "policy": "fan-out"}));
    for name in ["stranger", "guest"] {
        let text = why(scenario, &[name]).await.0;
        assert!(text.contains("No BurstPolicy selects this pod"), "{name}: {text}");
    }
    assert_eq!(json_of(scenario, "stranger").await, json!({"outcome": "NotSelected"}));
    assert_eq!(json_of(scenario, "guest").await, json!({"outcome": "NotSelected", "node": "dedicated-0"}));
}

async fn pods_that_wait(scenario: &Scenario) {
    let text = why(scenario, &["poor"]).await.0;
    for word in
        ["Pending under policy fan-out", "dedicated nodes have no room", "waits", "budget nightly", "virtual-0", "serverless"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    let machine = json_of(scenario, "poor").await;
    assert_eq!((&machine["outcome"], &machine["policy"]), (&json!("Waiting"), &json!("fan-out")));
    assert_eq!(machine["reason"], "BudgetExceeded");
    let candidate = &tier(&machine, "serverless")["candidates"][0];
    assert_eq!((&candidate["virtualNode"], &candidate["reason"]), (&json!("virtual-0"), &json!("BudgetExceeded")));

    let text = why(scenario, &["rooted"]).await.0;
    assert!(text.contains("hostNetwork"), "{text}");
    let machine = json_of(scenario, "rooted").await;
    assert_eq!((&machine["outcome"], &machine["reason"]), (&json!("Waiting"), &json!("NotBurstable")));
    assert!(machine["message"].as_str().expect("a sentence").contains("hostNetwork"), "{machine:#}");

    let text = why(scenario, &["elsewhere"]).await.0;
    assert!(text.contains("virtual-0") && text.contains("disk"), "{text}");
    let candidate = &tier(&json_of(scenario, "elsewhere").await, "serverless")["candidates"][0].clone();
    assert_eq!((&candidate["virtualNode"], &candidate["reason"]), (&json!("virtual-0"), &json!("BackendInfeasible")));
    assert!(candidate["message"].as_str().expect("a sentence").contains("disk"), "{candidate:#}");
}

async fn who_does_not_exist(scenario: &Scenario) {
    let (_, errors, code) = call(scenario, &["nobody", "-n", NAMESPACE]).await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("there is no pod nobody in namespace media"), "{errors}");
}

fn tier<'a>(machine: &'a Value, name: &str) -> &'a Value {
    let tiers = machine["tiers"].as_array().expect("tiers");
    tiers.iter().find(|tier| tier["tier"] == name).expect("the tier")
}

async fn json_of(scenario: &Scenario, pod: &str) -> Value {
    serde_json::from_str(&why(scenario, &[pod, "-o", "json"]).await.0).expect("JSON")
}

async fn why(scenario: &Scenario, arguments: &[&str]) -> (String, String) {
    let (out, errors, code) = call(scenario, &[arguments, &["-n", NAMESPACE]].concat()).await;
    assert_eq!(code, Some(0), "{errors}");
    (out, errors)
}

/// Output, errors, exit code.
async fn call(scenario: &Scenario, arguments: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Command::new(program());
    command.arg("why").args(arguments).arg("--kubeconfig").arg(scenario.plane.kubeconfig_path(User::Spillway));
    let output = command.kill_on_drop(true).output().await.expect("the program spillway starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code())
}
