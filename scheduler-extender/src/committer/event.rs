//! What the committer is told.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};

#[cfg(doc)]
use super::Intent;
use super::StatusKind;
use crate::guards::Subjects;
use crate::hygiene::Check;
use crate::{api, pod_admission};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pod was created or changed.
    Pod(Box<Pod>),
    /// The answer to [`Intent::Read`]; a pod that is not there any more is told as [`Event::PodGone`].
    PodRead(Box<Pod>),
    /// The answer to [`Intent::ListPending`] is complete: its pods have been told.
    PendingListed,
    /// A pod is gone.
    PodGone {
        /// Its UID: a new pod of the same name is another pod.
        uid: Arc<str>,
    },
    /// A node was created or changed.
    Node(Box<Node>),
    /// A node is gone.
    NodeGone(String),
    /// A namespace was created or changed.
    Namespace(Box<Namespace>),
    /// A namespace is gone.
    NamespaceGone(String),
    /// A service was created or changed.
    Service(Box<Service>),
    /// A service is gone.
    ServiceGone {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A policy was created or changed.
    Policy(Box<api::BurstPolicy>),
    /// A policy is gone.
    PolicyGone(String),
    /// A virtual node was created or changed.
    VirtualNode(Box<api::VirtualNode>),
    /// A virtual node is gone.
    VirtualNodeGone(String),
    /// A budget was created or changed.
    Budget(Box<api::BurstBudget>),
    /// A budget is gone.
    BudgetGone(String),
    /// Everything that exists has been told. Nothing is decided before.
    Synced,
    /// The answer to [`Intent::Bind`].
    BindingAnswered {
        /// The pod.
        uid: Arc<str>,
        /// What came back.
        answer: BindingAnswer,
    },
    /// The answer to [`Intent::WriteBudget`].
    BudgetWritten {
        /// Name of the budget.
        name: Arc<str>,
        /// The new resource version; `None` if nothing was written or nobody knows.
        resource_version: Option<String>,
    },
    /// The answer to [`Intent::FitTolerations`] or [`Intent::RepairCondition`].
    Patched {
        /// The pod.
        uid: Arc<str>,
        /// Whether it is done, or can never be.
        done: bool,
    },
    /// The answer to [`Intent::Evict`].
    EvictionAnswered {
        /// The pod.
        uid: Arc<str>,
        /// What came back.
        answer: EvictionAnswer,
    },
    /// The answer to [`Intent::LiftGate`].
    GateLifted {
        /// The pod. Its own event says whether it is done.
        uid: Arc<str>,
    },
    /// The guards that speak of these Nodes, and of no others, are in force.
    Guarded(Arc<Subjects>),
    /// Marker and gate are in force as far as they can be.
    PodAdmission(Arc<pod_admission::Outcome>),
    /// The answer to [`Intent::RepairNode`], if it was done.
    NodeRepaired(Vec<Check>),
    /// An [`Intent::WriteStatus`] has failed: the status is still to be written.
    StatusNotWritten {
        /// What.
        kind: StatusKind,
        /// Name of the object.
        name: Arc<str>,
    },
    /// kube-scheduler has asked the extender about a marked pod: it is configured, and answers for preemption.
    ExtenderAsked,
    /// Whether some replica leads: news for one that follows.
    Led(bool),
}

/// What came back for a Binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingAnswer {
    /// It exists.
    Created,
    /// 409: the pod is bound already, or has changed since it was seen.
    Conflict,
    /// 404: the pod is gone.
    NotFound,
    /// The API server will not have it (400, 403, 422).
    Refused,
    /// The API server asks for patience (429).
    Throttled,
    /// Timeout, broken connection, 5xx: it may exist.
    Unknown,
}

/// What came back for an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionAnswer {
    /// The pod is being deleted.
    Evicted,
    /// The pod is not there any more.
    Gone,
    /// 429: a disruption budget, or the API server's own protection, asks for patience.
    Blocked {
        /// For how long, if it says so.
        retry_after: Option<Duration>,
    },
    /// Anything else; it may have happened all the same.
    Failed,
}
