//! The immutable state that a decision sees.

use std::collections::HashMap;
use std::sync::Arc;

use crate::VirtualNode;
use crate::ledger::Books;
use crate::selector::Labels;
use crate::virtual_node::Usage;

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
}

// === impl Snapshot ===

impl Snapshot<'_> {
    /// The labels of a namespace; an unknown one has none.
    pub fn namespace(&self, name: &str) -> &Labels {
        static NONE: std::sync::LazyLock<Labels> = std::sync::LazyLock::new(Labels::default);
        self.namespaces.get(name).unwrap_or(&NONE)
    }
}

// === impl Backends ===

impl Backends {
    /// Adds a backend or replaces what is known of it; its usage stays.
    pub fn set(&mut self, node: Arc<VirtualNode>) {
        let usage = self.usage(&node.name);
        self.by_name.insert(node.name.clone(), Backend { node, usage });
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
