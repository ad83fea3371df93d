//! Token buckets: how often a cloud may be called.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use policy::Timestamp;

use crate::Clock;

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimit {
    /// Calls in a row after a pause.
    pub burst: u32,
    /// Calls in the long run.
    pub calls: u32,
    /// The time that `calls` are counted in.
    pub per: Duration,
}

/// Calls that are left. Counted in milliseconds of calls, so that every millisecond adds a whole number.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    limit: CallLimit,
    tokens: u128,
    filled_at: Timestamp,
}

/// A token bucket that callers wait at, each for its turn.
pub struct Limiter {
    bucket: Mutex<TokenBucket>,
    clock: Clock,
}

// === impl CallLimit ===

impl CallLimit {
    /// So many calls per second, after a pause up to `burst` at once.
    pub const fn per_second(calls: u32, burst: u32) -> CallLimit {
        CallLimit { burst, calls, per: Duration::from_secs(1) }
    }

    /// So many calls per hour, after a pause up to `burst` at once.
    pub const fn per_hour(calls: u32, burst: u32) -> CallLimit {
        CallLimit { burst, calls, per: Duration::from_secs(3600) }
    }

    /// What one call costs in tokens; each millisecond adds `calls` of them.
    fn cost(&self) -> u128 {
        self.per.as_millis().max(1)
    }
}

// === impl TokenBucket ===

impl TokenBucket {
    /// A full bucket.
    pub fn new(limit: CallLimit) -> TokenBucket {
        TokenBucket { limit, tokens: u128::from(limit.burst) * limit.cost(), filled_at: Timestamp::EPOCH }
    }

    /// Takes a call, or says how long to wait for one. A clock that goes backwards adds nothing.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let passed = now.since(self.filled_at).as_millis();
        let most = u128::from(self.limit.burst) * self.limit.cost();
        self.tokens = self.tokens.saturating_add(passed.saturating_mul(u128::from(self.limit.calls))).min(most);
        self.filled_at = self.filled_at.max(now);
        match self.tokens.checked_sub(self.limit.cost()) {
            Some(left) => {
                self.tokens = left;
                Ok(())
            }
            None => {
                let missing = self.limit.cost() - self.tokens;
                let wait = missing.div_ceil(u128::from(self.limit.calls.max(1)));
                Err(Duration::from_millis(u64::try_from(wait).unwrap_or(u64::MAX)))
            }
        }
    }
}

// === impl Limiter ===

impl Limiter {
    /// A full bucket that reads this clock.
    pub fn new(limit: CallLimit, clock: Clock) -> Limiter {
        Limiter { bucket: Mutex::new(TokenBucket::new(limit)), clock }
    }

    /// Waits for a turn, at most `patience`. The error says how long it would have taken from then on.
    pub async fn admit(&self, patience: Duration) -> Result<(), Duration> {
        let mut left = patience;
        loop {
            // A poisoned lock means that somebody panicked between two lines that cannot panic; the count is still right.
            let taken = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take((self.clock)());
            let Err(wait) = taken else { return Ok(()) };
            if wait > left {
                return Err(wait);
            }
            left -= wait;
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::new(CallLimit::per_second(20, 3));
        let answers: Vec<_> = [0, 0, 0, 0, 49, 50, 50].into_iter().map(|millis| bucket.take(at(millis)).is_ok()).collect();
        assert_eq!(answers, [true, true, true, false, false, true, false]);
    }

    #[test]
    fn a_rate_per_hour_is_exact() {
        let mut bucket = TokenBucket::new(CallLimit::per_hour(300, 1));
        assert_eq!(bucket.take(at(0)), Ok(()));
        assert_eq!(bucket.take(at(0)), Err(Duration::from_secs(12)));
        assert_eq!(bucket.take(at(11_999)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(at(12_000)), Ok(()));
    }

    #[test]
    fn a_clock_that_goes_backwards_adds_nothing() {
        let mut bucket = TokenBucket::new(CallLimit::per_second(1, 1));
        assert_eq!(bucket.take(at(10_000)), Ok(()));
        assert!(bucket.take(at(5_000)).is_err());
        assert!(bucket.take(at(10_000)).is_err());
        assert_eq!(bucket.take(at(11_000)), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_a_turn_or_hears_how_long_it_would_take() {
        let started = tokio::time::Instant::now();
        let clock: Clock = Arc::new(move || at(0) + started.elapsed());
        let limiter = Limiter::new(CallLimit::per_second(2, 1), clock);
        assert_eq!(limiter.admit(Duration::ZERO).await, Ok(()));
        assert_eq!(limiter.admit(Duration::from_millis(100)).await, Err(Duration::from_millis(500)));
        assert_eq!(limiter.admit(Duration::from_secs(1)).await, Ok(()));
        assert_eq!(started.elapsed(), Duration::from_millis(500));
    }
}
