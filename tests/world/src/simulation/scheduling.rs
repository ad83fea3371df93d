//! kube-scheduler's loop, its client and its answers, around the model in `scheduler`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use policy::Timestamp;

use super::agenda::{Item, PodOrNode};
use super::scheduler::{Attempt, FLUSH_EVERY, Outcome, Verdict};
use super::store::{PodId, set_condition};
use super::{Change, Extender, Recorded, Settings, Simulation};

/// When the loop is free, and when its client may write.
#[derive(Debug)]
pub(super) struct SchedulerLoop {
    is_planned: bool,
    is_timer_planned: bool,
    free_at_micros: i64,
    /// Theoretical time of the next write by the client's limit.
    write_at_micros: i64,
    write_interval_micros: i64,
    write_burst_micros: i64,
}

impl SchedulerLoop {
    pub(super) fn new(settings: &Settings) -> SchedulerLoop {
        let interval = 1_000_000 / i64::from(settings.scheduler_writes_per_second.max(1));
        SchedulerLoop {
            is_planned: false,
            is_timer_planned: false,
            free_at_micros: 0,
            write_at_micros: 0,
            write_interval_micros: interval,
            write_burst_micros: interval * i64::from(settings.scheduler_writes_burst),
        }
    }

    /// When a write that is wanted now leaves the client.
    fn write_slot(&mut self, now: Timestamp) -> Timestamp {
        let now_micros = now.millis() * 1000;
        self.write_at_micros = self.write_at_micros.max(now_micros - self.write_burst_micros) + self.write_interval_micros;
        now.max(Timestamp::from_millis(self.write_at_micros / 1000))
    }
}

// === impl Simulation ===

impl Simulation {
    pub(super) fn scheduler_sees(&mut self, change: &Change, object: &PodOrNode) {
        let is_deleted = matches!(change, Change::PodDeleted(_) | Change::NodeDeleted(_));
        match object {
            PodOrNode::Pod(id, pod) => self.scheduler.sees_pod(*id, pod, is_deleted, self.now),
            PodOrNode::Node(node) => self.scheduler.sees_node(node, is_deleted, self.now),
        }
        self.plan_cycle();
    }

    pub(super) fn scheduler_cycle(&mut self, extender: &mut dyn Extender) {
        self.scheduler_loop.is_planned = false;
        let Some(id) = self.scheduler.next_pod(self.now) else { return };
        let nodes = u64::try_from(self.scheduler.node_count()).unwrap_or(u64::MAX);
        let cost = self.settings.cycle_micros + self.settings.cycle_micros_per_1000_nodes * nodes / 1000;
        let begun = self.scheduler_loop.free_at_micros.max(self.now.millis() * 1000);
        self.scheduler_loop.free_at_micros = begun + i64::try_from(cost).unwrap_or(i64::MAX / 2);
        match self.scheduler.schedule(id, self.now, extender) {
            Outcome::Assumed(attempt) => {
                let arrives = self.scheduler_write_arrives();
                self.agenda.plan(arrives, Item::SchedulerBinds(attempt));
            }
            Outcome::Refused(verdict, is_news) => {
                if is_news {
                    let arrives = self.scheduler_write_arrives();
                    self.agenda.plan(arrives, Item::SchedulerSays(id, verdict));
                }
            }
            Outcome::Gone => {}
        }
        self.plan_cycle();
        self.plan_flush();
    }

    pub(super) fn scheduler_timer(&mut self) {
        self.scheduler_loop.is_timer_planned = false;
        self.scheduler.flush(self.now);
        self.plan_cycle();
        self.plan_flush();
    }

    pub(super) fn scheduler_binds(&mut self, attempt: Attempt) {
        let metadata = &attempt.pod.metadata;
        let binding = Binding {
            metadata: ObjectMeta {
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone(),
                uid: metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(attempt.node.to_string()),
                ..ObjectReference::default()
            },
        };
        let is_ok = self.bind(&binding).is_ok();
        if is_ok {
            let note = format!("Successfully assigned to {}", attempt.node);
            self.record_scheduler(&attempt.pod, false, "Scheduled", note);
        }
        let latency = self.latencies.duration(&self.settings.answer_latency);
        self.agenda.plan(self.now + latency, Item::SchedulerBound(attempt, is_ok));
    }

    pub(super) fn scheduler_bound(&mut self, attempt: &Attempt, is_ok: bool) {
        self.scheduler.bound(attempt, is_ok, self.now);
        self.plan_cycle();
    }

    /// A strategic merge patch without a version: it hits also a pod that was bound meanwhile.
    pub(super) fn scheduler_says(&mut self, id: PodId, verdict: Verdict) {
        let Some(pod) = self.store.pod(id).cloned() else { return };
        let now = self.now;
        self.store.update_pod(id, |pod| {
            set_condition(pod, "PodScheduled", false, Some("Unschedulable"), Some(&verdict.message), now);
            if let Some(node) = &verdict.nominated {
                pod.status.get_or_insert_default().nominated_node_name = Some(node.to_string());
            }
        });
        for victim in verdict.victims {
            self.begin_deletion(victim);
        }
        self.record_scheduler(&pod, true, "FailedScheduling", verdict.message);
    }

    fn scheduler_write_arrives(&mut self) -> Timestamp {
        let slot = self.scheduler_loop.write_slot(self.now);
        slot + self.latencies.duration(&self.settings.write_latency)
    }

    fn plan_cycle(&mut self) {
        if self.scheduler_loop.is_planned || !self.scheduler.queue().is_ready() {
            return;
        }
        self.scheduler_loop.is_planned = true;
        let free_at = Timestamp::from_millis(self.scheduler_loop.free_at_micros / 1000);
        self.agenda.plan(self.now.max(free_at), Item::SchedulerCycle);
    }

    fn plan_flush(&mut self) {
        if !self.scheduler_loop.is_timer_planned && self.scheduler.queue().has_parked() {
            self.scheduler_loop.is_timer_planned = true;
            self.agenda.plan(self.now + FLUSH_EVERY, Item::SchedulerTimer);
        }
    }

    fn record_scheduler(&mut self, pod: &k8s_openapi::api::core::v1::Pod, is_warning: bool, reason: &str, note: String) {
        self.record(Recorded {
            at: self.now,
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            is_warning,
            reporter: "default-scheduler".to_owned(),
            reason: reason.to_owned(),
            note,
        });
    }
}

/// The default grace of the model's kubelets between deletion and removal.
pub(super) const STOP_TIME: Duration = Duration::from_secs(1);
