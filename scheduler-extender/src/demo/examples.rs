//! Three pods whose placement is explained: one that burst, one that the budget held, one on a dedicated node.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use policy::decision::{Candidate, TierVerdict};
use policy::ledger::Books;
use policy::{Decision, Money, Outcome, Quantity, Reason, Room, Snapshot, Timestamp, decide};
use world::simulation::Simulation;

use super::run::Example;
use crate::committer::{Binding, Committer, Explained, Published};
use crate::record::Record;
use crate::workload;

/// A pod that has waited so long is worth a word.
const STUCK: std::time::Duration = std::time::Duration::from_secs(30);

/// What has been kept so far.
#[derive(Default)]
pub(super) struct Examples {
    burst: Option<(Example, usize)>,
    held: Option<Example>,
    /// A pod that waits for another reason, shown where no budget held anybody.
    stuck: Option<Example>,
    /// Pods that a budget has kept from bursting, by UID, and the budget.
    held_pods: BTreeMap<String, Arc<str>>,
}

// === impl Examples ===

impl Examples {
    /// A Binding goes out. The decision that shows most refusals is kept: it tells most about the policy.
    pub(super) fn committed(&mut self, published: &Published, simulation: &Simulation, binding: &Binding) {
        const REFUSALS_ENOUGH: usize = 2;
        if self.burst.as_ref().is_some_and(|(_, refusals)| *refusals >= REFUSALS_ENOUGH) {
            return;
        }
        let Ok(record) = Record::parse(&binding.decision) else { return };
        let Some(decision) = again(published, simulation, binding, &record) else { return };
        let refusals = decision
            .explanation
            .tiers
            .iter()
            .flat_map(|tier| &tier.candidates)
            .filter(|candidate| candidate.verdict.is_err())
            .count();
        if self.burst.as_ref().is_some_and(|(_, most)| *most >= refusals) {
            return;
        }
        let example = Example {
            pod: format!("{}/{}", binding.pod.namespace, binding.pod.name),
            outcome: format!("burst to {} for at most {}", record.virtual_node, record.quote.display_decimals(4)),
            lines: lines(&decision),
        };
        self.burst = Some((example, refusals));
    }

    /// A pod waits: for whom?
    pub(super) fn waiting(&mut self, committer: &Committer, pod: &Pod, since: Timestamp, now: Timestamp) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let uid = text(&pod.metadata.uid);
        if self.held_pods.contains_key(&uid) {
            return;
        }
        let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        let is_stuck = self.stuck.is_none() && now.since(since) >= STUCK;
        let decision = match committer.explain(&namespace, &name, now) {
            Explained::Waiting { decision, .. } => decision,
            Explained::NotSelected if is_stuck => {
                let lines = vec!["no BurstPolicy selects it".to_owned()];
                self.stuck = Some(Example { pod: format!("{namespace}/{name}"), outcome: "waits".to_owned(), lines });
                return;
            }
            Explained::NotSelected | Explained::Dedicated(_) | Explained::Burst(_) => return,
        };
        let refusals = decision
            .explanation
            .tiers
            .iter()
            .flat_map(|tier| &tier.candidates)
            .filter_map(|candidate| candidate.verdict.as_ref().err());
        let budget = refusals.into_iter().find_map(|reason| match reason {
            Reason::BudgetExceeded(budget) => Some(budget),
            _ => None,
        });
        let example =
            |outcome: &str| Example { pod: format!("{namespace}/{name}"), outcome: outcome.to_owned(), lines: lines(&decision) };
        let Some(budget) = budget else {
            if is_stuck {
                self.stuck = Some(example("waits"));
            }
            return;
        };
        self.held_pods.insert(uid, budget.clone());
        if self.held.is_none() {
            self.held = Some(example("waits for a dedicated node"));
        }
    }

    /// How many pods a budget has kept from bursting.
    pub(super) fn held_by(&self, budget: &str) -> usize {
        self.held_pods.values().filter(|name| ***name == *budget).count()
    }

    /// What there is to show in the end.
    pub(super) fn finish(self, simulation: &Simulation) -> Vec<Example> {
        let title = |pod: &Pod| {
            let metadata = &pod.metadata;
            format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
        };
        let mut held = self.held.or(self.stuck);
        if let Some(held) = &mut held {
            let life = simulation.pods().find(|(pod, _)| title(pod) == held.pod);
            if let Some(node) = life.and_then(|(_, life)| life.node.clone()) {
                held.outcome = format!("waited, then ran on {node}");
            }
        }
        let dedicated = simulation.pods().find(|(pod, life)| {
            let was_held = pod.metadata.uid.as_ref().is_some_and(|uid| self.held_pods.contains_key(uid));
            life.node.is_some() && !was_held && super::driver::record(pod).is_none()
        });
        let dedicated = dedicated.map(|(pod, life)| Example {
            pod: title(pod),
            outcome: format!("dedicated node {}", life.node.as_deref().unwrap_or_default()),
            lines: vec![format!("tier dedicated: {}", Reason::HasRoom)],
        });
        dedicated.into_iter().chain(self.burst.map(|(example, _)| example)).chain(held).collect()
    }
}

/// The decision made once more, without the pod's own share in what is in use: what the pod took was there when it took it.
fn again(published: &Published, simulation: &Simulation, binding: &Binding, record: &Record) -> Option<Decision> {
    let (pod, _) = simulation.pods().find(|(pod, _)| pod.metadata.uid.as_deref() == Some(&*binding.pod.uid))?;
    let labels = workload::labels(pod);
    let compiled = published.policies.select(&published.namespaces, pod, &labels).policy?;
    let workload = workload::workload(pod).ok()?;
    let mut backends = published.backends.clone();
    backends.vacate(&record.virtual_node, &record.policy, &record.tier, &record.usage);
    // It was affordable when it was taken, and what is left since does not explain why.
    let books = Books::default();
    let snapshot = Snapshot { backends: &backends, books: &books, namespaces: &published.namespaces };
    let decision = decide(&snapshot, &compiled.policy, &workload, Room::NoneSince(record.at), record.at);
    let same = matches!(&decision.outcome, Outcome::Burst(placement) if placement.virtual_node == record.virtual_node);
    same.then_some(decision)
}

/// The verdicts, one a line.
fn lines(decision: &Decision) -> Vec<String> {
    let mut lines = Vec::new();
    if decision.explanation.tiers.is_empty() {
        lines.push(decision.explanation.reason.to_string());
    }
    for TierVerdict { tier, reason, candidates } in &decision.explanation.tiers {
        lines.push(format!("tier {tier}: {reason}"));
        for Candidate { virtual_node, verdict } in candidates {
            lines.push(match verdict {
                Ok(quote) => format!(
                    "  {virtual_node}: {} for {} vCPU and {} GiB{}",
                    quote.bill,
                    Quantity::from_millis(quote.shape.usage().cpu_millis),
                    gib(quote.shape.usage().memory_bytes),
                    if quote.waiting > Money::ZERO {
                        format!(", and {} for the wait until it starts", quote.waiting)
                    } else {
                        String::new()
                    },
                ),
                Err(refusal) => format!("  {virtual_node}: {refusal}"),
            });
        }
    }
    lines
}

fn gib(bytes: i64) -> String {
    let tenths = (i128::from(bytes) * 10 + (1 << 29)) >> 30;
    if tenths % 10 == 0 { (tenths / 10).to_string() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}
