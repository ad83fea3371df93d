//! The committer's driver for the simulated cluster: watch events in, intents out, virtual time as the clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::{Binding as KubernetesBinding, ObjectReference, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use policy::{Money, Timestamp};
use serde_json::Value;
use world::simulation::{
    Answer, ApiError, Change, Disturbance, Manifests, Observation, PodRef, Recorded, Request, Simulation, Ticket,
};

use super::clouds::{self, Cloud};
use super::examples::Examples;
use super::extender_client::ExtenderClient;
use super::objects::Objects;
use super::run::{Bindings, Sample};
use crate::api::{BurstBudgetStatus, names};
use crate::committer::{Binding, BindingAnswer, Committer, Event, EvictionAnswer, Intent, Note, PodKey, Published, StatusKind};
use crate::hygiene::Check;
use crate::record::{ANNOTATION, Record};

/// How often the clouds are looked at.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// A cluster in which nothing has happened for so long is at rest, whatever still waits in it.
const REST: Duration = Duration::from_secs(900);
/// After the last Job the books are settled and shown.
const EPILOGUE: Duration = Duration::from_secs(5);
/// More samples than the report has pixels; beyond it every second one goes.
const SAMPLES_MAX: usize = 1200;

/// The simulated cluster, the committer, and what is under way between them.
pub(super) struct Driver {
    pub(super) simulation: Simulation,
    pub(super) committer: Committer,
    pub(super) objects: Objects,
    pub(super) clouds: Vec<Cloud>,
    pub(super) samples: Vec<Sample>,
    pub(super) examples: Examples,
    /// The most that each budget had spent and promised at any moment.
    pub(super) peaks: BTreeMap<String, Money>,
    pub(super) bindings: Bindings,
    extender: ExtenderClient,
    published: Arc<ArcSwap<Published>>,
    clock: Arc<AtomicI64>,
    awaited: BTreeMap<Ticket, Awaited>,
    health: BTreeMap<String, (Value, Value)>,
    sample_every: Duration,
    next_sample: Timestamp,
    next_probe: Timestamp,
    last_change: Timestamp,
    filters_seen: u64,
}

/// What is done when an answer comes.
enum Awaited {
    Binding(Arc<str>),
    LiftedGate(Box<Binding>),
    Gate(Arc<str>),
    Eviction(Arc<str>),
    Patch(Arc<str>),
    Read(Arc<str>),
    Budget { name: Arc<str>, version: String, status: Box<BurstBudgetStatus> },
    Status { kind: StatusKind, name: Arc<str>, status: Value },
    ListPending,
    NodeRepair(Vec<Check>),
    Nothing,
}

/// The parts that outlive the driver or are shared with the extender's server.
pub(super) struct Shared {
    /// What the extender answers from.
    pub(super) published: Arc<ArcSwap<Published>>,
    /// Virtual time in milliseconds.
    pub(super) clock: Arc<AtomicI64>,
}

// === impl Driver ===

impl Driver {
    /// Everything at its beginning: nothing has been told yet.
    pub(super) fn new(
        simulation: Simulation,
        committer: Committer,
        objects: Objects,
        clouds: Vec<Cloud>,
        extender: ExtenderClient,
        shared: Shared,
    ) -> Driver {
        let now = simulation.now();
        Driver {
            simulation,
            committer,
            objects,
            clouds,
            samples: Vec::new(),
            examples: Examples::default(),
            peaks: BTreeMap::new(),
            bindings: Bindings::default(),
            extender,
            published: shared.published,
            clock: shared.clock,
            awaited: BTreeMap::new(),
            health: BTreeMap::new(),
            sample_every: Duration::from_secs(1),
            next_sample: now,
            next_probe: now,
            last_change: now,
            filters_seen: 0,
        }
    }

    /// Tells the committer what exists before the first pod.
    pub(super) fn synchronize(&mut self) {
        let now = self.simulation.now();
        for event in self.objects.events() {
            self.committer.handle(event, now);
        }
        // The nodes' first watch events are on their way for some milliseconds.
        for observation in self.simulation.advance_to(now + Duration::from_millis(100), &mut self.extender) {
            self.observe(observation);
        }
        self.committer.handle(Event::Synced, self.simulation.now());
    }

    /// Orders the work for a given time.
    pub(super) fn begin(&mut self, at: Timestamp, work: Manifests) {
        self.simulation.at(at, Disturbance::Apply(work));
        self.next_sample = at;
        self.last_change = at;
    }

    /// Runs until every Job is done and the books are settled, nothing moves any more, or `limit` has come. `progress` is told
    /// of every sample.
    pub(super) fn run(&mut self, limit: Timestamp, mut progress: impl FnMut(&Sample)) -> anyhow::Result<()> {
        let mut epilogue: Option<Timestamp> = None;
        loop {
            self.step()?;
            let now = self.simulation.now();
            if now >= self.next_sample {
                self.sample(now);
                if let Some(sample) = self.samples.last() {
                    progress(sample);
                }
            }
            if now >= self.next_probe {
                self.probe(now)?;
            }
            if epilogue.is_none() && self.is_done() {
                epilogue = Some(now + EPILOGUE);
            }
            let end = epilogue.unwrap_or(limit).min(limit);
            if now >= end || now.since(self.last_change) >= REST {
                self.sample(now);
                return Ok(());
            }
            self.wait(end);
        }
    }

    /// Ends the run.
    pub(super) fn into_extender(self) -> ExtenderClient {
        self.extender
    }

    /// Lets the committer decide, publishes what it knows, and does what it wants.
    fn step(&mut self) -> anyhow::Result<()> {
        let now = self.simulation.now();
        let intents = self.committer.step(now);
        let published = self.committer.published();
        for (budget, balance) in published.books.accounts() {
            let peak = self.peaks.entry(budget.name.to_string()).or_default();
            *peak = (*peak).max(balance.total());
        }
        self.published.store(Arc::new(published));
        for intent in intents {
            self.perform(intent)?;
        }
        Ok(())
    }

    /// Lets virtual time go by until there is something to do.
    fn wait(&mut self, end: Timestamp) {
        let now = self.simulation.now();
        let wake = self.committer.next_wake(now).max(now + Duration::from_millis(1));
        let until = wake.min(self.next_sample).min(self.next_probe).min(end);
        let observations = self.simulation.run_until(until, &mut self.extender);
        self.clock.store(self.simulation.now().millis(), Ordering::Relaxed);
        for observation in observations {
            self.observe(observation);
        }
        if self.extender.filters() > self.filters_seen {
            self.filters_seen = self.extender.filters();
            self.committer.handle(Event::ExtenderAsked, self.simulation.now());
        }
    }

    fn observe(&mut self, observation: Observation) {
        let now = self.simulation.now();
        let event = match observation {
            Observation::Answer(answer) => return self.answered(answer),
            Observation::Change(Change::PodApplied(pod)) => {
                self.last_change = now;
                Event::Pod(Box::new(Arc::unwrap_or_clone(pod)))
            }
            Observation::Change(Change::PodDeleted(pod)) => {
                self.last_change = now;
                Event::PodGone { uid: Arc::from(pod.metadata.uid.as_deref().unwrap_or_default()) }
            }
            Observation::Change(Change::NodeApplied(node)) => Event::Node(Box::new(Arc::unwrap_or_clone(node))),
            Observation::Change(Change::NodeDeleted(node)) => Event::NodeGone(node.metadata.name.clone().unwrap_or_default()),
        };
        self.committer.handle(event, now);
    }

    fn answered(&mut self, answer: Answer) {
        let now = self.simulation.now();
        let Some(awaited) = self.awaited.remove(&answer.ticket) else { return };
        let event = match awaited {
            Awaited::Binding(uid) => {
                let answer = binding_answer(&answer.outcome);
                match answer {
                    BindingAnswer::Created => self.bindings.created += 1,
                    BindingAnswer::Conflict => self.bindings.conflicts += 1,
                    BindingAnswer::NotFound | BindingAnswer::Refused | BindingAnswer::Throttled | BindingAnswer::Unknown => {
                        self.bindings.failed += 1;
                    }
                }
                Event::BindingAnswered { uid, answer }
            }
            Awaited::LiftedGate(binding) => match answer.outcome {
                Ok(Some(pod)) => {
                    let resource_version = pod.metadata.resource_version.clone().unwrap_or_default();
                    let uid = binding.pod.uid.clone();
                    let binding = kubernetes_binding(Binding { resource_version, lift_gate: false, ..*binding });
                    let ticket = self.simulation.submit(Request::Bind(Box::new(binding)));
                    self.awaited.insert(ticket, Awaited::Binding(uid));
                    return;
                }
                outcome => Event::BindingAnswered { uid: binding.pod.uid.clone(), answer: binding_answer(&outcome) },
            },
            Awaited::Patch(uid) => Event::Patched { uid, done: answer.outcome.is_ok() || is_gone(&answer.outcome) },
            Awaited::Read(uid) => match answer.outcome {
                Ok(Some(pod)) => Event::PodRead(Box::new(Arc::unwrap_or_clone(pod))),
                Err(ApiError { code: Some(404 | 409), .. }) => Event::PodGone { uid },
                // The committer asks again.
                Ok(None) | Err(_) => return,
            },
            Awaited::Budget { name, version, status } => {
                let written = self.objects.write_budget(&name, &version, *status);
                let (resource_version, seen) = written.map_or((None, None), |(version, seen)| (Some(version), Some(seen)));
                self.committer.handle(Event::BudgetWritten { name, resource_version }, now);
                match seen {
                    Some(seen) => seen,
                    None => return,
                }
            }
            Awaited::Status { kind, name, status } => match self.objects.apply_status(kind, &name, &status) {
                Ok(Some(seen)) => seen,
                Ok(None) | Err(_) => return,
            },
            Awaited::ListPending => {
                let pending = |pod: &Arc<Pod>| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none());
                let pods: Vec<Pod> =
                    self.simulation.pods().filter(|(pod, _)| pending(pod)).map(|(pod, _)| (**pod).clone()).collect();
                for pod in pods {
                    self.committer.handle(Event::Pod(Box::new(pod)), now);
                }
                Event::PendingListed
            }
            Awaited::NodeRepair(checks) => Event::NodeRepaired(checks),
            Awaited::Gate(uid) => Event::GateLifted { uid },
            Awaited::Eviction(uid) => {
                let evicted = if answer.outcome.is_ok() { EvictionAnswer::Evicted } else { EvictionAnswer::Failed };
                Event::EvictionAnswered { uid, answer: evicted }
            }
            Awaited::Nothing => return,
        };
        self.committer.handle(event, now);
    }

    fn perform(&mut self, intent: Intent) -> anyhow::Result<()> {
        let (request, awaited) = match intent {
            Intent::Bind(binding) if binding.lift_gate => {
                let selector = Some((names::DECIDED_LABEL.to_owned(), names::DECIDED_BURST.to_owned()));
                (Request::LiftGate { pod: pod_ref(&binding.pod), selector }, Awaited::LiftedGate(Box::new(binding)))
            }
            Intent::Bind(binding) => {
                self.examples.committed(&self.published.load(), &self.simulation, &binding);
                let uid = binding.pod.uid.clone();
                (Request::Bind(Box::new(kubernetes_binding(binding))), Awaited::Binding(uid))
            }
            Intent::FitTolerations { pod, tolerations } => {
                let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).context("tolerations of an intent")?;
                (Request::SetTolerations { pod: pod_ref(&pod), tolerations }, Awaited::Patch(pod.uid))
            }
            Intent::RepairCondition { pod } => (Request::RepairScheduled { pod: pod_ref(&pod) }, Awaited::Patch(pod.uid)),
            Intent::Read { pod } => (Request::Read { pod: pod_ref(&pod) }, Awaited::Read(pod.uid)),
            Intent::ListPending => (Request::RoundTrip, Awaited::ListPending),
            Intent::WriteBudget { name, resource_version, status } => {
                (Request::RoundTrip, Awaited::Budget { name, version: resource_version, status })
            }
            Intent::WriteStatus { kind, name, status } => (Request::RoundTrip, Awaited::Status { kind, name, status }),
            Intent::LiftGate { pod } => (Request::LiftGate { pod: pod_ref(&pod), selector: None }, Awaited::Gate(pod.uid)),
            Intent::Evict { pod } => (Request::DeletePod { pod: pod_ref(&pod) }, Awaited::Eviction(pod.uid)),
            // Nobody reads why a simulated pod has failed.
            Intent::Fail { pod } | Intent::Delete { pod } => (Request::DeletePod { pod: pod_ref(&pod) }, Awaited::Nothing),
            // The simulated kube-scheduler looks at every pod again by itself.
            Intent::Wake { .. } => (Request::RoundTrip, Awaited::Nothing),
            Intent::RepairNode { node, uid: _, repair } => {
                let found = self.simulation.nodes().find(|known| known.metadata.name.as_deref() == Some(&*node)).cloned();
                let Some(mut found) = found.map(Arc::unwrap_or_clone) else { return Ok(()) };
                repair.apply(&mut found);
                (Request::ApplyNode(Box::new(found)), Awaited::NodeRepair(repair.checks))
            }
            Intent::Note(note) => (Request::Record(recorded(note, self.simulation.now())), Awaited::Nothing),
        };
        let ticket = self.simulation.submit(request);
        self.awaited.insert(ticket, awaited);
        Ok(())
    }

    /// Looks at the clouds; what is news goes into `VirtualNode.status`.
    fn probe(&mut self, now: Timestamp) -> anyhow::Result<()> {
        self.next_probe = now + PROBE_EVERY;
        for cloud in &self.clouds {
            let status = clouds::observed(&mut self.simulation, cloud);
            let condition = &status["conditions"][0];
            let state = (condition["status"].clone(), condition["reason"].clone());
            if self.health.get(&cloud.virtual_node) == Some(&state) {
                continue;
            }
            self.health.insert(cloud.virtual_node.clone(), state);
            if let Some(event) = self.objects.apply_status(StatusKind::VirtualNode, &cloud.virtual_node, &status)? {
                self.committer.handle(event, now);
            }
        }
        Ok(())
    }

    fn sample(&mut self, now: Timestamp) {
        self.next_sample = now + self.sample_every;
        let mut sample = Sample {
            at: now,
            waiting: 0,
            placed: vec![0; self.clouds.len() + 1],
            done: 0,
            committed: Money::ZERO,
            charged: self.simulation.bill(),
        };
        for (pod, life) in self.simulation.pods() {
            match (&life.node, life.ended_at) {
                (_, Some(_)) => sample.done += 1,
                (None, None) => {
                    sample.waiting += 1;
                    self.examples.waiting(&self.committer, pod, life.created_at, now);
                }
                (Some(node), None) => sample.placed[self.place(node)] += 1,
            }
        }
        let published = self.published.load();
        let accounts: Vec<Money> = published.books.accounts().map(|(_, balance)| balance.total()).collect();
        sample.committed = if accounts.is_empty() {
            // Nobody keeps books where there is no budget.
            self.simulation.pods().filter_map(|(pod, _)| record(pod)).map(|record| record.quote).sum()
        } else {
            accounts.into_iter().sum()
        };
        if self.samples.last().is_some_and(|last| last.at == now) {
            self.samples.pop();
        }
        self.samples.push(sample);
        if self.samples.len() > SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.sample_every *= 2;
        }
    }

    /// Place of a node among the backends: 0 is dedicated.
    pub(super) fn place(&self, node: &str) -> usize {
        self.clouds.iter().position(|cloud| cloud.node == node).map_or(0, |place| place + 1)
    }

    /// Whether every Job has ended and no other pod is on its way.
    fn is_done(&self) -> bool {
        let mut jobs = self.simulation.jobs().peekable();
        jobs.all(|job| job.ended_at.is_some())
            && self
                .simulation
                .pods()
                .all(|(_, life)| life.ended_at.is_some() || (life.started_at.is_some() && life.run_time.is_none()))
            && self.simulation.pods().next().is_some()
    }
}

/// The decision on a pod, if it carries one.
pub(super) fn record(pod: &Pod) -> Option<Record> {
    let annotation = pod.metadata.annotations.as_ref()?.get(ANNOTATION)?;
    Record::parse(annotation).ok()
}

fn binding_answer<T>(outcome: &Result<T, ApiError>) -> BindingAnswer {
    match outcome.as_ref().map_err(|error| error.code) {
        Ok(_) => BindingAnswer::Created,
        Err(Some(404)) => BindingAnswer::NotFound,
        Err(Some(409)) => BindingAnswer::Conflict,
        Err(Some(429)) => BindingAnswer::Throttled,
        Err(Some(code)) if code < 500 => BindingAnswer::Refused,
        Err(Some(_) | None) => BindingAnswer::Unknown,
    }
}

fn is_gone<T>(outcome: &Result<T, ApiError>) -> bool {
    outcome.as_ref().is_err_and(|error| matches!(error.code, Some(404 | 409)))
}

fn kubernetes_binding(binding: crate::committer::Binding) -> KubernetesBinding {
    let Binding { pod, resource_version, node, decision, lift_gate: _ } = binding;
    KubernetesBinding {
        metadata: ObjectMeta {
            namespace: Some(pod.namespace.to_string()),
            name: Some(pod.name.to_string()),
            uid: Some(pod.uid.to_string()),
            resource_version: Some(resource_version),
            annotations: Some(BTreeMap::from([(ANNOTATION.to_owned(), decision)])),
            ..ObjectMeta::default()
        },
        target: ObjectReference { kind: Some("Node".to_owned()), name: Some(node.to_string()), ..ObjectReference::default() },
    }
}

fn pod_ref(pod: &PodKey) -> PodRef {
    PodRef { namespace: pod.namespace.to_string(), name: pod.name.to_string(), uid: Some(pod.uid.to_string()) }
}

fn recorded(note: Note, at: Timestamp) -> Recorded {
    let Note { pod, reason, warning, action: _, text } = note;
    Recorded {
        at,
        namespace: pod.namespace.to_string(),
        name: pod.name.to_string(),
        is_warning: warning,
        reporter: crate::api::names::COMMITTER.to_owned(),
        reason: reason.to_owned(),
        note: text,
    }
}
