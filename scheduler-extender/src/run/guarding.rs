//! Keeps the guards of virtual nodes up to date, and says when they are in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Handle;
use super::admission::AdmissionPolicies;
use crate::committer::Event;
use crate::guards::{self, Subjects};

/// How often the set of virtual nodes is compared with what is guarded.
const LOOK: Duration = Duration::from_millis(100);
/// After so long they are applied again, in case that somebody has changed or removed them.
const REPEAT: Duration = Duration::from_secs(10);
/// Between attempts that fail.
const RETRY: Duration = Duration::from_secs(2);
/// An answer that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Applies the guards whenever the set of virtual nodes changes, for ever.
pub(super) async fn keep(client: Client, apply: bool, handle: Handle, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    if !apply {
        handle.guarded.store(true, Ordering::Relaxed);
        return std::future::pending().await;
    }
    let mut applied: Option<(Arc<Subjects>, Instant)> = None;
    loop {
        sleep(LOOK).await;
        let state = handle.published.load_full();
        let current = applied.as_ref().is_some_and(|(nodes, at)| *nodes == state.to_guard && at.elapsed() < REPEAT);
        if !state.synced || current {
            continue;
        }
        match timeout(PATIENCE, put_in_force(&client, &state.to_guard)).await {
            Ok(Ok(())) => {
                applied = Some((state.to_guard.clone(), Instant::now()));
                events.send(Event::Guarded(state.to_guard.clone())).await?;
                handle.guarded.store(true, Ordering::Relaxed);
            }
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "guards not applied; it is tried again");
                sleep(RETRY).await;
            }
            Err(_) => tracing::warn!("no answer to the guards; it is tried again"),
        }
    }
}

/// Applies the guards and waits until every API server goes by them.
async fn put_in_force(client: &Client, subjects: &Subjects) -> anyhow::Result<()> {
    AdmissionPolicies::of(client, guards::COMPONENT).await?.put_in_force(&guards::guards(subjects)).await
}
