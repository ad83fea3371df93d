//! Policies that prefer virtual nodes.

use super::*;

fn serverless_first() -> Value {
    policy(json!([{"name": "serverless", "virtualNodes": ["cloud"]}, {"name": "dedicated"}]))
}

#[test]
fn serverless_first_waits_for_the_schedulers_no() {
    let mut cluster = synced(10, serverless_first());
    cluster.pod("a", json!({}));
    cluster.settle();
    assert!(cluster.bound.is_empty(), "its scheduler might be binding it");
    cluster.pod("a", Cluster::unschedulable());
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"]);
}

#[test]
fn serverless_first_draws_on_its_budget_before_dedicated_nodes_are_thought_of() {
    let mut cluster = synced(10, serverless_first());
    cluster.budget("2");
    for name in ["a", "b", "c"] {
        cluster.pod(name, Cluster::unschedulable());
    }
    cluster.settle();
    let mut names = cluster.bound_names();
    names.sort_unstable();
    assert_eq!(names, ["a", "b"], "the third is left to the dedicated nodes");
}

#[test]
fn what_is_reserved_by_choice_is_not_reconsidered() {
    let mut cluster = synced(10, serverless_first());
    cluster.committer.settings.bindings_in_flight = 1;
    cluster.committer.wave = Wave::new(&cluster.committer.settings);
    cluster.answer = None;
    cluster.budget("5");
    for name in ["a", "b", "c", "d", "e", "f"] {
        cluster.pod(name, Cluster::unschedulable());
    }
    cluster.settle();
    // The budget is used up by these five; dedicated nodes have room, and the five still go.
    for _ in 0..5 {
        cluster.wait(1);
        assert_eq!((cluster.committer.wave.queued(), cluster.held.len()), (4, 1));
        let published = cluster.committer.published();
        let mut promised: Vec<&str> = published.promised.iter().map(|uid| &**uid).collect();
        promised.sort_unstable();
        assert_eq!(promised, ["uid-a", "uid-b", "uid-c", "uid-d", "uid-e"], "and kube-scheduler is kept off them");
    }
    cluster.answer = Some(BindingAnswer::Created);
    let binding = cluster.held.remove(0);
    cluster.tell(Event::BindingAnswered { uid: binding.pod.uid.clone(), answer: BindingAnswer::Created });
    cluster.show_bound(&binding);
    cluster.settle();
    assert_eq!(cluster.bound.len(), 4);
    assert!(cluster.committer.published().promised.is_empty());
}

#[test]
fn a_refused_binding_keeps_nobody_from_the_dedicated_nodes() {
    let mut cluster = synced(10, serverless_first());
    cluster.answer = Some(BindingAnswer::Refused);
    cluster.pod("a", Cluster::unschedulable());
    cluster.settle();
    assert!(cluster.committer.published().promised.is_empty());
}
