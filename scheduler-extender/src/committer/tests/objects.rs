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
