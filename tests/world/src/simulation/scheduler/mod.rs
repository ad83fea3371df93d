//! A model of kube-scheduler: one pod at a time, from a queue that wakes pods on events, with assumed pods and asynchronous
//! Bindings. It knows what its own watch told it, so it can be late, and lose races.

mod fit;
mod preempt;
mod queue;
mod view;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use policy::{Resources, Timestamp};

use self::queue::Queue;
pub(super) use self::queue::{FLUSH_EVERY, RefusedBy};
pub use self::view::cpu_millis;
pub(super) use self::view::effective_request;
use self::view::{NodeView, PodView};
use super::admission::is_gated;
use super::random::Random;
use super::store::PodId;
use super::{Extender, FilterOutcome};

/// kube-scheduler's caches and queue.
#[derive(Debug)]
pub(super) struct Scheduler {
    managed_resource: Option<String>,
    nodes: Vec<NodeView>,
    by_name: BTreeMap<Arc<str>, usize>,
    /// Pods without a node, as last seen.
    waiting: BTreeMap<PodId, Arc<PodView>>,
    /// Pods on nodes: assumed by itself or seen there.
    placed: BTreeMap<PodId, Placed>,
    /// How many of them have which priority: most pods can skip the search for victims.
    placed_priorities: BTreeMap<i32, usize>,
    nominated: BTreeMap<PodId, Arc<str>>,
    queue: Queue,
    /// Where the search for feasible nodes goes on.
    search_from: usize,
    ties: Random,
}

#[derive(Debug)]
struct Placed {
    view: Arc<PodView>,
    node: Arc<str>,
    is_assumed: bool,
    is_terminating: bool,
}

/// A Binding that kube-scheduler sends.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) id: PodId,
    pub(super) pod: Arc<Pod>,
    pub(super) node: Arc<str>,
}

/// What kube-scheduler writes on a pod that found no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) message: String,
    pub(super) nominated: Option<Arc<str>>,
    /// Pods to end for it.
    pub(super) victims: Vec<PodId>,
}

/// The end of a scheduling cycle.
#[derive(Debug)]
pub(super) enum Outcome {
    Assumed(Attempt),
    /// The verdict, and whether the condition differs from what the pod carries.
    Refused(Verdict, bool),
    /// The pod went away meanwhile.
    Gone,
}

impl Scheduler {
    pub(super) fn new(seed: u64, managed_resource: Option<String>) -> Scheduler {
        Scheduler {
            managed_resource,
            nodes: Vec::new(),
            by_name: BTreeMap::new(),
            waiting: BTreeMap::new(),
            placed: BTreeMap::new(),
            placed_priorities: BTreeMap::new(),
            nominated: BTreeMap::new(),
            queue: Queue::default(),
            search_from: 0,
            ties: Random::new(seed, "scheduler"),
        }
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(super) fn next_pod(&mut self, now: Timestamp) -> Option<PodId> {
        self.queue.pop(now)
    }

    pub(super) fn flush(&mut self, now: Timestamp) {
        self.queue.flush(now);
    }

    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    // --- the watch ---

    pub(super) fn sees_node(&mut self, node: &Node, deleted: bool, now: Timestamp) {
        let mut fresh = NodeView::new(node);
        let place = self.by_name.get(&fresh.name).copied();
        match (place, deleted) {
            (Some(place), true) => {
                self.nodes.remove(place);
                self.by_name = self.nodes.iter().enumerate().map(|(place, node)| (node.name.clone(), place)).collect();
                return; // A node less is no reason to try again.
            }
            (None, true) => return,
            (Some(place), false) => {
                fresh.used = self.nodes[place].used.clone();
                fresh.pods = self.nodes[place].pods;
                self.nodes[place] = fresh;
            }
            (None, false) => {
                let name = fresh.name.clone();
                for placed in self.placed.values().filter(|placed| placed.node == name) {
                    fresh.take(&placed.view.request);
                }
                self.by_name.insert(fresh.name.clone(), self.nodes.len());
                self.nodes.push(fresh);
            }
        }
        self.queue.wake_all(false, now);
    }

    pub(super) fn sees_pod(&mut self, id: PodId, pod: &Arc<Pod>, deleted: bool, now: Timestamp) {
        let ended = matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        if deleted || ended {
            self.forget_waiting(id);
            if self.unplace(id) {
                self.queue.wake_all(false, now);
            }
            return;
        }
        let view = Arc::new(PodView::new(pod, self.managed_resource.as_deref()));
        let is_terminating = pod.metadata.deletion_timestamp.is_some();
        match pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            Some(node) => self.sees_placed(id, view, Arc::from(node), is_terminating, now),
            None => self.sees_waiting(id, view, now),
        }
    }

    fn sees_placed(&mut self, id: PodId, view: Arc<PodView>, node: Arc<str>, is_terminating: bool, now: Timestamp) {
        self.forget_waiting(id);
        match self.placed.get_mut(&id) {
            Some(placed) if placed.node == node => {
                placed.is_assumed = false;
                placed.is_terminating = is_terminating;
                placed.view = view;
            }
            Some(_) => {
                // Assumed for one node and bound by somebody else to another: the cache is corrected, and nobody is woken for the
                // room that this frees. A real scheduler loses the wake-up in the same way.
                self.unplace(id);
                self.place(id, view, node, false);
            }
            None => {
                self.place(id, view, node, false);
                self.queue.wake_all(true, now);
            }
        }
    }

    fn sees_waiting(&mut self, id: PodId, view: Arc<PodView>, now: Timestamp) {
        if self.placed.contains_key(&id) {
            return; // Assumed; the watch is behind our own Binding.
        }
        if is_gated(&view.pod)
            || view.pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()) != Some("default-scheduler")
        {
            return;
        }
        let priority = view.priority;
        let known = self.waiting.insert(id, view);
        match known {
            None => self.queue.add(id, priority, now),
            Some(known) => {
                let view = &self.waiting[&id];
                let is_hint = known.tolerations != view.tolerations || known.pod.metadata.labels != view.pod.metadata.labels;
                if is_hint || self.queue.refused_by(id) == Some(RefusedBy::Extender) {
                    self.queue.wake(id, now);
                }
            }
        }
    }

    fn forget_waiting(&mut self, id: PodId) {
        if self.waiting.remove(&id).is_some() {
            self.queue.remove(id);
        }
        self.nominated.remove(&id);
    }

    fn place(&mut self, id: PodId, view: Arc<PodView>, node: Arc<str>, is_assumed: bool) {
        if let Some(place) = self.by_name.get(&node) {
            self.nodes[*place].take(&view.request);
        }
        *self.placed_priorities.entry(view.priority).or_default() += 1;
        self.placed.insert(id, Placed { view, node, is_assumed, is_terminating: false });
    }

    fn unplace(&mut self, id: PodId) -> bool {
        let Some(placed) = self.placed.remove(&id) else { return false };
        let count = self.placed_priorities.get_mut(&placed.view.priority).expect("a placed pod's priority is counted");
        *count -= 1;
        if *count == 0 {
            self.placed_priorities.remove(&placed.view.priority);
        }
        if let Some(place) = self.by_name.get(&placed.node) {
            self.nodes[*place].give_back(&placed.view.request);
        }
        true
    }

    /// The answer to a Binding. After a refusal the pod is forgotten, unless the watch already says where it really is.
    pub(super) fn bound(&mut self, attempt: &Attempt, is_ok: bool, now: Timestamp) {
        let assumed = self.placed.get(&attempt.id).is_some_and(|placed| placed.is_assumed);
        if is_ok || !assumed {
            return;
        }
        self.unplace(attempt.id);
        self.queue.wake_all(false, now);
        // It was removed from the queue when it was assumed; the watch brings it back if it is still free.
        let view = Arc::new(PodView::new(&attempt.pod, self.managed_resource.as_deref()));
        let priority = view.priority;
        self.waiting.insert(attempt.id, view);
        self.queue.add(attempt.id, priority, now);
    }

    // --- the cycle ---

    pub(super) fn schedule(&mut self, id: PodId, now: Timestamp, extender: &mut dyn Extender) -> Outcome {
        let Some(view) = self.waiting.get(&id).cloned() else { return Outcome::Gone };
        let reserved = self.reserved_for_nominated(id, view.priority);
        let mut refusals: Vec<Option<fit::Refusal>> = vec![None; self.nodes.len()];
        let mut feasible = self.feasible(&view, id, &reserved, &mut refusals);
        let mut by = RefusedBy::Plugins;
        if !feasible.is_empty() && view.is_managed {
            self.ask(&view, &mut feasible, &mut refusals, extender);
            by = RefusedBy::Extender;
        }
        if let Some(place) = self.best(&view, &feasible) {
            let node = self.nodes[place].name.clone();
            self.forget_waiting(id);
            self.place(id, view.clone(), node.clone(), true);
            return Outcome::Assumed(Attempt { id, pod: view.pod.clone(), node });
        }
        let texts = refusals.iter().flatten().flat_map(|refusal| refusal.texts.iter().map(|text| &**text));
        let mut message = fit::message(self.nodes.len(), texts);
        let (nominated, victims) = match self.preemption(id, &view, &refusals, extender) {
            Some((node, victims)) => (Some(node), victims),
            None => (self.nominated.get(&id).cloned(), Vec::new()),
        };
        message.push_str(&preempt::message(&refusals));
        if let Some(node) = &nominated {
            self.nominated.insert(id, node.clone());
        }
        self.queue.park(id, by, now);
        let said = view
            .pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .find(|condition| condition.type_ == "PodScheduled");
        let is_news = !victims.is_empty() || said.and_then(|condition| condition.message.as_ref()) != Some(&message);
        Outcome::Refused(Verdict { message, nominated, victims }, is_news)
    }

    /// Nodes that pass the filters. The nominated node is tried alone first; a big cluster is searched only until enough are found.
    fn feasible(
        &mut self,
        view: &PodView,
        id: PodId,
        reserved: &BTreeMap<Arc<str>, (Resources, i64)>,
        refusals: &mut [Option<fit::Refusal>],
    ) -> Vec<usize> {
        let nominated = self.nominated.get(&id).and_then(|node| self.by_name.get(node)).copied();
        if let Some(place) = nominated
            && fit::refusal(view, &self.nodes[place], reserved.get(&self.nodes[place].name)).is_none()
        {
            return vec![place];
        }
        let wanted = fit::feasible_wanted(self.nodes.len());
        let mut feasible = Vec::new();
        let mut looked_at = 0;
        for step in 0..self.nodes.len() {
            let place = (self.search_from + step) % self.nodes.len();
            looked_at = step + 1;
            let node = &self.nodes[place];
            refusals[place] = fit::refusal(view, node, reserved.get(&node.name));
            if refusals[place].is_none() {
                feasible.push(place);
            }
            if feasible.len() >= wanted {
                break;
            }
        }
        if !self.nodes.is_empty() {
            self.search_from = (self.search_from + looked_at) % self.nodes.len();
        }
        feasible
    }

    /// The extender's filter. A name that was not sent is an error, and an error is ignored: the extender is `ignorable`.
    fn ask(&self, view: &PodView, feasible: &mut Vec<usize>, refusals: &mut [Option<fit::Refusal>], extender: &mut dyn Extender) {
        let names: Vec<&str> = feasible.iter().map(|place| &*self.nodes[*place].name).collect();
        let (kept, failed, unresolvable) = match extender.filter(&view.pod, &names) {
            FilterOutcome::Answer { feasible, failed, unresolvable } => (feasible, failed, unresolvable),
            FilterOutcome::Error(_) => return,
        };
        if kept.iter().any(|name| !names.contains(&name.as_str())) {
            return;
        }
        feasible.retain(|place| {
            let name = &*self.nodes[*place].name;
            if kept.iter().any(|kept| kept == name) {
                return true;
            }
            let is_resolvable = !unresolvable.contains_key(name) && failed.contains_key(name);
            let text = unresolvable.get(name).or_else(|| failed.get(name)).cloned();
            refusals[*place] = Some(fit::Refusal { texts: text.map(Cow::Owned).into_iter().collect(), is_resolvable });
            false
        });
    }

    fn best(&mut self, view: &PodView, feasible: &[usize]) -> Option<usize> {
        let mut best: Option<(i64, usize)> = None;
        let mut ties = 1;
        for place in feasible {
            let score = fit::score(view, &self.nodes[*place]);
            match best {
                Some((highest, _)) if score < highest => {}
                Some((highest, _)) if score == highest => {
                    ties += 1;
                    if self.ties.below(ties) == 0 {
                        best = Some((score, *place));
                    }
                }
                Some(_) | None => (best, ties) = (Some((score, *place)), 1),
            }
        }
        best.map(|(_, place)| place)
    }

    /// Room that pods of at least this priority were promised by preemption.
    fn reserved_for_nominated(&self, id: PodId, priority: i32) -> BTreeMap<Arc<str>, (Resources, i64)> {
        let mut reserved: BTreeMap<Arc<str>, (Resources, i64)> = BTreeMap::new();
        for (other, node) in self.nominated.iter().filter(|(other, _)| **other != id) {
            if let Some(view) = self.waiting.get(other).filter(|view| view.priority >= priority) {
                let (held, pods) = reserved.entry(node.clone()).or_default();
                held.add(&view.request);
                *pods += 1;
            }
        }
        reserved
    }
}
