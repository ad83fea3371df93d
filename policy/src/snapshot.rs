//! The immutable state that a decision sees.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ledger::Books;
use crate::selector::Labels;
use crate::virtual_node::Usage;
use crate::{Timestamp, VirtualNode};

/// Everything a decision may know besides the pod itself. Borrowed: a decision copies nothing.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The serverless backends with what is in use of them.
    pub backends: &'a Backends,
    /// What may still be spent.
    pub books: &'a Books,
    /// Labels of the namespaces, for the scope of budgets.
    pub namespaces: &'a Namespaces,
}

/// Labels by namespace.
pub type Namespaces = HashMap<Arc<str>, Labels, foldhash::fast::RandomState>;

/// The serverless backends, and what is in use of each backend and of each tier.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    by_name: HashMap<Arc<str>, Backend, foldhash::fast::RandomState>,
    tiers: HashMap<(Arc<str>, Arc<str>), Usage, foldhash::fast::RandomState>,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// What it offers.
    pub node: Arc<VirtualNode>,
    /// What our own pods use of it, reservations included.
    pub usage: Usage,
    /// What others use of the cloud's quota; see [`Backends::hear`].
    others: Usage,
    /// The most that `usage` has been since the cloud last said what is in use.
    peak: Usage,
    /// Sizes of pods that it has lately failed to start.
    suspended: Vec<Suspension>,
}

/// Pods of one size go elsewhere.
#[derive(Clone, Copy, Debug)]
struct Suspension {
    size: Usage,
    probe: Probe,
}

/// How a suspension ends: one pod is sent, and the others follow if it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Not before then.
    NotBefore(Timestamp),
    /// The next pod is the probe.
    Due,
    /// It is on its way.
    Sent,
}

// === impl Snapshot ===

impl Snapshot<'_> {
    /// The labels of a namespace; an unknown one has none.
    pub fn namespace(&self, name: &str) -> &Labels {
        static NONE: std::sync::LazyLock<Labels> = std::sync::LazyLock::new(Labels::default);
        self.namespaces.get(name).unwrap_or(&NONE)
    }
}

// === impl Backend ===

impl Backend {
    /// What is in use of the cloud's quota: by our own pods and by others.
    pub fn quota_used(&self) -> Usage {
        let mut used = self.usage;
        used.add(&self.others);
        used
    }

    fn occupy(&mut self, usage: &Usage) {
        self.usage.add(usage);
        self.peak = self.peak.larger(&self.usage);
        self.probe(usage, Probe::Due, Probe::Sent);
    }

    fn vacate(&mut self, usage: &Usage) {
        self.usage.subtract(usage);
        // Whether it was the probe that is gone, or one from before: another one is tried.
        self.probe(usage, Probe::Sent, Probe::Due);
    }

    fn probe(&mut self, size: &Usage, from: Probe, to: Probe) {
        for suspension in self.suspended.iter_mut().filter(|one| one.size == *size && one.probe == from) {
            suspension.probe = to;
        }
    }

    /// Whether it gets no pods of this size for the time being: too soon, or one is on its way and nobody knows how it fares.
    pub fn is_suspended(&self, size: &Usage) -> bool {
        self.suspended.iter().any(|one| one.size == *size && one.probe != Probe::Due)
    }

    /// Whether it is too soon for another try with a pod of this size.
    pub fn is_left_alone(&self, size: &Usage) -> bool {
        self.suspended.iter().any(|one| one.size == *size && matches!(one.probe, Probe::NotBefore(_)))
    }
}

// === impl Backends ===

impl Backends {
    /// Adds a backend or replaces what is known of it; its usage stays.
    pub fn set(&mut self, node: Arc<VirtualNode>) {
        match self.by_name.get_mut(&node.name) {
            Some(backend) => backend.node = node,
            None => {
                let none = Usage::default();
                let backend = Backend { node, usage: none, others: none, peak: none, suspended: Vec::new() };
                self.by_name.insert(backend.node.name.clone(), backend);
            }
        }
    }

    /// Forgets a backend.
    pub fn remove(&mut self, name: &str) -> Option<Backend> {
        self.by_name.remove(name)
    }

    /// A backend by the name of its VirtualNode.
    pub fn get(&self, name: &str) -> Option<&Backend> {
        self.by_name.get(name)
    }

    /// All backends, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.by_name.values()
    }

    /// What is in use of a backend.
    pub fn usage(&self, name: &str) -> Usage {
        self.by_name.get(name).map_or_else(Usage::default, |backend| backend.usage)
    }

    /// What is in use of a policy's tier.
    pub fn tier_usage(&self, policy: &Arc<str>, tier: &Arc<str>) -> Usage {
        self.tiers.get(&(policy.clone(), tier.clone())).copied().unwrap_or_default()
    }

    /// A pod is bound, or about to be.
    pub fn occupy(&mut self, backend: &str, policy: &Arc<str>, tier: &Arc<str>, usage: &Usage) {
        if let Some(backend) = self.by_name.get_mut(backend) {
            backend.occupy(usage);
        }
        self.tiers.entry((policy.clone(), tier.clone())).or_default().add(usage);
    }

    /// A backend has appeared while a pod of the books runs there; its tier knows the pod already.
    pub fn occupy_node(&mut self, backend: &str, usage: &Usage) {
        if let Some(backend) = self.by_name.get_mut(backend) {
            backend.occupy(usage);
        }
    }

    /// The cloud has said how much of its quota is in use, by whomever. What that is beyond our own pods is used by others:
    /// other clusters, other virtual nodes, people. Returns whether it has changed.
    ///
    /// The answer is late, and says nothing of whose pods they are. So everything that our own pods have used at any moment
    /// since the answer before is taken off, not what they use now: a pod that has ended in between is in the answer and not
    /// in our books any more, and must not count as somebody else's. Others are therefore seen too small while our own pods
    /// come and go, by as much as these have changed since the answer before, and never too large; the cloud itself refuses
    /// what is too much. An answer must be about a time of which all our own pods are known.
    pub fn hear(&mut self, backend: &str, in_use: &Usage) -> bool {
        let Some(backend) = self.by_name.get_mut(backend) else { return false };
        let others = in_use.beyond(&backend.peak);
        backend.peak = backend.usage;
        std::mem::replace(&mut backend.others, others) != others
    }

    /// A backend gets no more pods of this size until then, and then one at first.
    pub fn suspend(&mut self, backend: &str, size: &Usage, until: Timestamp) {
        if let Some(backend) = self.by_name.get_mut(backend) {
            backend.suspended.retain(|one| one.size != *size);
            backend.suspended.push(Suspension { size: *size, probe: Probe::NotBefore(until) });
        }
    }

    /// Suspensions whose time has come let one pod through. Returns whether there were any.
    pub fn try_again(&mut self, now: Timestamp) -> bool {
        let mut any = false;
        for suspension in self.by_name.values_mut().flat_map(|backend| &mut backend.suspended) {
            if matches!(suspension.probe, Probe::NotBefore(until) if until <= now) {
                suspension.probe = Probe::Due;
                any = true;
            }
        }
        any
    }

    /// A backend has started a pod of this size. It opens for all of them, unless it is still to be left alone: that some of a
    /// wave are started while others are not is no reason to send more. Returns whether it has opened.
    pub fn started(&mut self, backend: &str, size: &Usage) -> bool {
        let Some(backend) = self.by_name.get_mut(backend) else { return false };
        let before = backend.suspended.len();
        backend.suspended.retain(|one| one.size != *size || matches!(one.probe, Probe::NotBefore(_)));
        backend.suspended.len() != before
    }

    /// A pod has ended, or was not bound after all.
    pub fn vacate(&mut self, backend: &str, policy: &Arc<str>, tier: &Arc<str>, usage: &Usage) {
        if let Some(backend) = self.by_name.get_mut(backend) {
            backend.vacate(usage);
        }
        if let Some(used) = self.tiers.get_mut(&(policy.clone(), tier.clone())) {
            used.subtract(usage);
        }
    }
}

#[cfg(test)]
mod tests;
