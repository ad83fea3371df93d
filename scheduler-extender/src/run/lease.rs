//! Who leads: an election over one Lease, as a state machine.
//!
//! ```text
//!            read: held by another, renewed lately          written
//!   ┌─────► follows ───────── rest, read again ──► … ──► leads until ──► renews ──► …
//!   └──────────────────── lost: held by another, or not renewed by the deadline ◄──────┘
//! ```
//!
//! Only the local monotonic clock is used. A follower counts from the moment when *it* saw the Lease change last, so clocks
//! of machines may differ as they like; times in the Lease are for people. Every write carries the resource version of what
//! was read, so of two replicas that try at once one gets 409.
//!
//! A leader leads until `renew_deadline` after the moment *before* its last successful renewal was sent. Another can lead
//! only `lease_duration` after that renewal could be read, which is later: in between nobody leads, and what the old leader
//! has under way ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;

/// The shortest lease; Leases count in whole seconds.
const SHORTEST: Duration = Duration::from_secs(2);
/// The longest one, also where another replica's Lease says more: nobody wants to wait longer for a successor.
const LONGEST: Duration = Duration::from_secs(300);
/// After a write that somebody else was faster with.
const AFTER_CONFLICT: Duration = Duration::from_millis(100);

/// Three times in descending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A follower takes over when the Lease was not renewed for so long. Whole seconds.
    pub lease_duration: Duration,
    /// A leader that could not renew for so long stops.
    pub renew_deadline: Duration,
    /// Between two attempts to renew or to acquire.
    pub retry_period: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Move {
    /// Read the Lease and tell [`Election::read`].
    Read,
    /// Create it, or replace it under its resource version if it has one, and tell [`Election::written`].
    Write(Box<Lease>),
    /// Nothing before this moment.
    Rest(Instant),
}

/// What came of a write.
#[derive(Clone, Debug)]
pub(super) enum Written {
    /// It stands so.
    Done(Box<Lease>),
    /// Somebody else has written (409), or the Lease is gone.
    Conflict,
    /// Nobody knows.
    Unknown,
}

/// Whether this replica leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// It does.
    Leads {
        /// Counts the tenures of this process: one that was lost and won again is another.
        tenure: u64,
        /// The local deadline. Each renewal moves it.
        until: Instant,
    },
    /// It does not.
    Follows {
        /// Who does, if anybody has renewed lately.
        leader: Option<Arc<str>>,
    },
}

/// One replica's view of the Lease.
pub(super) struct Election {
    identity: Arc<str>,
    place: (String, String),
    times: Times,
    seen: Option<Seen>,
    /// Whether what was seen is fresh enough to write upon.
    fresh: bool,
    leads_until: Option<Instant>,
    tenure: u64,
    next_at: Instant,
}

/// The Lease, and when it was first seen so.
struct Seen {
    lease: Lease,
    since: Instant,
}

// === impl Times ===

impl Times {
    /// Checks the order, which safety rests on.
    ///
    /// # Errors
    /// Names the flag that is wrong, its value and what is allowed.
    pub fn checked(self) -> anyhow::Result<Times> {
        let Times { lease_duration, renew_deadline, retry_period } = self;
        anyhow::ensure!(
            (SHORTEST..=LONGEST).contains(&lease_duration) && lease_duration.subsec_nanos() == 0,
            "--leader-elect-lease-duration {lease_duration:?}: whole seconds from {SHORTEST:?} to {LONGEST:?}"
        );
        anyhow::ensure!(
            renew_deadline + Duration::from_secs(1) <= lease_duration,
            "--leader-elect-renew-deadline {renew_deadline:?}: at least a second less than the lease duration of {lease_duration:?}"
        );
        anyhow::ensure!(
            retry_period >= Duration::from_millis(100) && retry_period * 2 <= renew_deadline,
            "--leader-elect-retry-period {retry_period:?}: at least 100ms, at most half of the renew deadline of {renew_deadline:?}"
        );
        Ok(self)
    }

    /// What is left between the moment when a leader stops and the moment when another may begin: requests that have reached
    /// the API server must end within it.
    pub fn margin(self) -> Duration {
        self.lease_duration.saturating_sub(self.renew_deadline)
    }
}

// === impl Election ===

impl Election {
    /// An election over the Lease at this place (namespace, name). Nothing is known yet.
    pub(super) fn new(identity: Arc<str>, place: (String, String), times: Times, now: Instant) -> Election {
        Election { identity, place, times, seen: None, fresh: false, leads_until: None, tenure: 0, next_at: now }
    }

    /// Whether this replica leads now.
    pub(super) fn position(&self, now: Instant) -> Position {
        match self.leads_until.filter(|until| now < *until) {
            Some(until) => Position::Leads { tenure: self.tenure, until },
            None => Position::Follows { leader: self.leader(now) },
        }
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Instant, wall: Timestamp) -> Move {
        if self.leads_until.is_some_and(|until| now >= until) {
            self.lose();
        }
        if now < self.next_at {
            return Move::Rest(self.leads_until.map_or(self.next_at, |until| until.min(self.next_at)));
        }
        if !self.fresh {
            return Move::Read;
        }
        if self.leads_until.is_some() || self.may_acquire(now) {
            return Move::Write(Box::new(self.lease(wall)));
        }
        // Once more when it may have run out, not a whole period later.
        self.fresh = false;
        let retry = now + self.times.retry_period;
        self.next_at = self.expiry().filter(|expiry| *expiry > now).map_or(retry, |expiry| expiry.min(retry));
        Move::Rest(self.next_at)
    }

    /// How long a request that is sent now may take.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let left = self.leads_until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
        (self.times.renew_deadline / 2).min(left)
    }

    /// The answer to [`Move::Read`]: the Lease, `None` if there is none.
    pub(super) fn read(&mut self, lease: Option<Lease>, now: Instant) {
        self.fresh = true;
        self.observe(lease, now);
        if self.leads_until.is_some() && self.holder() != Some(&*self.identity) {
            self.lose();
            self.fresh = true;
        }
    }

    /// [`Move::Read`] has failed.
    pub(super) fn not_read(&mut self, now: Instant) {
        self.next_at = now + self.times.retry_period;
    }

    /// What came of [`Move::Write`]; `sent` was taken before it was sent.
    pub(super) fn written(&mut self, written: Written, sent: Instant, now: Instant) {
        let lapsed = self.leads_until.is_some_and(|until| now >= until);
        if lapsed {
            // Too late for this tenure, whatever came back.
            self.lose();
        }
        match written {
            Written::Done(lease) => {
                self.observe(Some(*lease), now);
                self.fresh = true;
                let until = sent + self.times.renew_deadline;
                if now < until && !lapsed {
                    if self.leads_until.is_none() {
                        self.tenure += 1;
                    }
                    self.leads_until = Some(until);
                    self.next_at = sent + self.times.retry_period;
                }
            }
            Written::Conflict => {
                self.fresh = false;
                self.next_at = now + AFTER_CONFLICT;
            }
            Written::Unknown => {
                // A follower looks again; a leader has no time for that and learns from a conflict.
                self.fresh = self.leads_until.is_some();
                self.next_at = now + self.times.retry_period.saturating_sub(now.saturating_duration_since(sent));
            }
        }
    }

    /// Stops leading and returns the Lease to write, if this replica held it: without a holder, so that another need not wait.
    pub(super) fn release(&mut self, now: Instant, wall: Timestamp) -> Option<Lease> {
        self.leads_until.filter(|until| now < *until)?;
        self.lose();
        let mut lease = self.lease(wall);
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        Some(lease)
    }

    fn lose(&mut self) {
        self.leads_until = None;
        self.fresh = false;
    }

    fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        let spec = |seen: &Seen| seen.lease.spec.clone();
        self.seen = match (lease, self.seen.take()) {
            (None, _) => None,
            // Others may write labels; only what a holder writes is a renewal.
            (Some(lease), Some(seen)) if lease.spec == spec(&seen) => Some(Seen { lease, since: seen.since }),
            (Some(lease), _) => Some(Seen { lease, since: now }),
        };
    }

    fn holder(&self) -> Option<&str> {
        self.seen.as_ref()?.lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// Who leads, as far as a follower can know.
    fn leader(&self, now: Instant) -> Option<Arc<str>> {
        let holder = self.holder().filter(|holder| **holder != *self.identity)?;
        self.expiry().is_some_and(|expiry| now < expiry).then(|| Arc::from(holder))
    }

    /// When the Lease as it was seen runs out. Its own duration counts: its holder goes by that.
    fn expiry(&self) -> Option<Instant> {
        let seen = self.seen.as_ref()?;
        let seconds = seen.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let said = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        Some(seen.since + said.unwrap_or(self.times.lease_duration).clamp(Duration::from_secs(1), LONGEST))
    }

    fn may_acquire(&self, now: Instant) -> bool {
        self.holder().is_none_or(|holder| *holder == *self.identity) || self.expiry().is_none_or(|expiry| now >= expiry)
    }

    /// The Lease with this replica as its holder.
    fn lease(&self, wall: Timestamp) -> Lease {
        let (namespace, name) = self.place.clone();
        let new = || Lease {
            metadata: ObjectMeta { namespace: Some(namespace), name: Some(name), ..ObjectMeta::default() },
            ..Lease::default()
        };
        let mut lease = self.seen.as_ref().map_or_else(new, |seen| seen.lease.clone());
        let before = lease.spec.take().unwrap_or_default();
        let again = before.holder_identity.as_deref() == Some(&*self.identity);
        let transitions = before.lease_transitions.unwrap_or(0).max(0);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.to_string()),
            lease_duration_seconds: i32::try_from(self.times.lease_duration.as_secs()).ok(),
            acquire_time: before.acquire_time.clone().filter(|_| again).or(Some(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(if again || self.seen.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..before
        });
        lease.metadata.managed_fields = None;
        lease
    }
}

#[cfg(test)]
mod tests;
