//! What the API server said to a Binding.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use policy::Timestamp;

use super::pods::{Phase, PodRecord, Waiting};
use super::{Binding, BindingAnswer, Committer, Intent, PodKey};
use crate::metrics::BindingOutcome;

/// A lost answer is asked after this long: in-flight requests have ended by then, one way or the other.
const ASK_AGAIN: Duration = Duration::from_secs(2);

impl Committer {
    pub(super) fn binding_answered(&mut self, uid: &Arc<str>, answer: BindingAnswer, now: Timestamp) {
        self.metrics.binding(match answer {
            BindingAnswer::Created => BindingOutcome::Created,
            BindingAnswer::Conflict | BindingAnswer::NotFound => BindingOutcome::Conflict,
            BindingAnswer::Refused => BindingOutcome::Refused,
            BindingAnswer::Throttled | BindingAnswer::Unknown => BindingOutcome::Failed,
        });
        let Some(PodRecord { key, phase: Phase::Binding(flight) }) = self.pods.get_mut(uid) else { return };
        if !flight.answered {
            flight.answered = true;
            self.wave.landed(false);
        }
        let lost_before = flight.lost_at.is_some();
        let key = key.clone();
        match answer {
            // The pod's own watch event follows and carries tolerations and status; until then it counts as committed.
            BindingAnswer::Created => {
                self.ledger.commit(uid);
                self.reconsider_money();
            }
            // Somebody was faster, or the pod has changed. If an answer was lost before, that somebody may be ourselves.
            BindingAnswer::Conflict if lost_before => self.intents.push(Intent::Read { pod: key }),
            BindingAnswer::Conflict => self.back_to_line(uid, Some(Duration::from_millis(50)), now),
            BindingAnswer::NotFound => {
                self.leave_waiting(uid, now);
            }
            BindingAnswer::Refused => {
                self.notes.once(&key, "BindingRefused", true, "Bind", "the API server refuses Spillway's Binding; see spillway's log".to_owned(), &mut self.intents);
                self.back_to_line(uid, None, now);
            }
            BindingAnswer::Throttled => self.back_to_line(uid, Some(Duration::from_secs(1)), now),
            BindingAnswer::Unknown => {
                if let Some(PodRecord { phase: Phase::Binding(flight), .. }) = self.pods.get_mut(uid) {
                    flight.lost_at = Some(now);
                    self.wave.lost.insert(uid.clone());
                }
            }
        }
    }

    /// A pod whose Binding is under way was seen without a node: an old event, or the answer to [`Intent::Read`].
    pub(super) fn observe_in_flight(&mut self, key: &PodKey, pod: &Pod, now: Timestamp) {
        let Some(PodRecord { phase: Phase::Binding(flight), .. }) = self.pods.get_mut(&key.uid) else { return };
        let version = pod.metadata.resource_version.clone().unwrap_or_default();
        if flight.lost_at.is_none() {
            flight.waiting.resource_version = version;
            return;
        }
        // Read after the loss and still without a node. The same Binding is sent again, under the version just read: should
        // the lost one arrive after all, one of the two gets 409 and nothing is bound twice.
        flight.answered = false;
        flight.waiting.resource_version.clone_from(&version);
        let binding = Binding { pod: key.clone(), resource_version: version, node: flight.planned.node.clone(), decision: flight.decision.clone() };
        flight.lost_at = Some(now);
        self.wave.relaunched();
        self.intents.push(Intent::Bind(binding));
    }

    /// Pods whose answer was lost are read again.
    pub(super) fn resend_lost(&mut self, now: Timestamp) {
        let pods = &self.pods;
        let intents = &mut self.intents;
        self.wave.lost.retain(|uid| {
            let Some(PodRecord { key, phase: Phase::Binding(flight) }) = pods.get(uid) else { return false };
            if flight.answered && flight.lost_at.is_some_and(|lost| now.since(lost) >= ASK_AGAIN) {
                intents.push(Intent::Read { pod: key.clone() });
            }
            true
        });
    }

    /// A failed attempt: the reservation is given back, the pod waits as before.
    fn back_to_line(&mut self, uid: &Arc<str>, pause: Option<Duration>, now: Timestamp) {
        let Some(record) = self.pods.get(uid) else { return };
        let key = record.key.clone();
        let Phase::Binding(flight) = &record.phase else { return };
        let failures = flight.waiting.failures.saturating_add(1);
        // Doubling from a second to a minute, where the answer gives no hint.
        let pause = pause.unwrap_or_else(|| Duration::from_secs(1 << failures.min(6).saturating_sub(1)));
        let planned = flight.planned.clone();
        let waiting = Waiting { planned: None, failures, not_before: Some(now + pause), ..flight.waiting.clone() };
        self.unreserve(uid, &planned);
        self.lines.rejoin(waiting.class, waiting.arrival, uid.clone(), waiting.refused);
        self.pods.insert(uid.clone(), PodRecord { key, phase: Phase::Waiting(waiting) });
    }
}
