//! The event stream: which pods have changed, without asking.
//!
//! One stream for each provider. It carries every allocation and evaluation of the namespace, whoever made it; the jobs' prefix
//! says which are ours. Events that were missed while it was broken are not asked for: whoever listens is told to look at
//! everything.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast;

use super::client::Client;
use super::wire::Events;
use crate::{Change, Error, ErrorKind, Operation, PodUid};

/// Changes that a listener may be behind before it is told to look at everything instead.
const BEHIND: usize = 4096;
/// Three of the heartbeats that an agent sends every ten seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// The longest line that is read: an event carries its allocation, without the job's files.
const LINE_BYTES: usize = 16 << 20;
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Where changes are told.
#[derive(Clone)]
pub(super) struct Changes {
    sender: broadcast::Sender<Change>,
}

// === impl Changes ===

impl Changes {
    pub(super) fn new() -> Changes {
        Changes { sender: broadcast::channel(BEHIND).0 }
    }

    /// Changes from now on.
    pub(super) fn listen(&self) -> BoxStream<'static, Change> {
        let listening = stream::unfold(self.sender.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(change) => Some((change, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Change::Everything, receiver)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        listening.boxed()
    }

    /// Follows the event stream for ever, through every interruption.
    pub(super) async fn follow(self, client: Client, prefix: String) {
        let mut pause = RETRY_FIRST;
        loop {
            match self.follow_one(&client, &prefix).await {
                Ok(()) => pause = RETRY_FIRST,
                Err(error) => tracing::debug!(%error, source = ?error.source, "event stream of Nomad broke"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    /// One stream, from its beginning to its end; an error if it did not even begin.
    async fn follow_one(&self, client: &Client, prefix: &str) -> Result<(), Error> {
        let topics = [("topic", "Allocation:*"), ("topic", "Evaluation:*"), ("topic", "Job:*")];
        let mut bytes = client.stream(Operation::List, "/v1/event/stream", &topics, Some(SILENCE)).await?;
        // What happened before is not replayed; it is in the lists that are read from now on.
        self.tell(Change::Everything);
        let mut buffer = Vec::new();
        while let Some(part) = bytes.next().await {
            let Ok(part) = part else { break };
            buffer.extend_from_slice(&part);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                self.tell_line(&line, prefix)?;
            }
            if buffer.len() > LINE_BYTES {
                return Err(broken(format!("an event of more than {LINE_BYTES} bytes")));
            }
        }
        Ok(())
    }

    fn tell_line(&self, line: &[u8], prefix: &str) -> Result<(), Error> {
        let events: Events = serde_json::from_slice(line).map_err(|error| broken(error.to_string()))?;
        for event in events.events {
            let payload = event.payload;
            let job = payload.allocation.or(payload.evaluation).map(|changed| changed.job_id);
            let job = job.or(payload.job.map(|job| job.id)).unwrap_or_default();
            if let Some(uid) = job.strip_prefix(prefix) {
                self.tell(Change::Pod(PodUid::new(Arc::<str>::from(uid))));
            }
        }
        Ok(())
    }

    fn tell(&self, change: Change) {
        // Nobody may be listening.
        let _ = self.sender.send(change);
    }
}

fn broken(why: String) -> Error {
    Error::new(ErrorKind::Unavailable, super::NAME, Operation::List).because(why)
}
