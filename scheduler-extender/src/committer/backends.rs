//! Nodes, virtual nodes, namespaces, services and policies: what decisions are made from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use policy::Timestamp;
use policy::dedicated::{DedicatedNode, unschedulable_taint};
use policy::selector::{Labels, Requirement, Selector};
use policy::virtual_node::{Closed, Limits, Usage};

use super::pods::{Phase, PodRecord};
use super::status::Observed;
use super::{Committer, PolicyObject};
use crate::api::names::{NODE_TYPE_LABEL, VIRTUAL_NODE_TAINT, VIRTUAL_NODE_TYPE};
use crate::guards::Subjects;
use crate::hygiene::Hygiene;
use crate::selection::{CompiledPolicy, LocalServices, Policies};
use crate::{api, compile, workload};

/// A new node counts as coming for as long as the slowest cloud needs to boot one.
const STARTING: Duration = Duration::from_secs(600);

/// The VirtualNode objects and the Nodes that may stand for them.
#[derive(Default)]
pub(super) struct VirtualNodes {
    pub(super) objects: BTreeMap<Arc<str>, VirtualNodeObject>,
    pub(super) nodes: HashMap<Arc<str>, VirtualNodeNode>,
    /// Nodes whose guard is in force; `None`: that is somebody else's business.
    guarded: Option<BTreeSet<Arc<str>>>,
    /// What the guards are to speak of.
    pub(super) to_guard: Arc<Subjects>,
}

/// A VirtualNode as it stands in the API server, and what became of it.
pub(super) struct VirtualNodeObject {
    pub(super) generation: i64,
    /// The last specification that compiled; it stays in force.
    compiled: Option<policy::VirtualNode>,
    /// That specification.
    pub(super) good: Option<api::InForce>,
    adopt: Option<Adopt>,
    deleting: bool,
    healthy: bool,
    /// The leader has not said that its guard is in force; what one that follows goes by.
    guard_pending: bool,
    /// The Node that stands for it, or that did last.
    pub(super) node: Option<Arc<str>>,
    quota: Limits,
    /// What the cloud last said to be in use, and when, as far as that was taken in.
    heard: Option<(Timestamp, Usage)>,
    pub(super) invalid: Option<String>,
}

/// Labels of the Node that is adopted.
struct Adopt {
    labels: BTreeMap<String, String>,
    selector: Selector,
}

/// A Node that is no dedicated node.
pub(super) struct VirtualNodeNode {
    pub(super) uid: Arc<str>,
    pub(super) hygiene: Hygiene,
    /// When it was last to be repaired.
    pub(super) repaired: Option<Timestamp>,
    labels: Labels,
    ready: bool,
    deleting: bool,
    /// It carries Spillway's taint.
    tainted: bool,
}

// === impl Committer ===

impl Committer {
    pub(super) fn observe_node(&mut self, node: &Node, now: Timestamp) {
        let Some(name) = node.metadata.name.as_deref().map(Arc::<str>::from) else { return };
        let labels = object_labels(node.metadata.labels.as_ref());
        if self.is_virtual(node, &labels) {
            self.dedicated.remove(&name);
            let facts = VirtualNodeNode {
                uid: Arc::from(node.metadata.uid.as_deref().unwrap_or_default()),
                hygiene: Hygiene::of(node),
                repaired: self.virtual_nodes.nodes.get(&name).and_then(|before| before.repaired),
                labels,
                ready: is_ready(node),
                deleting: node.metadata.deletion_timestamp.is_some(),
                tainted: is_tainted(node),
            };
            self.virtual_nodes.nodes.insert(name, facts);
            self.resolve();
            return;
        }
        if self.virtual_nodes.nodes.remove(&name).is_some() {
            self.resolve();
        }
        let facts = dedicated_node(node, name.clone(), labels, now);
        if self.dedicated.get(&name) == Some(&facts) {
            return;
        }
        self.dedicated.set(facts);
        if self.virtual_nodes.to_guard.bound.contains(&name) {
            // Its name was a virtual node's: its own scheduler must be able to bind now.
            self.list_guards();
        }
        self.place_unplaced(&name);
    }

    pub(super) fn node_gone(&mut self, name: &str) {
        if self.virtual_nodes.nodes.remove(name).is_some() {
            self.resolve();
            return;
        }
        self.dedicated.remove(name);
        // Its pods are known until they are gone; should the node come back, they are counted there again.
        for (uid, record) in &mut self.pods {
            if let Phase::Dedicated(place) = &mut record.phase
                && *place.node == *name
            {
                place.placed = false;
                self.unplaced.entry(place.node.clone()).or_default().push(uid.clone());
            }
        }
    }

    fn place_unplaced(&mut self, name: &Arc<str>) {
        for uid in self.unplaced.remove(name).unwrap_or_default() {
            if let Some(PodRecord { phase: Phase::Dedicated(place), .. }) = self.pods.get_mut(&uid)
                && !place.placed
                && place.node == *name
            {
                place.placed = self.dedicated.place(name, &place.requests, place.priority);
            }
        }
    }

    /// Whether pods on this node are none of kube-scheduler's business.
    fn is_virtual(&self, node: &Node, labels: &Labels) -> bool {
        is_virtual_kubelet(labels) || is_tainted(node) || self.virtual_nodes.objects.values().any(|object| object.adopts(labels))
    }

    pub(super) fn observe_virtual_node(&mut self, object: &api::VirtualNode) {
        let Some(name) = object.metadata.name.as_deref().map(Arc::<str>::from) else { return };
        let observed = object.status.as_ref().map_or_else(Observed::default, |status| Observed {
            conditions: &status.conditions,
            spend: status.spend.as_deref(),
            settled: status.settled.as_deref(),
        });
        self.statuses.observe(super::StatusKind::VirtualNode, &name, observed);
        let compiled = compile::virtual_node(object, &self.settings.currency);
        let quota = object.status.as_ref().and_then(|status| status.quota.as_ref()).map(compile::limits).transpose();
        let before = self.virtual_nodes.objects.remove(&name);
        let named = object.status.as_ref().and_then(|status| status.node_name.as_deref()).map(Arc::from);
        let generation = object.metadata.generation.unwrap_or(0);
        let (last, last_quota, heard, node) = match before {
            Some(before) => ((before.compiled, before.good), before.quota, before.heard, before.node),
            None => (last_good_node(object, &self.settings.currency), Limits::default(), None, named),
        };
        let ((compiled, good), invalid) = match compiled {
            Ok(compiled) => ((Some(compiled), in_force(generation, &object.spec)), None),
            Err(invalid) => (last, Some(invalid.to_string())),
        };
        let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let facts = VirtualNodeObject {
            generation,
            compiled,
            good,
            adopt: object.spec.adopt.as_ref().map(|adopt| Adopt::new(&adopt.node_selector)),
            deleting: object.metadata.deletion_timestamp.is_some(),
            healthy: !conditions.iter().any(|condition| condition.type_ == "BackendHealthy" && condition.status == "False"),
            guard_pending: !conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.reason != Closed::GuardPending.label()),
            node,
            // Unreadable is not the same as unknown.
            quota: quota.map_or(last_quota, Option::unwrap_or_default),
            heard,
            invalid,
        };
        self.virtual_nodes.objects.insert(name.clone(), facts);
        self.resolve();
        self.hear(&name, object.status.as_ref());
    }

    /// What the cloud says is in use of its quota, each time it says so.
    ///
    /// What it said before this process knew its own pods is left alone: pods that have ended meanwhile would count as somebody
    /// else's. A new leader asks at once.
    fn hear(&mut self, name: &str, status: Option<&api::VirtualNodeStatus>) {
        let said = status.and_then(|status| Some((status.usage.as_ref()?, status.observed_at.as_ref()?)));
        let (Some((usage, at)), Some(known)) = (said, self.virtual_nodes.objects.get_mut(name)) else { return };
        let at = Timestamp::from_millis(at.0.as_millisecond());
        if !self.synced || at < self.synced_at {
            return;
        }
        // Unreadable is not the same as unused.
        let Ok(amounts) = compile::limits(usage) else { return };
        let in_use = Usage {
            pods: amounts.pods.unwrap_or(0),
            cpu_millis: amounts.cpu_millis.unwrap_or(0),
            memory_bytes: amounts.memory_bytes.unwrap_or(0),
        };
        // Once for each answer, however often the object is told.
        if known.heard.replace((at, in_use)) == Some((at, in_use)) {
            return;
        }
        if self.backends.hear(name, &in_use) {
            self.reconsider();
        }
    }

    pub(super) fn virtual_node_gone(&mut self, name: &str) {
        self.virtual_nodes.objects.remove(name);
        self.backends.remove(name);
        self.statuses.forget(super::StatusKind::VirtualNode, name);
        self.list_guards();
        self.reconsider();
    }

    /// Joins VirtualNodes with the Nodes that stand for them.
    fn resolve(&mut self) {
        for object in self.virtual_nodes.objects.values_mut() {
            if let (Some(node), _) = object.node(&self.virtual_nodes.nodes) {
                object.node = Some(node);
            }
        }
        self.list_guards();
        let resolved: Vec<policy::VirtualNode> = self
            .virtual_nodes
            .objects
            .iter()
            .filter_map(|(name, object)| {
                let (node_name, closed) = object.node(&self.virtual_nodes.nodes);
                let guarded_by_leader = self.follows && !(object.guard_pending && self.settings.await_guards);
                let closed =
                    if guarded_by_leader { closed } else { closed.or_else(|| self.virtual_nodes.unguarded(node_name.as_ref())) };
                let compiled = object.compiled.clone()?;
                Some(policy::VirtualNode { name: name.clone(), node_name, closed, quota: object.quota, ..compiled })
            })
            .collect();
        for node in resolved {
            let known = self.backends.get(&node.name);
            if known.is_some_and(|backend| *backend.node == node) {
                continue;
            }
            let (is_new, name) = (known.is_none(), node.name.clone());
            self.backends.set(Arc::new(node));
            if is_new {
                self.recount_usage(&name);
            }
            self.reconsider();
        }
    }

    /// Guards are in force.
    pub(super) fn guarded(&mut self, subjects: &Subjects) {
        if let Some(guarded) = &mut self.virtual_nodes.guarded {
            guarded.clone_from(&subjects.bound);
            self.resolve();
        }
    }

    /// What the guards are to speak of: Nodes with Spillway's taint, and those that VirtualNodes stand for. A Node that is away
    /// for a moment, as when a virtual kubelet makes it anew, comes back guarded; a managed one is guarded before it is made.
    fn list_guards(&mut self) {
        let VirtualNodes { objects, nodes, .. } = &self.virtual_nodes;
        let mut closed: BTreeSet<Arc<str>> = BTreeSet::new();
        for (name, object) in objects {
            let matching: Vec<_> = nodes.iter().filter(|(_, node)| object.adopts(&node.labels)).collect();
            // A selector that takes in several machines by mistake must not close them all.
            let alone = matching.len() == 1;
            let kept = matching.into_iter().filter(|(_, node)| alone || is_virtual_kubelet(&node.labels));
            closed.extend(kept.map(|(name, _)| name.clone()));
            let node = if object.adopt.is_some() { object.node.as_ref() } else { Some(name) };
            // The name may be that of an ordinary node meanwhile, whose pods are none of our business.
            closed.extend(node.filter(|node| self.dedicated.get(node).is_none()).cloned());
        }
        let tainted = nodes.iter().filter(|(_, node)| node.tainted).map(|(name, _)| name.clone());
        let to_guard = Subjects {
            bound: closed.iter().cloned().chain(tainted).collect(),
            closed,
            adopting: objects.values().filter_map(|object| Some(object.adopt.as_ref()?.labels.clone())).collect(),
        };
        if *self.virtual_nodes.to_guard != to_guard {
            self.virtual_nodes.to_guard = Arc::new(to_guard);
        }
    }

    /// A backend has appeared after pods that run there: their usage is entered.
    fn recount_usage(&mut self, name: &Arc<str>) {
        let used: Vec<_> = self
            .pods
            .values()
            .filter_map(|record| match &record.phase {
                Phase::Burst(burst) if burst.finished.is_none() && burst.record.virtual_node == *name => Some(burst.record.usage),
                Phase::Binding(flight) if flight.planned.record.virtual_node == *name => Some(flight.planned.record.usage),
                Phase::Waiting(waiting) => waiting
                    .planned
                    .as_ref()
                    .filter(|planned| planned.record.virtual_node == *name)
                    .map(|planned| planned.record.usage),
                Phase::Burst(_) | Phase::Binding(_) | Phase::Dedicated(_) => None,
            })
            .collect();
        for usage in used {
            self.backends.occupy_node(name, &usage);
        }
    }

    pub(super) fn observe_namespace(&mut self, namespace: &Namespace) {
        let Some(name) = namespace.metadata.name.as_deref() else { return };
        let labels = object_labels(namespace.metadata.labels.as_ref());
        if self.namespaces.get(name) != Some(&labels) {
            Arc::make_mut(&mut self.namespaces).insert(Arc::from(name), labels);
            self.reselect();
        }
    }

    pub(super) fn namespace_gone(&mut self, name: &str) {
        Arc::make_mut(&mut self.namespaces).remove(name);
    }

    pub(super) fn observe_service(&mut self, service: &Service) {
        let (Some(namespace), Some(name)) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref()) else {
            return;
        };
        let spec = service.spec.as_ref();
        let local = spec.is_some_and(|spec| {
            spec.external_traffic_policy.as_deref() == Some("Local")
                || spec.internal_traffic_policy.as_deref() == Some("Local")
                || spec.traffic_distribution.is_some()
        });
        let selector = spec.and_then(|spec| spec.selector.as_ref()).filter(|selector| local && !selector.is_empty());
        let selector = selector.map(|selector| Selector {
            requirements: selector.iter().map(|(key, value)| Requirement::equals(key, value)).collect(),
        });
        self.set_local_service(namespace, name, selector);
    }

    pub(super) fn set_local_service(&mut self, namespace: &str, name: &str, selector: Option<Selector>) {
        let known = self.services.get(namespace).and_then(|services| services.iter().find(|(service, _)| **service == *name));
        if known.map(|(_, selector)| selector) == selector.as_ref() {
            return;
        }
        let services: &mut LocalServices = Arc::make_mut(&mut self.services);
        let here = services.entry(Arc::from(namespace)).or_default();
        here.retain(|(service, _)| **service != *name);
        here.extend(selector.map(|selector| (Arc::from(name), selector)));
        self.reselect();
    }

    pub(super) fn observe_policy(&mut self, object: &api::BurstPolicy) {
        let Some(name) = object.metadata.name.as_deref().map(Arc::<str>::from) else { return };
        let observed = object.status.as_ref().map_or_else(Observed::default, |status| Observed {
            conditions: &status.conditions,
            spend: status.spend.as_deref(),
            settled: status.settled.as_deref(),
        });
        self.statuses.observe(super::StatusKind::Policy, &name, observed);
        let generation = object.metadata.generation.unwrap_or(0);
        if self.policies.get(&name).is_some_and(|known| known.generation == generation) {
            return;
        }
        let before = self.policies.remove(&name);
        let old = before.as_ref().and_then(|known| known.compiled.clone());
        let known = match compile::burst_policy(object) {
            Ok(compiled) => {
                let good = in_force(generation, &object.spec);
                PolicyObject { generation, compiled: Some(Arc::new(compiled)), good, invalid: None }
            }
            Err(invalid) => {
                let invalid = Some(invalid.to_string());
                let (compiled, good) = before.map_or_else(|| last_good_policy(object), |known| (known.compiled, known.good));
                PolicyObject { generation, compiled, good, invalid }
            }
        };
        let new = known.compiled.clone();
        self.policies.insert(name, known);
        self.recompile();
        match old.zip(new) {
            // A hold, a price or a limit: the pods need not be listed for that, however many wait.
            Some((old, new)) if new.succeeds(&old) => self.lines.renew(&old.policy, &new.policy),
            _ => {
                self.conflicts.clear();
                self.reselect();
            }
        }
    }

    pub(super) fn policy_gone(&mut self, name: &str) {
        self.policies.remove(name);
        self.statuses.forget(super::StatusKind::Policy, name);
        self.recompile();
        self.conflicts.clear();
        self.reselect();
    }

    fn recompile(&mut self) {
        let compiled: Vec<Arc<CompiledPolicy>> = self.policies.values().filter_map(|policy| policy.compiled.clone()).collect();
        self.compiled = Arc::new(Policies::new(compiled));
        self.drop_outdated_plans();
        self.reconsider();
    }

    /// Nothing is sent any more that was decided by a policy which has changed or is gone.
    fn drop_outdated_plans(&mut self) {
        let outdated: Vec<Arc<str>> = self
            .pods
            .iter()
            .filter_map(|(uid, record)| match &record.phase {
                Phase::Waiting(waiting) if waiting.planned.is_some() => Some((uid, self.lines.policy(waiting.class)?)),
                Phase::Waiting(_) | Phase::Binding(_) | Phase::Dedicated(_) | Phase::Burst(_) => None,
            })
            .filter(|(_, policy)| !self.is_current(policy))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in outdated {
            self.unplan(&uid);
        }
    }

    /// Whether this is the version of a policy that is in force. Pods that wait under another one are being told again.
    pub(super) fn is_current(&self, policy: &Arc<policy::BurstPolicy>) -> bool {
        let known = self.policies.get(&policy.name).and_then(|known| known.compiled.as_ref());
        known.is_some_and(|known| Arc::ptr_eq(&known.policy, policy))
    }

    /// What selects pods has changed: those that wait are told again, and find their lines anew.
    fn reselect(&mut self) {
        if self.synced {
            self.list_pending();
        }
    }
}

// === impl VirtualNodes ===

impl VirtualNodes {
    pub(super) fn new(await_guards: bool) -> VirtualNodes {
        VirtualNodes { guarded: await_guards.then(BTreeSet::new), ..VirtualNodes::default() }
    }

    /// A Node that is there, always the same one of several.
    pub(super) fn present(&self) -> Option<Arc<str>> {
        self.nodes.keys().min().cloned()
    }

    /// A node that others can still bind to is not used, adopted ones included: a pod of theirs would run unpaid-for beside
    /// ours, and whoever can bind could write records.
    fn unguarded(&self, node: Option<&Arc<str>>) -> Option<Closed> {
        let (guarded, node) = (self.guarded.as_ref()?, node?);
        (!guarded.contains(node)).then_some(Closed::GuardPending)
    }
}

// === impl Adopt ===

impl Adopt {
    fn new(labels: &BTreeMap<String, String>) -> Adopt {
        let equals = labels.iter().map(|(key, value)| Requirement::equals(key, value));
        Adopt { labels: labels.clone(), selector: Selector { requirements: equals.collect() } }
    }
}

// === impl VirtualNodeObject ===

impl VirtualNodeObject {
    fn adopts(&self, labels: &Labels) -> bool {
        self.adopt.as_ref().is_some_and(|adopt| adopt.selector.matches(labels))
    }

    /// The Node that stands for it, and why it takes nothing, if so.
    fn node(&self, nodes: &HashMap<Arc<str>, VirtualNodeNode>) -> (Option<Arc<str>>, Option<Closed>) {
        if self.adopt.is_none() {
            return (None, Some(Closed::NoVirtualKubelet));
        }
        let mut matching = nodes.iter().filter(|(_, node)| self.adopts(&node.labels));
        let (name, node) = match (matching.next(), matching.next()) {
            (None, _) => return (None, Some(Closed::NoNode)),
            (Some(_), Some(_)) => return (None, Some(Closed::AmbiguousNode)),
            (Some(only), None) => only,
        };
        let closed = if self.deleting || node.deleting {
            Some(Closed::Deleting)
        } else if !node.ready {
            Some(Closed::NodeNotReady)
        } else if !self.healthy {
            Some(Closed::BackendUnhealthy)
        } else {
            None
        };
        (Some(name.clone()), closed)
    }
}

/// A specification as it is kept for a restart.
pub(super) fn in_force(generation: i64, spec: &impl serde::Serialize) -> Option<api::InForce> {
    Some(api::InForce { generation, spec: serde_json::to_value(spec).ok()? })
}

/// The policy that a predecessor went by, if the object's own specification cannot be used.
fn last_good_policy(object: &api::BurstPolicy) -> (Option<Arc<CompiledPolicy>>, Option<api::InForce>) {
    let Some(good) = object.status.as_ref().and_then(|status| status.in_force.clone()) else { return (None, None) };
    let Ok(spec) = serde_json::from_value(good.spec.clone()) else { return (None, None) };
    let mut metadata = object.metadata.clone();
    metadata.generation = Some(good.generation);
    let compiled = compile::burst_policy(&api::BurstPolicy { metadata, spec, status: None }).ok().map(Arc::new);
    (compiled, Some(good))
}

/// The virtual node that a predecessor went by. Prices and quota in the status are those of now.
fn last_good_node(object: &api::VirtualNode, currency: &str) -> (Option<policy::VirtualNode>, Option<api::InForce>) {
    let Some(good) = object.status.as_ref().and_then(|status| status.in_force.clone()) else { return (None, None) };
    let Ok(spec) = serde_json::from_value(good.spec.clone()) else { return (None, None) };
    (compile::virtual_node(&api::VirtualNode { spec, ..object.clone() }, currency).ok(), Some(good))
}

fn object_labels(labels: Option<&BTreeMap<String, String>>) -> Labels {
    labels.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// What every virtual kubelet says of itself.
fn is_virtual_kubelet(labels: &Labels) -> bool {
    labels.get(NODE_TYPE_LABEL) == Some(VIRTUAL_NODE_TYPE)
}

fn is_tainted(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == VIRTUAL_NODE_TAINT)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn dedicated_node(node: &Node, name: Arc<str>, labels: Labels, now: Timestamp) -> DedicatedNode {
    let spec = node.spec.as_ref();
    // An unreadable taint, which the API server does not store, must not turn into room.
    let mut taints = spec.map_or_else(Vec::new, |spec| workload::taints(spec).unwrap_or_else(|_| vec![unschedulable_taint()]));
    if spec.and_then(|spec| spec.unschedulable) == Some(true) && !taints.contains(&unschedulable_taint()) {
        taints.push(unschedulable_taint());
    }
    let created = node.metadata.creation_timestamp.as_ref().map_or(now, |time| Timestamp::from_millis(time.0.as_millisecond()));
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let pods = allocatable
        .and_then(|list| list.get("pods"))
        .and_then(|pods| pods.0.parse::<policy::Quantity>().ok())
        .map_or(0, policy::Quantity::units_up);
    let mut allocatable = allocatable.and_then(|list| workload::resources(list).ok()).unwrap_or_default();
    allocatable.set_extended("pods", 0);
    DedicatedNode { name, labels, taints, allocatable, pods, starting: !is_ready(node) && now.since(created) < STARTING }
}
