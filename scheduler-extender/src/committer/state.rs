//! What the committer publishes for those who only read: the extender on every replica.

use std::collections::HashSet;
use std::sync::Arc;

use policy::Snapshot;
use policy::dedicated::Packing;
use policy::ledger::Books;
use policy::snapshot::{Backends, Namespaces};

use super::Committer;
use crate::guards::Subjects;
use crate::selection::{LocalServices, Policies};

/// UIDs of pods.
pub type Uids = HashSet<Arc<str>, foldhash::fast::RandomState>;

/// An immutable state; handlers decide on it without locks and without waiting.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The policies in order of precedence.
    pub policies: Arc<Policies>,
    /// Labels of the namespaces.
    pub namespaces: Arc<Namespaces>,
    /// Services that keep traffic local.
    pub services: Arc<LocalServices>,
    /// Pods that are about to be bound to a virtual node by choice, whatever dedicated nodes have to offer meanwhile.
    pub promised: Arc<Uids>,
    /// Pods that Spillway has tried to bind and may not: they are not kept from dedicated nodes.
    pub unbindable: Arc<Uids>,
    /// How full the dedicated nodes are.
    pub packing: Packing,
    /// Virtual nodes with what is in use of them.
    pub backends: Backends,
    /// What may still be spent.
    pub books: Books,
    /// What the guards are to speak of.
    pub to_guard: Arc<Subjects>,
    /// Whether everything that exists is in here. Before, nobody is refused anything.
    pub synced: bool,
    /// Whether some replica leads. Else nothing is committed, so nobody is refused anything either.
    pub led: bool,
}

impl Published {
    /// Whether it can be answered from.
    pub fn is_in_force(&self) -> bool {
        self.synced && self.led
    }

    /// The same without what one leader has promised.
    pub fn without_promises(&self) -> Published {
        Published { promised: Arc::default(), ..self.clone() }
    }

    /// What decisions see.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { backends: &self.backends, books: &self.books, namespaces: &self.namespaces }
    }
}

impl Committer {
    /// The state as it is now.
    pub fn published(&self) -> Published {
        Published {
            policies: self.compiled.clone(),
            namespaces: self.namespaces.clone(),
            services: self.services.clone(),
            promised: self.wave.promised(),
            unbindable: self.wave.unbindable(),
            packing: self.dedicated.packing(),
            backends: self.backends.clone(),
            books: self.ledger.books().clone(),
            to_guard: self.virtual_nodes.to_guard.clone(),
            synced: self.synced,
            led: self.led,
        }
    }
}
