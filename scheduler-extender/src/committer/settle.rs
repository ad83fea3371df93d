//! From commitment to bill: what happens to a pod on a virtual node.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use policy::virtual_node::Provider;
use policy::{Money, Timestamp};

use super::notes::Notes;
use super::pods::{Burst, Phase, PodRecord, ended, not_scheduled};
use super::{Committer, Intent, PodKey, StatusKind};
use crate::api::names::VIRTUAL_NODE_TAINT;
use crate::metrics::Spender;
use crate::record::Record;
use crate::workload;

/// Tolerations are fitted when no Binding has been sent for so long: the wave comes first.
const AFTER_THE_WAVE: Duration = Duration::from_millis(500);
/// Patches under way, at most.
const PATCHES_AT_A_TIME: usize = 8;
/// The cost counters stay so far behind the clock: that a pod has ended is learned a moment later, and a counter cannot
/// take back what the pod did not cost.
const COUNTERS_BEHIND: Duration = Duration::from_secs(10);

impl Committer {
    /// A pod with a decision annotation and a node, seen for the first time as such.
    pub(super) fn enter_burst(&mut self, key: &PodKey, pod: &Pod, record: Record, now: Timestamp) {
        let ours = matches!(self.pods.get(&key.uid), Some(PodRecord { phase: Phase::Binding(flight), .. }) if flight.planned.record == record);
        let mut avoided = Money::ZERO;
        if ours {
            let Some(PodRecord { phase: Phase::Binding(flight), .. }) = self.pods.remove(&key.uid) else { return };
            self.wave.landed(flight.answer.is_some());
            self.wave.unclear.remove(&key.uid);
            self.wave.unpromise(&key.uid);
            self.wave.unrefuse(&key.uid);
            self.lines.leave(flight.waiting.class, &mut self.dedicated);
            self.ledger.commit(&key.uid);
            avoided = flight.planned.avoided;
            let provider = self.provider(&record.virtual_node);
            self.metrics.bound_serverless(&record.tier, provider, now.since(flight.waiting.since));
            Notes::burst(key, &record, &self.settings.currency, &mut self.intents);
        } else {
            self.leave_waiting(&key.uid);
            self.remove_record(&key.uid);
            self.ledger.recover(&key.uid, &record.budgets, record.quote, record.at);
            if self.synced && record.at <= self.synced_at {
                // A predecessor's Binding that came late: it is what was missing in the books.
                self.ledger.explain(&key.uid);
            }
            if !ended(pod) {
                self.backends.occupy(&record.virtual_node, &record.policy, &record.tier, &record.usage);
            }
        }
        let finished = if ours || !ended(pod) { None } else { Some(end_of(pod, now)) };
        // What it cost before is in the counters of the process that committed it.
        let told = if ours { Money::ZERO } else { record.bill(start_of(pod), finished.unwrap_or(now)) };
        let burst = Burst {
            owner: workload::owner(pod),
            started: None,
            finished,
            told,
            tolerations: None,
            misreported: false,
            patching: false,
            failures: 0,
            begun: false,
            start_failed: false,
            failing: None,
            deleting: false,
            record,
        };
        self.pods.insert(key.uid.clone(), PodRecord { key: key.clone(), phase: Phase::Burst(Box::new(burst)) });
        self.metrics_committed(&key.uid, avoided);
        self.observe_burst(key, pod, now);
    }

    fn remove_record(&mut self, uid: &Arc<str>) {
        if matches!(self.pods.get(uid), Some(PodRecord { phase: Phase::Dedicated(_), .. })) {
            self.pod_gone(uid, Timestamp::EPOCH);
        }
    }

    /// Something changed about a pod on a virtual node.
    pub(super) fn observe_burst(&mut self, key: &PodKey, pod: &Pod, now: Timestamp) {
        self.observe_start(key, pod, now);
        let Some(PodRecord { phase: Phase::Burst(burst), .. }) = self.pods.get_mut(&key.uid) else { return };
        burst.deleting |= pod.metadata.deletion_timestamp.is_some();
        // The last word of the pod's status counts, also where it corrects an earlier one: it is what a successor finds.
        let first_seen = burst.started.is_none();
        burst.started = start_of(pod).or(burst.started);
        if first_seen && burst.started.is_some() {
            let (tier, node, since) = (burst.record.tier.clone(), burst.record.virtual_node.clone(), now.since(burst.record.at));
            let provider = self.provider(&node);
            self.metrics.started(provider, &node, &tier, since);
        }
        let Some(PodRecord { phase: Phase::Burst(burst), .. }) = self.pods.get_mut(&key.uid) else { return };
        if ended(pod) {
            burst.tolerations = None;
            burst.misreported = false;
            let known = burst.finished;
            let finished = end_of(pod, known.unwrap_or(now));
            burst.finished = Some(finished);
            let (record, bill) = (burst.record.clone(), burst.record.bill(burst.started, finished));
            if known.is_none() {
                self.backends.vacate(&record.virtual_node, &record.policy, &record.tier, &record.usage);
            }
            self.ledger.adjust(&key.uid, bill);
            self.tell(&key.uid, bill);
            self.reconsider();
            return;
        }
        // A patch under way brings an event of its own, so its tolerations are not sent twice. Its scheduler may write the
        // condition at any time.
        if !burst.patching {
            burst.tolerations = fitted(pod);
        }
        burst.misreported = not_scheduled(pod).is_some();
        if burst.tolerations.is_some() || burst.misreported {
            self.wave.untidy.insert(key.uid.clone());
        }
        self.wave.unmended.remove(&key.uid);
    }

    /// The pod is gone: what it cost is spent.
    pub(super) fn retire_burst(&mut self, uid: &Arc<str>, now: Timestamp) {
        let Some(PodRecord { phase: Phase::Burst(burst), .. }) = self.pods.get(uid) else { return };
        let record = burst.record.clone();
        let bill = record.bill(burst.started, burst.finished.unwrap_or(now));
        if burst.finished.is_none() {
            self.backends.vacate(&record.virtual_node, &record.policy, &record.tier, &record.usage);
        }
        self.ledger.adjust(uid, bill);
        self.tell(uid, bill);
        self.ledger.retire(uid);
        if let Some(PodRecord { phase: Phase::Burst(burst), .. }) = self.pods.remove(uid) {
            self.settle(&record, burst.told);
        }
        self.wave.untidy.remove(uid);
        self.forget_eviction(uid);
        self.starts.to_delete.remove(uid);
        self.reconsider();
    }

    /// A pod is gone that was bound, or may have been, and was never seen so: it has cost at most what it would have since then.
    pub(super) fn retire_unseen(&mut self, uid: &Arc<str>, now: Timestamp) {
        let Some(PodRecord { phase: Phase::Binding(flight), .. }) = self.pods.remove(uid) else { return };
        self.wave.landed(flight.answer.is_some());
        self.wave.unclear.remove(uid);
        self.lines.leave(flight.waiting.class, &mut self.dedicated);
        let record = &flight.planned.record;
        self.backends.vacate(&record.virtual_node, &record.policy, &record.tier, &record.usage);
        let bill = record.bill(Some(record.at), now);
        self.ledger.commit(uid);
        self.ledger.adjust(uid, bill);
        self.ledger.retire(uid);
        self.settle(&flight.planned.record, bill);
        self.reconsider();
    }

    /// The statuses go on showing what a pod has cost that is gone.
    fn settle(&mut self, record: &Record, cost: Money) {
        self.statuses.settle(StatusKind::Policy, &record.policy, cost);
        self.statuses.settle(StatusKind::VirtualNode, &record.virtual_node, cost);
    }

    /// Pods that run longer than they were quoted for cost more than is reserved; the cost counters follow what runs.
    pub(super) fn accrue(&mut self, now: Timestamp) {
        let running: Vec<(Arc<str>, Money, Money)> = self
            .pods
            .iter()
            .filter_map(|(uid, record)| match &record.phase {
                Phase::Burst(burst) if burst.finished.is_none() && burst.started.is_some() => {
                    let bill = |until| burst.record.bill(burst.started, until);
                    Some((uid.clone(), bill(now), bill(now - COUNTERS_BEHIND)))
                }
                Phase::Waiting(_) | Phase::Binding(_) | Phase::Dedicated(_) | Phase::Burst(_) => None,
            })
            .collect();
        for (uid, accrued, counted) in running {
            if self.ledger.amount(&uid).is_some_and(|amount| accrued > amount) {
                self.ledger.adjust(&uid, accrued);
            }
            self.tell(&uid, counted);
        }
    }

    /// Tells the cost counters what a pod has cost so far; they only grow.
    fn tell(&mut self, uid: &Arc<str>, cost: Money) {
        let Some(PodRecord { key, phase: Phase::Burst(burst) }) = self.pods.get_mut(uid) else { return };
        let more = cost.saturating_sub(burst.told);
        if more <= Money::ZERO {
            return;
        }
        burst.told = cost;
        let Some(backend) = self.backends.get(&burst.record.virtual_node) else { return };
        let node = &backend.node;
        self.metrics.spent(&spender(key, burst, node), more);
    }

    fn metrics_committed(&self, uid: &Arc<str>, avoided: Money) {
        let Some(PodRecord { key, phase: Phase::Burst(burst) }) = self.pods.get(uid) else { return };
        if let Some(backend) = self.backends.get(&burst.record.virtual_node) {
            self.metrics.committed(&spender(key, burst, &backend.node), avoided);
        }
    }

    fn provider(&self, virtual_node: &str) -> Provider {
        self.backends.get(virtual_node).map_or(Provider::InMemory, |backend| backend.node.provider)
    }

    /// After the wave: fit tolerations and repair conditions of pods on virtual nodes, a few at a time.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        if !self.wave.is_over() || now.since(self.wave.last_sent) < AFTER_THE_WAVE {
            return;
        }
        let uids: Vec<Arc<str>> = self.wave.untidy.iter().cloned().collect();
        for uid in uids {
            if self.wave.patching >= PATCHES_AT_A_TIME {
                return;
            }
            let Some(PodRecord { key, phase: Phase::Burst(burst) }) = self.pods.get_mut(&uid) else {
                self.wave.untidy.remove(&uid);
                continue;
            };
            if burst.patching {
                continue;
            }
            let pod = key.clone();
            let intent = match burst.tolerations.take() {
                Some(tolerations) => Intent::FitTolerations { pod, tolerations },
                None if burst.misreported => {
                    burst.misreported = false;
                    Intent::RepairCondition { pod }
                }
                None => {
                    self.wave.untidy.remove(&uid);
                    continue;
                }
            };
            burst.patching = true;
            self.wave.patching += 1;
            self.intents.push(intent);
        }
    }

    /// A patch has been answered. After a failure the pod is read again, later each time.
    pub(super) fn patched(&mut self, uid: &Arc<str>, done: bool, now: Timestamp) {
        self.wave.patching = self.wave.patching.saturating_sub(1);
        let Some(PodRecord { phase: Phase::Burst(burst), .. }) = self.pods.get_mut(uid) else { return };
        burst.patching = false;
        if done {
            burst.failures = 0;
            return;
        }
        burst.failures = burst.failures.saturating_add(1);
        self.wave.unmended.insert(uid.clone(), now + Duration::from_secs(1 << burst.failures.min(8)));
    }
}

fn spender<'a>(key: &'a PodKey, burst: &'a Burst, node: &'a policy::VirtualNode) -> Spender<'a> {
    Spender {
        namespace: &key.namespace,
        owner_kind: burst.owner.as_ref().map_or("Pod", |owner| &owner.kind),
        owner_name: burst.owner.as_ref().map_or(crate::metrics::NONE, |owner| &owner.name),
        policy: &burst.record.policy,
        provider: node.provider,
        region: &node.region,
        capacity_type: node.capacity_type,
    }
}

/// When the first container ran. A container that was restarted shows its last run only: the pod's own start is nearest then.
fn start_of(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    if statuses.iter().any(|status| status.restart_count > 0)
        && let Some(start) = pod.status.as_ref()?.start_time.as_ref()
    {
        return Some(Timestamp::from_millis(start.0.as_millisecond()));
    }
    let started = statuses.iter().filter_map(|status| {
        let state = status.state.as_ref()?;
        let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
        running.or_else(|| state.terminated.as_ref().and_then(|terminated| terminated.started_at.as_ref()))
    });
    started.map(|time| Timestamp::from_millis(time.0.as_millisecond())).min()
}

/// When the last container ended; `otherwise`, if the status does not say.
fn end_of(pod: &Pod, otherwise: Timestamp) -> Timestamp {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ended = statuses.iter().filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ended.map(|time| Timestamp::from_millis(time.0.as_millisecond())).max().unwrap_or(otherwise)
}

/// The tolerations that a pod on a virtual node should have, if it has others: those that it has, none of them for a limited
/// time where the node may only be silent, and the virtual node's own taint.
fn fitted(pod: &Pod) -> Option<serde_json::Value> {
    let current = pod.spec.as_ref()?.tolerations.clone().unwrap_or_default();
    let mut wanted = current.clone();
    for toleration in &mut wanted {
        let waits = matches!(
            toleration.key.as_deref(),
            None | Some("" | "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable")
        );
        if waits {
            toleration.toleration_seconds = None;
        }
    }
    let endless = |key: &str, effect: &str| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    let needed = [
        endless("node.kubernetes.io/not-ready", "NoExecute"),
        endless("node.kubernetes.io/unreachable", "NoExecute"),
        endless(VIRTUAL_NODE_TAINT, "NoSchedule"),
    ];
    for toleration in needed {
        if !wanted.contains(&toleration) {
            wanted.push(toleration);
        }
    }
    (wanted != current).then(|| serde_json::to_value(wanted).unwrap_or_default())
}
