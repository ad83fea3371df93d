//! What the API server said to a Binding.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use policy::Timestamp;
use policy::workload::Held;

use super::pods::{Phase, PodRecord, Waiting};
use super::{Binding, BindingAnswer, Committer, Intent, PodKey};
use crate::metrics::BindingOutcome;
use crate::workload;

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
        if flight.answer.replace(answer).is_none() {
            self.wave.landed(false);
        }
        let key = key.clone();
        if flight.gone {
            self.pod_gone(uid, now);
            return;
        }
        match answer {
            // The pod's own watch event follows and carries tolerations and status; until then it counts as committed.
            BindingAnswer::Created => {
                flight.unclear = None;
                self.wave.unclear.remove(uid);
                self.ledger.commit(uid);
            }
            // Somebody was faster, or the pod has changed, or an answer of ours was lost and this is its echo. The money stays
            // set aside until the pod itself says which.
            BindingAnswer::Conflict => {
                flight.unclear = Some(now);
                self.wave.unclear.insert(uid.clone());
                self.intents.push(Intent::Read { pod: key });
            }
            BindingAnswer::Unknown => {
                flight.unclear = Some(now);
                self.wave.unclear.insert(uid.clone());
            }
            BindingAnswer::NotFound => {
                self.leave_waiting(uid);
            }
            BindingAnswer::Refused => {
                let text = "the API server refuses Spillway's Binding; its log has the answer".to_owned();
                self.notes.once(&key, "BindingRefused", true, "Bind", text, &mut self.intents);
                self.wave.refuse(uid);
                self.back_to_line(uid, None, None, now);
            }
            BindingAnswer::Throttled => self.back_to_line(uid, Some(Duration::from_secs(1)), None, now),
        }
    }

    /// The answer to [`Intent::Read`]: the pod as it stands after an unclear answer, and without a node.
    ///
    /// The old Binding can no longer succeed once the pod has another version; while it has the same one, the same Binding is
    /// sent again: should the lost one arrive after all, one of the two gets 409 and nothing is bound twice.
    pub(super) fn observe_read(&mut self, key: &PodKey, pod: &Pod, now: Timestamp) {
        let Some(PodRecord { phase: Phase::Binding(flight), .. }) = self.pods.get_mut(&key.uid) else { return };
        let version = pod.metadata.resource_version.clone().unwrap_or_default();
        if flight.unclear.is_none() {
            return;
        }
        if flight.waiting.resource_version != version {
            self.back_to_line(&key.uid, Some(Duration::ZERO), Some(version), now);
            // What has changed may be its gate: it belongs to another line then.
            self.observe_pending(key, pod, now);
            return;
        }
        flight.unclear = None;
        flight.answer = None;
        let (node, decision) = (flight.planned.node.clone(), flight.decision.clone());
        self.wave.unclear.remove(&key.uid);
        self.wave.relaunched();
        let lift_gate = workload::held(pod) == Held::ByGate;
        self.intents.push(Intent::Bind(Binding { pod: key.clone(), resource_version: version, node, decision, lift_gate }));
    }

    /// Pods whose answer is unclear are read until they say what happened.
    pub(super) fn ask_again(&mut self, now: Timestamp) {
        let (pods, intents) = (&mut self.pods, &mut self.intents);
        self.wave.unclear.retain(|uid| {
            let Some(PodRecord { key, phase: Phase::Binding(flight) }) = pods.get_mut(uid) else { return false };
            if flight.unclear.is_some_and(|since| now.since(since) >= ASK_AGAIN) {
                flight.unclear = Some(now);
                intents.push(Intent::Read { pod: key.clone() });
            }
            true
        });
        self.wave.unmended.retain(|uid, due| {
            let Some(PodRecord { key, phase: Phase::Burst(_) }) = pods.get(uid) else { return false };
            let now_due = *due <= now;
            if now_due {
                intents.push(Intent::Read { pod: key.clone() });
                // Should that be lost, too.
                *due = now + ASK_AGAIN;
            }
            true
        });
    }

    /// A failed attempt: the reservation is given back, the pod waits as before.
    fn back_to_line(&mut self, uid: &Arc<str>, pause: Option<Duration>, version: Option<String>, now: Timestamp) {
        let Some(record) = self.pods.get(uid) else { return };
        let key = record.key.clone();
        let Phase::Binding(flight) = &record.phase else { return };
        let failures = flight.waiting.failures.saturating_add(1);
        // Doubling from a second to half a minute, where the answer gives no hint.
        let pause = pause.unwrap_or_else(|| Duration::from_secs(1 << (failures.min(6) - 1)));
        let planned = flight.planned.clone();
        let mut waiting = Waiting { planned: None, failures, not_before: Some(now + pause), ..flight.waiting.clone() };
        if let Some(version) = version {
            waiting.resource_version = version;
        }
        self.wave.unclear.remove(uid);
        self.unreserve(uid, &planned);
        self.lines.rejoin(waiting.class, waiting.arrival, uid.clone(), waiting.refused);
        self.pods.insert(uid.clone(), PodRecord { key, phase: Phase::Waiting(Box::new(waiting)) });
    }
}
