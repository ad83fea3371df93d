//! Pods that leave their virtual node before they are done: drained, or never started.

use super::*;

fn owned() -> Value {
    json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}])
}

fn on_virtual(binding: &Binding, owners: Value, status: Value) -> Value {
    json!({"metadata": {"annotations": {crate::record::ANNOTATION: binding.decision}, "ownerReferences": owners},
        "spec": {"nodeName": "virtual-0"}, "status": status})
}

/// Pods on the virtual node, bound one second after the other.
fn running(names: &[&str]) -> Cluster {
    let mut cluster = synced(0, dedicated_first());
    for name in names {
        cluster.pod(name, json!({"metadata": {"ownerReferences": owned()}}));
        cluster.wait(1);
    }
    for binding in cluster.bound.clone() {
        let state = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-09-21T00:00:00Z"}}});
        cluster.pod(&binding.pod.name, on_virtual(&binding, owned(), json!({"phase": "Running", "containerStatuses": [state]})));
    }
    cluster
}

fn drain(cluster: &mut Cluster) {
    let mut policy = dedicated_first();
    merge(&mut policy, json!({"metadata": {"generation": 2}, "spec": {"stopPolicy": "HoldAndDrain"}}));
    cluster.policy(policy);
}

#[test]
fn draining_evicts_the_youngest_first_a_few_at_a_time() {
    let mut cluster = running(&["a", "b", "c", "d", "e", "f", "g"]);
    cluster.pod("bare", json!({}));
    cluster.wait(1);
    drain(&mut cluster);
    cluster.wait(1);
    assert_eq!(cluster.evicted, ["g", "f", "e", "d", "c"], "five in a tick");
    cluster.wait(1);
    assert_eq!(cluster.evicted.len(), 7, "each once");
    assert!(cluster.notes.iter().any(|note| note.reason == "BurstReturned"));
    cluster.wait(10);
    assert_eq!(cluster.evicted.len(), 7);
    let stays = cluster.notes.iter().find(|note| note.reason == "NotReturned").expect("a note");
    assert_eq!(
        (&*stays.pod.name, &*stays.text),
        ("bare", "stays on its virtual node: it has no controller that would make it again")
    );
}

#[test]
fn a_disruption_budget_is_waited_for() {
    let mut cluster = running(&["a"]);
    cluster.eviction = EvictionAnswer::Blocked { retry_after: Some(Duration::from_secs(7)) };
    drain(&mut cluster);
    let mut tries = Vec::new();
    for second in 0..60 {
        cluster.wait(1);
        tries.resize(cluster.evicted.len(), second);
    }
    let pauses: Vec<i32> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [7, 7, 8, 8, 8, 8, 8], "as long as it is asked to, and longer by itself, to a limit");
    assert_eq!(cluster.notes.iter().filter(|note| note.reason == "EvictionBlocked").count(), 1);
    cluster.eviction = EvictionAnswer::Evicted;
    for _ in 0..60 {
        cluster.wait(1);
    }
    assert_eq!(cluster.evicted.len(), tries.len() + 1);
}

/// Two virtual nodes, `cloud` cheaper than `other`, and a pod that was sent to `cloud`.
fn sent() -> (Cluster, Binding) {
    let mut cluster =
        synced(0, policy(json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["cloud", "other"]}])));
    let node = json!({"metadata": {"name": "virtual-1", "labels": {"type": "virtual-kubelet", "other": "yes"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.tell(Event::Node(Box::new(from::<Node>(node))));
    let object = json!({"metadata": {"name": "other", "generation": 1},
        "spec": {"inMemory": {"region": "here"}, "adopt": {"nodeSelector": {"other": "yes"}},
            "pricing": {"currency": "USD", "vcpuHour": "2", "gbHour": "0"}}});
    cluster.tell(Event::VirtualNode(Box::new(from(object))));
    cluster.pod("a", json!({"metadata": {"ownerReferences": owned()}}));
    cluster.settle();
    let binding = cluster.bound[0].clone();
    assert_eq!(&*binding.node, "virtual-0");
    cluster.pod("a", on_virtual(&binding, owned(), json!({"phase": "Pending"})));
    (cluster, binding)
}

fn goes(cluster: &mut Cluster, name: &str) -> String {
    cluster.pod(name, json!({}));
    cluster.settle();
    let bound = cluster.bound.last().expect("a Binding");
    assert_eq!(&*bound.pod.name, name);
    bound.node.to_string()
}

#[test]
fn a_pod_that_does_not_start_is_failed_and_the_next_goes_elsewhere_for_a_while() {
    let (mut cluster, binding) = sent();
    cluster.wait(899);
    assert!(cluster.failed.is_empty());
    cluster.wait(2);
    assert_eq!(cluster.failed, ["a"]);
    let status = json!({"phase": "Failed", "reason": "BackendStartFailed",
        "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "BackendStartFailed"}]});
    cluster.pod("a", on_virtual(&binding, owned(), status));
    cluster.wait(1);
    assert_eq!(cluster.deleted, ["a"], "so that the backend lets go of it");
    assert_eq!(goes(&mut cluster, "b"), "virtual-1");
    let mut larger = cluster.pod_object("large", json!({}));
    larger["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
    cluster.tell(Event::Pod(Box::new(from(larger))));
    cluster.settle();
    assert_eq!(&*cluster.bound.last().expect("bound").node, "virtual-0", "pods of another size are none of this");
    cluster.wait(60);
    assert_eq!(goes(&mut cluster, "c"), "virtual-0", "tried again");
}

#[test]
fn a_backend_that_fails_again_is_left_alone_for_longer_and_a_success_forgives() {
    let (mut cluster, _) = sent();
    let fail = |cluster: &mut Cluster, phase: &str, running: bool| {
        let binding = cluster.bound.iter().rev().find(|binding| &*binding.node == "virtual-0").expect("a Binding").clone();
        let state = json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-09-21T00:00:00Z"}}}]);
        let statuses = if running { state } else { json!([]) };
        cluster.pod(&binding.pod.name, on_virtual(&binding, json!([]), json!({"phase": phase, "containerStatuses": statuses})));
    };
    fail(&mut cluster, "Failed", false);
    assert_eq!(goes(&mut cluster, "b"), "virtual-1");
    cluster.wait(61);
    assert_eq!(goes(&mut cluster, "c"), "virtual-0");
    fail(&mut cluster, "Failed", false);
    cluster.wait(61);
    assert_eq!(goes(&mut cluster, "d"), "virtual-1", "twice as long");
    cluster.wait(61);
    assert_eq!(goes(&mut cluster, "e"), "virtual-0");
    fail(&mut cluster, "Running", true);
    assert_eq!(goes(&mut cluster, "f"), "virtual-0");
    fail(&mut cluster, "Failed", false);
    cluster.wait(61);
    assert_eq!(goes(&mut cluster, "g"), "virtual-0", "a minute again");
    assert!(cluster.deleted.is_empty(), "who failed by himself is left to his owner");
}

#[test]
fn one_pod_finds_out_whether_a_backend_starts_such_pods_again() {
    let (mut cluster, _) = sent();
    let show = |cluster: &mut Cluster, name: &str, status: Value| {
        let binding = cluster.bound.iter().find(|binding| &*binding.pod.name == name).expect("a Binding").clone();
        cluster.pod(name, on_virtual(&binding, json!([]), status));
        cluster.settle();
    };
    let running = || {
        json!({"phase": "Running", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {"startedAt": "2026-09-21T00:00:00Z"}}}]})
    };
    show(&mut cluster, "a", json!({"phase": "Failed"}));
    cluster.wait(61);
    for name in ["b", "c", "d"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    let there = |cluster: &Cluster, node: &str| cluster.bound.iter().filter(|binding| &*binding.node == node).count();
    assert_eq!((there(&cluster, "virtual-0"), there(&cluster, "virtual-1")), (2, 2), "a, then one of three");
    let probe = cluster.bound.iter().rfind(|binding| &*binding.node == "virtual-0").expect("the probe").pod.name.clone();
    show(&mut cluster, &probe, json!({"phase": "Failed"}));
    cluster.wait(61);
    assert_eq!(goes(&mut cluster, "e"), "virtual-1", "left alone for longer");
    cluster.wait(61);
    assert_eq!(goes(&mut cluster, "f"), "virtual-0");
    assert_eq!(goes(&mut cluster, "g"), "virtual-1");
    show(&mut cluster, "f", running());
    assert_eq!(goes(&mut cluster, "h"), "virtual-0");
    assert_eq!(goes(&mut cluster, "i"), "virtual-0", "open for all");
}

#[test]
fn a_backend_that_says_that_it_fails_gets_the_usual_time_only() {
    let (mut cluster, _) = sent();
    let condition = json!({"type": "BackendHealthy", "status": "False", "reason": "Tested", "message": "",
        "lastTransitionTime": "2026-09-21T00:00:00Z"});
    cluster.virtual_node(json!({"conditions": [condition]}));
    cluster.wait(5);
    assert!(cluster.failed.is_empty());
    cluster.wait(6);
    assert_eq!(cluster.failed, ["a"]);
}
