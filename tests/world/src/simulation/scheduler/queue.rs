//! kube-scheduler's scheduling queue.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use policy::Timestamp;

use super::super::store::PodId;

/// Who refused a pod; that decides what wakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedBy {
    /// Plugins with precise hints.
    Plugins,
    /// The extender: every event is a hint.
    Extender,
}

/// Active pods, pods in backoff, and pods that wait for an event.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    active: BTreeSet<(Reverse<i32>, u64, PodId)>,
    backoff: BTreeSet<(Timestamp, PodId)>,
    unschedulable: BTreeMap<PodId, (RefusedBy, Timestamp)>,
    entries: BTreeMap<PodId, Entry>,
    arrivals: u64,
}

#[derive(Debug)]
struct Entry {
    priority: i32,
    arrival: u64,
    attempts: u32,
    last_attempt: Timestamp,
}

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that no event woke is tried again after so long, looked at twice a minute.
const FLUSH_AFTER: Duration = Duration::from_secs(300);
pub(crate) const FLUSH_EVERY: Duration = Duration::from_secs(30);

impl Queue {
    /// A new pod, behind those of its priority.
    pub(crate) fn add(&mut self, id: PodId, priority: i32, now: Timestamp) {
        if self.entries.contains_key(&id) {
            return;
        }
        self.arrivals += 1;
        self.active.insert((Reverse(priority), self.arrivals, id));
        self.entries.insert(id, Entry { priority, arrival: self.arrivals, attempts: 0, last_attempt: now });
    }

    pub(crate) fn remove(&mut self, id: PodId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.active.remove(&(Reverse(entry.priority), entry.arrival, id));
        self.backoff.remove(&(entry.backoff_ends(), id));
        self.unschedulable.remove(&id);
    }

    /// The next pod to try. Pods in backoff are taken early when there is nothing else to do.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<PodId> {
        while self.backoff.first().is_some_and(|(ends, _)| *ends <= now) {
            let (_, id) = self.backoff.pop_first()?;
            self.activate(id);
        }
        let id = match self.active.pop_first() {
            Some((_, _, id)) => id,
            None => self.backoff.pop_first()?.1,
        };
        let entry = self.entries.get_mut(&id).expect("a queued pod has an entry");
        entry.attempts += 1;
        entry.last_attempt = now;
        Some(id)
    }

    /// Whether `pop` would find a pod.
    pub(crate) fn is_ready(&self) -> bool {
        !self.active.is_empty() || !self.backoff.is_empty()
    }

    /// The pod found no node and waits for an event.
    pub(crate) fn park(&mut self, id: PodId, by: RefusedBy, now: Timestamp) {
        if self.entries.contains_key(&id) {
            self.unschedulable.insert(id, (by, now));
        }
    }

    /// An event for everybody (`extender_only` = false) or one that no plugin cares for.
    pub(crate) fn wake_all(&mut self, extender_only: bool, now: Timestamp) {
        let woken: Vec<PodId> = self
            .unschedulable
            .iter()
            .filter(|(_, (by, _))| !extender_only || *by == RefusedBy::Extender)
            .map(|(id, _)| *id)
            .collect();
        for id in woken {
            self.wake(id, now);
        }
    }

    /// An event for one pod.
    pub(crate) fn wake(&mut self, id: PodId, now: Timestamp) {
        if self.unschedulable.remove(&id).is_none() {
            return;
        }
        let ends = self.entries[&id].backoff_ends();
        if ends <= now {
            self.activate(id);
        } else {
            self.backoff.insert((ends, id));
        }
    }

    /// What refused a waiting pod.
    pub(crate) fn refused_by(&self, id: PodId) -> Option<RefusedBy> {
        self.unschedulable.get(&id).map(|(by, _)| *by)
    }

    /// Whether anybody waits for an event.
    pub(crate) fn has_parked(&self) -> bool {
        !self.unschedulable.is_empty()
    }

    /// The periodic look at pods that nothing woke.
    pub(crate) fn flush(&mut self, now: Timestamp) {
        let late: Vec<PodId> =
            self.unschedulable.iter().filter(|(_, (_, since))| now.since(*since) > FLUSH_AFTER).map(|(id, _)| *id).collect();
        for id in late {
            self.wake(id, now);
        }
    }

    fn activate(&mut self, id: PodId) {
        let entry = &self.entries[&id];
        self.active.insert((Reverse(entry.priority), entry.arrival, id));
    }
}

// === impl Entry ===

impl Entry {
    fn backoff_ends(&self) -> Timestamp {
        let doublings = self.attempts.saturating_sub(1).min(10);
        self.last_attempt + (BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_MAX)
    }
}
