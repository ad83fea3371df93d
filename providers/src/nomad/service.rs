//! The trait over a Nomad cluster.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use policy::capability::Refusal;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::capacity::{capacity, refusal};
use super::client::Client;
use super::deletion::Stopping;
use super::events::Changes;
use super::status::{belongs, latest, pending, remote_pod};
use super::translation::{GROUP, Translation, translate};
use super::wire::{Allocation, AllocationUsage, JobStub, Node, Plan, Registered};
use super::{Connection, NAME, Settings};
use crate::{
    Change, Clock, ContainerStats, Error, ErrorKind, ExecRequest, ExecSession, Feasibility, Health, LogQuery, LogStream,
    Observation, Operation, PodRequest, PodUid, Provider, RemoteId, RemotePhase, RemotePod, StartFailure, Stats,
};

/// Allocations and clients that are read of a cluster, at most.
const MOST: usize = 100_000;

/// A Nomad cluster as a [`Provider`].
pub struct NomadProvider {
    jobs: Jobs,
    clock: Clock,
    changes: Changes,
    stopping: Stopping,
    /// Follows the event stream from the first time that somebody wants to know; ends with the provider.
    followers: Mutex<JoinSet<()>>,
}

/// Jobs of one owner, and how they are read.
#[derive(Clone)]
pub(super) struct Jobs {
    pub(super) client: Client,
    pub(super) settings: Arc<Settings>,
}

// === impl Jobs ===

impl Jobs {
    /// A job of this owner.
    pub(super) async fn job(&self, operation: Operation, id: &RemoteId) -> Result<JobStub, Error> {
        let prefix = self.settings.prefix();
        let ours = id.as_str().strip_prefix(&prefix).is_some_and(|uid| uid.chars().all(in_uid));
        if !ours {
            return Err(Error::new(ErrorKind::NotFound, NAME, operation).because("not a job of this virtual node"));
        }
        let job: JobStub = self.client.get(operation, &format!("/v1/job/{id}"), &[]).await?.body;
        if belongs(&job, &self.settings.ownership) {
            return Ok(job);
        }
        Err(Error::new(ErrorKind::Conflict, NAME, operation).because(format!("job {id} is somebody else's")))
    }

    /// The allocations of a job; none also where there is no job.
    pub(super) async fn allocations(&self, operation: Operation, id: &RemoteId) -> Result<Vec<Allocation>, Error> {
        Ok(self.client.get(operation, &format!("/v1/job/{id}/allocations"), &[]).await?.body)
    }

    /// The allocation in which a pod runs or ran.
    pub(super) async fn latest(&self, operation: Operation, id: &RemoteId) -> Result<Allocation, Error> {
        self.job(operation, id).await?;
        let allocations = self.allocations(operation, id).await?;
        let found = latest(&allocations).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, NAME, operation).because("not placed yet"))
    }
}

/// UIDs go into paths, where other characters could mean something else.
fn in_uid(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '-'
}

// === impl NomadProvider ===

impl NomadProvider {
    /// A provider; fails on an address or a certificate that cannot be used. Nothing is called yet.
    pub fn new(settings: Settings, connection: &Connection, clock: Clock) -> Result<NomadProvider, Error> {
        let client = Client::new(connection, &settings)?;
        Ok(NomadProvider {
            jobs: Jobs { client, settings: Arc::new(settings) },
            clock,
            changes: Changes::new(),
            stopping: Stopping::default(),
            followers: Mutex::new(JoinSet::new()),
        })
    }

    /// Changes from now on; the first listener opens the stream.
    fn listen(&self) -> BoxStream<'static, Change> {
        let listening = self.changes.listen();
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        if followers.is_empty() {
            followers.spawn(self.stopping.clone().follow(self.jobs.clone(), self.changes.clone()));
            followers.spawn(self.changes.clone().follow(self.jobs.client.clone(), self.jobs.settings.prefix()));
        }
        listening
    }

    fn translation(&self, request: &PodRequest, operation: Operation) -> Result<Translation, Error> {
        if request.containers.is_empty() || !request.uid.as_str().chars().all(in_uid) {
            return Err(Error::new(ErrorKind::Invalid, NAME, operation).because("a pod has a UID and at least one container"));
        }
        translate(request, &self.jobs.settings).map_err(|Refusal { rule, sentence }| {
            Error::new(ErrorKind::Invalid, NAME, operation).because(format!("{rule}: {sentence}"))
        })
    }

    /// What the scheduler would do. Nothing is registered.
    async fn plan(&self, translation: &Translation, operation: Operation) -> Result<Plan, Error> {
        let path = format!("/v1/job/{}/plan", translation.job.id);
        let body = json!({"Job": translation.job, "Diff": false});
        self.jobs.client.send(operation, Method::POST, &path, &[], &body).await
    }

    /// The secrets of a job that is there. What was put there before stays.
    async fn put_variables(&self, translation: &Translation) -> Result<(), Error> {
        for (path, items) in &translation.variables {
            let items: BTreeMap<&str, &str> = items.iter().map(|(key, secret)| (key.as_str(), secret.expose())).collect();
            let body = json!({"Namespace": self.jobs.settings.namespace, "Path": path, "Items": items});
            let (client, path) = (&self.jobs.client, format!("/v1/var/{path}"));
            let new = [("cas", "0")];
            match client.send(Operation::Create, Method::PUT, &path, &new, &body).await {
                Ok(serde::de::IgnoredAny) => {}
                Err(error) if error.kind == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is there under a pod's UID, its secrets put there should that have been missed.
    async fn adopt(&self, request: &PodRequest, translation: &Translation) -> Result<RemotePod, Error> {
        let pod = self.read(&request.uid, Operation::Create).await?;
        if pod.phase < RemotePhase::Running {
            self.put_variables(translation).await?;
        }
        Ok(pod)
    }

    async fn read(&self, uid: &PodUid, operation: Operation) -> Result<RemotePod, Error> {
        let id = self.jobs.settings.job_id(uid);
        let job = self.jobs.job(operation, &id).await?;
        let mut allocations = self.jobs.allocations(operation, &id).await?;
        if let Some(last) = latest(&allocations) {
            // Only by itself does an allocation tell its address and how its tasks relate.
            match self.jobs.client.get(operation, &format!("/v1/allocation/{}", last.id), &[]).await {
                Ok(whole) => allocations = vec![whole.body],
                // Purged in this moment.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        remote_pod(&job, &allocations)
            .ok_or_else(|| Error::new(ErrorKind::Conflict, NAME, operation).because(format!("job {id} is no pod's")))
    }
}

#[async_trait]
impl Provider for NomadProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn observe(&self) -> Result<Observation, Error> {
        let operation = Operation::Observe;
        let client = &self.jobs.client;
        let nodes = client.pages::<Node>(operation, "/v1/nodes", &[("resources", "true")], MOST).await?;
        // Of every namespace that the token may read: they share the clients.
        let query = [("resources", "true"), ("task_states", "false"), ("namespace", "*")];
        let allocations = client.pages::<Allocation>(operation, "/v1/allocations", &query, MOST).await?;
        let now = capacity(&nodes.body, &allocations.body, &self.jobs.settings);
        let health = if !(nodes.leader && allocations.leader) {
            Health::Down { reason: "the Nomad servers have no leader".to_owned() }
        } else if now.clients == 0 {
            let reason = "no ready client with the docker driver is in the node pool and the datacenters".to_owned();
            Health::Down { reason }
        } else {
            Health::Healthy
        };
        let (quota, usage, largest_pod) = (now.quota, now.usage, now.largest_pod);
        Ok(Observation { at: (self.clock)(), quota, usage, largest_pod, health, prices: None })
    }

    async fn feasible(&self, request: &PodRequest) -> Result<Feasibility, Error> {
        let translation = self.translation(request, Operation::Observe)?;
        let plan = self.plan(&translation, Operation::Observe).await?;
        Ok(match plan.failed.get(GROUP).map(refusal) {
            None => Feasibility::Fits,
            Some((cause, reason)) => Feasibility::DoesNotFit { cause, reason },
        })
    }

    async fn create(&self, request: &PodRequest) -> Result<RemotePod, Error> {
        let operation = Operation::Create;
        let translation = self.translation(request, operation)?;
        let plan = self.plan(&translation, operation).await?;
        if plan.job_modify_index != 0 {
            return self.adopt(request, &translation).await;
        }
        if let Some((cause, reason)) = plan.failed.get(GROUP).map(refusal) {
            let kind = match cause {
                StartFailure::QuotaExceeded => ErrorKind::QuotaExceeded,
                _ => ErrorKind::NoCapacity,
            };
            return Err(Error::new(kind, NAME, operation).because(reason));
        }
        // The job first: what a Variable without a job holds, nobody would ever take away. Its tasks wait for the Variable.
        let body = json!({"Job": translation.job, "EnforceIndex": true, "JobModifyIndex": 0});
        match self.jobs.client.send::<Registered>(operation, Method::PUT, "/v1/jobs", &[], &body).await {
            Ok(registered) if registered.warnings.is_empty() => {}
            Ok(registered) => tracing::warn!(job = translation.job.id, warnings = registered.warnings, "Nomad warns of a job"),
            Err(error) if error.kind == ErrorKind::Conflict => return self.adopt(request, &translation).await,
            Err(error) => return Err(error),
        }
        self.put_variables(&translation).await?;
        let PodRequest { uid, namespace, name, shape, .. } = request;
        Ok(pending(&translation.job.id, uid.clone(), namespace.clone(), name.clone(), *shape, (self.clock)()))
    }

    async fn get(&self, uid: &PodUid) -> Result<RemotePod, Error> {
        self.read(uid, Operation::Get).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<RemotePod>, Error> {
        let operation = Operation::List;
        let prefix = self.jobs.settings.prefix();
        let query = [("prefix", prefix.as_str()), ("meta", "true")];
        let jobs = self.jobs.client.pages::<JobStub>(operation, "/v1/jobs", &query, MOST).await?.body;
        let filter = format!("JobID matches {:?}", format!("^{prefix}"));
        let query = [("resources", "true"), ("task_states", "true"), ("filter", filter.as_str())];
        let allocations = self.jobs.client.pages::<Allocation>(operation, "/v1/allocations", &query, MOST).await?.body;
        let mut by_job: HashMap<String, Vec<Allocation>> = HashMap::new();
        for allocation in allocations {
            by_job.entry(allocation.job_id.clone()).or_default().push(allocation);
        }
        let ours = jobs.iter().filter(|job| belongs(job, &self.jobs.settings.ownership));
        let pods = ours.filter_map(|job| remote_pod(job, by_job.get(&job.id).map_or(&[][..], Vec::as_slice)));
        let mut pods: Vec<RemotePod> = pods.collect();
        pods.sort_by_key(|pod| pod.phase == RemotePhase::Stopped);
        pods.truncate(limit);
        Ok(pods)
    }

    async fn delete(&self, id: &RemoteId) -> Result<(), Error> {
        // Somebody must hear when its tasks have ended.
        drop(self.listen());
        self.stopping.delete(&self.jobs, id).await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        self.listen()
    }

    async fn logs(&self, id: &RemoteId, query: &LogQuery) -> Result<LogStream, Error> {
        let changes = if query.follow { self.listen() } else { futures::stream::pending().boxed() };
        super::logs::logs(&self.jobs, changes, id, query).await
    }

    async fn exec(&self, id: &RemoteId, request: &ExecRequest) -> Result<ExecSession, Error> {
        super::exec::exec(&self.jobs, id, request).await
    }

    async fn stats(&self, id: &RemoteId) -> Result<Stats, Error> {
        let allocation = self.jobs.latest(Operation::Stats, id).await?;
        let path = format!("/v1/client/allocation/{}/stats", allocation.id);
        let usage: AllocationUsage = self.jobs.client.get(Operation::Stats, &path, &[]).await?.body;
        let containers = usage.tasks.iter().map(|(name, task)| {
            let (cpu, memory) = (&task.resource_usage.cpu_stats, &task.resource_usage.memory_stats);
            #[expect(clippy::cast_possible_truncation, reason = "hundredths of a core, far below the largest integer")]
            let cpu_millis = (cpu.percent * 10.0) as i64;
            // Usage has the page cache in it, where it is measured at all.
            let memory_bytes = if memory.rss > 0 { memory.rss } else { memory.usage };
            ContainerStats { name: name.as_str().into(), cpu_nanoseconds: None, cpu_millis: Some(cpu_millis), memory_bytes }
        });
        Ok(Stats { at: (self.clock)(), containers: containers.collect() })
    }
}
