//! The token bucket in front of every cloud's API.

use std::time::Duration;

use policy::Timestamp;

use super::CallLimit;

/// Tokens in thousandths, so that one millisecond at one call per second adds a whole number.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    limit: CallLimit,
    tokens_millis: u64,
    filled_at: Timestamp,
}

const TOKEN: u64 = 1000;

impl Bucket {
    /// A full bucket.
    pub(super) fn new(limit: CallLimit) -> Bucket {
        Bucket { limit, tokens_millis: u64::from(limit.burst) * TOKEN, filled_at: Timestamp::EPOCH }
    }

    /// Takes a token, or says how long to wait for one. A clock that goes backwards adds nothing.
    pub(super) fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let passed = u64::try_from(now.since(self.filled_at).as_millis()).unwrap_or(u64::MAX);
        let most = u64::from(self.limit.burst) * TOKEN;
        self.tokens_millis = self.tokens_millis.saturating_add(passed.saturating_mul(u64::from(self.limit.per_second))).min(most);
        self.filled_at = self.filled_at.max(now);
        if self.tokens_millis >= TOKEN {
            self.tokens_millis -= TOKEN;
            return Ok(());
        }
        let missing = TOKEN - self.tokens_millis;
        Err(Duration::from_millis(missing.div_ceil(u64::from(self.limit.per_second.max(1)))))
    }
}
