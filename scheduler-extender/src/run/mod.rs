//! `spillway run`: the committer connected to an API server.
//!
//! Watches feed one bounded queue; one task owns the committer and empties it; every intent is carried out by a task of its
//! own, which puts the answer back into the queue. What is published for the extender is at most [`PUBLISH`] old.

mod admission;
mod client;
mod daemon_sets;
mod guarding;
mod watches;
mod writes;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use policy::Timestamp;
use tokio::sync::mpsc;

use crate::committer::{Committer, Event, Published, Settings};
use crate::metrics::Metrics;

pub use admission::AdmissionPolicies;
pub use client::connect;
pub use writes::Writer;

/// Events that may wait for the committer. A watch that is faster waits for its place: nothing is dropped.
const QUEUE: usize = 1024;
/// Events taken in between two steps, so that a flood is decided on as a whole and yet no step waits long.
const BATCH: usize = 512;
/// How long what is under way may take when the process stops.
const CLOSING: Duration = Duration::from_secs(5);
/// How old the published state may be while things change.
const PUBLISH: Duration = Duration::from_millis(20);

/// What other parts of the process see of a running committer.
#[derive(Clone)]
pub struct Handle {
    /// The state that the extender answers from.
    pub published: Arc<ArcSwap<Published>>,
    /// Raised by the extender when kube-scheduler has asked.
    pub extender_asked: Arc<AtomicBool>,
    /// Whether everything that exists has been seen.
    pub synced: Arc<AtomicBool>,
    /// Whether the guards have been in force once, if this process keeps them.
    pub guarded: Arc<AtomicBool>,
    /// Whether the DaemonSets that existed are kept off virtual nodes, if this process does that.
    pub kept_off: Arc<AtomicBool>,
}

impl Default for Handle {
    fn default() -> Handle {
        Handle {
            published: Arc::new(ArcSwap::from_pointee(Published::default())),
            extender_asked: Arc::default(),
            synced: Arc::default(),
            guarded: Arc::default(),
            kept_off: Arc::default(),
        }
    }
}

/// The wall clock, the only one in the process.
pub fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// Runs until `shutdown`. Returns early only if a watch task dies, which is a defect.
pub async fn run(
    client: kube::Client,
    settings: Settings,
    metrics: Arc<Metrics>,
    handle: Handle,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (events, queue) = mpsc::channel(QUEUE);
    let watches = watches::spawn(&client, &events);
    let guarding = guarding::keep(client.clone(), &settings, handle.clone(), events.clone());
    let keeping_off = daemon_sets::keep_off(client.clone(), settings.keep_off_daemon_sets, handle.clone(), metrics.clone());
    let writer = Writer::new(client, events);
    let tick = settings.tick;
    let committer = Committer::new(settings, metrics.clone());
    tokio::pin!(shutdown);
    let mut driver =
        Driver { committer, metrics, queue, writer, handle, tick, published_at: Timestamp::EPOCH, unpublished: true };
    tokio::pin!(watches);
    tokio::select! {
        () = driver.drive(|_| false) => anyhow::bail!("the event queue closed while the committer was running"),
        ended = &mut watches => return ended,
        ended = guarding => return ended,
        ended = keeping_off => return ended,
        () = &mut shutdown => {}
    }
    // What is under way is finished, and money that is authorized and not used goes back; a successor would count it as spent.
    driver.committer.close();
    tokio::select! {
        () = driver.drive(Committer::is_closed) => {}
        _ = watches => {}
        () = tokio::time::sleep(CLOSING) => tracing::warn!("stopped before everything under way was answered"),
    }
    Ok(())
}

/// The committer, what feeds it, and what carries out its intents.
struct Driver {
    committer: Committer,
    metrics: Arc<Metrics>,
    queue: mpsc::Receiver<Event>,
    writer: Writer,
    handle: Handle,
    tick: Duration,
    published_at: Timestamp,
    unpublished: bool,
}

// === impl Driver ===

impl Driver {
    /// Runs until `done` says so, or until nobody can send events any more.
    async fn drive(&mut self, done: fn(&Committer) -> bool) {
        let mut batch = Vec::with_capacity(BATCH);
        while !done(&self.committer) {
            let wake = self.committer.next_wake(now()).since(now()).min(self.tick).max(Duration::from_millis(1));
            let wake = if self.unpublished { wake.min(PUBLISH) } else { wake };
            let taken = match tokio::time::timeout(wake, self.queue.recv_many(&mut batch, BATCH)).await {
                Ok(0) => return,
                Ok(taken) => taken,
                Err(_) => 0,
            };
            self.unpublished |= taken > 0;
            self.turn(&mut batch, now());
        }
    }

    /// Takes in a batch, decides, carries out.
    fn turn(&mut self, batch: &mut Vec<Event>, moment: Timestamp) {
        for event in batch.drain(..) {
            self.committer.handle(event, moment);
        }
        if self.handle.extender_asked.load(Ordering::Relaxed) {
            self.committer.handle(Event::ExtenderAsked, moment);
        }
        let started = Instant::now();
        let intents = self.committer.step(moment);
        let (took, decided) = (started.elapsed(), self.committer.take_decided());
        for _ in 0..decided {
            self.metrics.chose(took / decided);
        }
        for intent in intents {
            self.writer.carry_out(intent);
        }
        if self.unpublished && moment.since(self.published_at) >= PUBLISH {
            self.handle.published.store(Arc::new(self.committer.published()));
            self.handle.synced.store(self.committer.is_synced(), Ordering::Relaxed);
            self.published_at = moment;
            self.unpublished = false;
        }
    }
}
