//! Objects that change, make no sense, or are made again.

use super::*;

#[test]
fn a_policy_that_is_made_again_under_its_name_is_another_policy() {
    let mut cluster =
        synced(0, policy(json!([{"name": "dedicated"}, {"name": "later", "after": "1h", "virtualNodes": ["cloud"]}])));
    cluster.pod("a", Cluster::unschedulable());
    cluster.settle();
    assert!(cluster.bound.is_empty());
    cluster.tell(Event::PolicyGone("p".to_owned()));
    cluster.policy(dedicated_first());
    cluster.pod("a", Cluster::unschedulable());
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"], "same name, same generation, other tiers");
}

#[test]
fn a_quota_that_is_withdrawn_bounds_nothing_and_one_that_cannot_be_read_changes_nothing() {
    let mut cluster = synced(0, dedicated_first());
    cluster.virtual_node(json!({"quota": {"pods": 1}}));
    for name in ["a", "b", "c"] {
        cluster.pod(name, Cluster::unschedulable());
    }
    cluster.settle();
    cluster.virtual_node(json!({"quota": {"pods": -1}}));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"]);
    cluster.virtual_node(json!({}));
    cluster.settle();
    assert_eq!(cluster.bound.len(), 3);
}

/// A status as the leader writes it: what the cloud allows, what it says is in use, and when it said so.
fn observed(cluster: &Cluster, quota: i64, in_use: i64) -> Value {
    let at = jiff::Timestamp::from_millisecond(cluster.now.millis()).expect("a time");
    json!({"quota": {"pods": quota}, "usage": {"pods": in_use, "cpu": "0m", "memory": "0"}, "observedAt": at.to_string()})
}

#[test]
fn what_others_use_of_a_quota_is_left_to_them_and_our_own_pods_count_once() {
    let mut cluster = synced(0, dedicated_first());
    cluster.virtual_node(observed(&cluster, 4, 3));
    for name in ["a", "b", "c"] {
        cluster.pod(name, Cluster::unschedulable());
    }
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"], "others have three of four");
    assert!(cluster.notes.iter().any(|note| note.reason == "LimitReached"), "{:?}", cluster.notes);
    // The cloud sees ours, too: nothing is new.
    cluster.now = cluster.now + Duration::from_secs(30);
    cluster.virtual_node(observed(&cluster, 4, 4));
    cluster.settle();
    assert_eq!(cluster.bound.len(), 1);
    // Ours ends, and its place is free. The same answer, told again for another reason, is not held against the present.
    let answer = observed(&cluster, 4, 4);
    cluster.tell(Event::PodGone { uid: Arc::from("uid-a") });
    for _ in 0..3 {
        cluster.virtual_node(answer.clone());
    }
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a", "b"]);
    // One of the others ends.
    cluster.now = cluster.now + Duration::from_secs(30);
    cluster.virtual_node(observed(&cluster, 4, 3));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a", "b", "c"]);
}

#[test]
fn a_pod_that_is_too_large_for_what_is_left_waits_until_it_is_not() {
    let mut cluster = synced(0, dedicated_first());
    cluster.virtual_node(json!({"largestPod": {"cpu": "500m"}}));
    cluster.pod("a", Cluster::unschedulable());
    cluster.settle();
    assert!(cluster.bound.is_empty());
    let told: Vec<_> = cluster.notes.iter().map(|note| (note.reason, &*note.text)).collect();
    assert_eq!(told, [("BackendInfeasible", "does not burst: the pod needs 1 vCPU and the largest size has 0.5")]);
    cluster.virtual_node(json!({"largestPod": {"cpu": "1"}}));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"]);
}

#[test]
fn what_a_cloud_said_before_a_restart_is_not_held_against_the_pods_of_now() {
    let mut cluster = Cluster::new(0);
    cluster.policy(dedicated_first());
    let before = observed(&cluster, 2, 2);
    cluster.virtual_node(before.clone());
    cluster.now = cluster.now + Duration::from_secs(5);
    cluster.tell(Event::Synced);
    cluster.virtual_node(before);
    cluster.pod("a", Cluster::unschedulable());
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"], "what was in use may have been a pod of our own");
    cluster.now = cluster.now + Duration::from_secs(5);
    cluster.virtual_node(observed(&cluster, 2, 2));
    cluster.pod("b", Cluster::unschedulable());
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"], "one of ours and one of somebody else");
}

#[test]
fn a_budget_that_never_was_usable_says_why_and_keeps_the_books_of_its_predecessor() {
    let mut cluster = synced(0, dedicated_first());
    let start = "2026-09-01T00:00:00Z";
    cluster
        .budgets
        .insert(Arc::from("cap"), from(json!({"spent": "2", "authorized": "2", "periodStart": start, "conditions": []})));
    let mut object = cluster.budget_object("3");
    object["spec"]["currency"] = json!("EUR");
    cluster.tell(Event::Budget(Box::new(from(object))));
    cluster.settle();
    let status = cluster.budgets["cap"].clone();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").expect("a condition");
    assert_eq!((&*ready.status, &*ready.reason), ("False", "Invalid"));
    assert!(ready.message.starts_with("spec.currency: \"EUR\" is not allowed"), "{}", ready.message);
    assert_eq!(status.spent.as_deref(), Some("2"), "the rest stays as it was");
    cluster.pod("early", Cluster::unschedulable());
    cluster.settle();
    assert!(cluster.bound.is_empty(), "nobody knows what it would have allowed");
    let told: Vec<_> = cluster.notes.iter().map(|note| (note.reason, &*note.text)).collect();
    assert_eq!(told, [("BudgetUnusable", "does not burst: the budget cap is not usable (its condition Ready says why)")]);
    cluster.tell(Event::PodGone { uid: Arc::from("uid-early") });

    cluster.budget("3");
    for name in ["a", "b"] {
        cluster.pod(name, Cluster::unschedulable());
    }
    cluster.settle();
    assert_eq!(cluster.bound.len(), 1, "two of three are spent already");
}

#[test]
fn a_status_that_was_not_written_is_written_again() {
    let mut cluster = synced(0, dedicated_first());
    let written = |cluster: &mut Cluster| {
        cluster.now = cluster.now + Duration::from_secs(1);
        let intents = cluster.committer.step(cluster.now);
        intents.iter().filter(|intent| matches!(intent, Intent::WriteStatus { kind: StatusKind::Policy, .. })).count()
    };
    assert_eq!(written(&mut cluster), 1);
    assert_eq!(written(&mut cluster), 0);
    cluster.tell(Event::StatusNotWritten { kind: StatusKind::Policy, name: Arc::from("p") });
    assert_eq!(written(&mut cluster), 1);
}

#[test]
fn policies_that_only_age_keeps_apart_are_told_so() {
    let mut cluster = synced(0, dedicated_first());
    let mut younger = dedicated_first();
    merge(&mut younger, json!({"metadata": {"name": "q", "creationTimestamp": "2026-02-01T00:00:00Z"}}));
    cluster.policy(younger.clone());
    cluster.wait(1);
    assert_eq!(cluster.condition("p", "Conflicting").1, "NoConflict", "no pod is selected by both so far");
    cluster.pod("a", json!({}));
    cluster.wait(1);
    for (policy, other) in [("p", "q"), ("q", "p")] {
        let (status, reason, message) = cluster.condition(policy, "Conflicting");
        assert_eq!((&*status, &*reason), ("True", "SameWeight"));
        let expected = format!(
            "spec.weight: {other} has the same weight and selects some of the same pods; p decides about these, being older or first by name"
        );
        assert_eq!(message, expected);
    }
    let record = crate::record::Record::parse(&cluster.bound[0].decision).expect("our own record");
    assert_eq!(&*record.policy, "p");
    merge(&mut younger, json!({"metadata": {"generation": 2}, "spec": {"weight": 200}}));
    cluster.policy(younger);
    cluster.pod("b", json!({}));
    cluster.wait(1);
    assert_eq!(cluster.condition("p", "Conflicting").1, "NoConflict");
}

#[test]
fn audit_says_what_would_have_been_spent() {
    let mut audit = dedicated_first();
    audit["spec"]["mode"] = json!("Audit");
    let mut cluster = synced(0, audit);
    for name in ["a", "b"] {
        cluster.pod(name, json!({}));
    }
    cluster.wait(1);
    cluster.wait(1);
    assert!(cluster.bound.is_empty());
    let status = &cluster.statuses[&(StatusKind::Policy, Arc::from("p"))];
    assert_eq!(status["audit"], json!({"pods": 2, "cost": "2.00"}));
    let told: Vec<_> = cluster.notes.iter().map(|note| (note.reason, &*note.text)).collect();
    assert_eq!(told, [("BurstAudited", "would burst to cloud for 1.00 USD (policy in mode Audit)"); 2]);
}

#[test]
fn the_last_good_specification_survives_a_restart() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("1");
    let broken = |status: Value| {
        let mut policy = dedicated_first();
        let conditions = json!([{"name": "broken", "expression": "1 +"}]);
        merge(&mut policy, json!({"metadata": {"generation": 2}, "spec": {"matchConditions": conditions}, "status": status}));
        policy
    };
    cluster.policy(broken(json!({})));
    let mut object = cluster.budget_object("1");
    object["spec"]["currency"] = json!("EUR");
    object["metadata"]["generation"] = json!(2);
    cluster.tell(Event::Budget(Box::new(from(object.clone()))));
    for _ in 0..3 {
        cluster.wait(1);
    }
    let status = cluster.statuses[&(StatusKind::Policy, Arc::from("p"))].clone();
    assert_eq!(status["inForce"]["generation"], 1);
    assert_eq!(cluster.budgets["cap"].in_force.as_ref().map(|good| good.generation), Some(1));

    let mut again = Cluster::new(0);
    again.policy(broken(status));
    again.budget_version = cluster.budget_version;
    object["status"] = serde_json::to_value(&cluster.budgets["cap"]).expect("a status");
    object["metadata"]["resourceVersion"] = json!(again.budget_version);
    again.tell(Event::Budget(Box::new(from(object))));
    again.tell(Event::Synced);
    for name in ["a", "b"] {
        again.pod(name, json!({}));
    }
    again.settle();
    assert_eq!(again.bound_names().len(), 1, "by the policy that was in force, as far as the budget goes that was");
    again.wait(2);
    again.wait(2);
    let ready = again.condition("p", "Ready");
    assert_eq!((&*ready.0, &*ready.1), ("False", "Invalid"));

    // Without a predecessor's word nothing is in force, and nothing is spent.
    let mut fresh = Cluster::new(0);
    fresh.policy(broken(json!({})));
    fresh.tell(Event::Synced);
    fresh.pod("a", json!({}));
    fresh.settle();
    assert!(fresh.bound.is_empty());
}

#[test]
fn a_hold_stops_what_is_reserved_and_not_sent() {
    let mut cluster = synced(0, dedicated_first());
    cluster.committer.settings.bindings_in_flight = 1;
    cluster.committer.wave = Wave::new(&cluster.committer.settings);
    cluster.answer = None;
    cluster.budget("10");
    for name in ["a", "b", "c"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    assert_eq!((cluster.held.len(), cluster.committer.wave.queued()), (1, 2));
    let mut held = dedicated_first();
    merge(&mut held, json!({"metadata": {"generation": 2}, "spec": {"stopPolicy": "Hold"}}));
    cluster.policy(held);
    let binding = cluster.held.remove(0);
    cluster.tell(Event::BindingAnswered { uid: binding.pod.uid.clone(), answer: BindingAnswer::Created });
    cluster.settle();
    assert!(cluster.held.is_empty());
    assert_eq!(cluster.balance().total(), "1".parse().expect("one"), "what was set aside is free again");
}

#[test]
fn who_waits_under_a_hold_bursts_when_it_is_lifted_without_being_told_again() {
    let edited = |generation: i64, spec: Value| {
        let mut policy = dedicated_first();
        merge(&mut policy, json!({"metadata": {"generation": generation}, "spec": spec}));
        policy
    };
    let mut cluster = synced(1, edited(1, json!({"stopPolicy": "Hold"})));
    for name in ["a", "b", "c"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    cluster.policy(edited(2, json!({"waitingCost": "1", "stopPolicy": "Hold"})));
    cluster.settle();
    assert!(cluster.bound.is_empty());
    cluster.policy(edited(3, json!({})));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["c", "b"], "the room is still for the oldest");
    // They are one line with those that come now, and it ends with the last of them.
    cluster.pod("d", json!({}));
    assert_eq!(cluster.committer.lines.iter().count(), 1);
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["c", "b", "d"]);
    for binding in cluster.bound.clone() {
        cluster.show_bound(&binding);
    }
    cluster.tell(Event::PodGone { uid: Arc::from("uid-a") });
    cluster.settle();
    assert_eq!(cluster.committer.lines.iter().count(), 0);
}

#[test]
fn pods_are_listed_again_only_if_a_policy_selects_counts_or_acts_in_another_way() {
    let dedicated = json!({"name": "dedicated", "nodeSelector": {"pool": "batch"}});
    let serverless = json!({"name": "serverless", "virtualNodes": ["cloud"], "limits": {"pods": 1}});
    let table = [
        (json!({"stopPolicy": "Hold"}), false),
        (json!({"stopPolicy": "HoldAndDrain"}), false),
        (json!({"waitingCost": "1"}), false),
        (json!({"expectedDuration": "2h"}), false),
        (json!({"tiers": [{"name": "dedicated"}, serverless]}), false),
        (json!({"tiers": [serverless]}), true),
        (json!({"tiers": [dedicated, serverless]}), true),
        (json!({"podSelector": {"matchLabels": {"burst": "no"}}}), true),
        (json!({"namespaceSelector": {"matchLabels": {"team": "media"}}}), true),
        (json!({"matchConditions": [{"name": "own", "expression": "has(object.metadata.ownerReferences)"}]}), true),
        (json!({"weight": 5}), true),
        (json!({"mode": "Audit"}), true),
        (json!({"extender": "Use"}), true),
    ];
    for (edit, listed) in table {
        let mut cluster = synced(0, dedicated_first());
        cluster.settle();
        let mut policy = dedicated_first();
        merge(&mut policy, json!({"metadata": {"generation": 2}, "spec": edit}));
        cluster.policy(policy);
        assert_eq!(cluster.committer.step(cluster.now).contains(&Intent::ListPending), listed, "{edit}");
    }
}

#[test]
fn a_budget_that_only_warns_is_exceeded_visibly() {
    let mut cluster = synced(0, dedicated_first());
    let mut object = cluster.budget_object("1");
    object["spec"]["whenExceeded"] = json!("Warn");
    cluster.tell(Event::Budget(Box::new(from(object))));
    for name in ["a", "b", "c"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    assert_eq!(cluster.bound.len(), 3);
    cluster.wait(1);
    cluster.wait(1);
    let status = &cluster.budgets["cap"];
    let exhausted = status.conditions.iter().find(|condition| condition.type_ == "Exhausted").expect("a condition");
    assert_eq!((&*exhausted.status, status.remaining.as_deref()), ("True", Some("0.00")));
    let counted = r#"spillway_budget_blocked_pods_total{action="warn",budget="cap"} 2"#;
    assert!(cluster.committer.metrics.render().contains(counted), "{}", cluster.committer.metrics.render());
}
