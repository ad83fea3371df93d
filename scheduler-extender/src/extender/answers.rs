//! The answers: what the published state says about the pod that kube-scheduler asks about.
//!
//! kube-scheduler asks only when a dedicated node has room. So the question is never "where", but "here, or rather burst?".
//! A pod is refused only if it is about to be committed: holding by refusing costs a call per held pod and cluster event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Pod;
use policy::burst_policy::{Mode, Packing};
use policy::workload::Feature;
use policy::{BurstPolicy, Outcome, Reason, Room, Timestamp, Workload, decide};

use super::verbs::{
    Answers, Candidates, Fault, FilterAnswer, NodeVerdict, PreemptAnswer, ReasonText, Refusal, Score, Scores, Victims,
};
use super::wire::PodView;
use crate::committer::Published;
use crate::workload;

/// A tier that opens so soon is worth waiting for instead of evicting somebody.
const NEAR: Duration = Duration::from_secs(60);

const BURSTS: ReasonText = ReasonText::new("spillway: bursts to a virtual node instead");
const PACKED: ReasonText = ReasonText::new("spillway: a fuller node has room");
const VIRTUAL: ReasonText = ReasonText::new("spillway: virtual nodes are bound to by Spillway alone");

/// Answers from the published state. Every replica gives the same.
pub struct SnapshotAnswers {
    published: Arc<ArcSwap<Published>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    asked: Arc<AtomicBool>,
}

impl SnapshotAnswers {
    /// Answers from what is published; `asked` is raised when kube-scheduler is heard of.
    pub fn new(
        published: Arc<ArcSwap<Published>>,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        asked: Arc<AtomicBool>,
    ) -> SnapshotAnswers {
        SnapshotAnswers { published, clock: Arc::new(clock), asked }
    }
}

/// The pod with its policy, if one selects it and is in force.
fn selected(published: &Published, view: &PodView<'_>) -> Result<Option<(Arc<BurstPolicy>, Workload)>, Fault> {
    let pod: Pod = serde_json::from_str(view.json).map_err(|_| Fault { cause: "the pod cannot be read" })?;
    let labels = workload::labels(&pod);
    let Some(compiled) = published.policies.select(&published.namespaces, &pod, &labels).policy else { return Ok(None) };
    let mut workload = workload::workload(&pod).map_err(|_| Fault { cause: "the pod's specification cannot be read" })?;
    let services = published.services.get(&workload.namespace);
    if services.is_some_and(|services| services.iter().any(|(_, selector)| selector.matches(&labels))) {
        workload.features.insert(Feature::LocalTraffic);
    }
    Ok(Some((compiled.policy.clone(), workload)))
}

impl Answers for SnapshotAnswers {
    fn filter(&self, view: &PodView<'_>, candidates: Candidates<'_>) -> Result<FilterAnswer, Fault> {
        self.asked.store(true, Ordering::Relaxed);
        let published = self.published.load();
        if !published.is_in_force() {
            return Ok(candidates.pass_all());
        }
        if published.promised.contains(view.uid.as_str()) {
            return Ok(candidates.refuse_all(Refusal::Unresolvable(BURSTS)));
        }
        let Some((policy, workload)) = selected(&published, view)? else { return Ok(candidates.pass_all()) };
        let decision = decide(&published.snapshot(), &policy, &workload, Room::Some, (self.clock)());
        let may_burst = policy.mode == Mode::Enforce && !published.unbindable.contains(view.uid.as_str());
        // Waiting, while a node is on offer, is for the moment until the budget's authorization is written.
        if decision.outcome != Outcome::Dedicated && may_burst {
            return Ok(candidates.refuse_all(Refusal::Unresolvable(BURSTS)));
        }
        Ok(pack(&published, &policy, &workload, candidates))
    }

    fn prioritize(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<Scores, Fault> {
        let published = self.published.load();
        Ok(candidates.score(|_, name| {
            let tenths = published.packing.fullness(name).map_or(0, |thousandths| thousandths / 100);
            Score::new(u8::try_from(tenths).unwrap_or(0)).unwrap_or(Score::HIGHEST)
        }))
    }

    fn preempt(&self, view: &PodView<'_>, victims: Victims<'_>) -> Result<PreemptAnswer, Fault> {
        // Where dedicated nodes are full this is the only verb that is called.
        self.asked.store(true, Ordering::Relaxed);
        let published = self.published.load();
        if published.is_in_force()
            && let Some((policy, workload)) = selected(&published, view)?
            && policy.mode == Mode::Enforce
        {
            let now = (self.clock)();
            let decision = decide(&published.snapshot(), &policy, &workload, Room::NoneSince(now), now);
            let bursts = match decision.outcome {
                Outcome::Burst(_) => true,
                Outcome::Wait(until) => {
                    matches!(decision.explanation.reason, Reason::BudgetNotYetAuthorized(_))
                        || until.is_some_and(|until| until.since(now) <= NEAR)
                }
                Outcome::Dedicated => false,
            };
            if bursts {
                return Ok(victims.spare_all());
            }
        }
        Ok(victims.keep(|node| !is_virtual(&published, &node.node)))
    }
}

/// The fullest dedicated node, where the policy packs and the pod itself has no preference.
fn pack(published: &Published, policy: &BurstPolicy, workload: &Workload, candidates: Candidates<'_>) -> FilterAnswer {
    let packs = policy.dedicated().is_some_and(|tier| tier.packing == Packing::MostAllocated);
    let fullest = candidates
        .iter()
        .filter_map(|(index, name)| published.packing.fullness(name).map(|fullness| (fullness, std::cmp::Reverse(name), index)))
        .max_by_key(|(fullness, name, _)| (*fullness, *name));
    match fullest {
        Some((_, _, index)) if packs && !workload.features.contains(Feature::Preferences) => {
            candidates.choose(index, Refusal::Failed(PACKED))
        }
        _ => candidates.judge(
            |_, name| {
                if is_virtual(published, name) { NodeVerdict::Unresolvable(VIRTUAL) } else { NodeVerdict::Pass }
            },
        ),
    }
}

fn is_virtual(published: &Published, node: &str) -> bool {
    published.backends.iter().any(|backend| backend.node.node_name.as_deref() == Some(node))
}

#[cfg(test)]
mod tests;
