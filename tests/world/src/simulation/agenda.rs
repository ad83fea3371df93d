//! What will happen, in order of time.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use policy::Timestamp;

use super::jobs::JobId;
use super::requests::{Request, Ticket};
use super::scheduler::{Attempt, Verdict};
use super::store::PodId;
use super::{Answer, Change, Disturbance};

/// The future. Things of the same moment happen in the order in which they were planned.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    items: BTreeMap<(Timestamp, u64), Item>,
    planned: u64,
}

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Item {
    /// A watch event reaches the driver.
    DriverSees(Change),
    /// A watch event reaches kube-scheduler.
    SchedulerSees(Change, PodOrNode),
    /// kube-scheduler's loop is free for the next pod.
    SchedulerCycle,
    /// A pod's backoff ends, or it is time for the periodic flush.
    SchedulerTimer,
    /// kube-scheduler's Binding reaches the API server.
    SchedulerBinds(Attempt),
    /// The answer to that Binding is back.
    SchedulerBound(Attempt, bool),
    /// kube-scheduler's status patch reaches the API server.
    SchedulerSays(PodId, Verdict),
    /// The Job controller looks at a Job.
    JobSync(JobId),
    /// A kubelet, real or virtual, looks at a pod.
    Kubelet(PodId, KubeletStep),
    /// A request of the driver reaches the API server.
    Arrives(Ticket, Box<Request>),
    /// The answer is back at the driver.
    Answered(Answer),
    /// Something that the test ordered.
    Disturbs(Box<Disturbance>),
}

/// The key under which kube-scheduler knows what a watch event is about.
#[derive(Clone, Debug)]
pub(super) enum PodOrNode {
    Pod(PodId, Arc<Pod>),
    Node(Arc<Node>),
}

/// Steps in the life of a bound pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KubeletStep {
    /// It was seen on the node.
    Admit,
    /// Its containers run.
    Start,
    /// Its containers end.
    Finish,
    /// Something may have changed in the cloud.
    Look,
    /// Its grace period is over.
    Remove,
}

impl Agenda {
    pub(super) fn plan(&mut self, at: Timestamp, item: Item) {
        self.planned += 1;
        self.items.insert((at, self.planned), item);
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.items.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(Timestamp, Item)> {
        self.items.pop_first().map(|((at, _), item)| (at, item))
    }
}
