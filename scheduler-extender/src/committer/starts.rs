//! Pods that do not start: failed at their deadline, and their backend left alone with such pods for a while.
//!
//! A pod that its virtual kubelet could not start, or did not in time, says something about the backend: the next pod of the
//! same shape goes elsewhere. After a while one is sent there again, and more when it has started. It is failed with the condition `DisruptionTarget`, as pods are whose node goes away, so that a
//! Job whose failure policy ignores disruptions does not count it; then it is deleted, so that the backend lets go of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use policy::Timestamp;
use policy::virtual_node::{Closed, Usage};

use super::pods::{Phase, PodRecord};
use super::{Committer, Intent, PodKey};

/// Reason of the status and of the condition that Spillway writes on a pod that did not start.
pub const START_FAILED: &str = "BackendStartFailed";
/// A backend that says itself that it fails gets the usual time for a start, and at least this.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);
/// How long a backend is left alone after a first failure; then twice as long each time.
const FIRST_SUSPENSION: Duration = Duration::from_secs(60);
const LONGEST_SUSPENSION: Duration = Duration::from_secs(1800);
/// Pods failed, and pods deleted, in one tick: a backend that is down with a thousand pods is no reason for a flood.
const PER_TICK: usize = 20;
/// Shapes whose failures are remembered.
const SHAPES: usize = 1024;

/// Backends that have failed lately, and pods that are being failed.
#[derive(Default)]
pub(super) struct Starts {
    /// By virtual node, CPU and memory: how long the next suspension is.
    failures: BTreeMap<(Arc<str>, i64, i64), Duration>,
    /// Failed by us and still there.
    pub(super) to_delete: BTreeSet<Arc<str>>,
}

// === impl Committer ===

impl Committer {
    /// Fails what has not started in time, deletes what was failed, and opens backends that were left alone for long enough.
    pub(super) fn watch_starts(&mut self, now: Timestamp) {
        if self.backends.try_again(now) {
            self.reconsider();
        }
        let overdue: Vec<PodKey> = self
            .pods
            .values()
            .filter(|record| matches!(&record.phase, Phase::Burst(burst) if self.is_overdue(burst, now)))
            .map(|record| record.key.clone())
            .take(PER_TICK)
            .collect();
        for pod in overdue {
            if let Some(PodRecord { phase: Phase::Burst(burst), .. }) = self.pods.get_mut(&pod.uid) {
                burst.failing = Some(now);
            }
            let text = "the virtual node did not start it in time; it is failed, so that its owner makes another";
            self.notes.once(&pod, START_FAILED, true, "Fail", text.to_owned(), &mut self.intents);
            self.intents.push(Intent::Fail { pod });
        }
        let pods = &self.pods;
        self.starts.to_delete.retain(|uid| pods.contains_key(uid));
        let failed: Vec<PodKey> = self
            .starts
            .to_delete
            .iter()
            .filter_map(|uid| pods.get(uid))
            .map(|record| record.key.clone())
            .take(PER_TICK)
            .collect();
        self.intents.extend(failed.into_iter().map(|pod| Intent::Delete { pod }));
    }

    fn is_overdue(&self, burst: &super::pods::Burst, now: Timestamp) -> bool {
        /// An attempt to fail a pod that was not answered by an event of the pod is made again.
        const AGAIN: Duration = Duration::from_secs(10);
        if burst.begun || burst.finished.is_some() || burst.deleting || burst.failing.is_some_and(|at| now.since(at) < AGAIN) {
            return false;
        }
        let Some(backend) = self.backends.get(&burst.record.virtual_node) else { return false };
        let node = &backend.node;
        let patience = match node.closed {
            Some(Closed::BackendUnhealthy) => node.start_latency.max(LEAST_PATIENCE).min(node.start_deadline),
            _ => node.start_deadline,
        };
        now.since(burst.record.at) >= patience
    }

    /// Something changed about a pod on a virtual node: has its backend started it, or failed to?
    pub(super) fn observe_start(&mut self, key: &PodKey, pod: &Pod, now: Timestamp) {
        let Some(PodRecord { phase: Phase::Burst(burst), .. }) = self.pods.get_mut(&key.uid) else { return };
        let (virtual_node, usage) = (burst.record.virtual_node.clone(), burst.record.usage);
        let begun = has_begun(pod);
        if begun && !burst.begun {
            burst.begun = true;
            self.starts.failures.remove(&shape(&virtual_node, &usage));
            if self.backends.started(&virtual_node, &usage) {
                self.reconsider();
            }
            return;
        }
        let status = pod.status.as_ref();
        let failed = status.and_then(|status| status.phase.as_deref()) == Some("Failed");
        if begun || !failed {
            return;
        }
        let ours = status.and_then(|status| status.reason.as_deref()) == Some(START_FAILED);
        let first = !std::mem::replace(&mut burst.start_failed, true);
        if ours && burst.owner.is_some() && pod.metadata.deletion_timestamp.is_none() {
            self.starts.to_delete.insert(key.uid.clone());
        }
        // A pod that was found failed after a restart says nothing about the backend now.
        let recent = self.synced && first;
        if recent && (ours || !others_fault(pod)) {
            self.start_failed(&virtual_node, &usage, now);
        }
    }

    fn start_failed(&mut self, virtual_node: &Arc<str>, usage: &Usage, now: Timestamp) {
        if self.backends.get(virtual_node).is_none_or(|backend| backend.is_left_alone(usage)) {
            // One of a wave that failed together.
            return;
        }
        if self.starts.failures.len() >= SHAPES {
            self.starts.failures.pop_first();
        }
        let next = self.starts.failures.entry(shape(virtual_node, usage)).or_insert(FIRST_SUSPENSION);
        let pause = *next;
        *next = (pause * 2).min(LONGEST_SUSPENSION);
        self.backends.suspend(virtual_node, usage, now + pause);
        tracing::warn!(
            virtual_node = &**virtual_node,
            seconds = pause.as_secs(),
            "a pod was not started; such pods go elsewhere for a while"
        );
        self.reconsider();
    }
}

fn shape(virtual_node: &Arc<str>, usage: &Usage) -> (Arc<str>, i64, i64) {
    (virtual_node.clone(), usage.cpu_millis, usage.memory_bytes)
}

/// Whether any container, an init container included, has run.
pub(super) fn has_begun(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let ran = |one: &k8s_openapi::api::core::v1::ContainerStatus| {
        let state = one.state.as_ref();
        one.restart_count > 0
            || state.is_some_and(|state| state.running.is_some())
            || state.and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.started_at.is_some())
    };
    statuses.into_iter().any(ran)
}

/// A pod that ended for its own deadline, for somebody's eviction or deletion, is not the backend's failure.
fn others_fault(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let disrupted = status
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|conditions| conditions.iter().any(|one| one.type_ == "DisruptionTarget" && one.status == "True"));
    let too_late = status.and_then(|status| status.reason.as_deref()) == Some("DeadlineExceeded");
    disrupted || too_late || pod.metadata.deletion_timestamp.is_some()
}
