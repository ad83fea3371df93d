//! What the counters and gauges say about money, against what is owed.

use super::*;

/// The value of the one series with this name.
fn metric(cluster: &Cluster, name: &str) -> f64 {
    let text = cluster.committer.metrics.render();
    let mut lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let line = lines.next().unwrap_or_else(|| panic!("no series {name} in\n{text}"));
    assert!(lines.next().is_none(), "more than one series {name}");
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).expect("a value")
}

fn money(cluster: &Cluster, name: &str) -> Money {
    metric(cluster, name).to_string().parse().expect("money")
}

/// A pod that costs 1 per hour, bound and running since now.
fn running() -> (Cluster, Binding, jiff::Timestamp) {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("10");
    cluster.pod("a", json!({}));
    cluster.settle();
    let binding = cluster.bound[0].clone();
    let started = jiff::Timestamp::from_millisecond(cluster.now.millis()).expect("a time");
    cluster.pod("a", on_cloud(&binding, &json!({"running": {"startedAt": started}})));
    (cluster, binding, started)
}

fn on_cloud(binding: &Binding, state: &Value) -> Value {
    let phase = if state.get("running").is_some() { "Running" } else { "Succeeded" };
    json!({
        "metadata": {"annotations": {crate::record::ANNOTATION: binding.decision}}, "spec": {"nodeName": "virtual-0"},
        "status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state}]},
    })
}

#[test]
fn a_counter_never_says_more_than_the_bill() {
    let (mut cluster, binding, started) = running();
    assert_eq!(money(&cluster, "spillway_cost_total"), Money::ZERO);
    for _ in 0..365 {
        cluster.wait(1);
    }
    let so_far = money(&cluster, "spillway_cost_total");
    assert!(so_far > "0.09".parse().expect("money") && so_far <= "0.1".parse().expect("money"), "{so_far}");
    // It ended five seconds ago, and only now somebody says so.
    let finished = started + jiff::SignedDuration::from_mins(6);
    cluster.pod("a", on_cloud(&binding, &json!({"terminated": {"exitCode": 0, "startedAt": started, "finishedAt": finished}})));
    assert_eq!(money(&cluster, "spillway_cost_total"), "0.1".parse().expect("a tenth of an hour"));
}

#[test]
fn what_was_spent_before_a_restart_is_not_counted_again() {
    let (cluster, binding, started) = running();
    let mut again = Cluster::new(0);
    again.now = cluster.now + Duration::from_secs(1800);
    again.version = 1000;
    again.policy(dedicated_first());
    again.pod("a", on_cloud(&binding, &json!({"running": {"startedAt": started}})));
    again.tell(Event::Synced);
    again.settle();
    assert_eq!(money(&again, "spillway_cost_total"), Money::ZERO);
    again.wait(370);
    assert_eq!(money(&again, "spillway_cost_total"), "0.1".parse().expect("what six minutes cost since then"));
}

#[test]
fn a_budget_shows_what_runs_as_spent() {
    let (mut cluster, ..) = running();
    cluster.wait(1);
    let total = |cluster: &Cluster| metric(cluster, "spillway_budget_spent") + metric(cluster, "spillway_budget_reserved");
    let (spent, committed) = (metric(&cluster, "spillway_budget_spent"), total(&cluster));
    cluster.wait(1800);
    assert!(metric(&cluster, "spillway_budget_spent") > spent + 0.4, "half an hour later");
    assert!((total(&cluster) - committed).abs() < 1e-9, "it only moves from reserved to spent");
    assert_eq!(cluster.balance().spent, Money::ZERO, "the ledger waits for the final bill");
}

#[test]
fn what_the_next_best_offer_would_have_cost_more_is_avoided() {
    let mut cluster = Cluster::new(0);
    cluster.policy(policy(json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["dear", "cloud"]}])));
    let node = json!({"metadata": {"name": "virtual-1", "labels": {"type": "virtual-kubelet", "dear": "yes"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "0", "cpu": "1"}}});
    cluster.tell(Event::Node(Box::new(from::<Node>(node))));
    let object = json!({"metadata": {"name": "dear", "generation": 1}, "status": {},
        "spec": {"inMemory": {"region": "there"}, "adopt": {"nodeSelector": {"dear": "yes"}},
            "pricing": {"currency": "USD", "vcpuHour": "1.25", "gbHour": "0"}}});
    cluster.tell(Event::VirtualNode(Box::new(from(object))));
    cluster.tell(Event::Synced);
    cluster.pod("a", json!({}));
    cluster.settle();
    assert_eq!(&*cluster.bound[0].node, "virtual-0");
    assert_eq!(money(&cluster, "spillway_cost_avoided_total"), "0.25".parse().expect("a quarter"));
}

#[test]
fn every_pod_that_a_budget_holds_is_counted_once() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("2");
    for name in ["a", "b", "c", "d", "e"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    let held = |cluster: &Cluster| {
        let text = cluster.committer.metrics.render();
        let line = text
            .lines()
            .find(|line| line.starts_with("spillway_budget_blocked_pods_total{action=\"dedicated_only\""))
            .map(str::to_owned);
        line.expect("a line").rsplit_once(' ').map(|(_, value)| value.to_owned()).expect("a value")
    };
    assert_eq!((cluster.bound.len(), held(&cluster).as_str()), (2, "3"));
    cluster.wait(30);
    assert_eq!(held(&cluster), "3", "looking again is no other pod");
    cluster.pod("f", json!({}));
    // The line is looked at again when something changes, and there is still not enough.
    cluster.budget("2.5");
    cluster.wait(1);
    assert_eq!(held(&cluster), "4");
}

#[test]
fn statuses_say_what_pods_have_cost_over_a_restart_too() {
    let (mut cluster, binding, started) = running();
    let said = |cluster: &Cluster| {
        let of = |kind, name: &str| cluster.statuses[&(kind, Arc::<str>::from(name))].clone();
        let (policy, node) = (of(StatusKind::Policy, "p"), of(StatusKind::VirtualNode, "cloud"));
        assert_eq!((&policy["spend"], &policy["settled"]), (&node["spend"], &node["settled"]));
        (policy["spend"].as_str().expect("money").to_owned(), policy["settled"].as_str().expect("money").to_owned())
    };
    cluster.wait(1800);
    let (running, settled) = said(&cluster);
    assert!(running.starts_with("0.49"), "{running}");
    assert_eq!(settled.parse(), Ok(Money::ZERO));
    let finished = started + jiff::SignedDuration::from_mins(36);
    cluster.wait(360);
    cluster.pod("a", on_cloud(&binding, &json!({"terminated": {"exitCode": 0, "startedAt": started, "finishedAt": finished}})));
    cluster.wait(10);
    assert_eq!(said(&cluster).0.parse::<Money>(), "0.6".parse());
    cluster.tell(Event::PodGone { uid: binding.pod.uid.clone() });
    cluster.wait(10);
    let last = said(&cluster);
    assert_eq!((last.0.parse::<Money>(), last.1.parse::<Money>()), ("0.6".parse(), "0.6".parse()));

    // The next process knows it from the status alone.
    let mut again = Cluster::new(0);
    again.now = cluster.now + Duration::from_secs(60);
    let mut policy = dedicated_first();
    policy["status"] = cluster.statuses[&(StatusKind::Policy, Arc::from("p"))].clone();
    again.policy(policy);
    again.tell(Event::Synced);
    again.wait(1);
    again.wait(1);
    let status = &again.statuses[&(StatusKind::Policy, Arc::from("p"))];
    assert_eq!((status["spend"].as_str(), status["settled"].as_str()), (Some(&*last.0), Some(&*last.1)));
}
