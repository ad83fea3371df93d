//! Events for the people who look at a pod: one per cause, never a hot loop.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use policy::workload::Feature;
use policy::{Placement, Reason};

use super::{Intent, Note, PodKey};
use crate::record::Record;

/// Causes remembered, so that the same thing is not told twice about the same pod.
const REMEMBERED: usize = 10_000;

/// What has been told.
#[derive(Default)]
pub(super) struct Notes {
    told: HashSet<(Arc<str>, &'static str)>,
    order: VecDeque<(Arc<str>, &'static str)>,
}

impl Notes {
    /// Tells a cause once per pod.
    pub(super) fn once(
        &mut self,
        pod: &PodKey,
        reason: &'static str,
        warning: bool,
        action: &'static str,
        text: String,
        intents: &mut Vec<Intent>,
    ) {
        let cause = (pod.uid.clone(), reason);
        if !self.told.insert(cause.clone()) {
            return;
        }
        self.order.push_back(cause);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
        intents.push(Intent::Note(Note { pod: pod.clone(), reason, warning, action, text }));
    }

    /// What was committed. A pod is committed once, so that need not be remembered.
    pub(super) fn burst(pod: &PodKey, record: &Record, currency: &str, intents: &mut Vec<Intent>) {
        let text = format!("bursts to {} for {} {currency}: {}", record.virtual_node, record.quote, record.why());
        intents.push(Intent::Note(Note { pod: pod.clone(), reason: "BurstSelected", warning: false, action: "Bind", text }));
    }

    /// Why a pod, and every pod that is equal to it, does not burst now. Told on the oldest of them.
    pub(super) fn refused(&mut self, pod: &PodKey, reason: &Reason, intents: &mut Vec<Intent>) {
        let (event, warning) = match reason {
            // Its owner said so; that is no news to anybody.
            Reason::NotBurstable(Feature::OptedOut) => return,
            Reason::NotBurstable(_)
            | Reason::Infeasible(_)
            | Reason::NoQuote(_)
            | Reason::SpotNotAllowed
            | Reason::NoBackend
            | Reason::UnknownVirtualNode => ("BackendInfeasible", true),
            Reason::BudgetExceeded(_) => ("BudgetExceeded", true),
            Reason::BudgetUnusable(_) => ("BudgetUnusable", true),
            Reason::Closed(_) | Reason::StartFailed => ("BackendClosed", true),
            Reason::QuotaExhausted | Reason::VirtualNodeLimit | Reason::TierLimit => ("LimitReached", true),
            Reason::Held => ("PolicyHeld", false),
            Reason::TierNotOpen | Reason::NoRoom | Reason::HasRoom | Reason::DearerThanBursting => ("WaitingForDedicated", false),
            Reason::ServerlessFirst | Reason::CheaperThanDedicated | Reason::BudgetNotYetAuthorized(_) => return,
        };
        self.once(pod, event, warning, "Decide", format!("does not burst: {reason}"), intents);
    }

    /// What would have been done with a pod in audit mode.
    pub(super) fn audited(&mut self, pod: &PodKey, placement: &Placement, currency: &str, intents: &mut Vec<Intent>) {
        let text =
            format!("would burst to {} for {} {currency} (policy in mode Audit)", placement.virtual_node, placement.quote.bill);
        self.once(pod, "BurstAudited", false, "Decide", text, intents);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use policy::capability::Refusal;
    use policy::quote::QuoteRefusal;
    use policy::virtual_node::Closed;

    use super::*;

    /// The Event of every refusal: its reason, and whether it is a warning. People filter by them: add, never rename.
    #[test]
    fn every_refusal_has_its_event() {
        let budget = || Arc::from("nightly");
        let refusal = Refusal { rule: "gpu", sentence: Cow::Borrowed("no GPUs") };
        let table = [
            (Reason::NotBurstable(Feature::OptedOut), None),
            (Reason::NotBurstable(Feature::HostPath), Some(("BackendInfeasible", true))),
            (Reason::Infeasible(refusal), Some(("BackendInfeasible", true))),
            (Reason::NoQuote(QuoteRefusal::PricesMissing), Some(("BackendInfeasible", true))),
            (Reason::SpotNotAllowed, Some(("BackendInfeasible", true))),
            (Reason::NoBackend, Some(("BackendInfeasible", true))),
            (Reason::UnknownVirtualNode, Some(("BackendInfeasible", true))),
            (Reason::BudgetExceeded(budget()), Some(("BudgetExceeded", true))),
            (Reason::BudgetUnusable(budget()), Some(("BudgetUnusable", true))),
            (Reason::Closed(Closed::NoNode), Some(("BackendClosed", true))),
            (Reason::StartFailed, Some(("BackendClosed", true))),
            (Reason::QuotaExhausted, Some(("LimitReached", true))),
            (Reason::VirtualNodeLimit, Some(("LimitReached", true))),
            (Reason::TierLimit, Some(("LimitReached", true))),
            (Reason::Held, Some(("PolicyHeld", false))),
            (Reason::TierNotOpen, Some(("WaitingForDedicated", false))),
            (Reason::NoRoom, Some(("WaitingForDedicated", false))),
            (Reason::HasRoom, Some(("WaitingForDedicated", false))),
            (Reason::DearerThanBursting, Some(("WaitingForDedicated", false))),
            (Reason::ServerlessFirst, None),
            (Reason::CheaperThanDedicated, None),
            (Reason::BudgetNotYetAuthorized(budget()), None),
        ];
        let pod = PodKey { namespace: Arc::from("media"), name: Arc::from("p"), uid: Arc::from("u") };
        for (reason, expected) in table {
            let mut intents = Vec::new();
            // Told once, however often the same is found.
            let mut notes = Notes::default();
            notes.refused(&pod, &reason, &mut intents);
            notes.refused(&pod, &reason, &mut intents);
            let told: Vec<_> = intents
                .iter()
                .map(|intent| match intent {
                    Intent::Note(note) => (note.reason, note.warning, note.text.clone()),
                    other => panic!("{other:?}"),
                })
                .collect();
            let wanted = expected.map(|(event, warning)| (event, warning, format!("does not burst: {reason}")));
            assert_eq!(told, wanted.into_iter().collect::<Vec<_>>(), "{reason:?}");
        }
    }
}
