//! Guards that are late, lists and answers that are lost or late, and predecessors.

use super::*;

#[test]
fn a_virtual_node_takes_nothing_before_its_guard_is_in_force() {
    let mut cluster = Cluster::with(0, Settings { await_guards: true, ..Settings::standard("USD") });
    cluster.policy(dedicated_first());
    cluster.tell(Event::Synced);
    cluster.pod("a", json!({}));
    cluster.settle();
    assert!(cluster.bound.is_empty());
    let to_guard = cluster.committer.published().to_guard;
    assert_eq!(to_guard.bound.iter().map(|name| &**name).collect::<Vec<_>>(), ["virtual-0"]);
    cluster.tell(Event::Guarded(to_guard));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"]);
}

#[test]
fn what_is_guarded_stays_so_while_its_node_is_away() {
    let names =
        |cluster: &Cluster| cluster.committer.published().to_guard.bound.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut cluster = synced(0, dedicated_first());
    assert_eq!(names(&cluster), ["virtual-0"], "dedicated nodes are never guarded");
    cluster.tell(Event::NodeGone("virtual-0".to_owned()));
    assert_eq!(names(&cluster), ["virtual-0"], "a virtual kubelet may be making it anew");
    cluster.node("virtual-0", 4);
    assert!(names(&cluster).is_empty(), "a dedicated node now: its scheduler must be able to bind");
}

#[test]
fn a_list_older_than_the_watch_undoes_nothing() {
    let mut cluster = synced(1, dedicated_first());
    cluster.budget("10");
    for name in ["a", "b", "c"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    cluster.pod("a", json!({"spec": {"nodeName": "dedicated-0"}}));
    cluster.tell(Event::PodGone { uid: Arc::from("uid-c") });
    // A policy selects otherwise: what is pending is listed, and the list is slow.
    let mut changed = dedicated_first();
    merge(&mut changed, json!({"metadata": {"generation": 2}, "spec": {"weight": 1}}));
    cluster.policy(changed);
    assert!(cluster.committer.step(cluster.now).contains(&Intent::ListPending));
    let listed: Vec<Value> = ["a", "b", "d"].map(|name| cluster.pod_object(name, json!({}))).into();
    cluster.tell(Event::PodGone { uid: Arc::from("uid-d") });
    for pod in listed {
        cluster.tell(Event::Pod(Box::new(from(pod))));
    }
    cluster.tell(Event::PendingListed);
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["c", "b"], "nobody is bound again");
    assert_eq!(cluster.balance().committed, "1".parse().expect("b"));
    cluster.committer.ledger.check().expect("conserved");
    // Afterwards a list tells the truth again.
    cluster.pod("d", json!({}));
    cluster.settle();
    assert_eq!(cluster.bound_names().last(), Some(&"d"));
}

#[test]
fn a_pod_that_was_bound_and_is_gone_before_anybody_saw_it_has_cost_something() {
    for (answer, spent) in [
        (BindingAnswer::Created, "0.1"),
        (BindingAnswer::Unknown, "0.1"),
        (BindingAnswer::NotFound, "0"),
        (BindingAnswer::Conflict, "0"),
    ] {
        for gone_first in [true, false] {
            let mut cluster = synced(0, dedicated_first());
            cluster.budget("10");
            cluster.answer = None;
            cluster.pod("a", json!({}));
            cluster.settle();
            let uid = cluster.held[0].pod.uid.clone();
            cluster.now = cluster.now + Duration::from_secs(360);
            let mut events = vec![Event::BindingAnswered { uid: uid.clone(), answer }, Event::PodGone { uid }];
            if gone_first {
                events.reverse();
            }
            events.into_iter().for_each(|event| cluster.tell(event));
            cluster.settle();
            assert_eq!(cluster.balance().total(), spent.parse().expect("money"), "{answer:?}, gone first: {gone_first}");
            assert_eq!(cluster.balance().spent, cluster.balance().total());
            assert_eq!(cluster.committer.backends.usage("cloud").pods, 0);
            assert_eq!(cluster.committer.wave.in_flight(), 0);
        }
    }
}

#[test]
fn a_pod_that_is_gone_is_not_brought_back_by_a_late_reading() {
    let mut cluster = synced(1, dedicated_first());
    cluster.answer = None;
    cluster.pod("a", json!({}));
    cluster.pod("b", json!({}));
    cluster.settle();
    let uid = cluster.held[0].pod.uid.clone();
    cluster.tell(Event::BindingAnswered { uid: uid.clone(), answer: BindingAnswer::Conflict });
    assert!(cluster.committer.step(cluster.now).iter().any(|intent| matches!(intent, Intent::Read { .. })));
    // It had found the place on the dedicated node; it was seen there, and went.
    let on_dedicated = json!({"spec": {"nodeName": "dedicated-0"}});
    cluster.pod("b", on_dedicated.clone());
    cluster.tell(Event::PodGone { uid });
    let late = cluster.pod_object("b", on_dedicated);
    cluster.tell(Event::PodRead(Box::new(from(late))));
    cluster.settle();
    assert_eq!(cluster.committer.lines.waiting_with_room(), 1, "the place is free for the other one");
}

#[test]
fn the_place_of_a_pod_that_is_removed_at_once_is_free_for_the_next() {
    let on_dedicated = |deletion: Value| json!({"metadata": deletion, "spec": {"nodeName": "dedicated-0"}});
    for (grace, bursts) in [(0, false), (30, true)] {
        let mut cluster = synced(1, dedicated_first());
        cluster.pod("a", on_dedicated(json!({})));
        cluster.settle();
        // Its owner makes the next one before it is really gone.
        let deletion = json!({"deletionTimestamp": "2026-09-21T12:00:00Z", "deletionGracePeriodSeconds": grace});
        cluster.pod("a", on_dedicated(deletion));
        cluster.pod("b", json!({}));
        cluster.settle();
        assert_eq!(!cluster.bound.is_empty(), bursts, "grace {grace}");
    }
}

#[test]
fn a_patch_that_fails_is_tried_again() {
    let mut cluster = synced(0, dedicated_first());
    cluster.pod("a", json!({}));
    cluster.settle();
    let binding = cluster.bound[0].clone();
    cluster.now = cluster.now + Duration::from_secs(1);
    let fits = |intents: &[Intent]| intents.iter().any(|intent| matches!(intent, Intent::FitTolerations { .. }));
    let reads = |intents: &[Intent]| intents.iter().any(|intent| matches!(intent, Intent::Read { .. }));
    // An event like the pod's own, so that there is something to fit: `settle` answered the first patch with success.
    cluster.show_bound(&binding);
    assert!(fits(&cluster.committer.step(cluster.now)));
    cluster.tell(Event::Patched { uid: binding.pod.uid.clone(), done: false });
    // Nobody tells anything: the pod is read, and read again should the answer be lost.
    for _ in 0..2 {
        let read = (0..5).any(|_| {
            cluster.now = cluster.now + Duration::from_secs(1);
            reads(&cluster.committer.step(cluster.now))
        });
        assert!(read);
    }
    let more =
        json!({"metadata": {"annotations": {crate::record::ANNOTATION: binding.decision}}, "spec": {"nodeName": "virtual-0"}});
    let pod = cluster.pod_object("a", more);
    cluster.tell(Event::PodRead(Box::new(from(pod))));
    assert!(fits(&cluster.committer.step(cluster.now)));
}

#[test]
fn a_condition_that_turns_false_while_a_patch_is_under_way_is_repaired() {
    let mut cluster = synced(0, dedicated_first());
    cluster.pod("a", json!({}));
    cluster.settle();
    let binding = cluster.bound[0].clone();
    cluster.now = cluster.now + Duration::from_secs(1);
    cluster.show_bound(&binding);
    assert!(cluster.committer.step(cluster.now).iter().any(|intent| matches!(intent, Intent::FitTolerations { .. })));
    let mut more = Cluster::unschedulable();
    merge(
        &mut more,
        json!({"metadata": {"annotations": {crate::record::ANNOTATION: binding.decision}}, "spec": {"nodeName": "virtual-0"}}),
    );
    cluster.pod("a", more);
    cluster.tell(Event::Patched { uid: binding.pod.uid.clone(), done: true });
    assert!(cluster.committer.step(cluster.now).iter().any(|intent| matches!(intent, Intent::RepairCondition { .. })));
}

#[test]
fn a_predecessors_binding_that_comes_late_is_what_was_missing() {
    let mut first = synced(0, dedicated_first());
    first.budget("1");
    first.pod("a", json!({}));
    first.settle();
    let binding = first.bound[0].clone();

    let mut cluster = Cluster::new(0);
    cluster.budgets = first.budgets;
    cluster.version = 1000;
    cluster.policy(dedicated_first());
    cluster.budget("1");
    cluster.tell(Event::Synced);
    assert_eq!(cluster.balance().unaccounted, "1".parse().expect("one"));
    cluster.show_bound(&binding);
    let balance = cluster.balance();
    assert_eq!((balance.unaccounted, balance.spent, balance.committed), (Money::ZERO, Money::ZERO, "1".parse().expect("one")));
    assert_eq!(balance.authorized, "1".parse().expect("one"), "never above the limit");
}

#[test]
fn a_budget_that_cannot_be_written_is_not_written_in_a_hot_loop() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("10");
    cluster.pod("a", json!({}));
    let mut writes = 0;
    for _ in 0..100 {
        for intent in cluster.committer.step(cluster.now) {
            if let Intent::WriteBudget { name, .. } = intent {
                writes += 1;
                cluster.tell(Event::BudgetWritten { name, resource_version: None });
            }
        }
        cluster.now = cluster.now + Duration::from_millis(10);
    }
    assert!((3..=5).contains(&writes), "{writes} in a second");
    cluster.settle();
    cluster.wait(1);
    assert_eq!(cluster.bound_names(), ["a"]);
}

#[test]
fn the_last_word_of_a_pods_status_is_what_it_is_billed_by() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("10");
    cluster.pod("a", json!({}));
    cluster.settle();
    let binding = cluster.bound[0].clone();
    let start = jiff::Timestamp::from_millisecond(cluster.now.millis()).expect("a time");
    let at = |minutes: i64| start + jiff::SignedDuration::from_mins(minutes);
    cluster.now = cluster.now + Duration::from_secs(3600);
    let mut ended = |started: i64, finished: i64, restarts: u32| {
        let status = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": restarts,
            "state": {"terminated": {"exitCode": 0, "startedAt": at(started), "finishedAt": at(finished)}}});
        let more = json!({
            "metadata": {"annotations": {crate::record::ANNOTATION: binding.decision}}, "spec": {"nodeName": "virtual-0"},
            "status": {"phase": "Succeeded", "startTime": at(0), "containerStatuses": [status]},
        });
        cluster.pod("a", more);
        cluster.balance().committed
    };
    assert_eq!(ended(6, 12, 0), "0.1".parse().expect("six minutes"));
    assert_eq!(ended(6, 18, 0), "0.2".parse().expect("a correction, as a successor would read it"));
    assert_eq!(ended(12, 18, 1), "0.3".parse().expect("restarted: the first run is not in the status any more"));
}
