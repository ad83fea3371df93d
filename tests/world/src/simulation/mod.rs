//! A simulated cluster in virtual time: API server, Job controller, kube-scheduler, kubelets and virtual kubelets in one thread,
//! every latency and every fault drawn from one seed.
//!
//! It speaks real Kubernetes objects, so whoever is driven by it runs its real conversion code. The driver's loop:
//!
//! ```text
//! loop {
//!     for observation in simulation.run_until(next_timer, &mut extender) { machine.handle(observation) }
//!     for intent in machine.intents() { simulation.submit(intent) }
//! }
//! ```
//!
//! Virtual time stands still while the driver and the extender work.

mod admission;
mod agenda;
mod jobs;
mod kubelet;
mod manifest;
mod random;
mod requests;
mod run_time;
mod scheduler;
mod scheduling;
mod settings;
mod store;
mod virtual_kubelet;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use policy::Timestamp;
use providers::memory::FaultWindow;

use self::agenda::{Agenda, Item, PodOrNode};
pub use self::jobs::JobProgress;
use self::jobs::Jobs;
pub use self::manifest::Manifests;
use self::random::Random;
pub use self::requests::{ApiError, PodRef, Request, Ticket};
pub use self::run_time::{EXIT_CODE_ANNOTATION, RUN_TIME_ANNOTATION};
use self::scheduler::Scheduler;
pub use self::scheduler::cpu_millis;
use self::scheduling::SchedulerLoop;
pub use self::settings::Settings;
use self::store::{PodId, Store};
use self::virtual_kubelet::Backends;
pub use self::virtual_kubelet::ShapeOf;

/// The cluster.
pub struct Simulation {
    settings: Settings,
    now: Timestamp,
    agenda: Agenda,
    store: Store,
    scheduler: Scheduler,
    scheduler_loop: SchedulerLoop,
    jobs: Jobs,
    backends: Backends,
    /// Images that a dedicated node has pulled.
    pulled: BTreeSet<(Arc<str>, String)>,
    events: Vec<Recorded>,
    ready: VecDeque<Observation>,
    /// A watch never overtakes itself.
    watch_at: [Timestamp; 2],
    watch_delays: Vec<WatchDelay>,
    tickets: u64,
    latencies: Random,
    run_times: Random,
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Change {
    /// The pod is new or different.
    PodApplied(Arc<Pod>),
    /// The pod is gone; its last state.
    PodDeleted(Arc<Pod>),
    /// The node is new or different.
    NodeApplied(Arc<Node>),
    /// The node is gone; its last state.
    NodeDeleted(Arc<Node>),
}

/// Something that reached the driver.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A watch event.
    Change(Change),
    /// The answer to a request.
    Answer(Answer),
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which request.
    pub ticket: Ticket,
    /// How it went. Where it was about a pod that is still there, the pod as it was then.
    pub outcome: Result<Option<Arc<Pod>>, ApiError>,
}

/// An Event, as the cluster's own components and the driver record it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When; filled in by the simulation.
    pub at: Timestamp,
    /// Namespace of the object it is about.
    pub namespace: String,
    /// Name of that object.
    pub name: String,
    /// Whether it is a warning.
    pub is_warning: bool,
    /// Who says it.
    pub reporter: String,
    /// Machine-readable reason.
    pub reason: String,
    /// For humans.
    pub note: String,
}

/// Times in the life of a pod, to the millisecond; the objects carry seconds only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it was created.
    pub created_at: Timestamp,
    /// When its Binding was written.
    pub bound_at: Option<Timestamp>,
    /// Where it was bound to.
    pub node: Option<Arc<str>>,
    /// When its containers ran.
    pub started_at: Option<Timestamp>,
    /// When they ended, or the pod was deleted.
    pub ended_at: Option<Timestamp>,
    /// How long its containers run; `None` is until somebody ends them.
    pub run_time: Option<Duration>,
}

/// What a test orders for a given time.
#[derive(Clone, Debug)]
pub enum Disturbance {
    /// Objects appear.
    Apply(Manifests),
    /// A node disappears with its pods.
    RemoveNode(String),
    /// A pod is deleted.
    DeletePod(PodRef),
    /// A cloud misbehaves.
    BackendFault {
        /// The virtual node's name.
        node: String,
        /// What goes wrong, and until when.
        window: FaultWindow,
    },
    /// Watch events to the driver take longer until then.
    WatchDelay {
        /// How much longer.
        delay: Duration,
        /// Until when.
        until: Timestamp,
    },
}

#[derive(Clone, Copy, Debug)]
struct WatchDelay {
    delay: Duration,
    until: Timestamp,
}

/// The extender as kube-scheduler calls it, for pods that carry the managed limit. It is `ignorable`.
pub trait Extender {
    /// Which of these nodes may be used.
    fn filter(&mut self, pod: &Pod, nodes: &[&str]) -> FilterOutcome;

    /// Which of these nodes may be emptied of these pods (UIDs); `None` is an error, and then all are kept.
    fn preempt(&mut self, pod: &Pod, victims: &BTreeMap<String, Vec<String>>) -> Option<BTreeSet<String>>;
}

/// An answer to `filter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterOutcome {
    /// 200 with a body.
    Answer {
        /// Names that stay.
        feasible: Vec<String>,
        /// Names with reasons.
        failed: BTreeMap<String, String>,
        /// Names with reasons that ending other pods does not change.
        unresolvable: BTreeMap<String, String>,
    },
    /// Anything else.
    Error(String),
}

/// An extender that is never in the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoExtender;

// === impl NoExtender ===

impl Extender for NoExtender {
    fn filter(&mut self, _pod: &Pod, nodes: &[&str]) -> FilterOutcome {
        let feasible = nodes.iter().map(|name| (*name).to_owned()).collect();
        FilterOutcome::Answer { feasible, failed: BTreeMap::new(), unresolvable: BTreeMap::new() }
    }

    fn preempt(&mut self, _pod: &Pod, victims: &BTreeMap<String, Vec<String>>) -> Option<BTreeSet<String>> {
        Some(victims.keys().cloned().collect())
    }
}

// === impl Simulation ===

impl Simulation {
    /// An empty cluster.
    pub fn new(settings: Settings) -> Simulation {
        let seed = settings.seed;
        Simulation {
            now: settings.start,
            agenda: Agenda::default(),
            store: Store::new(seed),
            scheduler: Scheduler::new(seed, settings.managed_resource.clone()),
            scheduler_loop: SchedulerLoop::new(&settings),
            jobs: Jobs::new(seed),
            backends: Backends::default(),
            pulled: BTreeSet::new(),
            events: Vec::new(),
            ready: VecDeque::new(),
            watch_at: [settings.start; 2],
            watch_delays: Vec::new(),
            tickets: 0,
            latencies: Random::new(seed, "latencies"),
            run_times: Random::new(seed, "run times"),
            settings,
        }
    }

    /// Virtual time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// When something happens next, if ever.
    pub fn next_event_at(&self) -> Option<Timestamp> {
        if self.ready.is_empty() { self.agenda.next_at() } else { Some(self.now) }
    }

    /// Orders something for a given time, or for now if that is past.
    pub fn at(&mut self, at: Timestamp, disturbance: Disturbance) {
        self.agenda.plan(at.max(self.now), Item::Disturbs(Box::new(disturbance)));
    }

    /// Puts objects into the cluster now.
    pub fn apply(&mut self, manifests: Manifests) {
        for node in manifests.nodes {
            self.apply_node(node);
        }
        for pod in manifests.pods {
            // A name that is taken: as with `kubectl create`, the first one stays.
            self.create_pod(pod).ok();
        }
        for job in manifests.jobs {
            self.create_job(job);
        }
        self.publish();
    }

    /// Lets time go by until something reaches the driver, at most until `deadline`. Answers with all that reached it at that
    /// moment; nothing means that the deadline has come.
    pub fn run_until(&mut self, deadline: Timestamp, extender: &mut dyn Extender) -> Vec<Observation> {
        loop {
            let next = self.agenda.next_at().filter(|at| *at <= deadline);
            match next {
                Some(at) if self.ready.is_empty() || at <= self.now => self.step(extender),
                Some(_) | None if !self.ready.is_empty() => return self.ready.drain(..).collect(),
                Some(_) | None => {
                    self.now = self.now.max(deadline.min(self.agenda.next_at().unwrap_or(deadline)));
                    return Vec::new();
                }
            }
        }
    }

    /// Lets time go by until `at` and answers with all that reached the driver meanwhile.
    pub fn advance_to(&mut self, at: Timestamp, extender: &mut dyn Extender) -> Vec<Observation> {
        while self.agenda.next_at().is_some_and(|next| next <= at) {
            self.step(extender);
        }
        self.now = self.now.max(at);
        self.ready.drain(..).collect()
    }

    /// Lets time go by until nothing is left to happen or `limit` has come, whatever reaches the driver. `false` at the limit.
    pub fn run_to_rest(&mut self, limit: Timestamp, extender: &mut dyn Extender) -> bool {
        while self.agenda.next_at().is_some_and(|next| next <= limit) {
            self.step(extender);
            self.ready.clear();
        }
        self.agenda.next_at().is_none()
    }

    /// Every pod that exists, oldest first, with the times of its life.
    pub fn pods(&self) -> impl Iterator<Item = (&Arc<Pod>, &Life)> {
        self.store.pods().map(|(_, pod, life)| (pod, life))
    }

    /// Every node.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.store.nodes()
    }

    /// Everything that was recorded, oldest first.
    pub fn events(&self) -> &[Recorded] {
        &self.events
    }

    fn step(&mut self, extender: &mut dyn Extender) {
        let Some((at, item)) = self.agenda.pop() else { return };
        assert!(at >= self.now, "time does not go backwards");
        self.now = at;
        match item {
            Item::DriverSees(change) => self.ready.push_back(Observation::Change(change)),
            Item::Answered(answer) => self.ready.push_back(Observation::Answer(answer)),
            Item::SchedulerSees(change, object) => self.scheduler_sees(&change, &object),
            Item::SchedulerCycle => self.scheduler_cycle(extender),
            Item::SchedulerTimer => self.scheduler_timer(),
            Item::SchedulerBinds(attempt) => self.scheduler_binds(attempt),
            Item::SchedulerBound(attempt, is_ok) => self.scheduler_bound(&attempt, is_ok),
            Item::SchedulerSays(id, verdict) => self.scheduler_says(id, verdict),
            Item::JobSync(job) => self.job_sync(job),
            Item::Kubelet(id, step) => self.kubelet_step(id, step),
            Item::Arrives(ticket, request) => self.arrives(ticket, *request),
            Item::Disturbs(disturbance) => self.disturb(*disturbance),
        }
        self.publish();
    }

    /// Tells the watches what was written, also what the Job controller writes because of it.
    fn publish(&mut self) {
        loop {
            let written = self.store.take_outbox();
            if written.is_empty() {
                return;
            }
            for (id, change) in written {
                self.tell(id, change);
            }
        }
    }

    fn tell(&mut self, id: Option<PodId>, change: Change) {
        let object = match (&change, id) {
            (Change::PodApplied(pod) | Change::PodDeleted(pod), Some(id)) => {
                self.job_sees(id, &change);
                PodOrNode::Pod(id, pod.clone())
            }
            (Change::NodeApplied(node) | Change::NodeDeleted(node), _) => PodOrNode::Node(node.clone()),
            (Change::PodApplied(_) | Change::PodDeleted(_), None) => unreachable!("the store names the pod of a pod's change"),
        };
        let now = self.now;
        let latency = self.latencies.duration(&self.settings.scheduler_watch_latency);
        self.watch_at[0] = self.watch_at[0].max(now + latency);
        self.agenda.plan(self.watch_at[0], Item::SchedulerSees(change.clone(), object));
        self.watch_delays.retain(|delay| delay.until > now);
        let delayed = self.watch_delays.iter().map(|delay| delay.delay).max().unwrap_or_default();
        let latency = self.latencies.duration(&self.settings.driver_watch_latency) + delayed;
        self.watch_at[1] = self.watch_at[1].max(now + latency);
        self.agenda.plan(self.watch_at[1], Item::DriverSees(change));
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::Apply(manifests) => self.apply(manifests),
            Disturbance::RemoveNode(name) => self.remove_node(&name),
            Disturbance::DeletePod(pod) => {
                if let Some(id) = self.store.find_pod(&pod.namespace, &pod.name) {
                    self.begin_deletion(id);
                }
            }
            Disturbance::BackendFault { node, window } => self.backends.inject(&node, window),
            Disturbance::WatchDelay { delay, until } => self.watch_delays.push(WatchDelay { delay, until }),
        }
    }

    fn apply_node(&mut self, mut node: Node) {
        admission::admit_node(&mut node, self.now);
        self.store.apply_node(node, self.now);
    }

    fn remove_node(&mut self, name: &str) {
        self.store.delete_node(name);
        let orphans: Vec<PodId> =
            self.store.pods().filter(|(_, _, life)| life.node.as_deref() == Some(name)).map(|(id, _, _)| id).collect();
        for id in orphans {
            self.store.delete_pod(id, self.now);
        }
        self.pulled.retain(|(node, _)| **node != *name);
    }

    fn create_pod(&mut self, mut pod: Pod) -> Result<PodId, ApiError> {
        admission::admit_pod(&mut pod, self.now);
        let run_time = run_time::draw(&pod, self.settings.run_time, &mut self.run_times);
        let name = pod.metadata.name.clone().unwrap_or_default();
        let id = self.store.create_pod(pod, self.now).ok_or_else(|| ApiError::already_exists(&name))?;
        self.store.life_mut(id).run_time = run_time;
        Ok(id)
    }

    fn record(&mut self, event: Recorded) {
        self.events.push(Recorded { at: self.now, ..event });
    }
}

#[cfg(test)]
mod tests;
