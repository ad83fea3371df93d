//! Ends a process that hangs.
//!
//! kube-scheduler calls its extender from its serial loop: a dead extender costs it nothing, a hanging one the whole
//! timeout for every pod. So when the async runtime has not turned for some time the process ends, with a log line,
//! and kubelet starts it anew. The watchdog is a thread of its own, because whatever blocks the runtime would block a
//! task as well.
//!
//! Time is counted in checks that took place, so a process that was stopped as a whole (a suspended machine, SIGSTOP)
//! and goes on is not killed for the time in which nobody could have done anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::{error, info};

/// How long is too long, and what then.
pub struct Settings {
    /// A runtime that does not turn for this long is stalled.
    pub stall_limit: Duration,
    /// Time between two looks; a fraction of the limit.
    pub check_interval: Duration,
    /// Monotonic time since any fixed moment.
    pub clock: Box<dyn Fn() -> Duration + Send>,
    /// What to do, once, about a stall of the given length. In production: end the process.
    pub exit: Box<dyn FnOnce(Duration) + Send>,
}

impl Settings {
    /// Ends this process after `stall_limit`, as seen by the system's clock.
    pub fn ending_the_process(stall_limit: Duration) -> Settings {
        /// As after an abort, so that the container's state shows that this was no ordinary end.
        const EXIT_CODE: i32 = 134;
        let started = std::time::Instant::now();
        Settings {
            stall_limit,
            check_interval: stall_limit / 10,
            clock: Box::new(move || started.elapsed()),
            exit: Box::new(|_| std::process::exit(EXIT_CODE)),
        }
    }
}

/// A running watchdog. It stops when dropped.
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    heart: tokio::task::JoinHandle<()>,
}

struct Shared {
    beats: AtomicU64,
    stop: AtomicBool,
}

impl Watchdog {
    /// Watches the runtime behind `runtime`.
    pub fn start(settings: Settings, runtime: &Handle) -> std::io::Result<Watchdog> {
        let shared = Arc::new(Shared { beats: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let interval = settings.check_interval;
        let beating = shared.clone();
        let heart = runtime.spawn(async move {
            loop {
                beating.beats.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(interval / 2).await;
            }
        });
        let watching = shared.clone();
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(settings, &watching))?;
        info!("watchdog started");
        Ok(Watchdog { shared, thread: Some(thread), heart })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.heart.abort();
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
        }
    }
}

fn watch(settings: Settings, shared: &Shared) {
    let Settings { stall_limit, check_interval, clock, exit } = settings;
    let mut stall = Stall::new(stall_limit, check_interval, clock());
    while !shared.stop.load(Ordering::Relaxed) {
        thread::park_timeout(check_interval);
        if let Some(stalled) = stall.check(shared.beats.load(Ordering::Relaxed), clock()) {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            error!(stalled_seconds = stalled.as_secs(), "the runtime does not turn, ending the process");
            exit(stalled);
            return;
        }
    }
}

/// The judgement, without threads and clocks.
#[derive(Debug)]
struct Stall {
    limit: Duration,
    /// Most time that one check may add: more means that this thread did not run either.
    step_max: Duration,
    beats: u64,
    checked_at: Duration,
    stalled: Duration,
}

impl Stall {
    fn new(limit: Duration, check_interval: Duration, now: Duration) -> Stall {
        Stall { limit, step_max: check_interval * 2, beats: 0, checked_at: now, stalled: Duration::ZERO }
    }

    /// How long the runtime has been stalled, once that is too long.
    fn check(&mut self, beats: u64, now: Duration) -> Option<Duration> {
        let step = now.saturating_sub(self.checked_at).min(self.step_max);
        self.checked_at = now;
        if beats != self.beats {
            self.beats = beats;
            self.stalled = Duration::ZERO;
            return None;
        }
        self.stalled += step;
        (self.stalled >= self.limit).then_some(self.stalled)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn stall() -> Stall {
        Stall::new(seconds(10), seconds(1), seconds(0))
    }

    #[test]
    fn a_runtime_that_turns_is_left_alone() {
        let mut stall = stall();
        for second in 1..1000 {
            assert_eq!(stall.check(second, seconds(second)), None);
        }
    }

    #[test]
    fn a_runtime_that_stands_still_is_noticed_after_the_limit_and_not_before() {
        let mut stall = stall();
        assert_eq!(stall.check(7, seconds(1)), None);
        for second in 2..11 {
            assert_eq!(stall.check(7, seconds(second)), None, "second {second}");
        }
        assert_eq!(stall.check(7, seconds(11)), Some(seconds(10)));
    }

    #[test]
    fn one_beat_is_enough_to_start_anew() {
        let mut stall = stall();
        for second in 1..=9 {
            assert_eq!(stall.check(0, seconds(second)), None);
        }
        assert_eq!(stall.check(1, seconds(10)), None);
        assert_eq!(stall.check(1, seconds(11)), None);
    }

    #[test]
    fn time_in_which_the_whole_process_stood_still_does_not_count() {
        let mut stall = stall();
        assert_eq!(stall.check(3, seconds(1)), None);
        assert_eq!(stall.check(3, seconds(3600)), None, "suspended for an hour");
        assert_eq!(stall.check(4, seconds(3601)), None);
    }

    #[test]
    fn a_clock_that_goes_backwards_does_no_harm() {
        let mut stall = stall();
        for now in [5, 3, 4, 2, 3, 1] {
            assert_eq!(stall.check(0, seconds(now)), None);
        }
    }

    fn quick(exits: mpsc::Sender<Duration>) -> Settings {
        let started = std::time::Instant::now();
        Settings {
            stall_limit: Duration::from_millis(400),
            check_interval: Duration::from_millis(20),
            clock: Box::new(move || started.elapsed()),
            exit: Box::new(move |stalled| exits.send(stalled).expect("the test listens")),
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    #[test]
    fn a_blocked_runtime_ends_the_process() {
        let (exits, exited) = mpsc::channel();
        let runtime = runtime();
        let _watchdog = Watchdog::start(quick(exits), runtime.handle()).unwrap();
        runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            // The only thread of the runtime waits for something that never comes while it waits.
            let stalled = exited.recv_timeout(seconds(30)).expect("the watchdog acts");
            assert!(stalled >= Duration::from_millis(400));
        });
    }

    #[test]
    fn a_stopped_watchdog_does_nothing() {
        let (exits, exited) = mpsc::channel();
        let runtime = runtime();
        drop(Watchdog::start(quick(exits), runtime.handle()).unwrap());
        // The sender goes with the thread.
        assert_eq!(exited.recv_timeout(seconds(30)), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
