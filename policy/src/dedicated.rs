//! The dedicated nodes: what is free on them, and how often a pod of each kind still fits.
//!
//! Room is counted per *fit* (what a pod asks of a node). A change of one node costs one small step per fit, and asking for
//! the room of a fit costs nothing, however many nodes and pods there are.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::selector::{Labels, NodeTerm, Requirement};
use crate::taint::{Effect, Taint, Toleration, tolerated};
use crate::{Resources, Workload};

/// A real node as kube-scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedicatedNode {
    /// Name of the Node.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its taints; `spec.unschedulable` included as the taint kube-scheduler makes of it.
    pub taints: Vec<Taint>,
    /// What pods may ask for.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub pods: i64,
    /// Still starting: taints that every new node carries for a while do not count, because the node is room that is coming.
    pub starting: bool,
}

/// How full the dedicated nodes are: all that packing needs to know, cheap to copy.
///
/// Nodes are found by the hash of their name alone, because 5,000 names are looked up per call and comparing them would be
/// most of the work. Two nodes share 64 bits with a probability of one in 10¹²; then one of them is packed in the wrong order.
#[derive(Clone, Debug, Default)]
pub struct Packing {
    by_hash: Arc<HashMap<u64, usize, foldhash::fast::FixedState>>,
    fullness: Vec<u16>,
}

/// What a pod asks of a dedicated node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fit {
    requests: Resources,
    node_selector: Vec<Requirement>,
    node_affinity: Option<Vec<NodeTerm>>,
    tolerations: Vec<Toleration>,
    /// The dedicated tier's own restriction.
    tier: Vec<Requirement>,
}

/// Handle of a fit that is being counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FitId(usize);

/// All dedicated nodes, and the room of every fit that is asked about.
#[derive(Clone, Debug, Default)]
pub struct DedicatedNodes {
    nodes: Vec<Slot>,
    vacant: Vec<usize>,
    by_name: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    packing: Packing,
    fits: Vec<Option<Room>>,
    by_fit: HashMap<Arc<Fit>, FitId, foldhash::fast::RandomState>,
    /// Pods on all dedicated nodes by priority: nobody can preempt where nobody is lower.
    priorities: BTreeMap<i32, u32>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    node: Option<Arc<DedicatedNode>>,
    used: Resources,
    pods: i64,
    priorities: BTreeMap<i32, u32>,
}

#[derive(Clone, Debug)]
struct Room {
    fit: Arc<Fit>,
    users: usize,
    /// Per node: whether selectors and taints let the pod in, and how often it fits.
    admitted: Vec<bool>,
    times: Vec<i64>,
    total: i64,
}

/// Taints that Kubernetes and node autoscalers put on a node until it is ready for pods.
const STARTUP_TAINTS: [&str; 5] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/network-unavailable",
    "node.cloudprovider.kubernetes.io/uninitialized",
    "karpenter.sh/unregistered",
    "ebs.csi.aws.com/agent-not-ready",
];

// === impl Fit ===

impl Fit {
    /// What a pod asks of the nodes of a dedicated tier.
    pub fn new(workload: &Workload, tier: &[Requirement]) -> Fit {
        Fit {
            requests: workload.requests.clone(),
            node_selector: workload.node_selector.clone(),
            node_affinity: workload.node_affinity.clone(),
            tolerations: workload.tolerations.clone(),
            tier: tier.to_vec(),
        }
    }

    fn admits(&self, node: &DedicatedNode) -> bool {
        let holds = |requirements: &[Requirement]| requirements.iter().all(|one| one.holds(node.labels.get(&one.key)));
        holds(&self.node_selector)
            && holds(&self.tier)
            && self.node_affinity.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(&node.name, &node.labels)))
            && self.tolerates(node)
    }

    fn tolerates(&self, node: &DedicatedNode) -> bool {
        if !node.starting {
            return tolerated(&node.taints, &self.tolerations);
        }
        let lasting: Vec<Taint> = node.taints.iter().filter(|taint| !STARTUP_TAINTS.contains(&&*taint.key)).cloned().collect();
        tolerated(&lasting, &self.tolerations)
    }
}

// === impl DedicatedNodes ===

impl DedicatedNodes {
    /// Adds a node or replaces what is known of it.
    pub fn set(&mut self, node: DedicatedNode) {
        let place = match self.by_name.get(&node.name) {
            Some(place) => *place,
            None => {
                let place = self.vacant.pop().unwrap_or_else(|| {
                    self.nodes.push(Slot::default());
                    self.packing.fullness.push(0);
                    for room in self.fits.iter_mut().flatten() {
                        room.admitted.push(false);
                        room.times.push(0);
                    }
                    self.nodes.len() - 1
                });
                self.by_name.insert(node.name.clone(), place);
                Arc::make_mut(&mut self.packing.by_hash).insert(hash(&node.name), place);
                place
            }
        };
        self.nodes[place].node = Some(Arc::new(node));
        self.recount(place, true);
    }

    /// Forgets a node. Pods that were placed on it are forgotten with it.
    pub fn remove(&mut self, name: &str) {
        let Some(place) = self.by_name.remove(name) else { return };
        Arc::make_mut(&mut self.packing.by_hash).remove(&hash(name));
        let slot = std::mem::take(&mut self.nodes[place]);
        for (priority, count) in slot.priorities {
            forget(&mut self.priorities, priority, count);
        }
        self.recount(place, true);
        self.vacant.push(place);
    }

    /// A pod is on a node. `false` if the node is not known.
    pub fn place(&mut self, name: &str, requests: &Resources, priority: i32) -> bool {
        let Some(place) = self.by_name.get(name).copied() else { return false };
        let slot = &mut self.nodes[place];
        slot.used.add(requests);
        slot.pods += 1;
        *slot.priorities.entry(priority).or_default() += 1;
        *self.priorities.entry(priority).or_default() += 1;
        self.recount(place, false);
        true
    }

    /// A pod is no longer on a node.
    pub fn unplace(&mut self, name: &str, requests: &Resources, priority: i32) {
        let Some(place) = self.by_name.get(name).copied() else { return };
        let slot = &mut self.nodes[place];
        debug_assert!(slot.pods > 0, "a pod leaves a node that it was placed on");
        slot.used.subtract(requests);
        slot.pods -= 1;
        forget(&mut slot.priorities, priority, 1);
        forget(&mut self.priorities, priority, 1);
        self.recount(place, false);
    }

    /// Starts counting the room of a fit; equal fits share one count.
    pub fn watch(&mut self, fit: Fit) -> FitId {
        if let Some(id) = self.by_fit.get(&fit).copied() {
            if let Some(room) = &mut self.fits[id.0] {
                room.users += 1;
            }
            return id;
        }
        let fit = Arc::new(fit);
        let count = self.nodes.len();
        let room = Room { fit: fit.clone(), users: 1, admitted: vec![false; count], times: vec![0; count], total: 0 };
        let place = self.fits.iter().position(Option::is_none).unwrap_or_else(|| {
            self.fits.push(None);
            self.fits.len() - 1
        });
        self.fits[place] = Some(room);
        self.by_fit.insert(fit, FitId(place));
        for node in 0..count {
            self.recount_one(place, node, true);
        }
        FitId(place)
    }

    /// Stops counting, once for every `watch`.
    pub fn unwatch(&mut self, id: FitId) {
        let Some(room) = self.fits[id.0].as_mut() else { return };
        room.users -= 1;
        if room.users == 0 {
            let fit = room.fit.clone();
            self.by_fit.remove(&fit);
            self.fits[id.0] = None;
        }
    }

    /// How many more pods of this fit the dedicated nodes hold.
    pub fn room(&self, id: FitId) -> i64 {
        self.fits[id.0].as_ref().map_or(0, |room| room.total)
    }

    /// Whether a pod of this priority could evict somebody from a node that its fit admits.
    pub fn could_preempt(&self, id: FitId, priority: i32) -> bool {
        if self.priorities.range(..priority).next().is_none() {
            return false;
        }
        let Some(room) = self.fits[id.0].as_ref() else { return false };
        room.admitted
            .iter()
            .zip(&self.nodes)
            .any(|(admitted, slot)| *admitted && slot.priorities.range(..priority).next().is_some())
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether a node of this name is known.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// What is known of a node.
    pub fn get(&self, name: &str) -> Option<&DedicatedNode> {
        self.nodes[*self.by_name.get(name)?].node.as_deref()
    }

    /// How full the nodes are now.
    pub fn packing(&self) -> Packing {
        self.packing.clone()
    }

    fn recount(&mut self, node: usize, admission: bool) {
        self.packing.fullness[node] = self.nodes[node].fullness();
        for fit in 0..self.fits.len() {
            self.recount_one(fit, node, admission);
        }
    }

    fn recount_one(&mut self, fit: usize, node: usize, admission: bool) {
        let Some(room) = self.fits[fit].as_mut() else { return };
        let slot = &self.nodes[node];
        if admission {
            room.admitted[node] = slot.node.as_ref().is_some_and(|node| room.fit.admits(node));
        }
        let times = match &slot.node {
            Some(facts) if room.admitted[node] => slot.times(facts, &room.fit.requests),
            _ => 0,
        };
        room.total += times - room.times[node];
        room.times[node] = times;
    }
}

fn forget(priorities: &mut BTreeMap<i32, u32>, priority: i32, count: u32) {
    if let Some(left) = priorities.get_mut(&priority) {
        *left = left.saturating_sub(count);
        if *left == 0 {
            priorities.remove(&priority);
        }
    }
}

// === impl Packing ===

impl Packing {
    /// Share of a node in use, in thousandths: the mean of CPU and memory. `None` if it is no dedicated node.
    pub fn fullness(&self, name: &str) -> Option<u16> {
        self.by_hash.get(&hash(name)).map(|place| self.fullness[*place])
    }
}

/// The same in every process, so that answers are.
fn hash(name: &str) -> u64 {
    foldhash::fast::FixedState::with_seed(0).hash_one(name)
}

// === impl Slot ===

impl Slot {
    fn fullness(&self) -> u16 {
        let Some(node) = &self.node else { return 0 };
        let share = |used: i64, of: i64| if of > 0 { (i128::from(used.max(0)) * 1000 / i128::from(of)).min(1000) } else { 1000 };
        let cpu = share(self.used.cpu_millis, node.allocatable.cpu_millis);
        let memory = share(self.used.memory_bytes, node.allocatable.memory_bytes);
        u16::try_from((cpu + memory) / 2).unwrap_or(1000)
    }

    fn times(&self, node: &DedicatedNode, requests: &Resources) -> i64 {
        let mut free = node.allocatable.clone();
        free.subtract(&self.used);
        free.times(requests, node.pods - self.pods)
    }
}

/// The taint that `spec.unschedulable` stands for.
pub fn unschedulable_taint() -> Taint {
    Taint { key: Arc::from("node.kubernetes.io/unschedulable"), value: Arc::from(""), effect: Effect::NoSchedule }
}

#[cfg(test)]
mod tests;
