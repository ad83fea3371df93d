#![expect(clippy::needless_pass_by_value, reason = "`json!` makes values, and each is used once")]

use super::*;
use crate::Ownership;

fn settings() -> Settings {
    let ownership = Ownership { cluster: "c".into(), virtual_node: "n".into() };
    Settings { datacenters: vec!["dc*".to_owned()], ..Settings::new(ownership, 2000) }
}

fn node(id: &str, changes: serde_json::Value) -> Node {
    let mut node = serde_json::json!({
        "ID": id, "Datacenter": "dc1", "NodePool": "default", "Status": "ready", "SchedulingEligibility": "eligible", "Drain": false,
        "Drivers": {"docker": {"Detected": true, "Healthy": true}},
        "NodeResources": {"Cpu": {"CpuShares": 8000}, "Memory": {"MemoryMB": 1024}},
        "ReservedResources": {"Cpu": {"CpuShares": 0}, "Memory": {"MemoryMB": 24}},
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        node[name] = value.clone();
    }
    serde_json::from_value(node).expect("a node")
}

fn allocation(node: &str, status: &str) -> Allocation {
    let task = |cpu: i64, memory: i64| serde_json::json!({"Cpu": {"CpuShares": cpu}, "Memory": {"MemoryMB": memory}});
    serde_json::from_value(serde_json::json!({
        "NodeID": node, "ClientStatus": status,
        "AllocatedResources": {
            "Tasks": {"main": task(1000, 100), "init": task(500, 300), "proxy": task(100, 10)},
            "TaskLifecycles": {"main": null, "init": {"Hook": "prestart", "Sidecar": false}, "proxy": {"Hook": "prestart", "Sidecar": true}},
        },
    }))
    .expect("an allocation")
}

#[test]
fn only_clients_that_take_pods_count() {
    let nodes = [
        node("a", serde_json::json!({})),
        node("b", serde_json::json!({"Drain": true})),
        node("c", serde_json::json!({"SchedulingEligibility": "ineligible"})),
        node("d", serde_json::json!({"Status": "down"})),
        node("e", serde_json::json!({"NodePool": "gpu"})),
        node("f", serde_json::json!({"Datacenter": "mars"})),
        node("g", serde_json::json!({"Drivers": {"raw_exec": {"Detected": true, "Healthy": true}}})),
        node("h", serde_json::json!({"Drivers": {"docker": {"Detected": true, "Healthy": false}}})),
    ];
    let found = capacity(&nodes, &[], &settings());
    assert_eq!(found.clients, 1);
    assert_eq!(found.quota, limits(4000, 1000 << 20));
    assert_eq!(found.largest_pod, found.quota);
}

#[test]
fn usage_is_what_runs_and_the_largest_slot_is_what_is_left_on_one_client() {
    let nodes = [node("a", serde_json::json!({})), node("b", serde_json::json!({}))];
    let allocations =
        [allocation("a", "running"), allocation("a", "complete"), allocation("b", "pending"), allocation("b", "unknown")];
    let found = capacity(&nodes, &allocations, &settings());
    // The init task has ended when the main one starts; the sidecar is always there.
    assert_eq!(found.usage, Usage { pods: 3, cpu_millis: 1650, memory_bytes: 930 << 20 });
    assert_eq!(found.largest_pod, limits(3450, 690 << 20));
}

#[test]
fn datacenters_may_be_patterns() {
    for (pattern, text, yes) in [
        ("*", "dc1", true),
        ("dc*", "dc1", true),
        ("dc1", "dc1", true),
        ("dc1", "dc10", false),
        ("*-east-*", "us-east-1", true),
        ("us-*", "eu-1", false),
    ] {
        assert_eq!(matches(pattern, text), yes, "{pattern} {text}");
    }
}

#[test]
fn the_scheduler_s_refusal_is_a_sentence() {
    let told = |json: serde_json::Value| refusal(&serde_json::from_value(json).expect("a failure"));
    assert_eq!(
        told(
            serde_json::json!({"NodesEvaluated": 1, "NodesInPool": 1, "NodesAvailable": {"dc1": 1}, "DimensionExhausted": {"cpu": 1}})
        ),
        (StartFailure::NoCapacity, "of 1 clients evaluated, exhausted: cpu on 1".to_owned())
    );
    assert_eq!(told(serde_json::json!({"QuotaExhausted": ["cpu"]})).0, StartFailure::QuotaExceeded);
    let arm = serde_json::json!({"NodesEvaluated": 2, "NodesAvailable": {"dc1": 2}, "NodesInPool": 2, "ConstraintFiltered": {"${attr.cpu.arch} = arm64": 2}});
    assert_eq!(told(arm).1, "of 2 clients evaluated, unsuitable: ${attr.cpu.arch} = arm64 on 2");
    assert_eq!(told(serde_json::json!({})).1, "no client is in the node pool and the datacenters");
}
