//! What the pods of a policy, or those on a virtual node, have cost so far, as its status shows it.
//!
//! A sum that must outlive every leader: what pods have cost that are gone stands nowhere but in the status itself.

use std::time::Duration;

use policy::{Money, Timestamp};

/// A sum that grows all the time is written this often.
const SHOW: Duration = Duration::from_secs(10);

/// One sum.
#[derive(Debug, Default)]
pub(super) struct Spend {
    /// What pods have cost that are gone.
    settled: Money,
    /// What a predecessor wrote, until it is taken over: all, and of that the part of pods that were gone.
    inherited: Option<Shown>,
    shown: Option<(Shown, Timestamp)>,
}

/// What a status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// What all pods have cost so far.
    pub(super) spend: Money,
    /// Of that, what those have cost that are gone.
    pub(super) settled: Money,
}

// === impl Spend ===

impl Spend {
    /// Goes on from what stands in a status.
    pub(super) fn inherit(&mut self, spend: Option<&str>, settled: Option<&str>) {
        let money = |text: Option<&str>| text.and_then(|text| text.parse::<Money>().ok()).unwrap_or_default().max(Money::ZERO);
        self.inherited = Some(Shown { spend: money(spend), settled: money(settled) });
    }

    /// A pod is gone that has cost so much.
    pub(super) fn settle(&mut self, cost: Money) {
        self.settled = self.settled.saturating_add(cost);
    }

    /// What to write, where those pods that are there have cost `present`.
    pub(super) fn show(&mut self, present: Money, now: Timestamp) -> Shown {
        if let Some(before) = self.inherited.take() {
            // What was written and nobody here explains, pods have cost that went while nobody looked.
            let explained = present.saturating_add(self.settled);
            let gone = before.spend.saturating_sub(explained).max(before.settled);
            self.settled = self.settled.saturating_add(gone);
        }
        let current = Shown { spend: self.settled.saturating_add(present), settled: self.settled };
        match self.shown {
            Some((shown, at)) if now.since(at) < SHOW && now >= at => shown,
            _ => {
                self.shown = Some((current, now));
                current
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(units: i64) -> Money {
        Money::from_nanos(units * 1_000_000_000)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn shown(spend: i64, settled: i64) -> Shown {
        Shown { spend: money(spend), settled: money(settled) }
    }

    #[test]
    fn the_sum_grows_and_is_written_now_and_then() {
        let mut spend = Spend::default();
        assert_eq!(spend.show(money(0), at(0)), shown(0, 0));
        assert_eq!(spend.show(money(3), at(9)), shown(0, 0));
        assert_eq!(spend.show(money(3), at(10)), shown(3, 0));
        spend.settle(money(2));
        assert_eq!(spend.show(money(1), at(20)), shown(3, 2));
        assert_eq!(spend.show(money(2), at(5)), shown(4, 2), "a clock that was set back stops nothing");
    }

    #[test]
    fn a_successor_goes_on_from_the_status() {
        let inherited = |spend: &str, settled: &str| {
            let mut account = Spend::default();
            account.inherit(Some(spend), Some(settled));
            account
        };
        // Three of pods that are there, which have cost more meanwhile.
        assert_eq!(inherited("5", "2").show(money(4), at(0)), shown(6, 2));
        // They are gone.
        assert_eq!(inherited("5", "2").show(money(0), at(0)), shown(5, 5));
        assert_eq!(inherited("5", "2").show(money(1), at(0)), shown(5, 4));
        // One of them was there for a moment still.
        let mut account = inherited("5", "2");
        account.settle(money(3));
        assert_eq!(account.show(money(0), at(0)), shown(5, 5));
        // Nobody has written yet, or not money.
        let mut account = Spend::default();
        account.inherit(None, Some("lots"));
        assert_eq!(account.show(money(1), at(0)), shown(1, 0));
    }
}
