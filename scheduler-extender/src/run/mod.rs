//! `spillway run`: the committer connected to an API server.
//!
//! Watches feed one bounded queue; one task owns the committer and empties it; every intent is carried out by a task of its
//! own, which puts the answer back into the queue. What is published for the extender is at most [`PUBLISH`] old.

mod watches;
mod writes;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use policy::Timestamp;
use tokio::sync::mpsc;

use crate::committer::{Committer, Event, Published, Settings};
use crate::metrics::Metrics;

pub use writes::Writer;

/// Events that may wait for the committer. A watch that is faster waits for its place: nothing is dropped.
const QUEUE: usize = 8192;
/// Events taken in between two steps, so that a flood is decided on as a whole and yet no step waits long.
const BATCH: usize = 512;
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
}

impl Default for Handle {
    fn default() -> Handle {
        Handle {
            published: Arc::new(ArcSwap::from_pointee(Published::default())),
            extender_asked: Arc::default(),
            synced: Arc::default(),
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
    let writer = Writer::new(client, events);
    let tick = settings.tick;
    let committer = Committer::new(settings, metrics);
    tokio::select! {
        () = drive(committer, queue, writer, handle, tick) => anyhow::bail!("the event queue closed while the committer was running"),
        ended = watches => ended,
        () = shutdown => Ok(()),
    }
}

async fn drive(mut committer: Committer, mut queue: mpsc::Receiver<Event>, writer: Writer, handle: Handle, tick: Duration) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut published_at = Timestamp::EPOCH;
    let mut unpublished = true;
    loop {
        let wake = committer.next_wake(now()).since(now()).min(tick).max(Duration::from_millis(1));
        let wake = if unpublished { wake.min(PUBLISH) } else { wake };
        let taken = match tokio::time::timeout(wake, queue.recv_many(&mut batch, BATCH)).await {
            Ok(0) => return,
            Ok(taken) => taken,
            Err(_) => 0,
        };
        unpublished |= taken > 0;
        let moment = now();
        for event in batch.drain(..) {
            committer.handle(event, moment);
        }
        if handle.extender_asked.load(Ordering::Relaxed) {
            committer.handle(Event::ExtenderAsked, moment);
        }
        for intent in committer.step(moment) {
            writer.carry_out(intent);
        }
        if unpublished && moment.since(published_at) >= PUBLISH {
            handle.published.store(Arc::new(committer.published()));
            handle.synced.store(committer.is_synced(), Ordering::Relaxed);
            published_at = moment;
            unpublished = false;
        }
    }
}
