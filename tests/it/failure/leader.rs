//! Several replicas: who commits, who takes over, and what a replica that is cut off cannot do any more.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use policy::Money;
use serde_json::{Value, json};
use tokio::time::sleep;
use world::control_plane::{Component, ExtenderOptions, SchedulerOptions, wait_until};

use super::drill::{Random, seed};
use crate::audit::{Audit, Request};
use crate::relay::{Line, Relay};
use crate::scenario::replicas::{LEASE_DURATION, Launch, Replica, TAKEOVER};
use crate::scenario::{Extender, PATIENCE, Places, Scenario, dedicated_first, marked, record};

/// Pods of a fan-out.
const PODS: usize = 300;
/// Of which fit on dedicated nodes.
const ROOM: usize = 50;
/// What a pod is quoted.
const QUOTE: &str = "0.04";
/// What is asked of the API server before the leader's deadline may take so long there.
const MARGIN: Duration = Duration::from_secs(2);
/// The leader's deadline.
const RENEW_DEADLINE: Duration = Duration::from_secs(4);

/// A cluster whose API server writes down what Spillway asks for.
async fn stage(audit: &Audit, extender: Extender) -> Scenario {
    let scenario = Scenario::with(extender, SchedulerOptions::new(), |builder| audit.flags(builder)).await.expect("a cluster");
    scenario.dedicated(10, "5").await;
    scenario.virtual_node("virtual-0", QUOTE).await;
    scenario.virtual_node("virtual-1", QUOTE).await;
    scenario
}

/// A policy and a budget for the pods of one fan-out.
async fn terms(scenario: &Scenario, app: &str, limit: &str) {
    let budget = json!({
        "apiVersion": "spillway.dev/v1alpha1", "kind": "BurstBudget", "metadata": {"name": app},
        "spec": {"amount": limit, "currency": "USD", "period": "Month", "scope": {"policies": [app]}},
    });
    scenario.apply(budget).await.expect("a budget");
    scenario.policy(app, app, dedicated_first(&["virtual-0", "virtual-1"]), json!({})).await;
    scenario.object_condition("BurstBudget", app, "Ready", "True", "Accepted").await;
    scenario.object_condition("BurstPolicy", app, "Ready", "True", "Accepted").await;
}

/// What pods on virtual nodes were quoted, all of which must have a decision under this budget.
fn committed(places: &Places, budget: &str) -> Money {
    assert!(places.virtual_.iter().all(|pod| record(pod).budgets.iter().any(|name| **name == *budget)));
    places.virtual_.iter().map(|pod| record(pod).quote).sum()
}

fn money(text: &str) -> Money {
    text.parse().expect("money")
}

async fn some_have_burst(scenario: &Scenario, app: &str, count: usize) {
    wait_until("some have burst", PATIENCE, async || {
        let burst = scenario.places(app).await.virtual_.len();
        ensure!(burst >= count, "{burst}");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
}

#[tokio::test]
async fn a_standby_takes_over_within_ten_seconds_with_the_shipped_rights_alone() {
    let audit = Audit::new();
    let scenario = stage(&audit, Extender::Absent).await;
    let kubeconfig = scenario.service_account_kubeconfig("token", None).await;
    let start = async |name| {
        let launch = Launch { name, kubeconfig: kubeconfig.clone(), extender: None, flags: vec!["--shutdown-delay-duration=0s"] };
        scenario.launch(launch).await
    };
    let first = start("replica-a").await;
    scenario.led_by(&first, PATIENCE).await;
    let second = start("replica-b").await;
    let about = second.about_itself().await.expect("its page");
    let leader = first.about_itself().await.expect("its page")["identity"].clone();
    assert_eq!((&about["leads"], &about["leader"]), (&json!(false), &leader));

    terms(&scenario, "killed", "100").await;
    scenario.job("killed", u32::try_from(PODS).expect("small"), "1", json!({})).await;
    let mut random = Random(seed());
    println!("SPILLWAY_DRILL_SEED={}", random.0);
    some_have_burst(&scenario, "killed", usize::try_from(random.below(150)).expect("small")).await;
    first.kill();
    let took = scenario.led_by(&second, PATIENCE).await;
    println!("takeover after kill -9: {took:?}");
    assert!(took <= TAKEOVER, "{took:?}\n{}", scenario.log());
    let places = scenario.all_bound("killed", PODS).await;
    assert_eq!(places.counts(), (ROOM, PODS - ROOM, 0));
    assert!(committed(&places, "killed") <= money("100"));

    // Asked to stop, a leader gives the Lease back, and nothing that was authorized is lost.
    let third = start("replica-c").await;
    terms(&scenario, "stopped", "12").await;
    second.terminate().await;
    let took = scenario.led_by(&third, PATIENCE).await;
    println!("takeover after SIGTERM: {took:?}");
    assert!(took < LEASE_DURATION / 2, "{took:?}");
    scenario.job("stopped", 300, "1", json!({})).await;
    assert_eq!(scenario.all_bound("stopped", 300).await.counts(), (0, 300, 0), "{}", scenario.log());
    assert_eq!(committed(&scenario.places("stopped").await, "stopped"), money("12"));

    let refused: Vec<_> = audit.requests().into_iter().filter(|request| [401, 403].contains(&request.code())).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    // Those whose client was killed count as broken off, whatever came of them.
    let bound = audit.requests().iter().filter(|request| request.has_bound()).count();
    assert!((PODS..=PODS - ROOM + 300).contains(&bound), "{bound} Bindings in the audit log");
}

#[tokio::test]
async fn a_leader_that_is_cut_off_binds_nothing_after_its_deadline_also_when_the_line_is_healed_late() {
    let audit = Audit::new();
    let scenario = stage(&audit, Extender::Absent).await;
    let api_server: SocketAddr = scenario.plane.api_server_url().trim_start_matches("https://").parse().expect("an address");
    let relay = Relay::listen(None, &[api_server]).await;
    let kubeconfig = scenario.service_account_kubeconfig("relayed", Some(relay.address)).await;
    let mut random = Random(seed());
    println!("SPILLWAY_DRILL_SEED={}", random.0);

    for (round, line) in [("cut", Line::CUT), ("deaf", Line::DEAF)] {
        let launch = Launch { name: "replica-a", kubeconfig: kubeconfig.clone(), extender: None, flags: vec![] };
        let first = scenario.launch(launch).await;
        scenario.led_by(&first, PATIENCE).await;
        let identity = first.about_itself().await.expect("its page")["identity"].as_str().expect("a name").to_owned();
        let second = scenario.replica("replica-b").await;
        // Pays for half of the pods: a successor that forgot what its predecessor may still bind would overshoot.
        terms(&scenario, round, "5").await;

        scenario.job(round, u32::try_from(PODS).expect("small"), "1", json!({})).await;
        let burst = usize::try_from(random.below(80)).expect("small");
        some_have_burst(&scenario, round, burst).await;
        relay.set(line);
        let cut = jiff::Timestamp::now();
        let took = scenario.led_by(&second, PATIENCE).await;
        println!("{round} after {burst}: takeover {took:?}");
        assert!(took <= TAKEOVER + Duration::from_secs(1), "{took:?}\n{}", scenario.log());
        assert!(!first.leads().await.expect("its gauge"), "two say that they lead");

        // Late, when the second has done what it can: what was under way arrives now.
        rested(&scenario, round, "5").await;
        let before = virtual_pods(&scenario, round).await;
        relay.set(Line::HEALTHY);
        let known = wait_until("the first knows that the second leads", PATIENCE, async || {
            let about = first.about_itself().await?;
            ensure!(about["leads"] == false && about["leader"] == second.about_itself().await?["identity"], "{about}");
            Ok(())
        });
        known.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
        rested(&scenario, round, "5").await;
        assert_eq!(virtual_pods(&scenario, round).await, before, "bound by a leader of the past\n{}", scenario.log());

        let deadline = cut + RENEW_DEADLINE + MARGIN;
        let of_first: Vec<_> = audit.requests().into_iter().filter(|request| request.user_agent.contains(&identity)).collect();
        assert!(of_first.iter().any(Request::has_bound), "the first has never bound anything: {of_first:#?}");
        // What the line kept back arrives late, and must neither place a pod nor authorize money.
        let matters = |request: &Request| request.has_bound() || (request.has_written() && request.uri.contains("burstbudgets"));
        let late: Vec<_> = of_first.iter().filter(|request| matters(request) && request.ended > deadline).collect();
        assert!(late.is_empty(), "after {deadline}: {late:#?}");
        first.kill();
        second.kill();
        clean_up(&scenario, round).await;
    }
}

#[tokio::test]
async fn two_leaders_for_a_moment_do_not_overshoot_a_budget() {
    let audit = Audit::new();
    let scenario = stage(&audit, Extender::Absent).await;
    let (first, second) = scenario.pair().await;
    terms(&scenario, "tampered", "8").await;
    let mut random = Random(seed());
    println!("SPILLWAY_DRILL_SEED={}", random.0);
    scenario.job("tampered", u32::try_from(PODS).expect("small"), "1", json!({})).await;
    let mut changes = 0;
    for turn in 0..8 {
        sleep(Duration::from_millis(random.below(700))).await;
        tamper(&scenario, turn).await;
        let places = scenario.places("tampered").await;
        assert!(committed(&places, "tampered") <= money("8"), "{:?}", places.counts());
        changes += usize::from(first.leads().await.expect("a gauge") || second.leads().await.expect("a gauge"));
    }
    assert!(changes > 0, "nobody has led meanwhile");
    rested(&scenario, "tampered", "8").await;
    wait_until("one of them leads", PATIENCE, async || {
        let (one, other) = (first.leads().await?, second.leads().await?);
        ensure!(one != other, "{one} and {other}");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    let writers: BTreeSet<String> =
        audit.requests().iter().filter(|request| request.has_written()).map(|request| request.user_agent.clone()).collect();
    assert_eq!(writers.len(), 2, "the Lease has not changed hands: {writers:?}");
}

/// What clocks that jump, and people who help, do to a Lease.
async fn tamper(scenario: &Scenario, turn: u32) {
    let leases = scenario.leases();
    let patch = match turn % 4 {
        0 => json!({"spec": {"holderIdentity": null}}),
        1 => json!({"spec": {"renewTime": "2001-01-01T00:00:00.000000Z", "holderIdentity": null}}),
        2 => json!({"spec": {"renewTime": "2099-01-01T00:00:00.000000Z", "leaseDurationSeconds": 1}}),
        _ => {
            leases.delete("spillway", &DeleteParams::default()).await.expect("the Lease was there");
            return;
        }
    };
    let patched: Result<Lease, kube::Error> = leases.patch("spillway", &PatchParams::default(), &Patch::Merge(&patch)).await;
    match patched {
        Ok(_) => {}
        // Deleted the turn before.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => panic!("{error}"),
    }
}

/// Waits until dedicated nodes are full, the books agree with the pods, and whoever waits does so for want of money.
async fn rested(scenario: &Scenario, app: &str, limit: &str) {
    let rested = wait_until("everything that is paid for is placed", PATIENCE, async || {
        let places = scenario.places(app).await;
        let (dedicated, burst, pending) = places.counts();
        let committed = committed(&places, app);
        assert!(committed <= money(limit), "{committed} committed");
        ensure!(dedicated == ROOM && dedicated + burst + pending == PODS, "{:?}", places.counts());
        let status = scenario.budget_status(app).await;
        let amount = |text: &Option<String>| money(text.as_deref().unwrap_or("0"));
        // What nobody can account for is counted as spent, also if it turns out later that it was not: too much, never too little.
        let accounted = amount(&status.authorized).saturating_sub(amount(&status.unaccounted));
        assert!(accounted <= money(limit), "{status:?}");
        ensure!(amount(&status.reserved) == committed, "{committed} in pods: {status:?}");
        let left = money(limit).saturating_sub(amount(&status.spent)).saturating_sub(committed);
        ensure!(pending == 0 || left < money(QUOTE), "{pending} wait: {status:?}");
        Ok(())
    });
    rested.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
}

/// The UIDs of the pods on virtual nodes.
async fn virtual_pods(scenario: &Scenario, app: &str) -> BTreeSet<String> {
    scenario.places(app).await.virtual_.into_iter().filter_map(|pod| pod.metadata.uid).collect()
}

async fn clean_up(scenario: &Scenario, app: &str) {
    use k8s_openapi::api::batch::v1::Job;
    let jobs: kube::Api<Job> = kube::Api::namespaced(scenario.client.clone(), crate::scenario::NAMESPACE);
    jobs.delete(app, &DeleteParams::background()).await.expect("the Job");
    scenario.delete_all_pods().await.expect("no pods");
}

#[tokio::test]
async fn a_rolling_restart_loses_no_call_of_kube_scheduler() {
    let audit = Audit::new();
    let scenario = stage(&audit, Extender::Configured).await;
    // A call that fails, fails at once; one that is only slow, as on a busy machine, is none of them.
    let patient =
        ExtenderOptions { http_timeout: PATIENCE / 4, ..ExtenderOptions::new(format!("http://{}/v1", scenario.extender)) };
    scenario.plane.start_scheduler(SchedulerOptions::new().extender(patient)).await.expect("kube-scheduler");
    let first_serverless: Value =
        json!([{"name": "serverless", "virtualNodes": ["virtual-0", "virtual-1"]}, {"name": "dedicated"}]);
    scenario.policy("first", "first", first_serverless, json!({})).await;
    let start = async |name| {
        let kubeconfig = scenario.plane.kubeconfig_path(world::control_plane::User::Spillway);
        let launch = Launch { name, kubeconfig, extender: None, flags: vec!["--shutdown-delay-duration=1s"] };
        scenario.launch(launch).await
    };
    let (first, second) = (start("replica-a").await, start("replica-b").await);
    scenario.led_by(&first, PATIENCE).await;
    // What a Service does: new connections go to those that are ready, old ones stay where they are.
    let service = Relay::listen(Some(scenario.extender), &[second.extender, first.extender]).await;

    let more = async || {
        for batch in 0..30 {
            let pods: Vec<Value> = (0..10).map(|number| pod(&format!("first-{batch}-{number}"))).collect();
            scenario.create_pods(&pods).await.expect("pods");
            sleep(Duration::from_millis(150)).await;
        }
    };
    let restart = async || {
        let calls = answered(&second).await;
        sleep(Duration::from_millis(500)).await;
        assert!(answered(&second).await > calls, "kube-scheduler does not ask the standby");
        // The standby first, then the leader, each replaced before it goes.
        let third = start("replica-c").await;
        leave(&service, second, &[third.extender, first.extender]).await;
        leave(&service, first, &[third.extender]).await;
        scenario.led_by(&third, TAKEOVER).await;
        third
    };
    let ((), third) = tokio::join!(more(), restart());
    scenario.all_bound("first", PODS).await;
    // Those that came while nobody led went to dedicated nodes; from now on they burst again.
    for name in ["virtual-0", "virtual-1"] {
        scenario.virtual_node_ready(name).await;
    }
    let more: Vec<Value> = (0..20).map(|number| pod(&format!("first-after-{number}"))).collect();
    let burst = scenario.places("first").await.virtual_.len();
    assert!(burst > 50, "{burst} burst beside a standby that was asked\n{}", scenario.log());
    scenario.create_pods(&more).await.expect("pods");
    let places = scenario.all_bound("first", PODS + 20).await;
    assert!(places.virtual_.len() > burst + 10, "{:?} after {burst}\n{}", places.counts(), scenario.log());
    let log = scenario.plane.log(Component::Scheduler);
    let errors: Vec<&str> =
        log.lines().filter(|line| line.contains("extender") && (line.contains("error") || line.contains("gnor"))).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(answered(&third).await > 0.0);
}

fn pod(name: &str) -> Value {
    let mut spec = marked("100m");
    spec["restartPolicy"] = json!("Never");
    json!({"metadata": {"name": name, "labels": {"app": "first"}}, "spec": spec})
}

async fn answered(replica: &Replica) -> f64 {
    replica.metric(r#"spillway_extender_requests_total{mode="cache",outcome="answered""#).await
}

/// A replica is told to stop, and shortly afterwards new connections go elsewhere.
async fn leave(service: &Relay, replica: Replica, others: &[SocketAddr]) {
    tokio::join!(replica.terminate(), async {
        sleep(Duration::from_millis(300)).await;
        service.route(others);
    });
}
