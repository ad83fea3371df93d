//! One pod, one answer: Dedicated, Burst or Wait, and why.
//!
//! [`decide`] walks the tiers of the pod's policy in order. A dedicated tier takes the pod while dedicated nodes have room for
//! it, unless bursting is cheaper than the node. A serverless tier takes it when the tier is open, with the cheapest of its
//! backends that can run the pod, has quota left and stays within limits and budgets. Refusals are collected, not thrown:
//! the explanation carries one verdict per candidate.

use std::sync::Arc;
use std::time::Duration;

use crate::burst_policy::{After, BurstPolicy, DedicatedTier, ServerlessTier, StopPolicy, Tier};
use crate::capability;
use crate::ledger::Shortfall;
use crate::quote::{Quote, quote};
use crate::reason::Reason;
use crate::snapshot::{Backend, Snapshot};
use crate::virtual_node::{CapacityType, Usage};
use crate::{Money, Rate, Timestamp, Workload, millis};

/// What is known of a pod's chances on dedicated nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A dedicated node may take it: its scheduler has not said no, or has offered one.
    Some,
    /// Dedicated nodes have had no room for it since then.
    NoneSince(Timestamp),
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub outcome: Outcome,
    /// Why.
    pub explanation: Explanation,
}

/// What to do with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Leave it to its scheduler and the dedicated nodes.
    Dedicated,
    /// Bind it to a virtual node.
    Burst(Placement),
    /// Leave it pending, and look again at this moment if nothing changes before; `None` = only a change can help. While a
    /// dedicated node may take the pod this is said only of one that is about to burst, as soon as its budget's authorization
    /// is written ([`Reason::BudgetNotYetAuthorized`]).
    Wait(Option<Timestamp>),
}

/// Where a pod bursts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Name of the tier.
    pub tier: Arc<str>,
    /// Name of the VirtualNode.
    pub virtual_node: Arc<str>,
    /// What it becomes and costs there.
    pub quote: Quote,
}

/// Why a pod goes where it goes, or nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The reason in one word.
    pub reason: Reason,
    /// What every tier that was looked at had to say, in order.
    pub tiers: Vec<TierVerdict>,
}

/// What one tier had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierVerdict {
    /// Name of the tier.
    pub tier: Arc<str>,
    /// Why it was passed over or chosen.
    pub reason: Reason,
    /// Its backends, in the order in which the policy names them.
    pub candidates: Vec<Candidate>,
}

/// What one backend had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Name of the VirtualNode.
    pub virtual_node: Arc<str>,
    /// Its price, or why it cannot take the pod.
    pub verdict: Result<Quote, Reason>,
}

/// Decides for one pod under the policy that selects it.
pub fn decide(snapshot: &Snapshot<'_>, policy: &BurstPolicy, workload: &Workload, room: Room, now: Timestamp) -> Decision {
    if let Some(feature) = capability::not_burstable(workload) {
        return settled(Outcome::Dedicated, Reason::NotBurstable(feature));
    }
    if policy.stop != StopPolicy::None {
        return settled(Outcome::Dedicated, Reason::Held);
    }
    let question = Question { snapshot, policy, workload, room, run: expected_run(policy, workload), now };
    let mut walk = Walk { verdicts: Vec::with_capacity(policy.tiers.len()), again: None, last: Reason::NoBackend };
    for tier in &policy.tiers {
        let step = match tier {
            Tier::Dedicated(tier) => walk.dedicated(&question, tier),
            Tier::Serverless(tier) => walk.serverless(&question, tier),
        };
        if let Some((outcome, reason)) = step {
            return Decision { outcome, explanation: Explanation { reason, tiers: walk.verdicts } };
        }
    }
    let Walk { verdicts, again, last } = walk;
    // Nothing is done to a pod that waits: for its scheduler it is an ordinary pending pod.
    let outcome = if room == Room::Some { Outcome::Dedicated } else { Outcome::Wait(again) };
    Decision { outcome, explanation: Explanation { reason: last, tiers: verdicts } }
}

/// The run time that a quote is based on.
pub fn expected_run(policy: &BurstPolicy, workload: &Workload) -> Duration {
    let run = workload.expected_run.unwrap_or(policy.expected_run);
    workload.run_limit.map_or(run, |limit| run.min(limit))
}

fn settled(outcome: Outcome, reason: Reason) -> Decision {
    Decision { outcome, explanation: Explanation { reason, tiers: vec![] } }
}

/// What is asked, with the run time worked out.
struct Question<'a> {
    snapshot: &'a Snapshot<'a>,
    policy: &'a BurstPolicy,
    workload: &'a Workload,
    room: Room,
    run: Duration,
    now: Timestamp,
}

/// The walk over the tiers: what was said so far, and when a closed tier opens.
struct Walk {
    verdicts: Vec<TierVerdict>,
    again: Option<Timestamp>,
    last: Reason,
}

type Step = Option<(Outcome, Reason)>;

// === impl Walk ===

impl Walk {
    fn dedicated(&mut self, question: &Question<'_>, tier: &DedicatedTier) -> Step {
        if question.room != Room::Some {
            self.note(&tier.name, Reason::NoRoom, vec![]);
            return None;
        }
        let price = question.dedicated_price(tier);
        if price > Money::ZERO && question.is_cheaper_elsewhere(price) {
            self.note(&tier.name, Reason::DearerThanBursting, vec![]);
            return None;
        }
        self.note(&tier.name, Reason::HasRoom, vec![]);
        Some((Outcome::Dedicated, Reason::HasRoom))
    }

    fn serverless(&mut self, question: &Question<'_>, tier: &ServerlessTier) -> Step {
        let after_dedicated = self.verdicts.iter().any(|verdict| verdict.reason == Reason::NoRoom);
        let candidates = question.candidates(tier);
        let best = cheapest(&candidates);
        let opens = match question.room {
            Room::NoneSince(since) => question.opens(tier, best, since),
            // Nothing is waited for where dedicated nodes are not wanted first.
            Room::Some if question.policy.serverless_first() => question.now,
            Room::Some => question.opens(tier, best, question.now),
        };
        if opens > question.now {
            self.note(&tier.name, Reason::TierNotOpen, candidates);
            self.again = Some(self.again.map_or(opens, |soonest| soonest.min(opens)));
            return None;
        }
        let Some((name, quote)) = best.map(|(name, quote)| (name.clone(), *quote)) else {
            let reason = refusal_of_all(&candidates);
            self.note(&tier.name, reason, candidates);
            return None;
        };
        // The money is there and will be authorized in a moment: no reason to go anywhere else.
        if let Err(Shortfall::Authorization { budget, .. }) = question.afford(quote.bill) {
            let reason = Reason::BudgetNotYetAuthorized(budget);
            self.note(&tier.name, reason.clone(), candidates);
            return Some((Outcome::Wait(None), reason));
        }
        let reason = match (question.room, after_dedicated, question.policy.serverless_first()) {
            (Room::NoneSince(_), true, _) => Reason::NoRoom,
            (_, _, true) => Reason::ServerlessFirst,
            _ => Reason::CheaperThanDedicated,
        };
        self.note(&tier.name, reason.clone(), candidates);
        Some((Outcome::Burst(Placement { tier: tier.name.clone(), virtual_node: name, quote }), reason))
    }

    fn note(&mut self, tier: &Arc<str>, reason: Reason, candidates: Vec<Candidate>) {
        self.last = reason.clone();
        self.verdicts.push(TierVerdict { tier: tier.clone(), reason, candidates });
    }
}

// === impl Question ===

impl Question<'_> {
    /// Whether some serverless tier would take the pod now for less than `price`, its waiting and its risk included.
    fn is_cheaper_elsewhere(&self, price: Money) -> bool {
        self.policy.serverless().any(|(_, tier)| {
            let candidates = self.candidates(tier);
            let best = cheapest(&candidates);
            self.opens(tier, best, self.now) <= self.now && best.is_some_and(|(_, quote)| quote.total() < price)
        })
    }

    /// What the pod costs on a dedicated node, at the tier's marginal price.
    fn dedicated_price(&self, tier: &DedicatedTier) -> Money {
        let requests = &self.workload.requests;
        let thousandths_of_gib = i64::try_from(i128::from(requests.memory_bytes) * 1000 / (1 << 30)).unwrap_or(i64::MAX);
        let run = millis(self.run);
        tier.vcpu.price(requests.cpu_millis, run).saturating_add(tier.gib.price(thousandths_of_gib, run))
    }

    /// When a tier opens for a pod that dedicated nodes have had no room for since then.
    fn opens(&self, tier: &ServerlessTier, best: Option<(&Arc<str>, &Quote)>, since: Timestamp) -> Timestamp {
        match tier.after {
            After::Fixed(duration) => since + duration,
            After::Auto => {
                let Some((_, quote)) = best else { return since };
                let saved = self.policy.dedicated().map_or(Money::ZERO, |tier| self.dedicated_price(tier));
                since + break_even(quote.bill.saturating_sub(saved), self.policy.waiting_cost)
            }
        }
    }

    /// One verdict per backend of a tier.
    fn candidates(&self, tier: &ServerlessTier) -> Vec<Candidate> {
        let used = self.snapshot.backends.tier_usage(&self.policy.name, &tier.name);
        let verdict = |name: &Arc<str>| {
            let backend = self.snapshot.backends.get(name).ok_or(Reason::UnknownVirtualNode)?;
            let quote = self.offer(backend, tier)?;
            if !tier.limits.allow(&used, &quote.shape.usage()) {
                return Err(Reason::TierLimit);
            }
            match self.afford(quote.bill) {
                Err(Shortfall::Limit { budget, .. }) => Err(Reason::BudgetExceeded(budget)),
                Err(Shortfall::Unusable { budget }) => Err(Reason::BudgetUnusable(budget)),
                Err(Shortfall::Authorization { .. }) | Ok(()) => Ok(quote),
            }
        };
        tier.virtual_nodes.iter().map(|name| Candidate { virtual_node: name.clone(), verdict: verdict(name) }).collect()
    }

    /// What a backend would take the pod for, budgets and tier limits aside.
    fn offer(&self, backend: &Backend, tier: &ServerlessTier) -> Result<Quote, Reason> {
        let node = &*backend.node;
        if node.capacity_type == CapacityType::Spot && !tier.spot {
            return Err(Reason::SpotNotAllowed);
        }
        if let Some(refusal) = capability::refusal(self.workload, node) {
            return Err(Reason::Infeasible(refusal));
        }
        if let Some(closed) = node.closed {
            return Err(Reason::Closed(closed));
        }
        let quote = quote(self.workload, node, self.run, self.policy.waiting_cost).map_err(Reason::NoQuote)?;
        let more: Usage = quote.shape.usage();
        if backend.is_suspended(&more) {
            return Err(Reason::StartFailed);
        }
        if !node.limits.allow(&backend.usage, &more) {
            return Err(Reason::VirtualNodeLimit);
        }
        if !node.quota.allow(&backend.quota_used(), &more) {
            return Err(Reason::QuotaExhausted);
        }
        Ok(quote)
    }

    fn afford(&self, bill: Money) -> Result<(), Shortfall> {
        let namespace = self.snapshot.namespace(&self.workload.namespace);
        self.snapshot.books.affords(&self.policy.name, namespace, bill)
    }
}

/// How long a pod waits until waiting has cost as much as bursting does.
fn break_even(premium: Money, waiting_cost: Rate) -> Duration {
    let hourly = i128::from(waiting_cost.hourly().nanos());
    if premium <= Money::ZERO {
        return Duration::ZERO;
    }
    if hourly == 0 {
        // Waiting is free, so it is never worth paying to end it. A century stands for never and cannot overflow.
        return Duration::from_secs(100 * 365 * 86_400);
    }
    let millis = i128::from(premium.nanos()) * 3_600_000 / hourly;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).min(Duration::from_secs(100 * 365 * 86_400))
}

/// The cheapest candidate all in all; of equals the first by name, so that the order of the list decides nothing.
fn cheapest(candidates: &[Candidate]) -> Option<(&Arc<str>, &Quote)> {
    candidates
        .iter()
        .filter_map(|candidate| candidate.verdict.as_ref().ok().map(|quote| (&candidate.virtual_node, quote)))
        .min_by_key(|(name, quote)| (quote.total(), (*name).clone()))
}

/// Why a tier can take nothing: the refusal that is nearest to being lifted.
fn refusal_of_all(candidates: &[Candidate]) -> Reason {
    let refusals = candidates.iter().filter_map(|candidate| candidate.verdict.as_ref().err());
    refusals.min_by_key(|reason| reason.permanence()).cloned().unwrap_or(Reason::NoBackend)
}

#[cfg(test)]
mod tests;
