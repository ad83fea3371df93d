//! Pods under Spillway's own scheduling gate.

use super::*;

fn gating(mut more: Value) -> Value {
    let mut policy = policy(json!([{"name": "serverless", "virtualNodes": ["cloud"]}, {"name": "dedicated"}]));
    policy["spec"]["gate"] = json!("Use");
    merge(&mut policy, more.take());
    policy
}

fn gated() -> Value {
    json!({"spec": {"schedulingGates": [{"name": "spillway.dev/decide"}]},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}})
}

/// What became of a gated pod whose Binding failed after its gate was lifted.
fn decided(owner: bool) -> Value {
    let owners = if owner {
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true}])
    } else {
        json!([])
    };
    json!({"metadata": {"ownerReferences": owners}, "spec": {"nodeSelector": {"spillway.dev/decided": "burst"}}})
}

#[test]
fn a_gated_pod_is_reserved_for_then_lifted_and_bound_at_once() {
    let mut cluster = synced(10, gating(json!({})));
    cluster.budget("2");
    for name in ["a", "b", "c"] {
        cluster.pod(name, gated());
    }
    cluster.settle();
    let mut names = cluster.bound_names();
    names.sort_unstable();
    assert_eq!(names, ["a", "b"], "as far as the budget goes, and nobody waits for a scheduler's verdict");
    assert!(cluster.bound.iter().all(|binding| binding.lift_gate));
    let lifted: Vec<_> = cluster.lifted.iter().map(|pod| &*pod.name).collect();
    assert_eq!(lifted, ["c"], "left to its scheduler");
}

#[test]
fn gates_are_lifted_where_nothing_is_decided_any_more() {
    for change in [
        json!({"spec": {"stopPolicy": "Hold"}}),
        json!({"spec": {"mode": "Audit"}}),
        json!({"spec": {"podSelector": {"matchLabels": {"burst": "other"}}}}),
        json!({"spec": {"tiers": [{"name": "serverless", "virtualNodes": ["nowhere"]}, {"name": "dedicated"}]}}),
    ] {
        let mut cluster = synced(10, gating(change.clone()));
        cluster.pod("a", gated());
        cluster.wait(1);
        assert_eq!(cluster.lifted.first().map(|pod| &*pod.uid), Some("uid-a"), "{change}");
        assert!(cluster.bound.is_empty(), "{change}");
    }
    // Whoever else holds it goes first; and a pod that no backend runs is none of ours.
    let mut cluster = synced(10, gating(json!({})));
    let mut twice = gated();
    merge(
        &mut twice,
        json!({"spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}, {"name": "spillway.dev/decide"}]}}),
    );
    cluster.pod("kueue", twice);
    let mut rooted = gated();
    merge(&mut rooted, json!({"spec": {"hostNetwork": true}}));
    cluster.pod("rooted", rooted);
    cluster.wait(1);
    let lifted: Vec<_> = cluster.lifted.iter().map(|pod| &*pod.name).collect();
    assert_eq!((lifted, cluster.bound.len()), (vec!["rooted"], 0));
    cluster.pod("kueue", gated());
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["kueue"]);
}

#[test]
fn a_lifted_pod_whose_binding_failed_goes_to_any_virtual_node() {
    let mut cluster = synced(10, gating(json!({})));
    cluster.answer = Some(BindingAnswer::Conflict);
    cluster.pod("a", gated());
    cluster.settle();
    // The gate is gone and the selector there; the Binding was not made.
    cluster.answer = Some(BindingAnswer::Created);
    let pod = cluster.pod_object("a", decided(true));
    cluster.tell(Event::PodRead(Box::new(from::<Pod>(pod))));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"]);
    assert!(!cluster.bound[0].lift_gate);
}

#[test]
fn a_lifted_pod_that_no_virtual_node_takes_is_deleted_for_its_owner() {
    for owner in [true, false] {
        let mut cluster = synced(10, gating(json!({"spec": {"stopPolicy": "Hold"}})));
        cluster.pod("a", decided(owner));
        cluster.settle();
        cluster.wait(59);
        assert!(cluster.deleted.is_empty(), "not at once");
        cluster.wait(1);
        assert_eq!(cluster.deleted, vec!["a"; usize::from(owner)]);
        assert!(cluster.notes.iter().any(|note| note.reason == "BurstImpossible"));
        assert!(cluster.bound.is_empty());
    }
    // No policy selects it any more: nothing would ever come.
    let mut cluster = Cluster::new(10);
    cluster.tell(Event::Synced);
    cluster.pod("a", decided(true));
    cluster.wait(1);
    assert_eq!(cluster.deleted, ["a"]);
}

#[test]
fn a_gated_pod_waits_for_the_guards_after_a_start_and_not_for_ever() {
    let mut cluster = Cluster::with(10, Settings { await_guards: true, ..Settings::standard("USD") });
    cluster.policy(gating(json!({})));
    cluster.tell(Event::Synced);
    cluster.pod("a", gated());
    cluster.settle();
    cluster.wait(2);
    assert!(cluster.lifted.is_empty());
    let guarded = cluster.committer.published().to_guard;
    cluster.tell(Event::Guarded(guarded));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"]);

    let mut cluster = Cluster::with(10, Settings { await_guards: true, ..Settings::standard("USD") });
    cluster.policy(gating(json!({})));
    cluster.tell(Event::Synced);
    cluster.pod("a", gated());
    cluster.settle();
    cluster.wait(31);
    assert_eq!(cluster.lifted.len(), 1, "nobody can apply them");
}
