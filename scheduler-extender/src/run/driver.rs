//! One committer connected to an API server, for as long as this replica stands where it stands.
//!
//! Nothing outlives a driver: when it is dropped, its watches end, its requests are given up, and what it knew is forgotten.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::watches::{self, Watches};
use super::writes::Writer;
use super::{Fence, Handle, daemon_sets, guarding, marking, now, observing};
use crate::committer::{Committer, Event, Settings};
use crate::metrics::{Gauges, Limits, Metrics};
use crate::observation::Pace;

/// Events that may wait for the committer. A watch that is faster waits for its place: nothing is dropped.
const QUEUE: usize = 1024;
/// Events taken in between two steps, so that a flood is decided on as a whole and yet no step waits long.
const BATCH: usize = 512;
/// How long what is under way may take when the process stops.
const CLOSING: Duration = Duration::from_secs(5);
/// How old the published state may be while things change.
const PUBLISH: Duration = Duration::from_millis(20);

/// The committer, what feeds it, and what carries out its intents.
pub(super) struct Driver {
    committer: Committer,
    queue: mpsc::Receiver<Event>,
    watches: Watches,
    /// A follower has none, and one that has closed its books no more.
    hands: Option<Hands>,
    handle: Handle,
    metrics: Arc<Metrics>,
    tick: Duration,
    published_at: Timestamp,
    unpublished: bool,
}

/// What a leader writes with.
struct Hands {
    writer: Writer,
    /// Of the guards, and of the DaemonSets' places.
    keepers: JoinSet<anyhow::Result<()>>,
}

// === impl Driver ===

impl Driver {
    /// A committer that decides and commits, through this fence.
    pub(super) fn leading(
        client: &kube::Client,
        settings: Settings,
        fence: &Fence,
        metrics: Arc<Metrics>,
        handle: Handle,
    ) -> Driver {
        let (events, queue) = mpsc::channel(QUEUE);
        let watches = watches::spawn(client, &events);
        let fenced = fence.client(client);
        let mut keepers = JoinSet::new();
        keepers.spawn(guarding::keep(fenced.clone(), &settings, handle.clone(), events.clone()));
        keepers.spawn(daemon_sets::keep_off(fenced.clone(), settings.keep_off_daemon_sets, handle.clone(), metrics.clone()));
        keepers.spawn(marking::keep(fenced.clone(), settings.await_guards, handle.clone(), events.clone()));
        if settings.observe_backends {
            let clouds = Arc::new(observing::Clouds::new(client.clone(), &*settings.currency, metrics.clone()));
            keepers.spawn(observing::keep(fenced.clone(), clouds, settings.currency.to_string(), Pace::STANDARD));
        }
        let hands = Some(Hands { writer: Writer::new(fenced, events), keepers });
        let tick = settings.tick;
        let committer = Committer::new(settings, metrics.clone());
        Driver { committer, queue, watches, hands, handle, metrics, tick, published_at: Timestamp::EPOCH, unpublished: true }
    }

    /// A committer that only looks on, so that the extender answers.
    pub(super) fn following(client: &kube::Client, settings: Settings, metrics: Arc<Metrics>, handle: Handle) -> Driver {
        let (events, queue) = mpsc::channel(QUEUE);
        let watches = watches::spawn(client, &events);
        let tick = settings.tick;
        // Its counters would count what the leader counts: they are shown to nobody.
        let unseen = Arc::new(Metrics::new(&settings.currency, Limits::STANDARD));
        let committer = Committer::following(settings, unseen);
        Driver {
            committer,
            queue,
            watches,
            hands: None,
            handle,
            metrics,
            tick,
            published_at: Timestamp::EPOCH,
            unpublished: true,
        }
    }

    /// Goes on until the books are somebody else's. An error means that a watch task died, which is a defect.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        self.drive(Committer::is_superseded).await
    }

    /// Goes on publishing what there is, whoever keeps the books.
    pub(super) async fn look_on(&mut self) -> anyhow::Result<()> {
        self.drive(|_| false).await
    }

    /// Finishes what is under way and gives back money that is authorized and not used, which a successor would count as spent.
    pub(super) async fn close(&mut self) -> anyhow::Result<()> {
        // One that follows keeps no books.
        let Some(hands) = &mut self.hands else { return Ok(()) };
        hands.keepers.shutdown().await;
        self.committer.close();
        tokio::select! {
            driven = self.drive(|committer| committer.is_closed() || committer.is_superseded()) => driven?,
            () = sleep(CLOSING) => tracing::warn!("stopped before everything under way was answered"),
        }
        self.hands = None;
        Ok(())
    }

    /// Runs until `done` says so.
    async fn drive(&mut self, done: fn(&Committer) -> bool) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        while !done(&self.committer) {
            let wake = self.committer.next_wake(now()).since(now()).min(self.tick).max(Duration::from_millis(1));
            let wake = if self.unpublished { wake.min(PUBLISH) } else { wake };
            let taken = tokio::select! {
                taken = timeout(wake, self.queue.recv_many(&mut batch, BATCH)) => taken,
                ended = self.watches.ended() => return Err(ended),
                ended = ended(&mut self.hands) => return Err(ended),
            };
            // An empty answer means that nobody can send any more; the watches have ended then, which is seen next.
            self.unpublished |= taken.is_ok_and(|taken| taken > 0);
            self.turn(&mut batch, now());
        }
        Ok(())
    }

    /// Takes in a batch, decides, carries out.
    fn turn(&mut self, batch: &mut Vec<Event>, moment: Timestamp) {
        for event in batch.drain(..) {
            self.committer.handle(event, moment);
        }
        if self.handle.has_been_asked() {
            self.committer.handle(Event::ExtenderAsked, moment);
        }
        let led = self.handle.standing().is_led();
        self.unpublished |= self.handle.published.load().led != led;
        self.committer.handle(Event::Led(led), moment);
        let started = Instant::now();
        let intents = self.committer.step(moment);
        let (took, decided) = (started.elapsed(), self.committer.take_decided());
        for _ in 0..decided {
            self.metrics.chose(took / decided);
        }
        for intent in intents {
            if let Some(hands) = &mut self.hands {
                hands.writer.carry_out(intent);
            }
        }
        // What the last driver has published is better than half of what is there.
        if self.unpublished && self.committer.is_synced() && moment.since(self.published_at) >= PUBLISH {
            self.handle.published.store(Arc::new(self.committer.published()));
            self.published_at = moment;
            self.unpublished = false;
        }
    }
}

impl Drop for Driver {
    /// What was promised is promised no more, and the gauges are the next leader's.
    fn drop(&mut self) {
        let last = self.handle.published.load_full();
        self.handle.published.store(Arc::new(last.without_promises()));
        self.metrics.publish(&Gauges::default());
    }
}

/// The end of a task that should not end.
async fn ended(hands: &mut Option<Hands>) -> anyhow::Error {
    let Some(hands) = hands else { return pending().await };
    match hands.keepers.join_next().await {
        Some(Ok(Ok(()))) => anyhow::anyhow!("a keeper of the guards ended"),
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => error.into(),
        // The books are being closed.
        None => pending().await,
    }
}
