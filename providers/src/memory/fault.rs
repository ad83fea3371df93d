//! What can go wrong, and when.

use std::time::Duration;

use policy::Timestamp;

use crate::StartFailure;

/// One way in which a cloud misbehaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every call is refused with this advice.
    Throttle {
        /// What the cloud says about waiting.
        retry_after: Option<Duration>,
    },
    /// Every call fails without effect.
    Outage,
    /// Every n-th call fails without effect.
    PartialOutage {
        /// The n.
        one_in: u32,
    },
    /// Credentials are refused.
    Denied,
    /// No new pod is taken.
    NoCapacity,
    /// New pods are accepted and stop before they run.
    FailAfterAcceptance {
        /// How long after acceptance.
        after: Duration,
        /// What kind of reason it gives.
        cause: StartFailure,
        /// What the cloud says about it.
        reason: String,
    },
    /// `create` works, but its answer is lost on the way.
    LostAnswer,
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultWindow {
    /// What goes wrong.
    pub fault: Fault,
    /// From when on.
    pub from: Timestamp,
    /// Until when, exclusively.
    pub until: Timestamp,
}

impl FaultWindow {
    /// A fault that lasts until it is cleared.
    pub fn from_now_on(fault: Fault, now: Timestamp) -> FaultWindow {
        FaultWindow { fault, from: now, until: Timestamp::MAX }
    }

    /// Whether it is at work.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }
}
