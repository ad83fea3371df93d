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

fn marked() -> Value {
    let container = json!({"name": "c", "image": "i", "resources":
        {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"spillway.dev/burst": "0"}}});
    let mut pod = Cluster::unschedulable();
    merge(&mut pod, json!({"spec": {"containers": [container]}}));
    pod
}

#[test]
fn a_pod_that_may_not_be_bound_is_published_and_its_scheduler_woken_ever_more_rarely() {
    let mut cluster = synced(10, serverless_first());
    cluster.answer = Some(BindingAnswer::Refused);
    cluster.pod("a", marked());
    cluster.settle();
    let published = cluster.committer.published();
    assert!(published.unbindable.contains("uid-a") && published.promised.is_empty());
    for _ in 0..60 {
        cluster.wait(1);
    }
    assert!((4..=6).contains(&cluster.woken), "{} times in a minute", cluster.woken);
    cluster.pod("a", json!({"spec": {"nodeName": "dedicated-0"}}));
    assert!(cluster.committer.published().unbindable.is_empty());
    let woken = cluster.woken;
    for _ in 0..600 {
        cluster.wait(1);
    }
    assert_eq!(cluster.woken, woken);
}

#[test]
fn a_pod_that_was_refused_for_money_that_is_gone_does_not_wait_beside_a_free_node() {
    let mut cluster = synced(10, serverless_first());
    cluster.budget("0.5");
    cluster.pod("a", marked());
    for _ in 0..4 {
        cluster.wait(1);
    }
    assert!(cluster.bound.is_empty());
    assert!(cluster.woken > 0, "the extender would not refuse it again");
}
