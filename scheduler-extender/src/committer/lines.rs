//! Lines of equal pods, one per class.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use policy::dedicated::{DedicatedNodes, Fit, FitId};
use policy::line::{Arrival, Evidence, Line};
use policy::workload::{Feature, Held};
use policy::{BurstPolicy, Outcome, Resources, Room, Snapshot, Timestamp, Workload, decide};

use super::Committer;

/// A class: equal pods under the same version of the same policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ClassId(u64);

/// All lines.
#[derive(Default)]
pub(super) struct Lines {
    classes: BTreeMap<ClassId, Class>,
    by_key: HashMap<Key, ClassId, foldhash::fast::RandomState>,
    requests: HashMap<Resources, std::sync::Weak<Resources>, foldhash::fast::RandomState>,
    /// When the pods on dedicated nodes last changed, by namespace: spread and affinity look at their own namespace.
    disturbed: HashMap<Arc<str>, Timestamp, foldhash::fast::RandomState>,
    next: u64,
}

/// A version of a policy, by the address of its value, and what the pods have in common. A policy that is deleted and made again
/// has the same name and perhaps the same generation; an address stays taken while a class holds the value.
type Key = (usize, Arc<Workload>);

fn key(policy: &Arc<BurstPolicy>, workload: &Arc<Workload>) -> Key {
    (Arc::as_ptr(policy).addr(), workload.clone())
}

/// One class.
pub(super) struct Class {
    pub(super) policy: Arc<BurstPolicy>,
    pub(super) workload: Arc<Workload>,
    pub(super) line: Line,
    pub(super) uids: HashMap<Arrival, Arc<str>, foldhash::fast::RandomState>,
    fit: FitId,
    /// Pods of this class, waiting or in flight.
    members: usize,
    /// Which evidence was weighed last.
    pub(super) evidence: Evidence,
    dirty: bool,
    room: i64,
    /// When the evidence should be weighed again.
    look_again: Option<Timestamp>,
    pub(super) blocked: Option<Blocked>,
    /// The refusal that was last told on a pod of this line.
    pub(super) told: Option<&'static str>,
}

/// Why the pods of a line that have no dedicated room are not taken: equal pods get equal answers until something changes.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    pub(super) epoch: u64,
    pub(super) until: Option<Timestamp>,
}

// === impl Class ===

impl Class {
    /// Whether its policy may send pods to serverless that a dedicated node has room for. Such a policy depends on prices and
    /// quotas at any time.
    pub(super) fn prefers_to_burst(&self) -> bool {
        self.policy.serverless_first() || self.policy.dedicated().is_some_and(|tier| tier.vcpu.max(tier.gib) > policy::Rate::FREE)
    }

    /// What is known of the chances of one of its pods on dedicated nodes, which have had no room for it since then.
    pub(super) fn room_for_one(&self, since: Timestamp) -> Room {
        if self.evidence == Evidence::Refused || self.workload.held == Held::ByGate { Room::Some } else { Room::NoneSince(since) }
    }
}

// === impl Lines ===

impl Lines {
    /// The class of a pod, made if it is the first. Every call is one membership, given back by [`Lines::leave`] — unless the
    /// pod is a member already, which the caller sees by the class being the one it knows.
    pub(super) fn class(&mut self, policy: Arc<BurstPolicy>, workload: Workload, dedicated: &mut DedicatedNodes) -> ClassId {
        let workload = Arc::new(workload);
        let key = key(&policy, &workload);
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = ClassId(self.next);
        self.next += 1;
        let tier: &[_] = policy.dedicated().map_or(&[], |tier| &tier.node_selector);
        let fit = dedicated.watch(Fit::new(&workload, tier));
        let class = Class {
            policy,
            workload,
            line: Line::default(),
            uids: HashMap::default(),
            fit,
            members: 0,
            evidence: Evidence::Equals,
            dirty: true,
            room: 0,
            look_again: None,
            blocked: None,
            told: None,
        };
        self.classes.insert(id, class);
        self.by_key.insert(key, id);
        id
    }

    /// Pods that wait under a version of a policy wait under a later one from now on.
    pub(super) fn renew(&mut self, before: &Arc<BurstPolicy>, policy: &Arc<BurstPolicy>) {
        for (id, class) in self.classes.iter_mut().filter(|(_, class)| Arc::ptr_eq(&class.policy, before)) {
            self.by_key.remove(&key(before, &class.workload));
            self.by_key.insert(key(policy, &class.workload), *id);
            class.policy = policy.clone();
            (class.dirty, class.blocked, class.told) = (true, None, None);
        }
    }

    /// A pod joins its line, or more is known of it.
    pub(super) fn set(&mut self, id: ClassId, arrival: Arrival, uid: Arc<str>, refused: Option<Timestamp>, nominated: bool) {
        let Some(class) = self.classes.get_mut(&id) else { return };
        if class.uids.insert(arrival, uid).is_none() {
            class.members += 1;
        }
        class.line.set(arrival, refused, nominated);
        class.dirty = true;
    }

    /// A pod comes back into its line after its Binding failed; it never stopped being a member.
    pub(super) fn rejoin(&mut self, id: ClassId, arrival: Arrival, uid: Arc<str>, refused: Option<Timestamp>) {
        let Some(class) = self.classes.get_mut(&id) else { return };
        class.uids.insert(arrival, uid);
        class.line.set(arrival, refused, false);
        class.dirty = true;
    }

    /// A pod steps out of its line; it is still a member of its class.
    pub(super) fn remove(&mut self, id: ClassId, arrival: Arrival) {
        let Some(class) = self.classes.get_mut(&id) else { return };
        class.line.remove(arrival);
        class.uids.remove(&arrival);
        class.dirty = true;
    }

    /// A pod is no longer a member; the last one takes the class with it.
    pub(super) fn leave(&mut self, id: ClassId, dedicated: &mut DedicatedNodes) {
        let Some(class) = self.classes.get_mut(&id) else { return };
        class.members = class.members.saturating_sub(1);
        if class.members == 0 {
            dedicated.unwatch(class.fit);
            self.by_key.remove(&key(&class.policy, &class.workload));
            self.classes.remove(&id);
        }
    }

    pub(super) fn get(&self, id: ClassId) -> Option<&Class> {
        self.classes.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ClassId) -> Option<&mut Class> {
        self.classes.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.classes.iter().map(|(id, class)| (*id, class))
    }

    pub(super) fn policy(&self, id: ClassId) -> Option<Arc<BurstPolicy>> {
        self.classes.get(&id).map(|class| class.policy.clone())
    }

    /// Equal requests share one value: most pods of a cluster ask for one of a few dozen sizes.
    pub(super) fn share(&mut self, requests: Resources) -> Arc<Resources> {
        if let Some(shared) = self.requests.get(&requests).and_then(std::sync::Weak::upgrade) {
            return shared;
        }
        if self.requests.len() > 4096 {
            self.requests.retain(|_, shared| shared.strong_count() > 0);
        }
        let shared = Arc::new(requests.clone());
        self.requests.insert(requests, Arc::downgrade(&shared));
        shared
    }

    /// Pods on dedicated nodes have changed in a namespace.
    pub(super) fn disturbed(&mut self, namespace: &Arc<str>, now: Timestamp) {
        self.disturbed.insert(namespace.clone(), now);
    }

    /// When a line should be weighed again, or a tier opens.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        let opens = |class: &Class| class.blocked.as_ref().and_then(|blocked| blocked.until);
        self.classes.values().flat_map(|class| [class.look_again, opens(class)]).flatten().min()
    }

    /// Pods that wait although dedicated nodes have room for them.
    pub(super) fn waiting_with_room(&self) -> usize {
        self.classes.values().map(|class| class.line.waiting_with_room()).sum()
    }
}

// === impl Committer ===

impl Committer {
    /// Weighs the evidence of every line that something has changed for, and takes back what was planned for pods that
    /// dedicated nodes have room for after all.
    pub(super) fn weigh_lines(&mut self, now: Timestamp) {
        let mut regained: Vec<Arc<str>> = Vec::new();
        let snapshot = Snapshot { backends: &self.backends, books: self.ledger.books(), namespaces: &self.namespaces };
        let epoch = self.epoch;
        for class in self.lines.classes.values_mut() {
            let room = self.dedicated.room(class.fit);
            let due = class.look_again.is_some_and(|moment| moment <= now);
            let choosy = class.prefers_to_burst();
            let stale = choosy && class.blocked.as_ref().is_none_or(|blocked| blocked.epoch != epoch);
            if !(class.dirty || due || room != class.room || stale) {
                continue;
            }
            class.dirty = false;
            class.room = room;
            class.evidence = evidence(class, choosy, &snapshot, &self.dedicated, self.extender_asked, now);
            let unsettled = self.lines.disturbed.get(&class.workload.namespace).copied().unwrap_or(Timestamp::EPOCH);
            class.look_again = class.line.weigh(class.evidence, room, unsettled, now);
            // Somebody may have lost or gained room: the answer for the line is open again.
            class.blocked = class.blocked.take().filter(|blocked| blocked.epoch == epoch);
            let planned = class.uids.iter().filter(|(arrival, _)| self.wave.is_planned(**arrival));
            for (arrival, uid) in planned {
                if class.line.no_room_since(*arrival).is_none() && !self.wave.is_promised(uid) {
                    regained.push(uid.clone());
                }
            }
        }
        for uid in regained {
            self.unplan(&uid);
        }
    }

    pub(super) fn unplan(&mut self, uid: &Arc<str>) {
        let Some(waiting) = self.waiting_mut(uid) else { return };
        let arrival = waiting.arrival;
        if let Some(planned) = waiting.planned.take() {
            self.wave.unplan(arrival);
            self.unreserve(uid, &planned);
        }
    }
}

/// Which evidence counts for a line.
fn evidence(
    class: &Class,
    choosy: bool,
    snapshot: &Snapshot<'_>,
    dedicated: &DedicatedNodes,
    extender: bool,
    now: Timestamp,
) -> Evidence {
    let rather_bursts = || match decide(snapshot, &class.policy, &class.workload, Room::Some, now).outcome {
        Outcome::Burst(_) | Outcome::Wait(_) => true,
        Outcome::Dedicated => false,
    };
    if class.workload.held != Held::No {
        return Evidence::Held;
    }
    if choosy && rather_bursts() {
        return Evidence::Refused;
    }
    let answered_for = extender && class.workload.features.contains(Feature::Marked);
    let preempts = class.workload.may_preempt && !answered_for && dedicated.could_preempt(class.fit, class.workload.priority);
    if class.workload.stands_alone() || preempts { Evidence::OwnVerdict } else { Evidence::Equals }
}
