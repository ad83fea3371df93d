//! The waiting line of equal pods: for whom dedicated nodes have no room, and since when.
//!
//! A pod may burst only when dedicated nodes have no room for it (design, section 3, step 2). Three kinds of evidence count:
//!
//! * (a) its scheduler called it Unschedulable, and the snapshot shows no fit. A verdict has no date, so where the snapshot
//!   does show a fit, the scheduler's longest backoff is waited out first.
//! * (b) that is true of an equal pod.
//! * (c) it is surplus: more equal pods wait before it, by watch arrival, than dedicated nodes have room for.
//!
//! Everything errs towards waiting. Nothing here costs more than the line is long, whatever the number of nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Timestamp;

/// Order in which the watch brought the pods: the scheduler's queue has nearly the same, creation times are too coarse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arrival(pub u64);

/// The longest backoff of kube-scheduler (`podMaxBackoffSeconds`): by then it has tried again whatever it wanted to try.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Which evidence counts for the pods of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// (a), (b) and (c).
    Equals,
    /// (a) alone: what the pod may use depends on more than its own specification, or it could preempt somebody.
    OwnVerdict,
    /// The pod goes to serverless first: being refused is all it needs, room does not matter.
    Refused,
    /// Spillway holds the pod: no scheduler has anything to say about it.
    Held,
}

/// Pods that wait, equal in all that matters.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pods: BTreeMap<Arrival, Waiting>,
    /// Room when last looked, and since when there has been some without a break.
    room: i64,
    room_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    /// When its scheduler's verdict Unschedulable was seen.
    refused: Option<Timestamp>,
    /// Its scheduler has cleared a node for it: it is left alone.
    nominated: bool,
    no_room_since: Option<Timestamp>,
}

// === impl Line ===

impl Line {
    /// A pod joins, or more is known of it.
    pub fn set(&mut self, arrival: Arrival, refused: Option<Timestamp>, nominated: bool) {
        let waiting = self.pods.entry(arrival).or_default();
        // The first sight of a verdict counts; the scheduler repeats it without a new date.
        waiting.refused = refused.map(|seen| waiting.refused.map_or(seen, |before| before.min(seen)));
        waiting.nominated = nominated;
    }

    /// A pod leaves: bound, deleted, or being bound by us.
    pub fn remove(&mut self, arrival: Arrival) {
        self.pods.remove(&arrival);
    }

    /// Number of pods that wait.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Weighs the evidence anew. `room` is how many such pods the dedicated nodes hold now; `unsettled` is when something
    /// outside the line last changed that could make a verdict old (only used for pods that stand alone).
    ///
    /// Returns when the evidence should be weighed again if nothing else happens.
    pub fn weigh(&mut self, evidence: Evidence, room: i64, unsettled: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if room > self.room || (room > 0 && self.room_since.is_none()) {
            self.room_since = Some(now);
        }
        if room <= 0 {
            self.room_since = None;
        }
        self.room = room;
        match evidence {
            Evidence::Refused => self.weigh_each(|waiting| waiting.refused.map_or(Trust::No, Trust::Since)),
            Evidence::OwnVerdict => {
                let room_since = self.room_since;
                self.weigh_each(|waiting| own_verdict(waiting, room_since, unsettled, now))
            }
            Evidence::Equals => self.weigh_equals(now),
            Evidence::Held => {
                for waiting in self.pods.values_mut() {
                    waiting.no_room_since.get_or_insert(now);
                }
                None
            }
        }
    }

    /// Pods that dedicated nodes have no room for, in order of arrival, with the moment since when.
    pub fn without_room(&self) -> impl Iterator<Item = (Arrival, Timestamp)> {
        self.pods.iter().filter_map(|(arrival, waiting)| waiting.no_room_since.map(|since| (*arrival, since)))
    }

    /// Since when dedicated nodes have no room for one pod.
    pub fn no_room_since(&self, arrival: Arrival) -> Option<Timestamp> {
        self.pods.get(&arrival).and_then(|waiting| waiting.no_room_since)
    }

    /// Whether its scheduler calls any of them Unschedulable.
    pub fn has_refused(&self) -> bool {
        self.pods.values().any(|waiting| waiting.refused.is_some())
    }

    /// How many pods wait although the snapshot has room for them.
    pub fn waiting_with_room(&self) -> usize {
        usize::try_from(self.room.max(0)).unwrap_or(usize::MAX).min(self.pods.len())
    }

    fn weigh_each(&mut self, trust: impl Fn(&Waiting) -> Trust) -> Option<Timestamp> {
        let mut again: Option<Timestamp> = None;
        for waiting in self.pods.values_mut() {
            waiting.no_room_since = None;
            match trust(waiting) {
                _ if waiting.nominated => {}
                Trust::Since(since) => waiting.no_room_since = Some(since),
                Trust::From(later) => again = Some(again.map_or(later, |soonest| soonest.min(later))),
                Trust::No => {}
            }
        }
        again
    }

    fn weigh_equals(&mut self, now: Timestamp) -> Option<Timestamp> {
        let refused = self.pods.values().filter(|waiting| !waiting.nominated).filter_map(|waiting| waiting.refused).min();
        let waited_out = match (refused, self.room_since) {
            // Room, and yet refused: after the longest backoff the scheduler knows something that the snapshot does not.
            (Some(refused), Some(room_since)) => Some(refused.max(room_since) + LONGEST_BACKOFF),
            _ => None,
        };
        let all = waited_out.is_some_and(|moment| moment <= now);
        let mut room = if all { 0 } else { self.room.max(0) };
        for waiting in self.pods.values_mut() {
            if waiting.nominated {
                // It has its place; the room it was nominated for is counted by its scheduler, not by us.
                waiting.no_room_since = None;
            } else if room > 0 {
                room -= 1;
                waiting.no_room_since = None;
            } else if waiting.no_room_since.is_none() {
                // Its own verdict may be older than our looking.
                waiting.no_room_since = Some(if all { now } else { waiting.refused.unwrap_or(now).min(now) });
            }
        }
        waited_out.filter(|moment| *moment > now)
    }
}

enum Trust {
    No,
    Since(Timestamp),
    From(Timestamp),
}

fn own_verdict(waiting: &Waiting, room_since: Option<Timestamp>, unsettled: Timestamp, now: Timestamp) -> Trust {
    let Some(refused) = waiting.refused else { return Trust::No };
    let Some(room_since) = room_since else { return Trust::Since(refused) };
    let trusted = refused.max(room_since).max(unsettled) + LONGEST_BACKOFF;
    if trusted <= now { Trust::Since(refused) } else { Trust::From(trusted) }
}

#[cfg(test)]
mod tests;
