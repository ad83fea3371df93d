//! Pods under Spillway's own scheduling gate: held by the API server until they are decided on.
//!
//! ```text
//! gated ──burst──► reserved ──one patch: gate away, a selector that no dedicated node has──► Binding
//!   │                                                        │ it fails: any other virtual node, or deleted for its owner
//!   └──anything else──► gate away: an ordinary pod of its scheduler
//! ```
//!
//! Nobody but Spillway lifts the gate, so every pod that has it is seen to here: also one that no policy selects any more.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use policy::Timestamp;
use policy::workload::Held;

use super::pods::Phase;
use super::{Committer, Intent, PodKey};

/// Patches under way, at most.
const AT_A_TIME: usize = 32;
/// Between attempts.
const RETRY: Duration = Duration::from_secs(2);
/// So long a pod that only Spillway can place any more waits for a virtual node, before it is deleted for its owner.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gates that are being lifted.
#[derive(Default)]
pub(super) struct Gates {
    under_way: HashSet<Arc<str>>,
    /// Pods that no policy selects: what is to be done with them, and not before when.
    unselected: BTreeMap<Arc<str>, (PodKey, Remedy, Timestamp)>,
}

/// What becomes of a pod that no policy selects any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Its gate is lifted.
    Lift,
    /// Its selector fits no dedicated node, so its owner must make another.
    Delete,
}

// === impl Committer ===

impl Committer {
    /// A pending pod that no policy selects: whatever Spillway holds it by is taken away.
    pub(super) fn release_unselected(&mut self, key: &PodKey, pod: &Pod, now: Timestamp) {
        let remedy = match crate::workload::held(pod) {
            Held::No => return self.forget_unselected(&key.uid),
            Held::ByGate => Remedy::Lift,
            Held::BySelector => Remedy::Delete,
        };
        if remedy == Remedy::Delete && crate::workload::owner(pod).is_none() {
            let text = "was decided to burst, and no policy selects it any more: delete it, or select it again";
            self.notes.once(key, "BurstImpossible", true, "Decide", text.to_owned(), &mut self.intents);
            return;
        }
        // After a restart its policy may only not have been told yet.
        self.gates.unselected.entry(key.uid.clone()).or_insert((key.clone(), remedy, now)).1 = remedy;
    }

    /// Lifts the gate of a pod that is not going to burst. Returns whether that is under way.
    pub(super) fn lift_gate(&mut self, uid: &Arc<str>) -> bool {
        if self.gates.under_way.contains(uid) {
            return true;
        }
        let Some(key) = self.pods.get(uid).map(|record| record.key.clone()) else { return false };
        if self.gates.under_way.len() >= AT_A_TIME {
            return false;
        }
        self.gates.under_way.insert(uid.clone());
        self.intents.push(Intent::LiftGate { pod: key });
        true
    }

    /// The answer to [`Intent::LiftGate`].
    pub(super) fn gate_lifted(&mut self, uid: &Arc<str>, now: Timestamp) {
        self.gates.under_way.remove(uid);
        if let Some((_, _, due)) = self.gates.unselected.get_mut(uid) {
            *due = now + RETRY;
        }
        // Where it is done, the pod's own event comes before that and finds another line for it.
        if let Some(waiting) = self.waiting_mut(uid) {
            waiting.not_before = Some(now + RETRY);
        }
    }

    /// Sees to pods that no policy selects, and to pods that only a virtual node could take and none does.
    pub(super) fn see_to_gates(&mut self, now: Timestamp) {
        let due: Vec<(PodKey, Remedy)> = self
            .gates
            .unselected
            .values_mut()
            .filter(|(key, _, due)| *due <= now && !self.gates.under_way.contains(&key.uid))
            .take(AT_A_TIME)
            .map(|(key, remedy, due)| {
                *due = now + RETRY;
                (key.clone(), *remedy)
            })
            .collect();
        for (pod, remedy) in due {
            match remedy {
                Remedy::Lift => {
                    self.gates.under_way.insert(pod.uid.clone());
                    self.intents.push(Intent::LiftGate { pod });
                }
                Remedy::Delete => self.intents.push(Intent::Delete { pod }),
            }
        }
        self.give_up_on_decided(now);
    }

    fn give_up_on_decided(&mut self, now: Timestamp) {
        let mut given_up = Vec::new();
        for (_, class) in self.lines.iter().filter(|(_, class)| class.workload.held == Held::BySelector) {
            let late = class.line.without_room().filter(|(_, since)| now.since(*since) >= PATIENCE);
            let uids = late.filter_map(|(arrival, _)| class.uids.get(&arrival));
            given_up.extend(uids.map(|uid| (uid.clone(), class.workload.owner.is_some())));
        }
        for (uid, has_owner) in given_up.into_iter().take(AT_A_TIME) {
            let Some(record) = self.pods.get(&uid) else { continue };
            let Phase::Waiting(waiting) = &record.phase else { continue };
            if waiting.planned.is_some() {
                continue;
            }
            let key = record.key.clone();
            if has_owner {
                let text =
                    "was decided to burst, and no virtual node takes it any more: deleted, so that its owner makes another";
                self.notes.once(&key, "BurstImpossible", true, "Decide", text.to_owned(), &mut self.intents);
                self.intents.push(Intent::Delete { pod: key });
            } else {
                let text = "was decided to burst, and no virtual node takes it any more: it waits for one";
                self.notes.once(&key, "BurstImpossible", true, "Decide", text.to_owned(), &mut self.intents);
            }
        }
    }

    /// A policy selects the pod.
    pub(super) fn forget_unselected(&mut self, uid: &Arc<str>) {
        self.gates.unselected.remove(uid);
    }

    pub(super) fn forget_gate(&mut self, uid: &Arc<str>) {
        self.gates.under_way.remove(uid);
        self.gates.unselected.remove(uid);
    }
}
