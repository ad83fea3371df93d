//! What the admin wants, compiled: nothing illegal can be held here.

use std::sync::Arc;
use std::time::Duration;

use crate::selector::{Labels, Requirement, Selector};
use crate::virtual_node::Limits;
use crate::{Rate, Timestamp};

/// A compiled `BurstPolicy`. CEL conditions stay at the edge; the engine sees whether they held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BurstPolicy {
    /// Name of the object.
    pub name: Arc<str>,
    /// Generation of the specification this was compiled from.
    pub generation: i64,
    /// The higher weight wins a pod that two policies select.
    pub weight: i32,
    /// Then the older policy, then the name.
    pub created: Timestamp,
    /// Whether decisions are carried out.
    pub mode: Mode,
    /// The switch for three o'clock in the morning.
    pub stop: StopPolicy,
    /// Namespaces; `None` selects none.
    pub namespace_selector: Option<Selector>,
    /// Pods; `None` selects none.
    pub pod_selector: Option<Selector>,
    /// Places in the order in which they are tried; at least one is serverless, at most one dedicated.
    pub tiers: Vec<Tier>,
    /// Money per hour that a waiting pod is worth; zero = waiting costs nothing.
    pub waiting_cost: Rate,
    /// Run time assumed of a pod that gives no hint.
    pub expected_run: Duration,
    /// Whether pods are marked for the extender.
    pub extender: bool,
    /// Whether pods are held by a scheduling gate until they are decided on.
    pub gate: bool,
}

/// Whether decisions are carried out or only recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Decide, record and price; bind nothing.
    Audit,
    /// Decide and bind.
    Enforce,
}

/// How a policy is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopPolicy {
    /// It runs.
    None,
    /// Nothing new bursts; what runs goes on running.
    Hold,
    /// Nothing new bursts, and what runs is returned.
    HoldAndDrain,
}

/// One step of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Real nodes: kube-scheduler places.
    Dedicated(DedicatedTier),
    /// Virtual nodes: Spillway places.
    Serverless(ServerlessTier),
}

/// Real nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedicatedTier {
    /// Name of the tier.
    pub name: Arc<str>,
    /// Which nodes; empty = all.
    pub node_selector: Vec<Requirement>,
    /// Which of several nodes the extender prefers.
    pub packing: Packing,
    /// Marginal price of a vCPU; free where nodes are paid for anyway.
    pub vcpu: Rate,
    /// Marginal price of a GiB of memory.
    pub gib: Rate,
}

/// Virtual nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerlessTier {
    /// Name of the tier.
    pub name: Arc<str>,
    /// When the tier opens for a pod.
    pub after: After,
    /// Names of VirtualNode objects; the cheapest feasible one wins.
    pub virtual_nodes: Vec<Arc<str>>,
    /// Whether virtual nodes of Spot capacity may be used.
    pub spot: bool,
    /// What all pods of this policy may use in this tier together.
    pub limits: Limits,
}

/// Which dedicated node the extender answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// The fullest node that still has room: leaves holes for large pods and lets empty nodes go.
    MostAllocated,
    /// As kube-scheduler likes it.
    Spread,
}

/// When a serverless tier opens, counted from the moment when dedicated nodes had no room for the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// After a fixed time.
    Fixed(Duration),
    /// When waiting has cost as much as bursting would.
    Auto,
}

// === impl BurstPolicy ===

impl BurstPolicy {
    /// Whether namespace and pod selectors both accept the pod (its CEL conditions are checked at the edge).
    pub fn selects(&self, namespace: &Labels, pod: &Labels) -> bool {
        self.namespace_selector.as_ref().is_some_and(|selector| selector.matches(namespace))
            && self.pod_selector.as_ref().is_some_and(|selector| selector.matches(pod))
    }

    /// Whether pods that wait under `before` can wait on under this later version of it: it selects the same pods, counts room
    /// for them on the same nodes, and acts on what it decides. A field that is not named here must not have changed.
    pub fn succeeds(&self, before: &BurstPolicy) -> bool {
        let nodes = |policy: &BurstPolicy| policy.dedicated().map(|tier| tier.node_selector.clone());
        let BurstPolicy { generation, stop, tiers, waiting_cost, expected_run, .. } = before.clone();
        let as_before = BurstPolicy { generation, stop, tiers, waiting_cost, expected_run, ..self.clone() };
        self.mode == Mode::Enforce && as_before == *before && nodes(self) == nodes(before)
    }

    /// Order in which policies claim a pod: weight, then age, then name.
    pub fn precedence(&self) -> impl Ord + use<> {
        (std::cmp::Reverse(self.weight), self.created, self.name.clone())
    }

    /// The dedicated tier, if dedicated nodes are wanted at all.
    pub fn dedicated(&self) -> Option<&DedicatedTier> {
        self.tiers.iter().find_map(|tier| match tier {
            Tier::Dedicated(tier) => Some(tier),
            Tier::Serverless(_) => None,
        })
    }

    /// The serverless tiers with their place in `tiers`.
    pub fn serverless(&self) -> impl Iterator<Item = (usize, &ServerlessTier)> {
        self.tiers.iter().enumerate().filter_map(|(place, tier)| match tier {
            Tier::Serverless(tier) => Some((place, tier)),
            Tier::Dedicated(_) => None,
        })
    }

    /// Whether virtual nodes are tried before dedicated ones.
    pub fn serverless_first(&self) -> bool {
        matches!(self.tiers.first(), Some(Tier::Serverless(_)))
    }
}

// === impl Tier ===

impl Tier {
    /// Name of the tier.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Tier::Dedicated(tier) => &tier.name,
            Tier::Serverless(tier) => &tier.name,
        }
    }
}
