//! Statuses of policies and virtual nodes, and the gauges.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use policy::burst_policy::Mode;
use policy::{Money, Rate, Timestamp};
use serde_json::json;

use super::pods::Phase;
use super::spend::{Shown, Spend};
use super::{Committer, Intent, StatusKind};
use crate::clouds;
use crate::hygiene::Check;
use crate::metrics::{self, BackendState, BudgetState, Burn, Gauges, Pods, PolicyState, PriceState};
use crate::pod_admission;
use crate::record::Record;

/// What was last written.
#[derive(Default)]
pub(super) struct Statuses {
    known: HashMap<(StatusKind, Arc<str>), Known>,
}

#[derive(Default)]
struct Known {
    seen: bool,
    conditions: Vec<Condition>,
    spend: Spend,
    written: Option<serde_json::Value>,
}

/// What is read of a status.
#[derive(Clone, Copy, Default)]
pub(super) struct Observed<'a> {
    pub(super) conditions: &'a [Condition],
    pub(super) spend: Option<&'a str>,
    pub(super) settled: Option<&'a str>,
}

// === impl Statuses ===

impl Statuses {
    /// The object's status as it stands.
    pub(super) fn observe(&mut self, kind: StatusKind, name: &Arc<str>, status: Observed<'_>) {
        let known = self.known.entry((kind, name.clone())).or_default();
        known.conditions = status.conditions.to_vec();
        // Later ones are our own.
        if !std::mem::replace(&mut known.seen, true) {
            known.spend.inherit(status.spend, status.settled);
        }
    }

    /// A pod is gone that has cost so much.
    pub(super) fn settle(&mut self, kind: StatusKind, name: &Arc<str>, cost: Money) {
        if let Some(known) = self.known.get_mut(&(kind, name.clone())) {
            known.spend.settle(cost);
        }
    }

    /// Nobody has seen what was last written; the next look writes it again.
    pub(super) fn written_in_vain(&mut self, kind: StatusKind, name: &Arc<str>) {
        if let Some(known) = self.known.get_mut(&(kind, name.clone())) {
            known.written = None;
        }
    }

    pub(super) fn forget(&mut self, kind: StatusKind, name: &str) {
        self.known.remove(&(kind, Arc::from(name)));
    }
}

// === impl Committer ===

impl Committer {
    /// Writes the statuses that have changed.
    pub(super) fn write_statuses(&mut self, now: Timestamp) {
        let present = self.cost_of_present();
        for (kind, name, generation, conditions, mut status) in
            self.policy_statuses().into_iter().chain(self.virtual_node_statuses())
        {
            let known = self.statuses.known.entry((kind, name.clone())).or_default();
            let conditions: Vec<Condition> = conditions
                .iter()
                .map(|(kind, holds, reason, message)| {
                    condition(&known.conditions, kind, *holds, reason, message, Some(generation), now)
                })
                .collect();
            let present = present.get(&(kind, name.clone())).copied().unwrap_or_default();
            let Shown { spend, settled } = known.spend.show(present, now);
            status["spend"] = json!(spend.to_string());
            status["settled"] = json!(settled.to_string());
            status["observedGeneration"] = json!(generation);
            status["conditions"] = serde_json::to_value(&conditions).unwrap_or_default();
            if known.written.as_ref() == Some(&status) {
                continue;
            }
            known.written = Some(status.clone());
            for condition in conditions {
                known.conditions.retain(|other| other.type_ != condition.type_);
                known.conditions.push(condition);
            }
            self.intents.push(Intent::WriteStatus { kind, name, status });
        }
    }

    /// What pods have cost so far that are there, by policy and by virtual node.
    fn cost_of_present(&self) -> HashMap<(StatusKind, Arc<str>), Money> {
        let mut present: HashMap<(StatusKind, Arc<str>), Money> = HashMap::new();
        for record in self.pods.values() {
            let Phase::Burst(burst) = &record.phase else { continue };
            let Record { policy, virtual_node, .. } = &burst.record;
            for of in [(StatusKind::Policy, policy.clone()), (StatusKind::VirtualNode, virtual_node.clone())] {
                let sum = present.entry(of).or_default();
                *sum = sum.saturating_add(burst.told);
            }
        }
        present
    }

    fn policy_statuses(&self) -> Vec<Wanted> {
        let mut counts: BTreeMap<Arc<str>, (i64, i64)> = BTreeMap::new();
        let mut audited: BTreeMap<Arc<str>, (i64, Money)> = BTreeMap::new();
        for (_, class) in self.lines.iter() {
            counts.entry(class.policy.name.clone()).or_default().0 += i64::try_from(class.line.len()).unwrap_or(i64::MAX);
        }
        for record in self.pods.values() {
            match &record.phase {
                Phase::Burst(burst) if burst.finished.is_none() => {
                    counts.entry(burst.record.policy.clone()).or_default().1 += 1;
                }
                Phase::Waiting(waiting) => {
                    if let Some((cost, policy)) = waiting.audited.zip(self.lines.policy(waiting.class)) {
                        let (pods, sum) = audited.entry(policy.name.clone()).or_default();
                        (*pods, *sum) = (*pods + 1, sum.saturating_add(cost));
                    }
                }
                Phase::Burst(_) | Phase::Binding(_) | Phase::Dedicated(_) => {}
            }
        }
        let statuses = self.policies.iter().map(|(name, object)| {
            let ready = match &object.invalid {
                None => ("Ready", true, "Accepted", "the policy is in force".to_owned()),
                Some(message) => ("Ready", false, "Invalid", message.clone()),
            };
            let tiers = object.compiled.iter().flat_map(|compiled| compiled.policy.serverless());
            let unknown: Vec<&str> = tiers
                .flat_map(|(_, tier)| &tier.virtual_nodes)
                .filter(|name| !self.virtual_nodes.objects.contains_key(*name))
                .map(|name| &**name)
                .collect();
            let resolved = if unknown.is_empty() {
                ("TiersResolved", true, "Resolved", "every virtual node exists".to_owned())
            } else {
                (
                    "TiersResolved",
                    false,
                    "UnknownVirtualNode",
                    format!("spec.tiers[].virtualNodes: there is no VirtualNode {}", unknown.join(", ")),
                )
            };
            let (waiting, burst) = counts.get(name).copied().unwrap_or_default();
            let mut status = json!({"pods": {"waiting": waiting, "burst": burst}, "currency": self.settings.currency});
            if object.compiled.as_ref().is_some_and(|compiled| compiled.policy.mode == Mode::Audit) {
                let (pods, cost) = audited.get(name).copied().unwrap_or_default();
                status["audit"] = json!({"pods": pods, "cost": cost.to_string()});
            }
            if object.invalid.is_some() && object.good.is_some() {
                status["inForce"] = json!(object.good);
            }
            let mut conditions = vec![ready, resolved, self.conflicting(name)];
            // Where somebody else keeps the guards, nobody here knows.
            let admission = object.compiled.as_ref().filter(|_| self.settings.await_guards);
            conditions.extend(
                admission
                    .and_then(|compiled| self.pod_admission.of(compiled))
                    .map(|(holds, reason, message)| (pod_admission::IN_FORCE, holds, reason, message)),
            );
            (StatusKind::Policy, name.clone(), object.generation, conditions, status)
        });
        statuses.collect()
    }

    fn conflicting(&self, name: &Arc<str>) -> (&'static str, bool, &'static str, String) {
        match self.conflicts.iter().find(|(winner, loser)| winner == name || loser == name) {
            Some((winner, loser)) => {
                let other = if winner == name { loser } else { winner };
                let message = format!(
                    "spec.weight: {other} has the same weight and selects some of the same pods; {winner} decides about these, being older or first by name"
                );
                ("Conflicting", true, "SameWeight", message)
            }
            None => ("Conflicting", false, "NoConflict", "no pod is selected by another policy of the same weight".to_owned()),
        }
    }

    fn virtual_node_statuses(&self) -> Vec<Wanted> {
        let statuses = self.virtual_nodes.objects.iter().map(|(name, object)| {
            let backend = self.backends.get(name);
            let closed = backend.and_then(|backend| backend.node.closed);
            let ready = match (&object.invalid, closed) {
                (Some(message), _) => ("Ready", false, "Invalid", message.clone()),
                (None, Some(closed)) => ("Ready", false, closed.label(), "nothing is sent here for this reason".to_owned()),
                (None, None) => match backend.filter(|backend| backend.node.prices.is_none()) {
                    Some(backend) => ("Ready", false, "PricesMissing", clouds::no_prices(&backend.node, &self.settings.currency)),
                    None => ("Ready", true, "Open", "takes pods".to_owned()),
                },
            };
            let mut conditions = vec![ready];
            conditions.extend(self.hygiene_of(object.node.as_ref()).map(|failed| hygiene_condition(&failed)));
            let mut status = json!({"pods": backend.map_or(0, |backend| backend.usage.pods)});
            if object.invalid.is_some() && object.good.is_some() {
                status["inForce"] = json!(object.good);
            }
            if let Some(node) = backend.and_then(|backend| backend.node.node_name.as_ref()) {
                status["nodeName"] = json!(node);
            }
            (StatusKind::VirtualNode, name.clone(), object.generation, conditions, status)
        });
        statuses.collect()
    }

    /// Gauges are replaced as a whole, so that the series of what is gone disappear.
    pub(super) fn publish_gauges(&self, now: Timestamp) {
        self.metrics.publish(&Gauges {
            pods: self.pod_gauges(),
            pods_waiting_with_room: u64::try_from(self.lines.waiting_with_room()).unwrap_or(u64::MAX),
            commits_queued: u64::try_from(self.wave.queued()).unwrap_or(u64::MAX),
            commits_in_flight: u64::try_from(self.wave.in_flight()).unwrap_or(u64::MAX),
            leader: true,
            burn: self.burn_gauges(),
            policies: self
                .compiled
                .iter()
                .map(|compiled| PolicyState { policy: compiled.policy.name.clone(), generation: compiled.policy.generation })
                .collect(),
            budgets: self.budget_gauges(),
            backends: self
                .backends
                .iter()
                .map(|backend| BackendState {
                    provider: backend.node.provider,
                    node: backend.node.name.clone(),
                    up: backend.node.closed.is_none(),
                })
                .collect(),
            prices: self.price_gauges(now),
            hygiene: self.hygiene_gauges(),
        });
    }

    /// What pods have cost so far is shown as spent, although the ledger keeps it committed until they are gone and their bill
    /// is final: a budget that is half burnt by what runs must look half burnt.
    fn budget_gauges(&self) -> Vec<BudgetState> {
        let mut accrued: BTreeMap<&str, Money> = BTreeMap::new();
        for record in self.pods.values() {
            let Phase::Burst(burst) = &record.phase else { continue };
            for budget in &burst.record.budgets {
                let sum = accrued.entry(budget).or_default();
                *sum = sum.saturating_add(burst.told);
            }
        }
        let states = self.ledger.books().accounts().map(|(budget, balance)| {
            // A pod of an earlier period has cost more than this period's account holds for it.
            let accrued = accrued.get(&*budget.name).copied().unwrap_or_default().min(balance.committed);
            BudgetState {
                budget: budget.name.clone(),
                period: self.budget_period(&budget.name),
                limit: budget.limit,
                spent: balance.spent.saturating_add(accrued),
                reserved: balance.committed.saturating_sub(accrued).saturating_add(balance.reserved),
                authorized: balance.authorized,
                period_end_seconds: budget.end.millis() / 1000,
            }
        });
        states.collect()
    }

    fn pod_gauges(&self) -> Vec<Pods> {
        let mut pods = Vec::new();
        for (_, class) in self.lines.iter().filter(|(_, class)| !class.line.is_empty()) {
            pods.push(Pods {
                namespace: class.workload.namespace.clone(),
                policy: class.policy.name.clone(),
                tier: None,
                provider: None,
                node: None,
                phase: metrics::Phase::Pending,
                count: u64::try_from(class.line.len()).unwrap_or(u64::MAX),
            });
        }
        for record in self.pods.values() {
            let Phase::Burst(burst) = &record.phase else { continue };
            if burst.finished.is_some() {
                continue;
            }
            pods.push(Pods {
                namespace: record.key.namespace.clone(),
                policy: burst.record.policy.clone(),
                tier: Some(burst.record.tier.clone()),
                provider: self.backends.get(&burst.record.virtual_node).map(|backend| backend.node.provider),
                node: Some(burst.record.virtual_node.clone()),
                phase: if burst.started.is_some() { metrics::Phase::Running } else { metrics::Phase::Starting },
                count: 1,
            });
        }
        pods
    }

    fn burn_gauges(&self) -> Vec<Burn> {
        let mut burn: BTreeMap<(Arc<str>, Arc<str>), Money> = BTreeMap::new();
        for record in self.pods.values() {
            if let Phase::Burst(burst) = &record.phase
                && burst.finished.is_none()
            {
                let rate = burn.entry((record.key.namespace.clone(), burst.record.virtual_node.clone())).or_default();
                *rate = rate.saturating_add(burst.record.hourly);
            }
        }
        let entries = burn.into_iter().filter_map(|((namespace, node), rate)| {
            let provider = self.backends.get(&node)?.node.provider;
            Some(Burn { namespace, provider, node, rate: Rate::per_hour(rate) })
        });
        entries.collect()
    }

    fn price_gauges(&self, now: Timestamp) -> Vec<PriceState> {
        let mut prices = Vec::new();
        for backend in self.backends.iter() {
            let node = &backend.node;
            let Some(known) = &node.prices else { continue };
            for (resource, rate) in [("vcpu", known.vcpu), ("gb", known.gb)] {
                prices.push(PriceState {
                    provider: node.provider,
                    node: node.name.clone(),
                    region: node.region.clone(),
                    resource,
                    rate,
                    age_seconds: now.since(known.as_of).as_secs(),
                });
            }
        }
        prices
    }
}

/// Kind, name, generation, conditions (type, holds, reason, message), other fields.
type Wanted = (StatusKind, Arc<str>, i64, Vec<Claim>, serde_json::Value);
type Claim = (&'static str, bool, &'static str, String);

fn hygiene_condition(failed: &[Check]) -> Claim {
    if failed.is_empty() {
        return (
            "HygieneCompliant",
            true,
            "Compliant",
            "the Node is no target of load balancers and no failure domain".to_owned(),
        );
    }
    let rules: Vec<&str> = failed.iter().map(|check| check.rule()).collect();
    ("HygieneCompliant", false, "Drifted", format!("the Node must have: {}; it is being repaired", rules.join(", ")))
}

/// A condition that keeps its transition time as long as its status stays.
pub(super) fn condition(
    before: &[Condition],
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = if holds { "True" } else { "False" };
    let same = before.iter().find(|condition| condition.type_ == kind && condition.status == status);
    let since = same.map_or_else(
        || Time(jiff::Timestamp::from_millisecond(now.millis()).unwrap_or_default()),
        |condition| condition.last_transition_time.clone(),
    );
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(1024).collect(),
        observed_generation: generation,
        last_transition_time: since,
    }
}
