//! Waiting for something to become true, with a failure text that says how far it came.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// Between two looks. Short, because tests wait often; a look is one small request to a local server.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks `probe` until it answers, at most for `timeout`.
///
/// The probe's error is not a failure but the answer "not yet, I saw this": `bail!("{bound} of 20 bound")` and any
/// client error through `?`. The last one ends up in the failure text.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
/// let mut looks = 0;
/// let seen = world::control_plane::wait_until("three looks", Duration::from_secs(5), async || {
///     looks += 1;
///     if looks < 3 { anyhow::bail!("only {looks} looks") }
///     Ok(looks)
/// });
/// assert_eq!(seen.await.unwrap(), 3);
/// # });
/// ```
///
/// # Errors
/// When the time is over.
pub async fn wait_until<T>(what: &str, timeout: Duration, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let mut before = "none".to_owned();
    loop {
        // A probe that hangs (its server is paused) must not outlive the timeout either.
        let left = timeout.saturating_sub(started.elapsed());
        let seen = match tokio::time::timeout(left, probe()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(not_yet)) => format!("{not_yet:#}"),
            Err(_) => format!("no answer (the one before: {before})"),
        };
        if started.elapsed() + PAUSE >= timeout {
            bail!("not seen within {:.1} s: {what}; last look: {seen}", timeout.as_secs_f64());
        }
        before = seen;
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_failure_says_what_was_wanted_and_what_was_seen() {
        let answer: Result<()> = wait_until("all pods bound", Duration::from_millis(300), async || bail!("7 of 9 bound")).await;
        assert_eq!(answer.unwrap_err().to_string(), "not seen within 0.3 s: all pods bound; last look: 7 of 9 bound");
    }

    #[tokio::test]
    async fn a_probe_that_hangs_does_not_outlive_the_timeout() {
        let answer: Result<()> = wait_until("an answer", Duration::from_millis(100), std::future::pending).await;
        assert!(answer.unwrap_err().to_string().contains("last look: no answer"));
    }
}
