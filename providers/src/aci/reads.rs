//! Which groups to look at, and when.
//!
//! Resource Manager answers 12,000 reads an hour; looking at every pod each five seconds, 17 pods would use them up. Lists are
//! cheap but thin: they show that Azure began or ended its own work on a group, not that a container ended. So a group is read
//! at once when its list entry changes, and otherwise after a tenth of the time for which nothing has happened to it: the end
//! of a pod is seen late by a tenth of its run. What the hour allows goes to those that are furthest behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policy::Timestamp;

use crate::{CallLimit, TokenBucket};

/// Nothing is read more often.
const SHORTEST: Duration = Duration::from_secs(5);
/// Nothing that may still change is read more seldom, as far as the hour allows.
const LONGEST: Duration = Duration::from_secs(600);
/// The part of the time for which nothing has happened, in which nothing will.
const PART: u32 = 10;

/// What is known of each group, and what may still be read.
#[derive(Debug)]
pub(super) struct ReadPlan {
    groups: BTreeMap<Arc<str>, Known>,
    /// Reads of groups by this plan.
    looks: TokenBucket,
    /// Pages of lists.
    lists: TokenBucket,
    /// Reads that somebody waits for: before a create, one pod, logs.
    asked_for: TokenBucket,
    listed_at: Option<Timestamp>,
    /// Pages of the last list; the next will hardly be longer.
    pages: u32,
    /// Pages that are paid for and not read yet; below zero, read and not paid for yet.
    prepaid: i64,
}

#[derive(Debug)]
struct Known {
    /// As the last list showed it.
    provisioning: String,
    /// When something was last seen to happen.
    changed_at: Timestamp,
    /// When it was last read, and whether it had ended for good.
    read: Option<(Timestamp, bool)>,
    /// The list entry has changed since it was read.
    stale: bool,
}

impl ReadPlan {
    /// A plan for so many reads an hour: never more within any hour, whatever happens.
    pub(super) fn new(reads_per_hour: u32) -> ReadPlan {
        // A bucket that is full at the start of an hour counts in that hour.
        let burst = (reads_per_hour / 40).max(1);
        let rate = reads_per_hour.saturating_sub(3 * burst);
        let (lists, asked_for) = (rate / 5, rate / 5);
        ReadPlan {
            groups: BTreeMap::new(),
            looks: TokenBucket::new(CallLimit::per_hour(rate - lists - asked_for, burst)),
            lists: TokenBucket::new(CallLimit::per_hour(lists, burst)),
            asked_for: TokenBucket::new(CallLimit::per_hour(asked_for, burst)),
            listed_at: None,
            pages: 1,
            prepaid: 0,
        }
    }

    /// Whether it is time for a list, and the hour allows one of the usual length.
    pub(super) fn list(&mut self, now: Timestamp) -> bool {
        if self.listed_at.is_some_and(|listed_at| now >= listed_at && now.since(listed_at) < SHORTEST) {
            return false;
        }
        let pages = i64::from(self.pages);
        while self.prepaid < pages {
            if self.lists.take(now).is_err() {
                return false;
            }
            self.prepaid += 1;
        }
        self.prepaid -= pages;
        true
    }

    /// Whether nothing is known at all yet.
    pub(super) fn never_listed(&self) -> bool {
        self.listed_at.is_none()
    }

    /// A list has been read, in so many pages.
    pub(super) fn listed<'a>(&mut self, entries: impl Iterator<Item = (&'a str, &'a str)>, pages: u32, now: Timestamp) {
        let pages = pages.max(1);
        self.prepaid -= i64::from(pages) - i64::from(self.pages);
        self.pages = pages;
        self.listed_at = Some(now);
        let mut before = std::mem::take(&mut self.groups);
        for (name, provisioning) in entries {
            let (name, known) = match before.remove_entry(name) {
                Some((name, mut known)) => {
                    if known.provisioning != provisioning {
                        known.provisioning = provisioning.to_owned();
                        known.changed_at = now;
                        known.stale = true;
                    }
                    (name, known)
                }
                None => {
                    (Arc::from(name), Known { provisioning: provisioning.to_owned(), changed_at: now, read: None, stale: true })
                }
            };
            self.groups.insert(name, known);
        }
    }

    /// The groups to read now, the most urgent first, each paid for.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Arc<str>> {
        let mut due: Vec<(u128, &Arc<str>)> =
            self.groups.iter().filter_map(|(name, known)| known.lateness(now).map(|late| (late, name))).collect();
        due.sort_by_key(|(late, _)| std::cmp::Reverse(*late));
        let mut chosen = Vec::new();
        for (_, name) in due {
            if self.looks.take(now).is_err() {
                break;
            }
            chosen.push(name.clone());
        }
        chosen
    }

    /// A group has been read. `changed`: it is not as it was; `over`: it never will change again by itself.
    pub(super) fn read(&mut self, name: &str, changed: bool, over: bool, now: Timestamp) {
        if let Some(known) = self.groups.get_mut(name) {
            known.read = Some((now, over));
            known.stale = false;
            if changed {
                known.changed_at = now;
            }
        }
    }

    /// Allows a read that somebody waits for, or says how long to wait for one.
    pub(super) fn ask(&mut self, now: Timestamp) -> Result<(), Duration> {
        self.asked_for.take(now)
    }
}

impl Known {
    /// How many times over its pause has gone by, in thousandths; `None` before it is over.
    fn lateness(&self, now: Timestamp) -> Option<u128> {
        let Some((read_at, over)) = self.read else { return Some(u128::MAX) };
        if over && !self.stale {
            return None;
        }
        let pause = (read_at.since(self.changed_at) / PART).clamp(SHORTEST, LONGEST);
        let waited = now.since(read_at);
        if self.stale {
            return Some(u128::MAX - 1);
        }
        (waited >= pause).then(|| waited.as_millis() * 1000 / pause.as_millis())
    }
}

#[cfg(test)]
mod tests;
