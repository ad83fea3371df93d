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
    /// What is in use of it, reservations included.
    pub usage: Usage,
    /// Sizes of pods that it has lately failed to start, and until when it gets no more of them.
    suspended: Vec<(Usage, Timestamp)>,
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
    /// Whether it gets no pods of this size for the time being.
    pub fn is_suspended(&self, size: &Usage) -> bool {
        self.suspended.iter().any(|(suspended, _)| suspended == size)
    }
}

// === impl Backends ===

impl Backends {
    /// Adds a backend or replaces what is known of it; its usage stays.
    pub fn set(&mut self, node: Arc<VirtualNode>) {
        match self.by_name.get_mut(&node.name) {
            Some(backend) => backend.node = node,
            None => {
                let backend = Backend { node, usage: Usage::default(), suspended: Vec::new() };
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
            backend.usage.add(usage);
        }
        self.tiers.entry((policy.clone(), tier.clone())).or_default().add(usage);
    }

    /// A backend has appeared while a pod of the books runs there; its tier knows the pod already.
    pub fn occupy_node(&mut self, backend: &str, usage: &Usage) {
        if let Some(backend) = self.by_name.get_mut(backend) {
            backend.usage.add(usage);
        }
    }

    /// A backend gets no more pods of this size until then.
    pub fn suspend(&mut self, backend: &str, size: &Usage, until: Timestamp) {
        if let Some(backend) = self.by_name.get_mut(backend) {
            backend.suspended.retain(|(known, _)| known != size);
            backend.suspended.push((*size, until));
        }
    }

    /// Suspensions that are over are forgotten. Returns whether there were any.
    pub fn resume(&mut self, now: Timestamp) -> bool {
        let mut resumed = false;
        for backend in self.by_name.values_mut() {
            let before = backend.suspended.len();
            backend.suspended.retain(|(_, until)| *until > now);
            resumed |= backend.suspended.len() != before;
        }
        resumed
    }

    /// A pod has ended, or was not bound after all.
    pub fn vacate(&mut self, backend: &str, policy: &Arc<str>, tier: &Arc<str>, usage: &Usage) {
        if let Some(backend) = self.by_name.get_mut(backend) {
            backend.usage.subtract(usage);
        }
        if let Some(used) = self.tiers.get_mut(&(policy.clone(), tier.clone())) {
            used.subtract(usage);
        }
    }
}
