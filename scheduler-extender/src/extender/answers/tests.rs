use serde_json::{Value, json};

use super::*;
use crate::committer::{Committer, Event, Settings};
use crate::extender::protocol::{Outcome as Answered, Verb, answer};
use crate::metrics::{Limits, Metrics};

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the test's own object")
}

/// Answers of a cluster with two dedicated nodes, `full` half used, and a virtual node, under a policy with these tiers.
fn answers(tiers: &Value) -> SnapshotAnswers {
    answers_with(tiers, None)
}

/// The same with a budget of which nothing is authorized yet.
fn answers_with(tiers: &Value, budget: Option<&str>) -> SnapshotAnswers {
    let mut committer = Committer::new(Settings::standard("USD"), Arc::new(Metrics::new("USD", Limits::STANDARD)));
    let mut tell = |event| committer.handle(event, now());
    tell(Event::Namespace(Box::new(from(json!({"metadata": {"name": "media"}})))));
    let status =
        json!({"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}});
    for name in ["empty", "full"] {
        tell(Event::Node(Box::new(from(json!({"metadata": {"name": name}, "status": status})))));
    }
    tell(Event::Node(Box::new(from(
        json!({"metadata": {"name": "virtual-0", "labels": {"type": "virtual-kubelet"}}, "status": status}),
    ))));
    tell(Event::VirtualNode(Box::new(from(json!({"metadata": {"name": "cloud", "generation": 1},
        "spec": {"inMemory": {"region": "here"}, "adopt": {"nodeSelector": {"type": "virtual-kubelet"}},
            "pricing": {"currency": "USD", "vcpuHour": "1", "gbHour": "0"}}})))));
    tell(Event::Policy(Box::new(from(
        json!({"metadata": {"name": "p", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"namespaceSelector": {}, "podSelector": {}, "tiers": tiers}}),
    ))));
    let mut busy = pod(json!({}));
    busy["metadata"] = json!({"name": "busy", "namespace": "media", "uid": "busy"});
    busy["spec"]["nodeName"] = json!("full");
    tell(Event::Pod(Box::new(from(busy))));
    if let Some(amount) = budget {
        tell(Event::Budget(Box::new(from(json!({"metadata": {"name": "cap", "generation": 1, "resourceVersion": "1"},
            "spec": {"amount": amount, "currency": "USD", "period": "Month"}})))));
    }
    tell(Event::Synced);
    let published = Arc::new(ArcSwap::from_pointee(committer.published()));
    SnapshotAnswers::new(published, now, Arc::default())
}

#[expect(clippy::needless_pass_by_value, reason = "a JSON literal reads better without a reference")]
fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "media", "uid": "u"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn filter(answers: &SnapshotAnswers, pod: &Value) -> Value {
    let body = json!({"Pod": pod, "Nodes": null, "NodeNames": ["empty", "full", "virtual-0"]}).to_string();
    let answered = answer(Verb::Filter, body.as_bytes(), answers);
    assert_eq!(answered.outcome, Answered::Answered);
    serde_json::from_slice(&answered.body).expect("JSON")
}

fn dedicated_first() -> Value {
    json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["cloud"]}])
}

#[test]
fn packs_onto_the_fullest_node() {
    let answer = filter(&answers(&dedicated_first()), &pod(json!({})));
    assert_eq!(answer["NodeNames"], json!(["full"]));
    assert_eq!(answer["FailedNodes"]["empty"], PACKED.as_str());
}

#[test]
fn leaves_the_choice_to_a_pod_with_preferences_of_its_own() {
    let spread = json!({"topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}]});
    let answer = filter(&answers(&dedicated_first()), &pod(spread));
    assert_eq!(answer["NodeNames"], json!(["empty", "full"]));
    assert_eq!(answer["FailedAndUnresolvableNodes"]["virtual-0"], VIRTUAL.as_str());
}

#[test]
fn spreads_where_the_policy_says_so() {
    let tiers = json!([{"name": "dedicated", "packing": "Spread"}, {"name": "serverless", "virtualNodes": ["cloud"]}]);
    assert_eq!(filter(&answers(&tiers), &pod(json!({})))["NodeNames"], json!(["empty", "full"]));
}

#[test]
fn refuses_all_nodes_when_serverless_comes_first_or_is_cheaper() {
    let dear = json!([{"name": "dedicated", "price": {"vcpuHour": "2", "gibHour": "0"}}, {"name": "serverless", "virtualNodes": ["cloud"]}]);
    let first = json!([{"name": "serverless", "virtualNodes": ["cloud"]}, {"name": "dedicated"}]);
    for tiers in [dear, first] {
        let answer = filter(&answers(&tiers), &pod(json!({})));
        assert_eq!(answer["NodeNames"], json!([]), "{tiers}");
        assert_eq!(
            answer["FailedAndUnresolvableNodes"].as_object().map(serde_json::Map::len),
            Some(3),
            "a reason for every node"
        );
        assert_eq!(answer["FailedNodes"], json!({}), "evicting somebody would not help");
    }
}

#[test]
fn refuses_while_the_money_is_being_authorized_and_not_when_it_is_spent() {
    let first = json!([{"name": "serverless", "virtualNodes": ["cloud"]}, {"name": "dedicated"}]);
    assert_eq!(filter(&answers_with(&first, Some("10")), &pod(json!({})))["NodeNames"], json!([]));
    assert_eq!(filter(&answers_with(&first, Some("1")), &pod(json!({})))["NodeNames"], json!(["full"]));
}

#[test]
fn refuses_a_pod_whose_own_reservation_spent_the_budget() {
    let first = json!([{"name": "serverless", "virtualNodes": ["cloud"]}, {"name": "dedicated"}]);
    let answers = answers_with(&first, Some("0"));
    assert_eq!(filter(&answers, &pod(json!({})))["NodeNames"], json!(["full"]));
    let mut published = Published::clone(&answers.published.load());
    published.promised = Arc::new(std::iter::once(Arc::from("u")).collect());
    answers.published.store(Arc::new(published));
    assert_eq!(filter(&answers, &pod(json!({})))["NodeNames"], json!([]));
}

#[test]
fn never_refuses_for_what_cannot_burst() {
    let first = json!([{"name": "serverless", "virtualNodes": ["cloud"]}]);
    let answer = filter(&answers(&first), &pod(json!({"hostNetwork": true})));
    assert_eq!(answer["NodeNames"], json!(["empty", "full"]));
}

#[test]
fn a_pod_that_cannot_be_read_passes_and_is_counted() {
    let body = json!({"Pod": {"metadata": {"name": "p"}, "spec": {"priority": "high"}}, "NodeNames": ["empty"]}).to_string();
    let answered = answer(Verb::Filter, body.as_bytes(), &answers(&dedicated_first()));
    assert_eq!(answered.outcome, Answered::FailedOpen);
    let answer: Value = serde_json::from_slice(&answered.body).expect("JSON");
    assert_eq!(answer["NodeNames"], json!(["empty"]));
}

#[test]
fn nobody_is_evicted_where_bursting_is_open_or_near() {
    let preempt = |tiers: &Value, spec: Value| {
        let victims = json!({"full": {"Pods": [{"UID": "busy"}], "NumPDBViolations": 0}, "virtual-0": {"Pods": [{"UID": "x"}], "NumPDBViolations": 0}});
        let body = json!({"Pod": pod(spec), "NodeNameToVictims": null, "NodeNameToMetaVictims": victims}).to_string();
        let answer = answer(Verb::Preempt, body.as_bytes(), &answers(tiers));
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        answer["NodeNameToMetaVictims"].as_object().expect("an object").keys().cloned().collect::<Vec<_>>()
    };
    let opens = |after: &str| json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["cloud"], "after": after}]);
    assert!(preempt(&opens("0s"), json!({})).is_empty(), "open");
    assert!(preempt(&opens("30s"), json!({})).is_empty(), "near");
    assert_eq!(preempt(&opens("10m"), json!({})), ["full"], "far away; pods on virtual nodes are no victims");
    assert_eq!(preempt(&opens("0s"), json!({"hostNetwork": true})), ["full"], "never");
    let victims =
        json!({"NodeNameToMetaVictims": {"full": {"Pods": [{"UID": "busy"}], "NumPDBViolations": 0}}, "Pod": pod(json!({}))});
    let answer = answer(Verb::Preempt, victims.to_string().as_bytes(), &answers_with(&opens("0s"), Some("10")));
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(answer["NodeNameToMetaVictims"], json!({}), "as soon as the money is authorized");
}
