//! The Job controller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use policy::Timestamp;

use super::agenda::Item;
use super::random::Random;
use super::store::PodId;
use super::{Change, Simulation};

/// Number of a Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobId(usize);

/// All Jobs and which pods are theirs.
#[derive(Debug)]
pub(super) struct Jobs {
    jobs: Vec<JobState>,
    pods: BTreeMap<PodId, Owned>,
    names: Random,
}

#[derive(Debug)]
struct Owned {
    job: JobId,
    index: Option<i32>,
}

#[derive(Debug)]
struct JobState {
    job: Job,
    uid: String,
    active: i32,
    succeeded: i32,
    failed: i32,
    /// Indexes without a pod that runs or succeeded; only of an Indexed Job.
    free_indexes: BTreeSet<i32>,
    may_create_at_micros: i64,
    is_sync_planned: bool,
    ended: Option<(Timestamp, bool)>,
}

/// How far a Job has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobProgress {
    /// `namespace/name`.
    pub name: String,
    /// Pods wanted in the end.
    pub completions: i32,
    /// Pods that wait or run.
    pub active: i32,
    /// Pods that did their work.
    pub succeeded: i32,
    /// Pods that did not.
    pub failed: i32,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Whether it ended well.
    pub is_complete: bool,
}

pub(super) const INDEX_KEY: &str = "batch.kubernetes.io/job-completion-index";
const BACKOFF_LIMIT_DEFAULT: i32 = 6;
const FAILURE_BACKOFF: Duration = Duration::from_secs(10);

// === impl Jobs ===

impl Jobs {
    pub(super) fn new(seed: u64) -> Jobs {
        Jobs { jobs: Vec::new(), pods: BTreeMap::new(), names: Random::new(seed, "job names") }
    }
}

// === impl JobState ===

impl JobState {
    fn is_indexed(&self) -> bool {
        self.job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
    }

    fn parallelism(&self) -> i32 {
        self.job.spec.as_ref().and_then(|spec| spec.parallelism).unwrap_or(1)
    }

    fn completions(&self) -> i32 {
        self.job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or_else(|| self.parallelism())
    }

    /// Pods to create now.
    fn missing(&self) -> i32 {
        let is_suspended = self.job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
        if self.ended.is_some() || is_suspended {
            return 0;
        }
        (self.completions() - self.succeeded).min(self.parallelism()) - self.active
    }

    fn pod(&self, index: Option<i32>) -> Pod {
        let name = self.job.metadata.name.clone().unwrap_or_default();
        let template = self.job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let mut metadata = ObjectMeta {
            namespace: Some(self.job.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            labels: Some(template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default()),
            annotations: template.metadata.and_then(|metadata| metadata.annotations),
            finalizers: Some(vec!["batch.kubernetes.io/job-tracking".to_owned()]),
            owner_references: Some(vec![OwnerReference {
                api_version: "batch/v1".to_owned(),
                kind: "Job".to_owned(),
                name: name.clone(),
                uid: self.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        };
        let labels = metadata.labels.get_or_insert_default();
        for (key, value) in [("job-name", &name), ("controller-uid", &self.uid)] {
            labels.insert(key.to_owned(), value.clone());
            labels.insert(format!("batch.kubernetes.io/{key}"), value.clone());
        }
        let mut spec = template.spec.unwrap_or_default();
        metadata.generate_name = Some(match index {
            None => format!("{name}-"),
            Some(index) => {
                labels.insert(INDEX_KEY.to_owned(), index.to_string());
                metadata.annotations.get_or_insert_default().insert(INDEX_KEY.to_owned(), index.to_string());
                for container in &mut spec.containers {
                    let value = Some(index.to_string());
                    container.env.get_or_insert_default().push(EnvVar {
                        name: "JOB_COMPLETION_INDEX".to_owned(),
                        value,
                        value_from: None,
                    });
                }
                format!("{name}-{index}-")
            }
        });
        Pod { metadata, spec: Some(spec), status: None }
    }
}

// === impl Simulation ===

impl Simulation {
    pub(super) fn create_job(&mut self, job: Job) {
        let id = JobId(self.jobs.jobs.len());
        let uid = self.jobs.names.uid();
        let mut state = JobState {
            job,
            uid,
            active: 0,
            succeeded: 0,
            failed: 0,
            free_indexes: BTreeSet::new(),
            may_create_at_micros: self.now.millis() * 1000,
            is_sync_planned: false,
            ended: None,
        };
        if state.is_indexed() {
            state.free_indexes = (0..state.completions()).collect();
        }
        self.jobs.jobs.push(state);
        self.plan_sync(id, self.now);
    }

    /// All Jobs.
    pub fn jobs(&self) -> impl Iterator<Item = JobProgress> {
        self.jobs.jobs.iter().map(|state| JobProgress {
            name: format!(
                "{}/{}",
                state.job.metadata.namespace.as_deref().unwrap_or("default"),
                state.job.metadata.name.as_deref().unwrap_or_default()
            ),
            completions: state.completions(),
            active: state.active,
            succeeded: state.succeeded,
            failed: state.failed,
            ended_at: state.ended.map(|(at, _)| at),
            is_complete: state.ended.is_some_and(|(_, is_complete)| is_complete),
        })
    }

    /// Creates what is missing, as fast as the controller may.
    pub(super) fn job_sync(&mut self, id: JobId) {
        self.jobs.jobs[id.0].is_sync_planned = false;
        let interval = 1_000_000 / i64::from(self.settings.job_pods_per_second.max(1));
        let now_micros = self.now.millis() * 1000;
        loop {
            let state = &mut self.jobs.jobs[id.0];
            if state.missing() <= 0 {
                return;
            }
            if state.may_create_at_micros > now_micros {
                let at = Timestamp::from_millis(state.may_create_at_micros.div_euclid(1000) + 1);
                return self.plan_sync(id, at);
            }
            // A pause does not earn a burst.
            state.may_create_at_micros = state.may_create_at_micros.max(now_micros - 1000) + interval;
            let index = state.free_indexes.pop_first();
            state.active += 1;
            let pod = state.pod(index);
            match self.create_pod(pod) {
                Ok(pod) => drop(self.jobs.pods.insert(pod, Owned { job: id, index })),
                // The generated name was taken: one in 14 million. Next sync.
                Err(_) => self.give_back(id, index),
            }
        }
    }

    /// Counts a pod that ended, once.
    pub(super) fn job_sees(&mut self, pod: PodId, change: &Change) {
        let (object, is_deleted) = match change {
            Change::PodApplied(object) => (object, false),
            Change::PodDeleted(object) => (object, true),
            Change::NodeApplied(_) | Change::NodeDeleted(_) => return,
        };
        let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
        let succeeded = phase == Some("Succeeded");
        if !is_deleted && !succeeded && phase != Some("Failed") {
            return;
        }
        let Some(Owned { job: id, index }) = self.jobs.pods.remove(&pod) else { return };
        if succeeded {
            let now = self.now;
            let state = &mut self.jobs.jobs[id.0];
            state.active -= 1;
            state.succeeded += 1;
            if state.succeeded >= state.completions() {
                state.ended.get_or_insert((now, true));
            }
        } else {
            self.job_pod_failed(id, index);
        }
        let latency = self.latencies.duration(&self.settings.controller_latency);
        self.plan_sync(id, self.now + latency);
    }

    fn job_pod_failed(&mut self, id: JobId, index: Option<i32>) {
        self.give_back(id, index);
        let now = self.now;
        let state = &mut self.jobs.jobs[id.0];
        state.failed += 1;
        let doublings = u32::try_from((state.failed - 1).clamp(0, 5)).unwrap_or(0);
        let allowed = now + FAILURE_BACKOFF * 2_u32.pow(doublings);
        state.may_create_at_micros = state.may_create_at_micros.max(allowed.millis() * 1000);
        let limit = state.job.spec.as_ref().and_then(|spec| spec.backoff_limit).unwrap_or(BACKOFF_LIMIT_DEFAULT);
        if state.failed > limit && state.ended.is_none() {
            state.ended = Some((now, false));
            let rest: Vec<PodId> = self.jobs.pods.iter().filter(|(_, owned)| owned.job == id).map(|(pod, _)| *pod).collect();
            for pod in rest {
                self.begin_deletion(pod);
            }
        }
    }

    fn give_back(&mut self, id: JobId, index: Option<i32>) {
        let state = &mut self.jobs.jobs[id.0];
        state.active -= 1;
        state.free_indexes.extend(index);
    }

    fn plan_sync(&mut self, id: JobId, at: Timestamp) {
        let state = &mut self.jobs.jobs[id.0];
        if !state.is_sync_planned && state.missing() > 0 {
            state.is_sync_planned = true;
            self.agenda.plan(at, Item::JobSync(id));
        }
    }
}
