//! Histories: events in, intents out, no cluster and no clock.

#![expect(clippy::needless_pass_by_value, reason = "JSON literals read better without a reference")]

mod failures;
mod gated;
mod hygiene;
mod leaving;
mod money;
mod objects;
mod rivals;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use policy::Money;
use serde_json::{Value, json};

use super::*;
use crate::metrics::Limits;

mod serverless_first;

/// A committer and the part of an API server that it needs.
struct Cluster {
    committer: Committer,
    now: Timestamp,
    version: u64,
    budgets: BTreeMap<Arc<str>, api::BurstBudgetStatus>,
    budget_version: Option<String>,
    statuses: BTreeMap<(StatusKind, Arc<str>), Value>,
    owners: BTreeMap<String, Value>,
    woken: u32,
    lifted: Vec<PodKey>,
    evicted: Vec<String>,
    eviction: EvictionAnswer,
    failed: Vec<String>,
    deleted: Vec<String>,
    notes: Vec<Note>,
    bound: Vec<Binding>,
    /// Bindings whose answer is up to the test.
    held: Vec<Binding>,
    answer: Option<BindingAnswer>,
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the test's own object")
}

fn policy(tiers: Value) -> Value {
    json!({"metadata": {"name": "p", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"burst": "yes"}}, "tiers": tiers, "expectedDuration": "1h"}})
}

fn dedicated_first() -> Value {
    policy(json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["cloud"]}]))
}

impl Cluster {
    /// One dedicated node with room for `room` pods of 1 CPU, one virtual node at 1 an hour and CPU.
    fn new(room: u32) -> Cluster {
        Cluster::with(room, Settings::standard("USD"))
    }

    fn with(room: u32, settings: Settings) -> Cluster {
        let metrics = Arc::new(Metrics::new("USD", Limits::STANDARD));
        let mut cluster = Cluster {
            committer: Committer::new(settings, metrics),
            now: Timestamp::from_millis(1_790_000_000_000),
            version: 0,
            budgets: BTreeMap::new(),
            budget_version: None,
            statuses: BTreeMap::new(),
            owners: BTreeMap::new(),
            woken: 0,
            lifted: vec![],
            evicted: vec![],
            eviction: EvictionAnswer::Evicted,
            failed: vec![],
            deleted: vec![],
            notes: vec![],
            bound: vec![],
            held: vec![],
            answer: Some(BindingAnswer::Created),
        };
        cluster.tell(Event::Namespace(Box::new(from::<Namespace>(json!({"metadata": {"name": "media"}})))));
        cluster.node("dedicated-0", room);
        let virtual_node = json!({"metadata": {"name": "virtual-0", "labels": {"type": "virtual-kubelet", "cloud": "yes"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "0", "cpu": "1"}}});
        cluster.tell(Event::Node(Box::new(from::<Node>(virtual_node))));
        cluster.virtual_node(json!({}));
        cluster
    }

    fn node(&mut self, name: &str, cpu: u32) {
        let node = json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"pods": "110", "cpu": cpu.to_string(), "memory": "64Gi"}}});
        self.tell(Event::Node(Box::new(from::<Node>(node))));
    }

    fn virtual_node(&mut self, status: Value) {
        let object = json!({"metadata": {"name": "cloud", "generation": 1}, "status": status,
            "spec": {"inMemory": {"region": "here"}, "adopt": {"nodeSelector": {"cloud": "yes"}},
                "pricing": {"currency": "USD", "vcpuHour": "1", "gbHour": "0"}}});
        self.tell(Event::VirtualNode(Box::new(from(object))));
    }

    fn policy(&mut self, policy: Value) {
        self.tell(Event::Policy(Box::new(from(policy))));
    }

    fn budget(&mut self, amount: &str) {
        let object = self.budget_object(amount);
        self.tell(Event::Budget(Box::new(from(object))));
    }

    fn budget_object(&mut self, amount: &str) -> Value {
        self.version += 1;
        self.budget_version = Some(self.version.to_string());
        let status = self.budgets.get("cap").cloned();
        json!({"metadata": {"name": "cap", "generation": 1, "resourceVersion": self.version.to_string()},
            "spec": {"amount": amount, "currency": "USD", "period": "Month"}, "status": status})
    }

    fn tell(&mut self, event: Event) {
        self.committer.handle(event, self.now);
    }

    fn pod_object(&mut self, name: &str, more: Value) -> Value {
        self.version += 1;
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "media", "uid": format!("uid-{name}"), "resourceVersion": self.version.to_string(), "labels": {"burst": "yes"}},
            "spec": {"schedulerName": "default-scheduler", "preemptionPolicy": "Never", "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
            "status": {"phase": "Pending"},
        });
        merge(&mut pod, more);
        pod
    }

    fn pod(&mut self, name: &str, more: Value) {
        if let Some(owners) = more["metadata"].get("ownerReferences") {
            self.owners.insert(name.to_owned(), owners.clone());
        }
        let pod = self.pod_object(name, more);
        self.tell(Event::Pod(Box::new(from::<Pod>(pod))));
    }

    fn unschedulable() -> Value {
        json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}})
    }

    /// Steps until nothing is left to do, answering like an API server.
    fn settle(&mut self) {
        for _ in 0..100 {
            let intents = self.committer.step(self.now);
            if intents.is_empty() {
                return;
            }
            for intent in intents {
                self.carry_out(intent);
            }
        }
        panic!("the committer does not come to rest");
    }

    fn carry_out(&mut self, intent: Intent) {
        match intent {
            Intent::Bind(binding) => match self.answer {
                None => self.held.push(binding),
                Some(answer) => {
                    self.tell(Event::BindingAnswered { uid: binding.pod.uid.clone(), answer });
                    if answer == BindingAnswer::Created {
                        self.show_bound(&binding);
                        self.bound.push(binding);
                    }
                }
            },
            Intent::WriteBudget { name, resource_version, status } => {
                assert_eq!(Some(resource_version), self.budget_version, "precondition");
                self.budgets.insert(name.clone(), *status);
                self.version += 1;
                self.budget_version = Some(self.version.to_string());
                self.tell(Event::BudgetWritten { name, resource_version: Some(self.version.to_string()) });
            }
            Intent::Note(note) => self.notes.push(note),
            Intent::FitTolerations { pod, .. } | Intent::RepairCondition { pod } => {
                self.tell(Event::Patched { uid: pod.uid, done: true });
            }
            Intent::ListPending => self.tell(Event::PendingListed),
            Intent::WriteStatus { kind, name, status } => {
                self.statuses.insert((kind, name), status);
            }
            Intent::LiftGate { pod } => {
                self.tell(Event::GateLifted { uid: pod.uid.clone() });
                self.lifted.push(pod);
            }
            Intent::Evict { pod } => {
                self.tell(Event::EvictionAnswered { uid: pod.uid.clone(), answer: self.eviction });
                self.evicted.push(pod.name.to_string());
            }
            Intent::Fail { pod } => self.failed.push(pod.name.to_string()),
            Intent::Delete { pod } => self.deleted.push(pod.name.to_string()),
            Intent::Wake { .. } => self.woken += 1,
            Intent::Read { .. } | Intent::RepairNode { .. } => {}
        }
    }

    fn show_bound(&mut self, binding: &Binding) {
        let owners = self.owners.get(&*binding.pod.name).cloned().unwrap_or(json!([]));
        let more = json!({"metadata": {"annotations": {crate::record::ANNOTATION: binding.decision}, "ownerReferences": owners}, "spec": {"nodeName": &*binding.node}});
        self.pod(&binding.pod.name, more);
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.settle();
    }

    fn bound_names(&self) -> Vec<&str> {
        self.bound.iter().map(|binding| &*binding.pod.name).collect()
    }

    /// A condition of a policy: status, reason, message.
    fn condition(&self, policy: &str, kind: &str) -> (String, String, String) {
        let status = &self.statuses[&(StatusKind::Policy, Arc::from(policy))];
        let conditions = status["conditions"].as_array().expect("conditions");
        let condition = conditions.iter().find(|condition| condition["type"] == kind).expect("the condition");
        let text = |field: &str| condition[field].as_str().expect("text").to_owned();
        (text("status"), text("reason"), text("message"))
    }

    fn balance(&self) -> policy::ledger::Balance {
        *self.committer.ledger.books().account("cap").expect("the test's budget").1
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn synced(room: u32, policy: Value) -> Cluster {
    let mut cluster = Cluster::new(room);
    cluster.policy(policy);
    cluster.tell(Event::Synced);
    cluster
}

#[test]
fn only_the_surplus_bursts_and_the_youngest_goes_first() {
    let mut cluster = synced(2, dedicated_first());
    for name in ["a", "b", "c", "d"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["d", "c"]);
    assert_eq!(&*cluster.bound[0].node, "virtual-0");
}

#[test]
fn a_binding_carries_uid_version_and_record() {
    let mut cluster = synced(0, dedicated_first());
    cluster.pod("a", json!({}));
    cluster.settle();
    let binding = &cluster.bound[0];
    assert_eq!(&*binding.pod.uid, "uid-a");
    assert!(!binding.resource_version.is_empty());
    let record = crate::record::Record::parse(&binding.decision).expect("our own record");
    assert_eq!((&*record.policy, &*record.tier, &*record.virtual_node, &*record.reason), ("p", "serverless", "cloud", "NoRoom"));
    assert_eq!(record.quote, "1".parse::<Money>().expect("one"));
}

#[test]
fn a_pod_that_bursts_is_told_so_once() {
    let mut cluster = synced(0, dedicated_first());
    cluster.pod("a", json!({}));
    cluster.settle();
    cluster.wait(10);
    let texts: Vec<_> = cluster.notes.iter().map(|note| (note.reason, &*note.text)).collect();
    assert_eq!(texts, [("BurstSelected", "bursts to cloud for 1.00 USD: dedicated nodes have no room")]);
}

#[test]
fn who_is_not_selected_is_not_touched() {
    let mut cluster = synced(0, dedicated_first());
    cluster.pod("a", json!({"metadata": {"labels": {"burst": "no"}}}));
    cluster.pod("b", json!({"metadata": {"labels": {"spillway.dev/do-not-burst": "true"}}}));
    cluster.settle();
    cluster.wait(30);
    assert!(cluster.bound.is_empty());
}

#[test]
fn a_pod_that_no_backend_runs_is_told_so_once() {
    let mut cluster = synced(0, dedicated_first());
    cluster.pod("a", json!({"spec": {"hostNetwork": true}}));
    cluster.settle();
    cluster.wait(10);
    let texts: Vec<_> = cluster.notes.iter().map(|note| (note.reason, &*note.text)).collect();
    assert_eq!(texts, [("BackendInfeasible", "does not burst: no backend runs such pods (rule hostNetwork)")]);
}

#[test]
fn a_dedicated_node_that_comes_takes_the_pods_that_are_not_sent_yet() {
    let mut cluster = synced(0, dedicated_first());
    cluster.committer.settings.bindings_in_flight = 1;
    cluster.committer.wave = Wave::new(&cluster.committer.settings);
    cluster.answer = None;
    for name in ["a", "b", "c"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    assert_eq!(cluster.held.len(), 1, "the bound on Bindings in flight");
    cluster.node("dedicated-1", 10);
    let binding = cluster.held.remove(0);
    cluster.tell(Event::BindingAnswered { uid: binding.pod.uid.clone(), answer: BindingAnswer::Created });
    cluster.show_bound(&binding);
    cluster.answer = Some(BindingAnswer::Created);
    cluster.settle();
    assert!(cluster.bound.is_empty(), "two wait for the new node");
    assert_eq!(cluster.committer.backends.usage("cloud").pods, 1);
}

#[test]
fn a_budget_is_exact_under_a_fan_out() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("3.5");
    for number in 0..20 {
        cluster.pod(&format!("pod-{number}"), json!({}));
    }
    cluster.settle();
    cluster.wait(5);
    // The oldest are taken, one an hour each; the fourth would need half a unit more.
    let mut names = cluster.bound_names();
    names.sort_unstable();
    assert_eq!(names, ["pod-0", "pod-1", "pod-2"]);
    assert_eq!(cluster.balance().committed, "3".parse().expect("three"));
    assert!(cluster.notes.iter().any(|note| note.reason == "BudgetExceeded"));
    cluster.committer.ledger.check().expect("the books agree");
}

#[test]
fn nothing_is_committed_before_it_is_authorized_in_writing() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("10");
    cluster.pod("a", json!({}));
    let intents = cluster.committer.step(cluster.now);
    assert!(!intents.iter().any(|intent| matches!(intent, Intent::Bind(_))), "{intents:?}");
    let Some(Intent::WriteBudget { status, .. }) = intents.iter().find(|intent| matches!(intent, Intent::WriteBudget { .. }))
    else {
        panic!("no authorization is asked for: {intents:?}")
    };
    assert_eq!(status.authorized.as_deref(), Some("2.00"));
    for intent in intents {
        cluster.carry_out(intent);
    }
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"]);
    // Nobody draws on the rest: it is given back.
    cluster.wait(3);
    cluster.wait(3);
    assert_eq!(cluster.budgets["cap"].authorized.as_deref(), Some("1.00"));
}

#[test]
fn a_lost_race_costs_nothing() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("10");
    cluster.answer = Some(BindingAnswer::Conflict);
    cluster.pod("a", json!({}));
    cluster.settle();
    assert_eq!(cluster.balance().total(), "1".parse().expect("one"), "set aside until the pod says who was faster");
    cluster.pod("a", json!({"spec": {"nodeName": "dedicated-0"}}));
    cluster.settle();
    assert_eq!(cluster.balance().total(), Money::ZERO);
    assert_eq!(cluster.committer.backends.usage("cloud").pods, 0);
}

#[test]
fn a_lost_answer_is_asked_after_and_sent_again() {
    let mut cluster = synced(0, dedicated_first());
    cluster.answer = Some(BindingAnswer::Unknown);
    cluster.pod("a", json!({}));
    cluster.settle();
    cluster.now = cluster.now + Duration::from_secs(3);
    let intents = cluster.committer.step(cluster.now);
    assert!(intents.iter().any(|intent| matches!(intent, Intent::Read { pod } if &*pod.name == "a")), "{intents:?}");
    // Still without a node and in the same version: the same Binding goes out again.
    cluster.answer = Some(BindingAnswer::Created);
    cluster.version -= 1;
    let pod = cluster.pod_object("a", json!({}));
    cluster.tell(Event::PodRead(Box::new(from::<Pod>(pod))));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"]);
}

#[test]
fn a_restart_finds_its_commitments_in_the_pods() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("2");
    for name in ["a", "b", "c"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    assert_eq!(cluster.bound.len(), 2);
    let bindings = std::mem::take(&mut cluster.bound);

    let mut again = Cluster::new(0);
    again.budgets = cluster.budgets;
    again.version = 1000;
    again.policy(dedicated_first());
    again.budget("2");
    for binding in &bindings {
        again.show_bound(binding);
    }
    again.pod("c", json!({}));
    again.tell(Event::Synced);
    again.settle();
    again.pod("c", json!({}));
    again.settle();
    again.wait(5);
    assert_eq!(again.balance().total(), "2".parse().expect("two"));
    assert!(again.bound.is_empty(), "the budget is spent");
    assert_eq!(again.committer.backends.usage("cloud").pods, 2);
}

#[test]
fn who_came_first_is_remembered_across_a_restart() {
    let mut cluster = Cluster::new(1);
    cluster.policy(dedicated_first());
    let created = |seconds: u32| json!({"metadata": {"creationTimestamp": format!("2026-01-01T00:00:{seconds:02}Z")}});
    // Lists come by name; time says otherwise.
    cluster.pod("a", created(9));
    cluster.pod("b", created(1));
    cluster.tell(Event::Synced);
    assert_eq!(cluster.committer.step(cluster.now).iter().filter(|intent| **intent == Intent::ListPending).count(), 1);
    cluster.pod("a", created(9));
    cluster.pod("b", created(1));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"], "the room is for the older one");
}

#[test]
fn whoever_stops_gives_back_what_it_does_not_use() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("10");
    cluster.pod("a", json!({}));
    cluster.settle();
    assert_eq!(cluster.budgets["cap"].authorized.as_deref(), Some("2.00"));
    cluster.committer.close();
    cluster.pod("b", json!({}));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"], "nothing new");
    assert_eq!(cluster.budgets["cap"].authorized.as_deref(), Some("1.00"));
    assert!(cluster.committer.is_closed());
}

#[test]
fn what_a_predecessor_may_have_spent_is_spent() {
    let mut cluster = Cluster::new(0);
    let mut object = cluster.budget_object("10");
    object["status"] = json!({"periodStart": "2026-09-01T00:00:00Z", "spent": "1.00", "reserved": "0.00", "authorized": "4.00"});
    cluster.policy(dedicated_first());
    cluster.tell(Event::Budget(Box::new(from(object))));
    cluster.tell(Event::Synced);
    let balance = cluster.balance();
    assert_eq!((balance.spent, balance.unaccounted), ("4".parse().expect("four"), "3".parse().expect("three")));
}

#[test]
fn a_copied_record_on_a_dedicated_node_is_not_believed() {
    let mut cluster = synced(4, dedicated_first());
    cluster.budget("10");
    cluster.committer.dedicated.remove("dedicated-0");
    cluster.pod("a", json!({}));
    cluster.settle();
    let decision = cluster.bound[0].decision.clone();
    cluster.node("dedicated-0", 4);
    cluster.pod(
        "copy",
        json!({"metadata": {"annotations": {crate::record::ANNOTATION: decision}}, "spec": {"nodeName": "dedicated-0"}}),
    );
    cluster.settle();
    assert_eq!(cluster.balance().total(), "1".parse().expect("one"));
    assert_eq!(cluster.committer.backends.usage("cloud").pods, 1);
    assert!(cluster.notes.iter().any(|note| note.reason == "InvalidDecision"));
}

#[test]
fn a_pod_is_settled_at_what_it_ran() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("10");
    cluster.pod("a", json!({}));
    cluster.settle();
    let binding = cluster.bound[0].clone();
    let started = jiff::Timestamp::from_millisecond(cluster.now.millis()).expect("a time");
    let finished = started + jiff::SignedDuration::from_mins(6);
    cluster.now = cluster.now + Duration::from_secs(400);
    let done = json!({
        "metadata": {"annotations": {crate::record::ANNOTATION: binding.decision}}, "spec": {"nodeName": "virtual-0"},
        "status": {"phase": "Succeeded", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "startedAt": started, "finishedAt": finished}}}]},
    });
    cluster.pod("a", done);
    assert_eq!(cluster.balance().committed, "0.1".parse().expect("a tenth of an hour"));
    assert_eq!(cluster.committer.backends.usage("cloud").pods, 0);
    cluster.tell(Event::PodGone { uid: Arc::from("uid-a") });
    assert_eq!(cluster.balance().spent, "0.1".parse().expect("a tenth"));
}

#[test]
fn a_pod_that_could_preempt_needs_its_own_verdict_unless_the_extender_answers() {
    let preemptor = json!({"spec": {"priority": 10, "preemptionPolicy": "PreemptLowerPriority"}});
    let mut cluster = synced(1, dedicated_first());
    cluster.pod("low", json!({"metadata": {"labels": {"burst": "no"}}, "spec": {"nodeName": "dedicated-0", "priority": 0}}));
    cluster.pod("high", preemptor.clone());
    cluster.settle();
    assert!(cluster.bound.is_empty());
    let mut marked = preemptor;
    merge(
        &mut marked,
        json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}, "limits": {"spillway.dev/burst": "0"}}}]}}),
    );
    cluster.tell(Event::ExtenderAsked);
    cluster.pod("marked", marked);
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["marked"]);
}

#[test]
fn audit_decides_and_binds_nothing() {
    let mut audited = dedicated_first();
    audited["spec"]["mode"] = json!("Audit");
    let mut cluster = synced(0, audited);
    cluster.pod("a", json!({}));
    cluster.settle();
    cluster.wait(30);
    assert!(cluster.bound.is_empty());
    let told: Vec<_> = cluster.notes.iter().map(|note| note.reason).collect();
    assert_eq!(told, ["BurstAudited"]);
}

#[test]
fn quota_is_exact_and_a_closed_backend_takes_nothing() {
    let mut cluster = synced(0, dedicated_first());
    cluster.virtual_node(json!({"quota": {"pods": 2}}));
    for name in ["a", "b", "c"] {
        cluster.pod(name, json!({}));
    }
    cluster.settle();
    assert_eq!(cluster.bound.len(), 2);
    cluster.virtual_node(json!({"quota": {"pods": 9}, "conditions": [{"type": "BackendHealthy", "status": "False", "reason": "Down", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}));
    cluster.wait(5);
    assert_eq!(cluster.bound.len(), 2);
    cluster.virtual_node(json!({"quota": {"pods": 9}}));
    cluster.settle();
    assert_eq!(cluster.bound.len(), 3);
}

#[test]
fn the_clock_may_go_backwards() {
    let mut cluster = synced(0, dedicated_first());
    cluster.pod("a", json!({}));
    cluster.now = cluster.now - Duration::from_secs(3600);
    cluster.settle();
    cluster.pod("b", json!({}));
    cluster.settle();
    assert_eq!(cluster.bound.len(), 2);
}
