//! Replicas: one that stands by, and two that both believe to lead.

use super::*;

/// One replica of several, and what it has not heard of yet.
struct Rival {
    committer: Committer,
    inbox: Vec<Event>,
}

/// The API server: pods and one budget, each under a version.
struct Shared {
    version: u64,
    pods: BTreeMap<String, Value>,
    budget: Value,
    /// Requests that have been sent and not arrived, with the rival that waits for the answer, if it does still.
    under_way: Vec<(usize, u64, Intent)>,
    random: u64,
    terms: u64,
}

const LIMIT: &str = "10";

impl Shared {
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).expect("31 bits") % bound
    }

    fn put(&mut self, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object
    }

    /// A replica that has just listed everything.
    fn rival(&mut self) -> Rival {
        self.terms += 1;
        let settings = Settings { keeper: Arc::from(format!("rival/{}", self.terms)), ..Settings::standard("USD") };
        let mut cluster = Cluster::with(0, settings);
        cluster.policy(dedicated_first());
        let mut rival = Rival { committer: cluster.committer, inbox: vec![] };
        rival.inbox.push(Event::Budget(Box::new(from(self.budget.clone()))));
        rival.inbox.extend(self.pods.values().map(|pod| Event::Pod(Box::new(from(pod.clone())))));
        rival.inbox.push(Event::Synced);
        rival
    }

    /// What bound pods were quoted for.
    fn committed(&self) -> Money {
        let record =
            |pod: &Value| crate::record::Record::parse(pod["metadata"]["annotations"][crate::record::ANNOTATION].as_str()?).ok();
        self.pods.values().filter_map(record).map(|record| record.quote).sum()
    }

    /// A request arrives. Its answer is told, unless it is lost or nobody waits for it.
    fn arrive(&mut self, rivals: &mut [Rival], terms: &[u64]) {
        if self.under_way.is_empty() {
            return;
        }
        let index = self.below(self.under_way.len());
        let (rival, term, intent) = self.under_way.swap_remove(index);
        let (mut news, mut answer) = (vec![], vec![]);
        match intent {
            Intent::Bind(binding) => {
                let pod = self.pods[&*binding.pod.name].clone();
                let free = pod["spec"]["nodeName"].is_null() && pod["metadata"]["resourceVersion"] == *binding.resource_version;
                if free {
                    let mut pod = pod;
                    merge(
                        &mut pod,
                        json!({"spec": {"nodeName": &*binding.node},
                        "metadata": {"annotations": {crate::record::ANNOTATION: binding.decision}}}),
                    );
                    let pod = self.put(pod);
                    self.pods.insert(binding.pod.name.to_string(), pod.clone());
                    news.push(Event::Pod(Box::new(from(pod))));
                }
                let answered = match (free, self.below(10)) {
                    (_, 0) => BindingAnswer::Unknown,
                    (true, _) => BindingAnswer::Created,
                    (false, _) => BindingAnswer::Conflict,
                };
                answer.push(Event::BindingAnswered { uid: binding.pod.uid, answer: answered });
            }
            Intent::WriteBudget { name, resource_version, status } => {
                let mut written = None;
                if self.budget["metadata"]["resourceVersion"] == *resource_version {
                    let mut budget = self.budget.clone();
                    budget["status"] = serde_json::to_value(&status).expect("JSON");
                    self.budget = self.put(budget);
                    news.push(Event::Budget(Box::new(from(self.budget.clone()))));
                    written = self.budget["metadata"]["resourceVersion"].as_str().map(ToOwned::to_owned);
                }
                let written = written.filter(|_| self.below(10) > 0);
                answer.push(Event::BudgetWritten { name, resource_version: written });
            }
            Intent::Read { pod } => answer.push(Event::PodRead(Box::new(from(self.pods[&*pod.name].clone())))),
            Intent::ListPending => {
                let pending = self.pods.values().filter(|pod| pod["spec"]["nodeName"].is_null());
                answer.extend(pending.map(|pod| Event::Pod(Box::new(from(pod.clone())))));
                answer.push(Event::PendingListed);
            }
            Intent::FitTolerations { pod, .. } | Intent::RepairCondition { pod } => {
                answer.push(Event::Patched { uid: pod.uid, done: true });
            }
            Intent::WriteStatus { .. } | Intent::Note(_) | Intent::RepairNode { .. } | Intent::Wake { .. } => {}
            // No pod here has a gate, fails to start or is drained.
            Intent::LiftGate { .. } | Intent::Evict { .. } | Intent::Fail { .. } | Intent::Delete { .. } => {
                unreachable!("nothing of the kind is staged")
            }
        }
        for rival in rivals.iter_mut() {
            rival.inbox.extend(news.iter().cloned());
        }
        if terms[rival] == term {
            rivals[rival].inbox.extend(answer);
        }
    }
}

/// Two leaders at a time, for long: watches that lag, answers that are lost, requests of replicas that are gone and arrive
/// late. What is bound never costs more than the budget.
#[test]
fn two_leaders_at_once_never_overshoot_a_budget() {
    let (mut contended, mut bound) = (0, Money::ZERO);
    for seed in 0..20 {
        let budget = json!({"metadata": {"name": "cap", "generation": 1, "resourceVersion": "1"},
            "spec": {"amount": LIMIT, "currency": "USD", "period": "Month"}});
        let mut shared = Shared { version: 1, pods: BTreeMap::new(), budget, under_way: vec![], random: seed, terms: 0 };
        let mut rivals = [shared.rival(), shared.rival()];
        let mut terms = [1, 2];
        let mut now = Timestamp::from_millis(1_790_000_000_000);
        for turn in 0..1_500 {
            now = now + Duration::from_millis(20);
            let which = shared.below(2);
            match shared.below(100) {
                0..10 if shared.pods.len() < 30 => {
                    let name = format!("pod-{:02}", shared.pods.len());
                    let pod = Cluster::new(0).pod_object(&name, json!({}));
                    let pod = shared.put(pod);
                    shared.pods.insert(name, pod.clone());
                    rivals.iter_mut().for_each(|rival| rival.inbox.push(Event::Pod(Box::new(from(pod.clone())))));
                }
                10..50 => {
                    let heard = shared.below(rivals[which].inbox.len() + 1);
                    for event in rivals[which].inbox.drain(..heard).collect::<Vec<_>>() {
                        rivals[which].committer.handle(event, now);
                    }
                    let intents = rivals[which].committer.step(now);
                    shared.under_way.extend(intents.into_iter().map(|intent| (which, terms[which], intent)));
                }
                50 => {
                    // It is killed; what it has sent may still arrive.
                    rivals[which] = shared.rival();
                    terms[which] = shared.terms;
                }
                _ => shared.arrive(&mut rivals, &terms),
            }
            if rivals[which].committer.is_superseded() {
                contended += 1;
                rivals[which] = shared.rival();
                terms[which] = shared.terms;
            }
            let committed = shared.committed();
            assert!(committed <= LIMIT.parse().expect("money"), "seed {seed}, turn {turn}: {committed} is committed");
        }
        bound = bound.saturating_add(shared.committed());
    }
    assert!(contended > 50 && bound > "40".parse().expect("money"), "they hardly met: {contended}, {bound}");
}

#[test]
fn books_that_another_has_written_into_are_not_used_any_more() {
    let mut cluster = synced(0, dedicated_first());
    cluster.budget("10");
    cluster.pod("a", json!({}));
    cluster.settle();
    let mut object = cluster.budget_object("10");
    cluster.tell(Event::Budget(Box::new(from(object.clone()))));
    assert!(!cluster.committer.is_superseded(), "that was its own hand");
    object["status"]["authorizedBy"] = json!("another/1");
    object["status"]["authorized"] = json!("7");
    cluster.tell(Event::Budget(Box::new(from(object))));
    assert!(cluster.committer.is_superseded());
    cluster.pod("b", json!({}));
    cluster.settle();
    assert_eq!(cluster.bound_names(), ["a"]);
}

#[test]
fn what_a_predecessor_wrote_is_taken_over_once_and_is_no_rivalry() {
    let mut before = synced(0, dedicated_first());
    before.budget("10");
    before.pod("a", json!({}));
    before.settle();
    let settings = Settings { keeper: Arc::from("successor/1"), ..Settings::standard("USD") };
    let mut after = Cluster::with(0, settings);
    after.policy(dedicated_first());
    let (mut object, version) = (before.budget_object("10"), before.budget_version.clone());
    after.tell(Event::Budget(Box::new(from(object.clone()))));
    // The predecessor's last word comes before the lists are complete.
    object["status"]["authorized"] = json!("4");
    after.tell(Event::Budget(Box::new(from(object.clone()))));
    after.show_bound(&before.bound[0]);
    after.tell(Event::Synced);
    assert_eq!(after.balance().unaccounted, "3".parse().expect("money"), "four were authorized, and one is found");
    // Somebody edits the specification before anything is written: the same books in a new version.
    object["spec"]["amount"] = json!("20");
    after.tell(Event::Budget(Box::new(from(object))));
    assert!(!after.committer.is_superseded());
    (after.budget_version, after.version) = (version, 1000);
    after.settle();
    assert_eq!(after.budgets["cap"].authorized_by.as_deref(), Some("successor/1"));
}

#[test]
fn one_that_follows_sees_what_the_leader_sees_and_does_nothing() {
    let mut leader = synced(1, dedicated_first());
    leader.budget("3");
    let mut follower = Cluster::new(1);
    let metrics = Arc::new(Metrics::new("USD", Limits::STANDARD));
    follower.committer = Committer::following(Settings::standard("USD"), metrics);
    let node = json!({"metadata": {"name": "virtual-0", "labels": {"type": "virtual-kubelet", "cloud": "yes"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "0", "cpu": "1"}}});
    follower.tell(Event::Node(Box::new(from::<Node>(node))));
    follower.virtual_node(json!({}));
    follower.policy(dedicated_first());
    for name in ["a", "b", "c", "d", "e"] {
        leader.pod(name, json!({}));
        follower.pod(name, json!({}));
    }
    leader.settle();
    assert_eq!(leader.bound.len(), 3, "one finds room on the dedicated node, and one no money");
    told_both(&mut leader, &mut follower);
    follower.tell(Event::Synced);
    for binding in &leader.bound {
        follower.show_bound(binding);
    }
    assert_eq!(follower.committer.step(follower.now), []);
    follower.now = follower.now + Duration::from_secs(10);
    assert_eq!(follower.committer.step(follower.now), []);
    let published = follower.committer.published();
    assert!(published.synced && !published.is_in_force(), "nobody leads, as far as it knows");
    follower.tell(Event::Led(true));
    assert!(follower.committer.published().is_in_force());
    assert_eq!(follower.balance(), leader.balance());
    assert_eq!(follower.committer.backends.usage("cloud"), leader.committer.backends.usage("cloud"));
    // A pod ends: both know what it has cost, and the leader's word counts.
    follower.tell(Event::PodGone { uid: Arc::from("uid-e") });
    leader.tell(Event::PodGone { uid: Arc::from("uid-e") });
    leader.wait(2);
    told_both(&mut leader, &mut follower);
    assert_eq!(follower.balance(), leader.balance());
    follower.committer.ledger.check().expect("conserved");
}

/// What the leader has written into the budget.
fn told_both(leader: &mut Cluster, follower: &mut Cluster) {
    let object = leader.budget_object("3");
    leader.tell(Event::Budget(Box::new(from(object.clone()))));
    follower.tell(Event::Budget(Box::new(from(object))));
}
