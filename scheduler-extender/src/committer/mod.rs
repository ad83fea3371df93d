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
mod event;
mod explain;
mod gates;
mod hygiene;
mod intent;
mod lines;
mod notes;
mod pods;
mod settings;
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

use policy::Timestamp;
use policy::dedicated::DedicatedNodes;
use policy::ledger::Ledger;
use policy::line::Arrival;
use policy::snapshot::{Backends, Namespaces};

use crate::api;
use crate::metrics::Metrics;
use crate::pod_admission;
use crate::selection::{LocalServices, Policies};

pub use event::{BindingAnswer, Event, EvictionAnswer};
pub use explain::Explained;
pub use intent::{Binding, Intent, Note, PodKey, StatusKind};
pub use settings::Settings;
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
