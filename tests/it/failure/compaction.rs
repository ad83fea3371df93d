//! etcd forgets the past while Spillway is cut off: its watches cannot go on where they stopped (410 Gone), and begin anew.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use kube::api::DeleteParams;
use policy::Money;
use serde_json::{Value, json};
use world::control_plane::{SchedulerOptions, wait_until};

use crate::audit::{Audit, Request};
use crate::relay::{Flow, Line, Relay};
use crate::scenario::{Extender, PATIENCE, Places, Scenario, container, dedicated_first, record};

/// Pods at first.
const PODS: usize = 60;
/// Of which fit on dedicated nodes.
const ROOM: usize = 20;

#[tokio::test]
async fn watches_that_are_too_old_begin_anew_and_nothing_is_bound_or_paid_twice() {
    let audit = Audit::new();
    let scenario = Scenario::with(Extender::Absent, SchedulerOptions::new(), |builder| audit.flags(builder)).await;
    let mut scenario = scenario.expect("a cluster");
    scenario.dedicated(4, "5").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.budget("nightly", "100").await;
    scenario.policy("thumbs", "thumbs", dedicated_first(&["virtual-0"]), json!({})).await;
    let api_server = scenario.plane.api_server_url().trim_start_matches("https://").parse().expect("an address");
    let relay = Relay::listen(None, &[api_server]).await;
    scenario.kubeconfig = scenario.service_account_kubeconfig("relayed", Some(relay.address)).await;
    scenario.start().await;
    scenario.virtual_node_ready("virtual-0").await;
    let pod = |index: usize| json!({"metadata": {"name": format!("thumb-{index}"), "labels": {"app": "thumbs"}}, "spec": spec()});
    let some = |range: std::ops::Range<usize>| range.map(pod).collect::<Vec<Value>>();
    scenario.create_pods(&some(0..PODS)).await.expect("pods");
    let before = agreed(&scenario, PODS).await;

    // While nothing reaches Spillway, pods go, come, and come again under names that it knows.
    relay.set(Line { requests: Flow::Held, answers: Flow::Lost });
    let burst: Vec<&str> = before.virtual_.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    let (again, gone) = burst[..20].split_at(8);
    for name in again.iter().chain(gone) {
        scenario.pods().delete(name, &DeleteParams::default().grace_period(0)).await.expect("the pod");
    }
    let made: Vec<Value> =
        again.iter().map(|name| json!({"metadata": {"name": name, "labels": {"app": "thumbs"}}, "spec": spec()})).collect();
    scenario.create_pods(&made).await.expect("pods");
    scenario.create_pods(&some(PODS..PODS + 30)).await.expect("pods");
    let revision = compact(&scenario).await.expect("etcd compacts");
    // Its own memory of what etcd has forgotten goes with it.
    scenario.plane.restart_apiserver().await.expect("it comes up again");
    println!("compacted at {revision}");
    relay.set(Line::HEALTHY);

    let count = PODS - gone.len() + 30;
    let after = agreed(&scenario, count).await;
    let log = scenario.log();
    // The log is in colour.
    let too_old = |line: &str| line.contains("watch interrupted") && line.contains("\"pods\"") && line.contains("Expired");
    assert!(log.lines().any(too_old), "the watch of pods went on where it stopped\n{log}");

    // Who was there has not moved; every pod that ever was on the virtual node was bound there once.
    let uids = |places: &Places| -> BTreeSet<String> {
        let bound = places.dedicated.iter().chain(&places.virtual_);
        bound.filter_map(|pod| pod.metadata.uid.clone()).collect()
    };
    let left: BTreeSet<_> = uids(&before).difference(&uids(&after)).cloned().collect();
    assert_eq!(left.len(), again.len() + gone.len(), "only those that were deleted are gone");
    let bound = audit.requests().iter().filter(|request| Request::has_bound(request)).count();
    assert_eq!(bound, before.virtual_.len() + again.len() + 30, "{}", scenario.log());
}

fn spec() -> Value {
    container("1", &json!({}))
}

/// Waits until all are placed and the budget's books agree with the decisions on the pods exactly.
async fn agreed(scenario: &Scenario, count: usize) -> Places {
    let agreed = wait_until("all are placed and paid for", PATIENCE, async || {
        let places = scenario.places("thumbs").await;
        ensure!(places.counts() == (ROOM, count - ROOM, 0), "{:?}", places.counts());
        let quotes: Money = places.virtual_.iter().map(|pod| record(pod).quote).sum();
        let status = scenario.budget_status("nightly").await;
        let money = |text: &Option<String>| -> anyhow::Result<Money> {
            text.as_deref().context("no amount")?.parse().map_err(|error| anyhow::anyhow!("{error}"))
        };
        let (spent, reserved) = (money(&status.spent)?, money(&status.reserved)?);
        ensure!(reserved == quotes, "{reserved} reserved, {quotes} decided");
        ensure!(money(&status.authorized)? == spent.saturating_add(reserved), "{status:?}");
        ensure!(money(&status.unaccounted)? == Money::ZERO, "{status:?}");
        // A few seconds each of those that were deleted, not the hour that they were quoted for.
        ensure!(spent <= "0.05".parse().expect("money"), "{status:?}");
        Ok(places)
    });
    agreed.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()))
}

/// Makes etcd forget every revision but the last.
async fn compact(scenario: &Scenario) -> anyhow::Result<String> {
    let etcd = scenario.plane.etcd_url();
    let ask = async |path: &str, body: Value| -> anyhow::Result<Value> {
        let answer = reqwest::Client::new().post(format!("{etcd}/v3/{path}")).json(&body).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    };
    // Any key; what matters is the header.
    let answer = ask("kv/range", json!({"key": "AA=="})).await?;
    let revision = answer["header"]["revision"].as_str().context("no revision")?.to_owned();
    ask("kv/compaction", json!({"revision": revision, "physical": true})).await?;
    Ok(revision)
}
