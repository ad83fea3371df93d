//! What the committer wants to be done.

use std::sync::Arc;

#[cfg(doc)]
use super::Event;
use crate::api;
use crate::hygiene::Repair;

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// Create a Binding. Answer with [`Event::BindingAnswered`].
    Bind(Binding),
    /// Replace the tolerations of a bound pod. Answer with [`Event::Patched`].
    FitTolerations {
        /// The pod.
        pod: PodKey,
        /// The whole new list.
        tolerations: serde_json::Value,
    },
    /// Say `PodScheduled=True` of a bound pod. Answer with [`Event::Patched`].
    RepairCondition {
        /// The pod.
        pod: PodKey,
    },
    /// Read a pod again, because the answer to its Binding was lost or is unclear. Answer with [`Event::PodRead`] or [`Event::PodGone`].
    Read {
        /// The pod.
        pod: PodKey,
    },
    /// List pending pods again and tell them as [`Event::Pod`], then [`Event::PendingListed`]: what selects them has changed.
    ListPending,
    /// Write a budget's status under the resource version. Answer with [`Event::BudgetWritten`].
    WriteBudget {
        /// Name of the budget.
        name: Arc<str>,
        /// Precondition: two leaders must not authorize the same money.
        resource_version: String,
        /// The status.
        status: Box<api::BurstBudgetStatus>,
    },
    /// Apply a status on a policy or virtual node, by server-side apply. Answer with [`Event::StatusNotWritten`] if it is not.
    WriteStatus {
        /// What.
        kind: StatusKind,
        /// Name of the object.
        name: Arc<str>,
        /// The status fields that Spillway owns.
        status: serde_json::Value,
    },
    /// Lift Spillway's scheduling gate of a pod that does not burst. Answer with [`Event::GateLifted`].
    LiftGate {
        /// The pod.
        pod: PodKey,
    },
    /// Evict a pod through the Eviction API. Answer with [`Event::EvictionAnswered`].
    Evict {
        /// The pod.
        pod: PodKey,
    },
    /// Write on a pod that its backend failed to start it: phase `Failed`, condition `DisruptionTarget`. No answer; the pod's own
    /// event says that it is done.
    Fail {
        /// The pod.
        pod: PodKey,
    },
    /// Delete a pod that is of no use to anybody, for its owner to make another. No answer, either.
    Delete {
        /// The pod.
        pod: PodKey,
    },
    /// Make the Node of a virtual kubelet break nobody else. Answer with [`Event::NodeRepaired`].
    RepairNode {
        /// Name of the Node.
        node: Arc<str>,
        /// Precondition: a new Node of the same name is another Node.
        uid: Arc<str>,
        /// What to write.
        repair: Repair,
    },
    /// Tell the people who look at the pod.
    Note(Note),
    /// Touch this Node: pods that the extender has refused are looked at again by kube-scheduler only when something happens in
    /// the cluster.
    Wake {
        /// Name of a virtual node's Node.
        node: Arc<str>,
    },
}

/// The Binding of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The pod.
    pub pod: PodKey,
    /// Precondition: the pod as it was seen.
    pub resource_version: String,
    /// Name of the Node.
    pub node: Arc<str>,
    /// The decision annotation.
    pub decision: String,
    /// The pod is under Spillway's gate: first the gate is lifted, and a selector added that no dedicated node has.
    pub lift_gate: bool,
}

/// How a pod is addressed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID, a precondition of every write.
    pub uid: Arc<str>,
}

/// The kinds whose status the committer applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StatusKind {
    /// BurstPolicy.
    Policy,
    /// VirtualNode.
    VirtualNode,
}

/// A Kubernetes Event on a pod. Reason and text are constant per cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The pod.
    pub pod: PodKey,
    /// UpperCamelCase.
    pub reason: &'static str,
    /// Whether it is a warning.
    pub warning: bool,
    /// What was attempted.
    pub action: &'static str,
    /// The sentence.
    pub text: String,
}
