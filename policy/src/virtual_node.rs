//! What one serverless backend offers: provider × region × capacity type.

use std::sync::Arc;
use std::time::Duration;

use crate::selector::Labels;
use crate::workload::Feature;
use crate::{Rate, Timestamp};

/// A backend as the engine sees it. Usage is not in here: it changes with every commitment and stands in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualNode {
    /// Name of the `VirtualNode` object.
    pub name: Arc<str>,
    /// Name of the Node that pods are bound to; `None` until there is one.
    pub node_name: Option<Arc<str>>,
    /// The cloud.
    pub provider: Provider,
    /// The cloud's region, for metrics and explanations.
    pub region: Arc<str>,
    /// Whether the cloud may take the capacity back.
    pub capacity_type: CapacityType,
    /// What nodeSelector and node affinity of pods are matched against (the Node object lacks most of it on purpose).
    pub labels: Labels,
    /// Why nothing is sent here at the moment, if so.
    pub closed: Option<Closed>,
    /// Prices; without them nothing is sent here.
    pub prices: Option<Prices>,
    /// From the Binding to the running container.
    pub start_latency: Duration,
    /// The part of `start_latency` that is billed: the image pull.
    pub billed_startup: Duration,
    /// A pod that has not started so long after its Binding has failed to.
    pub start_deadline: Duration,
    /// How often the cloud takes Spot capacity back, in thousandths per hour; zero for on-demand.
    pub interruptions_per_1000_hours: u32,
    /// The admin's limits.
    pub limits: Limits,
    /// The cloud's quota, as last observed.
    pub quota: Limits,
    /// Overrides of the capability table, sorted by feature.
    pub capabilities: Vec<(Feature, bool)>,
    /// What one core counts for on a Nomad client; zero elsewhere.
    pub mhz_per_core: u32,
    /// The largest pod that the backend takes, where it differs from the cloud's default (ACI's "big container groups") or is
    /// known at all (the most that is free on a Nomad client); its pod count is not looked at.
    pub largest_pod: Limits,
}

/// The clouds that Spillway knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// AWS Fargate through ECS.
    Fargate,
    /// Azure Container Instances.
    Aci,
    /// HashiCorp Nomad with the docker driver.
    Nomad,
    /// The in-memory provider of tests and demos: takes any shape.
    InMemory,
}

/// Whether the cloud may take capacity back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapacityType {
    /// Kept until it is given back.
    OnDemand,
    /// Cheaper, may be interrupted.
    Spot,
}

/// Why a backend takes nothing at the moment. The label is constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// Managed by Spillway, but no virtual kubelet runs.
    NoVirtualKubelet,
    /// No Node object matches `spec.adopt`.
    NoNode,
    /// More than one Node object matches `spec.adopt`.
    AmbiguousNode,
    /// The Node is not Ready.
    NodeNotReady,
    /// The backend itself is known to fail (`BackendHealthy` is False).
    BackendUnhealthy,
    /// The specification does not compile; its condition says why.
    Invalid,
    /// The object or its Node is being deleted.
    Deleting,
    /// The admission policies do not keep everybody else off its Node yet.
    GuardPending,
}

/// List prices after discount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Per vCPU and hour.
    pub vcpu: Rate,
    /// Per GB and hour, a GB as the cloud counts it (see [`Provider::gb_bytes`]).
    pub gb: Rate,
    /// Per GB and hour of ephemeral storage above what is free.
    pub ephemeral_gb: Rate,
    /// Shortest time billed.
    pub minimum: Duration,
    /// When the price was true.
    pub as_of: Timestamp,
}

/// Upper bounds; `None` = no bound known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Number of pods.
    pub pods: Option<i64>,
    /// Thousandths of a CPU, as billed.
    pub cpu_millis: Option<i64>,
    /// Bytes of memory, as billed.
    pub memory_bytes: Option<i64>,
}

/// What is in use of something limited, reservations included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of pods.
    pub pods: i64,
    /// Thousandths of a CPU, as billed.
    pub cpu_millis: i64,
    /// Bytes of memory, as billed.
    pub memory_bytes: i64,
}

// === impl Provider ===

impl Provider {
    /// Constant name for metrics and explanations.
    pub const fn label(self) -> &'static str {
        match self {
            Provider::Fargate => "fargate",
            Provider::Aci => "aci",
            Provider::Nomad => "nomad",
            Provider::InMemory => "in-memory",
        }
    }

    /// Bytes of the gigabyte that the cloud's price list means.
    pub const fn gb_bytes(self) -> i64 {
        match self {
            Provider::Aci => 1_000_000_000,
            Provider::Fargate | Provider::Nomad | Provider::InMemory => 1 << 30,
        }
    }
}

// === impl CapacityType ===

impl CapacityType {
    /// Constant name for metrics and explanations.
    pub const fn label(self) -> &'static str {
        match self {
            CapacityType::OnDemand => "on-demand",
            CapacityType::Spot => "spot",
        }
    }
}

// === impl Closed ===

impl Closed {
    /// Constant reason, as in the condition `Ready`.
    pub const fn label(self) -> &'static str {
        match self {
            Closed::NoVirtualKubelet => "NoVirtualKubelet",
            Closed::NoNode => "NoNode",
            Closed::AmbiguousNode => "AmbiguousNode",
            Closed::NodeNotReady => "NodeNotReady",
            Closed::BackendUnhealthy => "BackendUnhealthy",
            Closed::Invalid => "Invalid",
            Closed::Deleting => "Deleting",
            Closed::GuardPending => "GuardPending",
        }
    }
}

// === impl Limits ===

impl Limits {
    /// Whether `more` fits beside what is in use.
    pub fn allow(&self, used: &Usage, more: &Usage) -> bool {
        let within = |limit: Option<i64>, used: i64, more: i64| limit.is_none_or(|limit| used.saturating_add(more) <= limit);
        within(self.pods, used.pods, more.pods)
            && within(self.cpu_millis, used.cpu_millis, more.cpu_millis)
            && within(self.memory_bytes, used.memory_bytes, more.memory_bytes)
    }
}

// === impl Usage ===

impl Usage {
    /// Adds, stopping at the largest amounts.
    pub fn add(&mut self, more: &Usage) {
        self.pods = self.pods.saturating_add(more.pods);
        self.cpu_millis = self.cpu_millis.saturating_add(more.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_add(more.memory_bytes);
    }

    /// What is beyond `part`, of each amount for itself.
    pub fn beyond(&self, part: &Usage) -> Usage {
        let beyond = |whole: i64, part: i64| whole.saturating_sub(part).max(0);
        Usage {
            pods: beyond(self.pods, part.pods),
            cpu_millis: beyond(self.cpu_millis, part.cpu_millis),
            memory_bytes: beyond(self.memory_bytes, part.memory_bytes),
        }
    }

    /// The larger of each amount.
    pub fn larger(&self, other: &Usage) -> Usage {
        Usage {
            pods: self.pods.max(other.pods),
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }

    /// Takes away; more than is in use is a programming error.
    pub fn subtract(&mut self, less: &Usage) {
        debug_assert!(self.pods >= less.pods && self.cpu_millis >= less.cpu_millis && self.memory_bytes >= less.memory_bytes);
        self.pods = (self.pods - less.pods).max(0);
        self.cpu_millis = (self.cpu_millis - less.cpu_millis).max(0);
        self.memory_bytes = (self.memory_bytes - less.memory_bytes).max(0);
    }
}
