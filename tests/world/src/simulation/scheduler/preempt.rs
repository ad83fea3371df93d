//! DefaultPreemption: whom to end so that a pod of higher priority fits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::Extender;
use super::super::store::PodId;
use super::fit::{Refusal, refusal};
use super::view::PodView;
use super::{Placed, Scheduler};

/// Victims on one node, lowest priority last.
type Victims = Vec<PodId>;

impl Scheduler {
    /// The node to nominate and the pods to end there.
    pub(super) fn preemption(
        &self,
        id: PodId,
        view: &PodView,
        refusals: &[Option<Refusal>],
        extender: &mut dyn Extender,
    ) -> Option<(Arc<str>, Victims)> {
        let is_lowest = self.placed_priorities.first_key_value().is_none_or(|(lowest, _)| *lowest >= view.priority);
        if !view.may_preempt || is_lowest || self.waits_for_victims(id, view) {
            return None;
        }
        let mut candidates: BTreeMap<Arc<str>, Victims> = BTreeMap::new();
        for (place, _) in
            refusals.iter().enumerate().filter(|(_, refusal)| refusal.as_ref().is_some_and(|refusal| refusal.is_resolvable))
        {
            if let Some(victims) = self.victims_on(place, view) {
                candidates.insert(self.nodes[place].name.clone(), victims);
            }
        }
        if !candidates.is_empty() && view.is_managed {
            self.ask_preempt(view, &mut candidates, extender);
        }
        let (node, victims) = candidates.into_iter().min_by_key(|(_, victims)| {
            let priorities = victims.iter().map(|victim| self.placed[victim].view.priority);
            (priorities.clone().max(), priorities.map(i64::from).sum::<i64>(), victims.len())
        })?;
        Some((node, victims))
    }

    /// The victims chosen earlier are still on their way out.
    fn waits_for_victims(&self, id: PodId, view: &PodView) -> bool {
        self.nominated.get(&id).is_some_and(|node| {
            self.placed
                .values()
                .any(|placed| placed.node == *node && placed.is_terminating && placed.view.priority < view.priority)
        })
    }

    /// The fewest pods of lower priority without which the pod fits: all of them go, then as many as possible come back.
    fn victims_on(&self, place: usize, view: &PodView) -> Option<Victims> {
        let mut node = self.nodes[place].clone();
        let mut lower: Vec<(PodId, &Placed)> = self
            .placed
            .iter()
            .filter(|(_, placed)| placed.node == node.name && placed.view.priority < view.priority)
            .map(|(id, placed)| (*id, placed))
            .collect();
        for (_, placed) in &lower {
            node.give_back(&placed.view.request);
        }
        if lower.is_empty() || refusal(view, &node, None).is_some() {
            return None;
        }
        lower.sort_by_key(|(id, placed)| (std::cmp::Reverse(placed.view.priority), *id));
        let mut victims = Vec::new();
        for (id, placed) in lower {
            node.take(&placed.view.request);
            if refusal(view, &node, None).is_some() {
                node.give_back(&placed.view.request);
                victims.push(id);
            }
        }
        (!victims.is_empty()).then_some(victims)
    }

    /// Only nodes that the extender keeps stay; what it adds is ignored.
    fn ask_preempt(&self, view: &PodView, candidates: &mut BTreeMap<Arc<str>, Victims>, extender: &mut dyn Extender) {
        let uid = |id: &PodId| self.placed[id].view.pod.metadata.uid.clone().unwrap_or_default();
        let offered: BTreeMap<String, Vec<String>> =
            candidates.iter().map(|(node, victims)| (node.to_string(), victims.iter().map(uid).collect())).collect();
        if let Some(kept) = extender.preempt(&view.pod, &offered) {
            candidates.retain(|node, _| kept.contains(&node.to_string()));
        }
    }
}

/// The second half of kube-scheduler's message.
pub(super) fn message(refusals: &[Option<Refusal>]) -> String {
    let texts = refusals.iter().flatten().map(|refusal| {
        if refusal.is_resolvable {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        }
    });
    format!(" preemption: {}", super::fit::message(refusals.len(), texts))
}
