//! From the quote to the bill: what a budget says when pods have ended is what they have really cost, to the last nano.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use policy::Money;
use scheduler_extender::api;
use serde_json::json;
use world::control_plane::{Component, wait_until};

use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, record};

/// An odd price, so that every bill is rounded.
const PRICE: &str = "0.0407";

#[tokio::test]
async fn the_books_end_at_what_the_pods_really_cost() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("virtual-0", PRICE).await;
    let fargate = json!({"fargate": {"region": "us-east-1", "cluster": "burst", "subnets": ["subnet-0a1b2c3d"]}});
    scenario.virtual_node_with("fargate-0", fargate, PRICE).await;
    for (policy, node) in [("quick", "virtual-0"), ("long", "fargate-0")] {
        scenario.policy(policy, policy, json!([{"name": "serverless", "virtualNodes": [node]}]), json!({})).await;
    }
    scenario.budget("nightly", "10").await;
    scenario.start().await;
    let started = Instant::now();

    for (index, app) in ["quick", "long"].into_iter().cycle().take(12).enumerate() {
        run_for(&scenario, &format!("{app}-{index}"), app, index % 4 + 1).await;
    }
    let pods = ended(&scenario, 12).await;
    let bills: BTreeMap<String, Money> =
        pods.iter().map(|pod| (pod.metadata.name.clone().unwrap_or_default(), bill(pod))).collect();
    let all: Money = bills.values().copied().sum();
    assert!(pods.iter().all(|pod| bill(pod) < record(pod).quote), "they were quoted for an hour");
    books(&scenario, Money::ZERO, all, Money::ZERO).await;
    let of = |app: &str| -> Money { bills.iter().filter(|(name, _)| name.starts_with(app)).map(|(_, bill)| *bill).sum() };
    let (quick, long) = (of("quick"), of("long"));
    again(&scenario, || async {}).await;
    books(&scenario, Money::ZERO, all, Money::ZERO).await;
    spends(&scenario, (quick, Money::ZERO), (long, Money::ZERO)).await;

    // What is deleted stays spent, over a restart, too.
    let (gone, kept): (Vec<_>, Vec<_>) = bills.iter().partition(|(name, _)| name.starts_with("quick"));
    let sum = |some: &[(&String, &Money)]| -> Money { some.iter().map(|(_, bill)| **bill).sum() };
    for (name, _) in &gone {
        delete(&scenario, name).await;
    }
    books(&scenario, sum(&gone), sum(&kept), Money::ZERO).await;
    spends(&scenario, (quick, quick), (long, Money::ZERO)).await;
    again(&scenario, || async {}).await;
    books(&scenario, sum(&gone), sum(&kept), Money::ZERO).await;

    // Deleted while nobody looked: the pod cannot be asked any more, the money is spent all the same.
    let (last, rest) = kept.split_last().expect("six");
    again(&scenario, || delete(&scenario, last.0)).await;
    books(&scenario, sum(&gone).saturating_add(*last.1), sum(rest), *last.1).await;
    spends(&scenario, (quick, quick), (long, *last.1)).await;

    // However much happens, a status is written once a second at most.
    let metrics = scenario.plane.metrics(Component::ApiServer).await.expect("metrics");
    let writes = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total")
            && line.contains(r#"resource="burstpolicies""#)
            && line.contains(r#"verb="APPLY""#)
            && line.contains(r#"subresource="status""#)
    });
    let writes: f64 = writes.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    println!("{writes} writes of two policies' statuses in {:?}", started.elapsed());
    assert!(writes > 0.0 && writes <= 2.0 * (started.elapsed().as_secs_f64() + 4.0), "{writes} in {:?}", started.elapsed());
}

/// Waits until the statuses of both policies and of their virtual nodes say what pods have cost, in all and of that those that
/// are gone.
async fn spends(scenario: &Scenario, quick: (Money, Money), long: (Money, Money)) {
    let policies: Api<api::BurstPolicy> = Api::all(scenario.client.clone());
    let nodes: Api<api::VirtualNode> = Api::all(scenario.client.clone());
    let said = wait_until("the statuses say what pods have cost", PATIENCE, async || {
        for (policy, node, (spend, settled)) in [("quick", "virtual-0", quick), ("long", "fargate-0", long)] {
            let expected = Some((spend.to_string(), settled.to_string()));
            let status = policies.get(policy).await?.status.context("no status")?;
            ensure!(status.spend.clone().zip(status.settled.clone()) == expected, "{policy}: {status:?}, not {expected:?}");
            ensure!(status.currency.as_deref() == Some("USD"), "{status:?}");
            let status = nodes.get(node).await?.status.context("no status")?;
            ensure!(status.spend.clone().zip(status.settled.clone()) == expected, "{node}: {status:?}, not {expected:?}");
        }
        Ok(())
    });
    said.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
}

async fn run_for(scenario: &Scenario, name: &str, app: &str, seconds: usize) {
    let resources = json!({"requests": {"cpu": "250m", "memory": "512Mi"}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": app, "test": "settlement"},
            "annotations": {"kwok.example/run-seconds": seconds.to_string()}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example/work:1", "resources": resources}]},
    });
    scenario.apply(pod).await.expect("a pod");
}

async fn ended(scenario: &Scenario, count: usize) -> Vec<Pod> {
    let done = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
    let pods = scenario.plane.wait_for_pods("all have ended", (NAMESPACE, "test=settlement"), count, PATIENCE, done).await;
    pods.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()))
}

async fn delete(scenario: &Scenario, name: &str) {
    let pods: Api<Pod> = Api::namespaced(scenario.client.clone(), NAMESPACE);
    pods.delete(name, &DeleteParams::default().grace_period(0)).await.expect("the pod");
    wait_until("the pod is gone", PATIENCE, async || {
        ensure!(pods.get_opt(name).await?.is_none());
        Ok(())
    })
    .await
    .expect("gone");
}

/// `kill -9`, something else, and a new process.
async fn again<F: Future<Output = ()>>(scenario: &Scenario, meanwhile: impl FnOnce() -> F) {
    scenario.kill();
    meanwhile().await;
    scenario.start().await;
}

/// The bill by the pod's own words, computed apart from the program: whole seconds, the provider's minimum, rounded up.
fn bill(pod: &Pod) -> Money {
    let annotation = &pod.metadata.annotations.as_ref().expect("annotations")[scheduler_extender::record::ANNOTATION];
    let decision: serde_json::Value = serde_json::from_str(annotation).expect("JSON");
    let hourly: Money = decision["hourly"].as_str().expect("a price").parse().expect("money");
    let millis = |field: &str| i128::from(decision[field].as_i64().unwrap_or(0));
    let state =
        pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first()?.state.as_ref()).expect("a state");
    let ended = state.terminated.as_ref().expect("it has ended");
    let at =
        |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| -> Timestamp { time.as_ref().expect("a time").0 };
    let ran = i128::from(at(&ended.finished_at).as_millisecond() - at(&ended.started_at).as_millisecond());
    let seconds = (ran + millis("billedStartupMs")).max(millis("minimumMs")).unsigned_abs().div_ceil(1000);
    let nanos = (u128::from(hourly.nanos().unsigned_abs()) * seconds).div_ceil(3600);
    Money::from_nanos(i64::try_from(nanos).expect("little"))
}

/// Waits until the budget says exactly this, and nothing more is authorized.
async fn books(scenario: &Scenario, spent: Money, reserved: Money, unaccounted: Money) {
    let agreed = wait_until("the books agree with the bills", PATIENCE, async || {
        let status = scenario.budget_status("nightly").await;
        let money = |text: &Option<String>| -> anyhow::Result<Money> {
            text.as_deref().context("no amount")?.parse().map_err(|error| anyhow::anyhow!("{error}"))
        };
        let said = (money(&status.spent)?, money(&status.reserved)?, money(&status.unaccounted)?);
        ensure!(
            said == (spent, reserved, unaccounted),
            "spent, reserved, unaccounted: {said:?}, not {:?}",
            (spent, reserved, unaccounted)
        );
        ensure!(money(&status.authorized)? == spent.saturating_add(reserved), "{status:?}");
        Ok(())
    });
    agreed.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
}
