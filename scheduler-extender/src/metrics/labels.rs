//! The closed vocabularies of the label values. A value that is not in one of these enums is either a `&'static str`
//! that another module names once (`Reason::label`, `ErrorKind::label`), or the name of an object, which
//! [`Names`] bounds.

use policy::burst_policy::Mode;
use policy::virtual_node::Provider;
use std::collections::HashSet;
use std::sync::Mutex;

/// What stands in a label when the real value would be one series too many.
pub const OTHER: &str = "other";

/// What stands in a label that has no value for this series, for example the provider of a dedicated node.
/// An empty label would be no label at all to Prometheus, and a blank line in a legend.
pub const NONE: &str = "none";

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$value_doc])* $value),+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &[$name] = &[$($name::$value),+];

            /// The label value. Dashboards and alerts match on it: never reword.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $($name::$value => $text),+ }
            }
        }
    };
}

words! {
    /// What a decision says. The same three words as the engine's.
    Outcome {
        /// Left to its scheduler.
        Dedicated = "dedicated",
        /// Committed to a virtual node, or it would be in Audit mode.
        Burst = "burst",
        /// Held, until a time or an event.
        Wait = "wait",
    }
}

words! {
    /// How far a pod is.
    Phase {
        /// Not bound.
        Pending = "pending",
        /// Bound, its containers do not run yet.
        Starting = "starting",
        /// Its containers run.
        Running = "running",
    }
}

words! {
    /// How the API server answered a Binding.
    BindingOutcome {
        /// The pod is ours.
        Created = "created",
        /// 409: bound by another, changed or gone. Normal now and then, because two binders meet there.
        Conflict = "conflict",
        /// The API server said no for good: admission, RBAC, invalid.
        Refused = "refused",
        /// No answer, or a passing error: the outcome is read back from the pod.
        Failed = "failed",
    }
}

words! {
    /// What the end of a budget did to a pod.
    BudgetAction {
        /// Kept off the virtual nodes.
        DedicatedOnly = "dedicated_only",
        /// Burst all the same, with a warning.
        Warn = "warn",
    }
}

/// The label of a mode.
pub(super) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Audit => "audit",
        Mode::Enforce => "enforce",
    }
}

/// The cloud, or that there is none.
pub(super) fn provider(provider: Option<Provider>) -> &'static str {
    provider.map_or(NONE, Provider::label)
}

/// How many names of each kind have series of their own. The rest is [`OTHER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Owners with money of their own.
    pub owners: usize,
    /// Namespaces.
    pub namespaces: usize,
    /// Policies, tiers, virtual nodes, budgets and regions, each: only administrators make these.
    pub objects: usize,
}

impl Limits {
    /// What a large installation needs; the names that exist in fact multiply far less than these numbers do.
    pub const STANDARD: Limits = Limits { owners: 200, namespaces: 200, objects: 100 };
}

/// The names that users and administrators choose.
pub(super) struct BoundedNames {
    pub(super) namespaces: Names,
    pub(super) policies: Names,
    pub(super) tiers: Names,
    pub(super) nodes: Names,
    pub(super) budgets: Names,
    pub(super) regions: Names,
}

/// The names of one kind of object that have their own series: the first `limit` that were seen. Every further one
/// is [`OTHER`], so that nobody can fill a Prometheus by creating objects.
pub(super) struct Names {
    limit: usize,
    seen: Mutex<HashSet<Box<str>>>,
}

impl Names {
    pub(super) fn new(limit: usize) -> Names {
        Names { limit, seen: Mutex::new(HashSet::new()) }
    }

    /// As [`Names::admit`], where there may be no object.
    pub(super) fn admit_some<'a>(&self, name: Option<&'a str>) -> &'a str {
        name.map_or(NONE, |name| self.admit(name))
    }

    /// The name itself, or [`OTHER`], or [`NONE`] for no name.
    pub(super) fn admit<'a>(&self, name: &'a str) -> &'a str {
        if name.is_empty() {
            return NONE;
        }
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.contains(name) {
            return name;
        }
        if seen.len() >= self.limit {
            return OTHER;
        }
        seen.insert(name.into());
        name
    }
}

impl BoundedNames {
    pub(super) fn new(limits: Limits) -> BoundedNames {
        // Owners are bounded where their money is: they come and go, these names stay.
        let Limits { owners: _, namespaces, objects } = limits;
        BoundedNames {
            namespaces: Names::new(namespaces),
            policies: Names::new(objects),
            tiers: Names::new(objects),
            nodes: Names::new(objects),
            budgets: Names::new(objects),
            regions: Names::new(objects),
        }
    }
}
