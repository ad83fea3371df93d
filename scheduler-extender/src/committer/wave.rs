//! From "no room" to a Binding: who is taken, and in which order the Bindings go out.
//!
//! Taken are pods by priority, then arrival, as far as limits, quotas and budgets go. Sent are the youngest first: the
//! scheduler works from the other end of its queue, and a pod that it has just assumed had better be left to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use policy::burst_policy::{Mode, Tier};
use policy::line::Arrival;
use policy::virtual_node::Closed;
use policy::workload::Held;
use policy::{
    BurstPolicy, Decision, Explanation, Money, Outcome, Placement, Reason, Room, Snapshot, Timestamp, Workload, decide,
};

use super::lines::{Blocked, ClassId};
use super::pods::{InFlight, Phase, Planned, PodRecord};
use super::state::Uids;
use super::{Binding, Committer, Intent, Settings};
use crate::metrics;
use crate::record::Record;

/// Most pods taken in one step, so that a step stays short; the rest follows in the next one.
const TAKEN_PER_STEP: usize = 256;

/// Guards are in force some seconds after a start, if they can be applied at all.
const GUARDS_COME: Duration = Duration::from_secs(30);

/// What is reserved and not sent, and how much may be sent.
pub(super) struct Wave {
    planned: BTreeMap<Arrival, Arc<str>>,
    in_flight: usize,
    most_in_flight: usize,
    tokens_millis: i64,
    filled: Option<Timestamp>,
    per_second: i64,
    pub(super) last_sent: Timestamp,
    /// Pods whose Binding may or may not exist.
    pub(super) unclear: BTreeSet<Arc<str>>,
    /// Pods on virtual nodes whose tolerations or conditions want mending.
    pub(super) untidy: BTreeSet<Arc<str>>,
    pub(super) patching: usize,
    /// Pods on virtual nodes whose patch has failed: they are read again from this moment on.
    pub(super) unmended: BTreeMap<Arc<str>, Timestamp>,
    /// Pods that are about to burst although a dedicated node may have room for them.
    promised: Arc<Uids>,
    /// Pods whose Binding the API server has refused, for good as far as anybody knows: they are not kept from dedicated nodes.
    unbindable: Arc<Uids>,
    /// More could be taken than one step takes.
    more: bool,
    /// Pods that were decided on since somebody asked.
    decided: u32,
}

// === impl Wave ===

impl Wave {
    pub(super) fn new(settings: &Settings) -> Wave {
        let per_second = i64::from(settings.bindings_per_second.max(1));
        Wave {
            planned: BTreeMap::new(),
            in_flight: 0,
            most_in_flight: settings.bindings_in_flight.max(1),
            tokens_millis: per_second * 1000,
            filled: None,
            per_second,
            last_sent: Timestamp::EPOCH,
            unclear: BTreeSet::new(),
            untidy: BTreeSet::new(),
            patching: 0,
            unmended: BTreeMap::new(),
            promised: Arc::default(),
            unbindable: Arc::default(),
            more: false,
            decided: 0,
        }
    }

    pub(super) fn is_planned(&self, arrival: Arrival) -> bool {
        self.planned.contains_key(&arrival)
    }

    pub(super) fn unplan(&mut self, arrival: Arrival) {
        self.planned.remove(&arrival);
    }

    /// The pods that kube-scheduler should not place any more.
    pub(super) fn promised(&self) -> Arc<Uids> {
        self.promised.clone()
    }

    pub(super) fn is_promised(&self, uid: &Arc<str>) -> bool {
        self.promised.contains(uid)
    }

    /// The pod is bound, or will not be.
    pub(super) fn unpromise(&mut self, uid: &Arc<str>) {
        if self.promised.contains(uid) {
            Arc::make_mut(&mut self.promised).remove(uid);
        }
    }

    /// The pods that Spillway may not bind.
    pub(super) fn unbindable(&self) -> Arc<Uids> {
        self.unbindable.clone()
    }

    pub(super) fn refuse(&mut self, uid: &Arc<str>) {
        Arc::make_mut(&mut self.unbindable).insert(uid.clone());
    }

    /// The pod is bound or gone.
    pub(super) fn unrefuse(&mut self, uid: &Arc<str>) {
        if self.unbindable.contains(uid) {
            Arc::make_mut(&mut self.unbindable).remove(uid);
        }
    }

    pub(super) fn take_decided(&mut self) -> u32 {
        std::mem::take(&mut self.decided)
    }

    pub(super) fn queued(&self) -> usize {
        self.planned.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether there is nothing to send and nothing under way.
    pub(super) fn is_over(&self) -> bool {
        self.planned.is_empty() && self.in_flight == 0
    }

    /// A Binding under way has come to its end; `answered` says that its place was given back already.
    pub(super) fn landed(&mut self, answered: bool) {
        if !answered {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// A Binding is sent a second time: whatever the bound says, its pod must not hang.
    pub(super) fn relaunched(&mut self) {
        self.in_flight += 1;
    }

    /// When the next Binding may be sent, if only time is missing.
    pub(super) fn next_send(&self, now: Timestamp) -> Option<Timestamp> {
        if self.more {
            return Some(now);
        }
        if self.planned.is_empty() || self.in_flight >= self.most_in_flight {
            return None;
        }
        let missing = u64::try_from(1000 - self.tokens_millis).unwrap_or(0);
        Some(now + Duration::from_millis(missing.div_ceil(self.per_second.unsigned_abs())))
    }

    /// One Binding per token; a second's worth can be saved up.
    fn fill(&mut self, now: Timestamp) {
        let since = self.filled.map_or(Duration::ZERO, |filled| now.since(filled));
        self.filled = Some(now);
        let gained = i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_mul(self.per_second);
        self.tokens_millis = self.tokens_millis.saturating_add(gained).min(self.per_second * 1000);
    }

    fn take(&mut self) -> bool {
        let may = self.in_flight < self.most_in_flight && self.tokens_millis >= 1000;
        if may {
            self.tokens_millis -= 1000;
            self.in_flight += 1;
        }
        may
    }
}

/// A pod that could be taken.
struct Applicant {
    priority: std::cmp::Reverse<i32>,
    arrival: Arrival,
    class: ClassId,
    since: Timestamp,
}

// === impl Committer ===

impl Committer {
    /// Reserves for pods that dedicated nodes have no room for.
    pub(super) fn plan(&mut self, now: Timestamp) {
        let applicants = self.applicants(now);
        let mut taken = 0;
        self.wave.more = false;
        for Applicant { class, arrival, since, .. } in applicants {
            if taken == TAKEN_PER_STEP {
                self.wave.more = true;
                return;
            }
            taken += usize::from(self.consider(class, arrival, since, now));
        }
    }

    /// Pods of lines that are not blocked, in the order in which they are taken.
    fn applicants(&self, now: Timestamp) -> Vec<Applicant> {
        let mut applicants = Vec::new();
        for (id, class) in self.lines.iter() {
            let blocked = class
                .blocked
                .as_ref()
                .is_some_and(|blocked| blocked.epoch == self.epoch && blocked.until.is_none_or(|until| until > now));
            if blocked || !self.is_current(&class.policy) {
                continue;
            }
            let waiting = class.line.without_room().filter(|(arrival, _)| !self.wave.is_planned(*arrival));
            applicants.extend(waiting.map(|(arrival, since)| Applicant {
                priority: std::cmp::Reverse(class.workload.priority),
                arrival,
                class: id,
                since,
            }));
        }
        applicants.sort_unstable_by_key(|applicant| (applicant.priority, applicant.arrival));
        applicants
    }

    /// Decides on one pod. Returns whether it was taken.
    fn consider(&mut self, id: ClassId, arrival: Arrival, since: Timestamp, now: Timestamp) -> bool {
        let Some(class) = self.lines.get(id) else { return false };
        if class
            .blocked
            .as_ref()
            .is_some_and(|blocked| blocked.epoch == self.epoch && blocked.until.is_none_or(|until| until > now))
        {
            return false;
        }
        let Some(uid) = class.uids.get(&arrival).cloned() else { return false };
        let (policy, workload) = (class.policy.clone(), class.workload.clone());
        let room = class.room_for_one(since);
        if self
            .waiting(&uid)
            .is_none_or(|waiting| waiting.audited.is_some() || waiting.not_before.is_some_and(|moment| moment > now))
        {
            return false;
        }
        let decision = self.decide(&policy, &workload, room, now);
        self.wave.decided = self.wave.decided.saturating_add(1);
        match decision.outcome {
            Outcome::Burst(placement) => self.take(&uid, &policy, &workload, &placement, &decision.explanation, now),
            Outcome::Wait(until) => {
                self.block(id, arrival, &policy, &decision.explanation.reason, until);
                false
            }
            Outcome::Dedicated if workload.held == Held::ByGate => {
                // A backend whose guard is on its way, as after a start, is worth a moment; the pod is held anyway.
                if !(is_about_to_open(&decision.explanation) && now.since(since) < GUARDS_COME) {
                    self.lift_gate(&uid);
                }
                false
            }
            Outcome::Dedicated => {
                self.block(id, arrival, &policy, &decision.explanation.reason, None);
                false
            }
        }
    }

    pub(super) fn decide(&self, policy: &BurstPolicy, workload: &Workload, room: Room, now: Timestamp) -> Decision {
        let snapshot = Snapshot { backends: &self.backends, books: self.ledger.books(), namespaces: &self.namespaces };
        decide(&snapshot, policy, workload, room, now)
    }

    /// Reserves for one pod, or records what would have been done.
    fn take(
        &mut self,
        uid: &Arc<str>,
        policy: &Arc<BurstPolicy>,
        workload: &Workload,
        placement: &Placement,
        explanation: &Explanation,
        now: Timestamp,
    ) -> bool {
        let reason = &explanation.reason;
        let Some(node) = self.backends.get(&placement.virtual_node).map(|backend| backend.node.clone()) else { return false };
        self.count(policy, workload, Some(&placement.tier), Some(node.provider), metrics::Outcome::Burst, reason);
        let Some(key) = self.pods.get(uid).map(|record| record.key.clone()) else { return false };
        if policy.mode == Mode::Audit {
            self.notes.audited(&key, placement, &self.settings.currency, &mut self.intents);
            if let Some(waiting) = self.waiting_mut(uid) {
                waiting.audited = Some(placement.quote.bill);
            }
            if workload.held == Held::ByGate {
                self.lift_gate(uid);
            }
            return false;
        }
        let Some(node_name) = node.node_name.clone() else { return false };
        let namespace = self.namespaces.get(&workload.namespace).cloned().unwrap_or_default();
        let Ok(budgets) = self.ledger.reserve(uid, &policy.name, &namespace, placement.quote.bill) else { return false };
        // Only one that warns and does nothing else lets itself be exceeded.
        for (budget, balance) in budgets.iter().filter_map(|name| self.ledger.books().account(name)) {
            if balance.total() > budget.limit {
                self.metrics.budget_blocked(&budget.name, metrics::BudgetAction::Warn);
            }
        }
        let usage = placement.quote.shape.usage();
        self.backends.occupy(&placement.virtual_node, &policy.name, &placement.tier, &usage);
        let record = Record {
            policy: policy.name.clone(),
            generation: policy.generation,
            tier: placement.tier.clone(),
            virtual_node: placement.virtual_node.clone(),
            usage,
            quote: placement.quote.bill,
            hourly: placement.quote.hourly,
            minimum: node.prices.as_ref().map_or(Duration::ZERO, |prices| prices.minimum),
            billed_startup: node.billed_startup,
            run: placement.quote.run,
            budgets,
            reason: Arc::from(reason.label()),
            at: now,
        };
        let planned = Planned { record, node: node_name, avoided: avoided(placement, explanation) };
        if planned.by_choice() {
            Arc::make_mut(&mut self.wave.promised).insert(uid.clone());
        }
        let Some(waiting) = self.waiting_mut(uid) else { return false };
        let arrival = waiting.arrival;
        waiting.planned = Some(planned);
        self.wave.planned.insert(arrival, uid.clone());
        true
    }

    /// Equal pods get equal answers: nobody else of the line is asked about until something changes.
    fn block(&mut self, id: ClassId, arrival: Arrival, policy: &Arc<BurstPolicy>, reason: &Reason, until: Option<Timestamp>) {
        let epoch = self.epoch;
        if let Reason::BudgetNotYetAuthorized(budget) = reason {
            self.want_authorization(id, budget);
        }
        let Some(class) = self.lines.get_mut(id) else { return };
        class.blocked = Some(Blocked { epoch, until });
        if let Reason::BudgetExceeded(budget) = reason {
            self.count_held(id, budget);
        }
        let Some(class) = self.lines.get_mut(id) else { return };
        let news = class.told != Some(reason.label()) && !matches!(reason, Reason::BudgetNotYetAuthorized(_));
        if !news {
            return;
        }
        class.told = Some(reason.label());
        let (workload, uid) = (class.workload.clone(), class.uids.get(&arrival).cloned());
        let tier = policy.serverless().next().map(|(place, _)| policy.tiers[place].name().clone());
        self.count(policy, &workload, tier.as_ref(), None, metrics::Outcome::Wait, reason);
        if let Some(key) = uid.and_then(|uid| self.pods.get(&uid)).map(|record| record.key.clone()) {
            self.notes.refused(&key, reason, &mut self.intents);
        }
    }

    /// All pods of a line that nothing was reserved for are held by the budget that holds one of them.
    fn count_held(&mut self, id: ClassId, budget: &str) {
        let Some(class) = self.lines.get(id) else { return };
        let uids: Vec<Arc<str>> =
            class.line.without_room().filter_map(|(arrival, _)| class.uids.get(&arrival).cloned()).collect();
        for uid in uids {
            let Some(waiting) = self.waiting_mut(&uid).filter(|waiting| waiting.planned.is_none() && !waiting.held_by_budget)
            else {
                continue;
            };
            waiting.held_by_budget = true;
            self.metrics.budget_blocked(budget, metrics::BudgetAction::DedicatedOnly);
        }
    }

    pub(super) fn count(
        &self,
        policy: &BurstPolicy,
        workload: &Workload,
        tier: Option<&Arc<str>>,
        provider: Option<policy::virtual_node::Provider>,
        outcome: metrics::Outcome,
        reason: &Reason,
    ) {
        self.metrics.decided(&metrics::Decided {
            policy: &policy.name,
            namespace: &workload.namespace,
            tier: tier.map(|tier| &**tier),
            provider,
            outcome,
            reason: reason.label(),
            mode: policy.mode,
        });
    }

    /// A pod of ours went to a dedicated node.
    pub(super) fn count_dedicated(&self, key: &super::PodKey, policy: &BurstPolicy) {
        let tier = policy.tiers.iter().find(|tier| matches!(tier, Tier::Dedicated(_))).map(|tier| &**tier.name());
        self.metrics.decided(&metrics::Decided {
            policy: &policy.name,
            namespace: &key.namespace,
            tier,
            provider: None,
            outcome: metrics::Outcome::Dedicated,
            reason: Reason::HasRoom.label(),
            mode: policy.mode,
        });
    }

    /// Sends what is reserved, the youngest first, as far as the bounds allow.
    pub(super) fn send(&mut self, now: Timestamp) {
        self.wave.fill(now);
        while !self.wave.planned.is_empty() && self.wave.take() {
            let Some((arrival, uid)) = self.wave.planned.pop_last() else { break };
            if !self.launch(arrival, &uid, now) {
                self.wave.landed(false);
            }
        }
    }

    fn launch(&mut self, arrival: Arrival, uid: &Arc<str>, now: Timestamp) -> bool {
        let Some(mut waiting) = self.waiting(uid).cloned() else { return false };
        let Some(planned) = waiting.planned.take() else { return false };
        let Some(record) = self.pods.get(uid) else { return false };
        let key = record.key.clone();
        let decision = planned.record.to_json();
        let lift_gate = self.lines.get(waiting.class).is_some_and(|class| class.workload.held == Held::ByGate);
        self.intents.push(Intent::Bind(Binding {
            pod: key.clone(),
            resource_version: waiting.resource_version.clone(),
            node: planned.node.clone(),
            decision: decision.clone(),
            lift_gate,
        }));
        self.wave.last_sent = now;
        self.lines.remove(waiting.class, arrival);
        let flight = InFlight { waiting, planned, decision, unclear: None, answer: None, gone: false };
        self.pods.insert(uid.clone(), PodRecord { key, phase: Phase::Binding(Box::new(flight)) });
        true
    }
}

/// Whether some backend is closed only until its guard is in force.
fn is_about_to_open(explanation: &Explanation) -> bool {
    let candidates = explanation.tiers.iter().flat_map(|tier| &tier.candidates);
    candidates.into_iter().any(|candidate| candidate.verdict == Err(Reason::Closed(Closed::GuardPending)))
}

/// What the next best of the offers would have cost more.
fn avoided(placement: &Placement, explanation: &Explanation) -> Money {
    let offers = explanation.tiers.iter().flat_map(|tier| &tier.candidates);
    let others =
        offers.filter(|offer| offer.virtual_node != placement.virtual_node).filter_map(|offer| offer.verdict.as_ref().ok());
    let next = others.min_by_key(|quote| quote.total());
    next.map_or(Money::ZERO, |next| next.bill.saturating_sub(placement.quote.bill).max(Money::ZERO))
}
