//! Virtual nodes are nobody's failure domain: spread and anti-affinity are exact among dedicated nodes, any number of replicas
//! goes to a virtual node, and workloads that know nothing of Spillway are placed as if there were none.
//!
//! Every row of the table is a small cluster of its own, three machines in three zones and a virtual node, told apart by the
//! label `row`; all rows play at the same time. The objects are stock: nobody rewrites them.

mod row;

use futures::StreamExt;
use serde_json::{Value, json};
use world::control_plane::{DedicatedNodes, VirtualNodeObject};

use crate::scenario::{Extender, Scenario};
use row::{Owner, Row};

/// Rows that play at the same time: the slow ones mostly wait, and two cores carry no more.
const AT_ONCE: usize = 6;
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// No node has more of the pods than another by more than one; of a rolling update only the new pods count.
fn hard(key: &str) -> Value {
    json!([{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "burst"}}, "matchLabelKeys": ["pod-template-hash"]}])
}

fn soft(key: &str) -> Value {
    json!([{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "burst"}}}])
}

fn both(one: &Value, other: &Value) -> Value {
    let lists = [one, other].into_iter().filter_map(Value::as_array);
    json!(lists.flatten().collect::<Vec<_>>())
}

/// No two of the pods on one node, or in one zone.
fn apart(key: &str) -> Value {
    let term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "burst"}}});
    json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
}

fn rather_apart(key: &str) -> Value {
    let term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "burst"}}});
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}})
}

/// Eight replicas, room for two on each machine. The last number: how many of them a machine gets.
fn table() -> Vec<Row> {
    let spread = |constraints: Value| json!({"topologySpreadConstraints": constraints});
    let away = |affinity: Value| json!({"affinity": affinity});
    let spread_apart = json!({"topologySpreadConstraints": hard(HOST), "affinity": apart(HOST)});
    // The slow ones first: where a constraint keeps pods from free CPU, the verdict of their scheduler is believed late.
    vec![
        Row::new("apart-host", Owner::Deployment, away(apart(HOST)), 1),
        Row::new("apart-zone", Owner::Deployment, away(apart(ZONE)), 1),
        Row::new("spread-and-apart", Owner::Deployment, spread_apart, 1),
        Row::new("job-apart-zone", Owner::Job, away(apart(ZONE)), 1),
        Row::new("none", Owner::Deployment, json!({}), 2),
        Row::new("hard-host", Owner::Deployment, spread(hard(HOST)), 2),
        Row::new("hard-zone", Owner::Deployment, spread(hard(ZONE)), 2),
        Row::new("hard-both", Owner::Deployment, spread(both(&hard(HOST), &hard(ZONE))), 2),
        Row::new("soft-host", Owner::Deployment, spread(soft(HOST)), 2),
        Row::new("soft-zone", Owner::Deployment, spread(soft(ZONE)), 2),
        Row::new("hard-host-soft-zone", Owner::Deployment, spread(both(&hard(HOST), &soft(ZONE))), 2),
        Row::new("rather-apart-host", Owner::Deployment, away(rather_apart(HOST)), 2),
        Row::new("rather-apart-zone", Owner::Deployment, away(rather_apart(ZONE)), 2),
        Row::new("job-hard-host", Owner::Job, spread(hard(HOST)), 2),
    ]
}

#[tokio::test]
async fn spread_and_anti_affinity_are_exact_among_dedicated_nodes_and_unbounded_on_virtual_ones() {
    let scenario = Scenario::new(Extender::Absent).await;
    let rows = table();
    for row in &rows {
        row.install(&scenario).await;
    }
    scenario.start().await;
    futures::stream::iter(&rows).for_each_concurrent(AT_ONCE, |row| row.play(&scenario)).await;
}

/// What a Node that no guard sees does to workloads that have nothing to do with it, and that one which is guarded does not.
#[tokio::test]
async fn a_virtual_node_poisons_nobodys_spread() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.start().await;
    for (name, key) in [("legacy-host", HOST), ("legacy-zone", ZONE)] {
        let row = Row::new(name, Owner::Deployment, json!({"topologySpreadConstraints": hard(key)}), 3);
        row.machines(&scenario, "4").await;
        // As a virtual kubelet registers it: a host and a zone of its own.
        let stock = VirtualNodeObject::new(&format!("guarded-{name}")).label("row", name).label(HOST, name).label(ZONE, name);
        scenario.plane.create_virtual_node(&stock).await.expect("a virtual node");
        row.create(&scenario).await;
        row.spread(&scenario, &[2, 3, 3], 0).await;
        row.delete(&scenario).await;

        let seen = DedicatedNodes::new(&format!("seen-{name}"), 1).zones([name]).label("row", name);
        let seen = seen.pods(0).taint("virtual-kubelet.io/provider", "any", "NoSchedule");
        scenario.plane.create_dedicated_nodes(&seen).await.expect("a node");
        row.create(&scenario).await;
        row.spread(&scenario, &[1, 1, 1], 5).await;
        scenario.plane.delete_node(&format!("seen-{name}-0")).await.expect("it was there");
        row.spread(&scenario, &[2, 3, 3], 0).await;
    }
}
