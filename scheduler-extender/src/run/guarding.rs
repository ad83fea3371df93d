//! Keeps the guards of virtual nodes up to date, and says when they are in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Handle;
use super::admission::AdmissionPolicies;
use crate::committer::{Event, Settings};
use crate::guards::{self, Guard, Subjects};

/// How often the set of virtual nodes is compared with what is guarded.
const LOOK: Duration = Duration::from_millis(100);
/// After so long they are applied again, in case that somebody has changed or removed them.
const REPEAT: Duration = Duration::from_secs(10);
/// Between attempts that fail.
const RETRY: Duration = Duration::from_secs(2);
/// An answer that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the DaemonSets of a cluster are waited for.
const KEEPING_OFF: Duration = Duration::from_secs(30);

/// Applies the guards whenever the set of virtual nodes changes, for ever.
pub(super) fn keep(
    client: Client,
    settings: &Settings,
    handle: Handle,
    events: mpsc::Sender<Event>,
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let wanted = |guard: &Guard| *guard != Guard::DaemonSets || settings.keep_off_daemon_sets;
    let which: Vec<Guard> = Guard::ALL.into_iter().filter(wanted).collect();
    let apply = settings.await_guards;
    async move { keep_these(client, apply, &which, handle, events).await }
}

async fn keep_these(
    client: Client,
    apply: bool,
    which: &[Guard],
    handle: Handle,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<()> {
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
        match timeout(PATIENCE, put_in_force(&client, &state.to_guard, which)).await {
            Ok(Ok(())) => {
                applied = Some((state.to_guard.clone(), Instant::now()));
                if !state.to_guard.is_empty() {
                    await_daemon_sets(&handle).await;
                }
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
async fn put_in_force(client: &Client, subjects: &Subjects, which: &[Guard]) -> anyhow::Result<()> {
    AdmissionPolicies::of(client, guards::COMPONENT).await?.put_in_force(&guards::guards(subjects, which)).await
}

/// DaemonSets are kept off before the first virtual node is used, but nothing waits for them for ever.
async fn await_daemon_sets(handle: &Handle) {
    let kept_off = async {
        while !handle.kept_off.load(Ordering::Relaxed) {
            sleep(LOOK).await;
        }
    };
    if timeout(KEEPING_OFF, kept_off).await.is_err() {
        tracing::warn!("DaemonSets are not all kept off virtual nodes; their rolling updates may stop");
        handle.kept_off.store(true, Ordering::Relaxed);
    }
}
