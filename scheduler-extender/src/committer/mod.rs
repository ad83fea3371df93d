//! The committer: a synchronous state machine, watch events in, intents out, the clock passed in.
//!
//! ```text
//! watch events ──► handle() ──► pods, lines, nodes, backends, ledger ──► step() ──► intents ──► Kubernetes
//!        ▲                                                                             │
//!        └───────────────────────── answers, new objects ◄────────────────────────────┘
//! ```
//!
//! It has two drivers: `run` connects it to an API server, the demo to a simulated cluster in virtual time. Nothing in here
//! waits, reads a clock or does IO, so every history can be replayed.
//!
//! *Choose*: pods that a policy selects wait in lines of equals ([`policy::line`]); those that dedicated nodes have no room for
//! are decided on ([`policy::decide`]). *Commit*: the ledger reserves the quote, then one Binding with UID and resource version
//! is sent, many at a time, the youngest first, away from the head of the scheduler's queue. The Binding is the commitment.

mod answers;
mod backends;
mod budgets;
mod draining;
mod explain;
mod gates;
mod hygiene;
mod lines;
mod notes;
mod pods;
mod settle;
mod spend;
mod starts;
mod state;
mod status;
mod waking;
mod wave;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use policy::Timestamp;
use policy::dedicated::DedicatedNodes;
use policy::ledger::Ledger;
use policy::line::Arrival;
use policy::snapshot::{Backends, Namespaces};

use crate::api;
use crate::guards::Subjects;
use crate::hygiene::{Check, Repair};
use crate::metrics::Metrics;
use crate::pod_admission;
use crate::selection::{LocalServices, Policies};

pub use explain::Explained;
pub use starts::START_FAILED;
pub use state::{Published, Uids};

use backends::VirtualNodes;
use budgets::Budgets;
use draining::Draining;
use gates::Gates;
use lines::Lines;
use notes::Notes;
use pods::PodRecord;
use starts::Starts;
use status::Statuses;
use waking::Waking;
use wave::Wave;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pod was created or changed.
    Pod(Box<Pod>),
    /// The answer to [`Intent::Read`]; a pod that is not there any more is told as [`Event::PodGone`].
    PodRead(Box<Pod>),
    /// The answer to [`Intent::ListPending`] is complete: its pods have been told.
    PendingListed,
    /// A pod is gone.
    PodGone {
        /// Its UID: a new pod of the same name is another pod.
        uid: Arc<str>,
    },
    /// A node was created or changed.
    Node(Box<Node>),
    /// A node is gone.
    NodeGone(String),
    /// A namespace was created or changed.
    Namespace(Box<Namespace>),
    /// A namespace is gone.
    NamespaceGone(String),
    /// A service was created or changed.
    Service(Box<Service>),
    /// A service is gone.
    ServiceGone {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A policy was created or changed.
    Policy(Box<api::BurstPolicy>),
    /// A policy is gone.
    PolicyGone(String),
    /// A virtual node was created or changed.
    VirtualNode(Box<api::VirtualNode>),
    /// A virtual node is gone.
    VirtualNodeGone(String),
    /// A budget was created or changed.
    Budget(Box<api::BurstBudget>),
    /// A budget is gone.
    BudgetGone(String),
    /// Everything that exists has been told. Nothing is decided before.
    Synced,
    /// The answer to [`Intent::Bind`].
    BindingAnswered {
        /// The pod.
        uid: Arc<str>,
        /// What came back.
        answer: BindingAnswer,
    },
    /// The answer to [`Intent::WriteBudget`].
    BudgetWritten {
        /// Name of the budget.
        name: Arc<str>,
        /// The new resource version; `None` if nothing was written or nobody knows.
        resource_version: Option<String>,
    },
    /// The answer to [`Intent::FitTolerations`] or [`Intent::RepairCondition`].
    Patched {
        /// The pod.
        uid: Arc<str>,
        /// Whether it is done, or can never be.
        done: bool,
    },
    /// The answer to [`Intent::Evict`].
    EvictionAnswered {
        /// The pod.
        uid: Arc<str>,
        /// What came back.
        answer: EvictionAnswer,
    },
    /// The answer to [`Intent::LiftGate`].
    GateLifted {
        /// The pod. Its own event says whether it is done.
        uid: Arc<str>,
    },
    /// The guards that speak of these Nodes, and of no others, are in force.
    Guarded(Arc<Subjects>),
    /// Marker and gate are in force as far as they can be.
    PodAdmission(Arc<pod_admission::Outcome>),
    /// The answer to [`Intent::RepairNode`], if it was done.
    NodeRepaired(Vec<Check>),
    /// An [`Intent::WriteStatus`] has failed: the status is still to be written.
    StatusNotWritten {
        /// What.
        kind: StatusKind,
        /// Name of the object.
        name: Arc<str>,
    },
    /// kube-scheduler has asked the extender about a marked pod: it is configured, and answers for preemption.
    ExtenderAsked,
    /// Whether some replica leads: news for one that follows.
    Led(bool),
}

/// What came back for a Binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingAnswer {
    /// It exists.
    Created,
    /// 409: the pod is bound already, or has changed since it was seen.
    Conflict,
    /// 404: the pod is gone.
    NotFound,
    /// The API server will not have it (400, 403, 422).
    Refused,
    /// The API server asks for patience (429).
    Throttled,
    /// Timeout, broken connection, 5xx: it may exist.
    Unknown,
}

/// What came back for an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionAnswer {
    /// The pod is being deleted.
    Evicted,
    /// The pod is not there any more.
    Gone,
    /// 429: a disruption budget, or the API server's own protection, asks for patience.
    Blocked {
        /// For how long, if it says so.
        retry_after: Option<Duration>,
    },
    /// Anything else; it may have happened all the same.
    Failed,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// Create a Binding. Answer with [`Event::BindingAnswered`].
    Bind(Binding),
    /// Replace the tolerations of a bound pod. Answer with [`Event::Patched`].
    FitTolerations {
        /// The pod.
        pod: PodKey,
        /// The whole new list.
        tolerations: serde_json::Value,
    },
    /// Say `PodScheduled=True` of a bound pod. Answer with [`Event::Patched`].
    RepairCondition {
        /// The pod.
        pod: PodKey,
    },
    /// Read a pod again, because the answer to its Binding was lost or is unclear. Answer with [`Event::PodRead`] or [`Event::PodGone`].
    Read {
        /// The pod.
        pod: PodKey,
    },
    /// List pending pods again and tell them as [`Event::Pod`], then [`Event::PendingListed`]: what selects them has changed.
    ListPending,
    /// Write a budget's status under the resource version. Answer with [`Event::BudgetWritten`].
    WriteBudget {
        /// Name of the budget.
        name: Arc<str>,
        /// Precondition: two leaders must not authorize the same money.
        resource_version: String,
        /// The status.
        status: Box<api::BurstBudgetStatus>,
    },
    /// Apply a status on a policy or virtual node, by server-side apply. Answer with [`Event::StatusNotWritten`] if it is not.
    WriteStatus {
        /// What.
        kind: StatusKind,
        /// Name of the object.
        name: Arc<str>,
        /// The status fields that Spillway owns.
        status: serde_json::Value,
    },
    /// Lift Spillway's scheduling gate of a pod that does not burst. Answer with [`Event::GateLifted`].
    LiftGate {
        /// The pod.
        pod: PodKey,
    },
    /// Evict a pod through the Eviction API. Answer with [`Event::EvictionAnswered`].
    Evict {
        /// The pod.
        pod: PodKey,
    },
    /// Write on a pod that its backend failed to start it: phase `Failed`, condition `DisruptionTarget`. No answer; the pod's own
    /// event says that it is done.
    Fail {
        /// The pod.
        pod: PodKey,
    },
    /// Delete a pod that is of no use to anybody, for its owner to make another. No answer, either.
    Delete {
        /// The pod.
        pod: PodKey,
    },
    /// Make the Node of a virtual kubelet break nobody else. Answer with [`Event::NodeRepaired`].
    RepairNode {
        /// Name of the Node.
        node: Arc<str>,
        /// Precondition: a new Node of the same name is another Node.
        uid: Arc<str>,
        /// What to write.
        repair: Repair,
    },
    /// Tell the people who look at the pod.
    Note(Note),
    /// Touch this Node: pods that the extender has refused are looked at again by kube-scheduler only when something happens in
    /// the cluster.
    Wake {
        /// Name of a virtual node's Node.
        node: Arc<str>,
    },
}

/// The Binding of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The pod.
    pub pod: PodKey,
    /// Precondition: the pod as it was seen.
    pub resource_version: String,
    /// Name of the Node.
    pub node: Arc<str>,
    /// The decision annotation.
    pub decision: String,
    /// The pod is under Spillway's gate: first the gate is lifted, and a selector added that no dedicated node has.
    pub lift_gate: bool,
}

/// How a pod is addressed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID, a precondition of every write.
    pub uid: Arc<str>,
}

/// The kinds whose status the committer applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StatusKind {
    /// BurstPolicy.
    Policy,
    /// VirtualNode.
    VirtualNode,
}

/// A Kubernetes Event on a pod. Reason and text are constant per cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The pod.
    pub pod: PodKey,
    /// UpperCamelCase.
    pub reason: &'static str,
    /// Whether it is a warning.
    pub warning: bool,
    /// What was attempted.
    pub action: &'static str,
    /// The sentence.
    pub text: String,
}

/// Bounds and names that the installation sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bindings per second, in the long run.
    pub bindings_per_second: u32,
    /// Bindings whose answer is awaited, at most.
    pub bindings_in_flight: usize,
    /// Currency of the installation, for statuses.
    pub currency: Arc<str>,
    /// How often unfinished business (accruals, statuses, retries) is looked at.
    pub tick: Duration,
    /// A virtual node takes pods only when [`Event::Guarded`] has named its Node. Without this somebody else keeps the guards.
    pub await_guards: bool,
    /// Whether DaemonSets are kept off virtual nodes.
    pub keep_off_daemon_sets: bool,
    /// Whether the backends of virtual nodes are asked how they are. Without this somebody else writes it into their status.
    pub observe_backends: bool,
    /// Who keeps the books; no two committers may ever have the same name. It is written beside every authorization.
    pub keeper: Arc<str>,
}

impl Settings {
    /// What suits an API server of ordinary size. Sixteen Bindings at a time already saturate one on two cores
    /// (docs/benchmarks.md); twice as many hide its hiccups.
    pub fn standard(currency: &str) -> Settings {
        Settings {
            bindings_per_second: 1000,
            bindings_in_flight: 32,
            currency: Arc::from(currency),
            tick: Duration::from_secs(1),
            await_guards: false,
            keep_off_daemon_sets: false,
            observe_backends: false,
            keeper: Arc::from("spillway"),
        }
    }
}

/// The whole state of the leader. Everything in it can be rebuilt from the API server.
///
/// One that follows has the same state, as far as answers are given from it, and does nothing: no pod waits in it, and the
/// leader's books are copied.
pub struct Committer {
    settings: Settings,
    metrics: Arc<Metrics>,
    synced: bool,
    /// It follows a leader.
    follows: bool,
    /// Some replica leads.
    led: bool,
    /// Somebody else has written into a budget: its authorizations are not in these books.
    superseded: bool,
    /// Pending pods seen before the first sync, as creation time and resource version: only their order is kept.
    early: Vec<(i64, Option<u64>, Arc<str>)>,
    early_arrivals: HashMap<Arc<str>, Arrival, foldhash::fast::RandomState>,
    closing: bool,
    extender_asked: bool,
    /// When everything had been told: what was decided before that, a predecessor has decided.
    synced_at: Timestamp,
    /// Lists of pending pods under way, and the pods that have gone meanwhile: a list may be older than the watch.
    listing: usize,
    gone_meanwhile: HashSet<Arc<str>, foldhash::fast::RandomState>,

    policies: BTreeMap<Arc<str>, PolicyObject>,
    compiled: Arc<Policies>,
    /// Policies that only age or name keep apart: the one that decides, and the other. Forgotten when any policy changes.
    conflicts: BTreeSet<(Arc<str>, Arc<str>)>,
    /// What became of marker and gate.
    pod_admission: Arc<pod_admission::Outcome>,
    namespaces: Arc<Namespaces>,
    services: Arc<LocalServices>,

    dedicated: DedicatedNodes,
    virtual_nodes: VirtualNodes,
    backends: Backends,
    ledger: Ledger,
    budgets: Budgets,

    pods: HashMap<Arc<str>, PodRecord, foldhash::fast::RandomState>,
    unplaced: HashMap<Arc<str>, Vec<Arc<str>>, foldhash::fast::RandomState>,
    lines: Lines,
    wave: Wave,
    waking: Waking,
    gates: Gates,
    draining: Draining,
    starts: Starts,
    notes: Notes,
    statuses: Statuses,
    next_arrival: u64,
    /// Counts changes after which a refused pod may be taken: usage given back, money, prices, policies.
    epoch: u64,
    last_tick: Timestamp,
    intents: Vec<Intent>,
}

/// A policy as it stands in the API server, and what became of it.
struct PolicyObject {
    generation: i64,
    /// The last specification that compiled stays in force.
    compiled: Option<Arc<crate::selection::CompiledPolicy>>,
    /// That specification.
    good: Option<api::InForce>,
    invalid: Option<String>,
}

// === impl Committer ===

impl Committer {
    /// A committer that knows nothing yet.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Committer {
        let wave = Wave::new(&settings);
        let virtual_nodes = VirtualNodes::new(settings.await_guards);
        Committer {
            settings,
            metrics,
            synced: false,
            follows: false,
            led: true,
            superseded: false,
            early: Vec::new(),
            early_arrivals: HashMap::default(),
            closing: false,
            synced_at: Timestamp::EPOCH,
            listing: 0,
            gone_meanwhile: HashSet::default(),
            extender_asked: false,
            policies: BTreeMap::new(),
            compiled: Arc::default(),
            conflicts: BTreeSet::new(),
            pod_admission: Arc::default(),
            namespaces: Arc::default(),
            services: Arc::default(),
            dedicated: DedicatedNodes::default(),
            virtual_nodes,
            backends: Backends::default(),
            ledger: Ledger::default(),
            budgets: Budgets::default(),
            pods: HashMap::default(),
            unplaced: HashMap::default(),
            lines: Lines::default(),
            wave,
            waking: Waking::default(),
            gates: Gates::default(),
            draining: Draining::default(),
            starts: Starts::default(),
            notes: Notes::default(),
            statuses: Statuses::default(),
            next_arrival: 0,
            epoch: 0,
            last_tick: Timestamp::EPOCH,
            intents: Vec::new(),
        }
    }

    /// A committer of a replica that stands by: it sees and publishes, and wants nothing.
    pub fn following(settings: Settings, metrics: Arc<Metrics>) -> Committer {
        Committer { follows: true, led: false, ..Committer::new(settings, metrics) }
    }

    /// Takes in one event.
    pub fn handle(&mut self, event: Event, now: Timestamp) {
        match event {
            // Only the leader lets pods wait.
            Event::Pod(pod) if self.follows && pods::is_pending(&pod) => {}
            Event::Pod(pod) if !self.synced && pods::is_pending(&pod) => self.early.extend(pods::place_in_time(&pod)),
            Event::Pod(pod) => self.observe_pod(&pod, false, now),
            Event::PodRead(pod) => self.observe_pod(&pod, true, now),
            Event::PendingListed => self.pending_listed(),
            Event::PodGone { uid } => self.pod_gone(&uid, now),
            Event::Node(node) => self.observe_node(&node, now),
            Event::NodeGone(name) => self.node_gone(&name),
            Event::Namespace(namespace) => self.observe_namespace(&namespace),
            Event::NamespaceGone(name) => self.namespace_gone(&name),
            Event::Service(service) => self.observe_service(&service),
            Event::ServiceGone { namespace, name } => self.set_local_service(&namespace, &name, None),
            Event::Policy(policy) => self.observe_policy(&policy),
            Event::PolicyGone(name) => self.policy_gone(&name),
            Event::VirtualNode(node) => self.observe_virtual_node(&node),
            Event::VirtualNodeGone(name) => self.virtual_node_gone(&name),
            Event::Budget(budget) => self.observe_budget(&budget, now),
            Event::BudgetGone(name) => self.budget_gone(&name),
            Event::Synced => self.sync(now),
            Event::BindingAnswered { uid, answer } => self.binding_answered(&uid, answer, now),
            Event::BudgetWritten { name, resource_version } => self.budget_written(&name, resource_version, now),
            Event::Patched { uid, done } => self.patched(&uid, done, now),
            Event::EvictionAnswered { uid, answer } => self.eviction_answered(&uid, answer, now),
            Event::GateLifted { uid } => self.gate_lifted(&uid, now),
            Event::Guarded(subjects) => self.guarded(&subjects),
            Event::PodAdmission(outcome) => self.pod_admission = outcome,
            Event::NodeRepaired(checks) => self.metrics.hygiene_repaired(&checks),
            Event::StatusNotWritten { kind, name } => self.statuses.written_in_vain(kind, &name),
            Event::ExtenderAsked => self.extender_asked = true,
            Event::Led(led) => self.led = led,
        }
    }

    /// Decides what there is to decide, and hands out what there is to do.
    pub fn step(&mut self, now: Timestamp) -> Vec<Intent> {
        if self.follows || self.superseded {
            self.look_on(now);
        } else if self.synced {
            if now.since(self.last_tick) >= self.settings.tick || now < self.last_tick {
                self.last_tick = now;
                self.tick(now);
            }
            self.weigh_lines(now);
            if !self.closing {
                self.plan(now);
            }
            self.authorize(now);
            self.send(now);
            self.tidy(now);
        }
        std::mem::take(&mut self.intents)
    }

    /// Keeps what is published true and does nothing.
    fn look_on(&mut self, now: Timestamp) {
        if now.since(self.last_tick) >= self.settings.tick || now < self.last_tick {
            self.last_tick = now;
            self.roll_periods(now);
            self.accrue(now);
        }
        self.intents.clear();
    }

    /// Whether somebody else keeps the books, so that these are worth nothing: the state is to be rebuilt.
    pub fn is_superseded(&self) -> bool {
        self.superseded
    }

    /// Weighs the evidence without deciding anything, for those who only ask.
    pub fn weigh(&mut self, now: Timestamp) {
        self.weigh_lines(now);
    }

    /// How many pods have been decided on since this was last asked.
    pub fn take_decided(&mut self) -> u32 {
        self.wave.take_decided()
    }

    /// When [`Committer::step`] should be called again even if no event comes.
    pub fn next_wake(&self, now: Timestamp) -> Timestamp {
        let tick = self.last_tick + self.settings.tick;
        [self.lines.next_look(), self.wave.next_send(now), self.next_write(now)].into_iter().flatten().fold(tick, Timestamp::min)
    }

    /// Whether everything that exists has been told.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Everything that exists has been told: take over the predecessor's books, and have the pending pods told again, now that
    /// policies and nodes are known. Whole pods are not kept until then; their order is, as the watch would have brought them.
    fn sync(&mut self, now: Timestamp) {
        if std::mem::replace(&mut self.synced, true) {
            return;
        }
        let mut early = std::mem::take(&mut self.early);
        early.sort_unstable();
        for (_, _, uid) in early {
            let arrival = self.arrival();
            self.early_arrivals.insert(uid, arrival);
        }
        self.synced_at = now;
        self.take_over_budgets(now);
        self.reconsider();
        self.list_pending();
    }

    /// Has the pending pods told again.
    fn list_pending(&mut self) {
        if !self.follows && !self.intents.contains(&Intent::ListPending) {
            self.listing += 1;
            self.intents.push(Intent::ListPending);
        }
    }

    fn pending_listed(&mut self) {
        self.listing = self.listing.saturating_sub(1);
        if self.listing == 0 {
            self.gone_meanwhile.clear();
        }
    }

    /// Nothing new is committed from now on; what is under way is finished, and what is authorized and not used is given back.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Whether nothing is under way any more after [`Committer::close`].
    pub fn is_closed(&self) -> bool {
        self.closing && self.wave.is_over() && self.budgets.are_given_back(self.ledger.books())
    }

    fn tick(&mut self, now: Timestamp) {
        self.roll_periods(now);
        self.accrue(now);
        self.ask_again(now);
        self.wake(now);
        self.repair_nodes(now);
        self.drain(now);
        self.watch_starts(now);
        self.see_to_gates(now);
        self.write_statuses(now);
        self.publish_gauges(now);
    }

    fn arrival(&mut self) -> Arrival {
        self.next_arrival += 1;
        Arrival(self.next_arrival)
    }

    /// Something that pods were refused for may have changed.
    fn reconsider(&mut self) {
        self.epoch += 1;
    }
}
