//! Why a pod is where it is, or is not.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use policy::{Decision, Room, Timestamp};

use super::Committer;
use super::pods::Phase;
use crate::record::Record;
use crate::workload;

/// The answer to "why".
#[derive(Clone, Debug)]
pub enum Explained {
    /// No policy selects the pod, or it is not known.
    NotSelected,
    /// On a dedicated node of this name.
    Dedicated(String),
    /// Pending: what would be decided now, under which policy.
    Waiting {
        /// Name of the policy.
        policy: String,
        /// Since when dedicated nodes have had no room for it.
        room: Room,
        /// The decision.
        decision: Box<Decision>,
    },
    /// On a virtual node, or on its way there, by this record.
    Burst(Box<Record>),
}

impl Committer {
    /// Name of the policy that selects a pod, whether it waits or not.
    pub fn selecting(&self, pod: &Pod) -> Option<Arc<str>> {
        let selection = self.compiled.select(&self.namespaces, pod, &workload::labels(pod));
        selection.policy.map(|compiled| compiled.policy.name.clone())
    }

    /// Explains one pod.
    pub fn explain(&self, namespace: &str, name: &str, now: Timestamp) -> Explained {
        let Some(record) = self.pods.values().find(|record| *record.key.namespace == *namespace && *record.key.name == *name)
        else {
            return Explained::NotSelected;
        };
        match &record.phase {
            Phase::Dedicated(place) => Explained::Dedicated(place.node.to_string()),
            Phase::Binding(flight) => Explained::Burst(Box::new(flight.planned.record.clone())),
            Phase::Burst(burst) => Explained::Burst(Box::new(burst.record.clone())),
            Phase::Waiting(waiting) => {
                let Some(class) = self.lines.get(waiting.class) else { return Explained::NotSelected };
                let room = match class.line.no_room_since(waiting.arrival) {
                    Some(since) => class.room_for_one(since),
                    None => Room::Some,
                };
                let decision = Box::new(self.decide(&class.policy, &class.workload, room, now));
                Explained::Waiting { policy: class.policy.name.to_string(), room, decision }
            }
        }
    }
}
