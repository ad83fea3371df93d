//! Keeps the guards of virtual nodes up to date, and says when they are in force.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Handle;
use crate::committer::Event;
use crate::guards;

/// How often the set of virtual nodes is compared with what is guarded.
const LOOK: Duration = Duration::from_millis(100);
/// After so long they are applied again, in case that somebody has changed or removed them.
const REPEAT: Duration = Duration::from_secs(10);
/// Between attempts that fail.
const RETRY: Duration = Duration::from_secs(2);
/// A changed policy is in force in every API server after about a second.
const SETTLES: Duration = Duration::from_secs(2);
/// Times in `managedFields` have whole seconds.
const RESOLUTION: Duration = Duration::from_secs(1);
/// An answer that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(10);
const MANAGER: &str = "spillway.dev/guards";

/// Applies the guards whenever the set of virtual nodes changes, for ever.
pub(super) async fn keep(client: Client, apply: bool, handle: Handle, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    if !apply {
        handle.guarded.store(true, Ordering::Relaxed);
        return std::future::pending().await;
    }
    let mut applied: Option<(Arc<[Arc<str>]>, Instant)> = None;
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
async fn put_in_force(client: &Client, nodes: &[Arc<str>]) -> anyhow::Result<()> {
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    let mut settles = Duration::ZERO;
    for guard in guards::guards(&names) {
        let left = if guard["kind"] == "ValidatingAdmissionPolicy" {
            apply::<ValidatingAdmissionPolicy>(client, &guard).await?
        } else {
            apply::<ValidatingAdmissionPolicyBinding>(client, &guard).await?
        };
        settles = settles.max(left);
    }
    sleep(settles).await;
    Ok(())
}

/// Applies one object and says how long it needs still. One that was as wanted already, as after a restart, needs nothing.
async fn apply<K>(client: &Client, guard: &serde_json::Value) -> anyhow::Result<Duration>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let name = guard["metadata"]["name"].as_str().unwrap_or_default();
    let before = api.get_opt(name).await?.and_then(|object| object.meta().resource_version.clone());
    let object = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(guard)).await?;
    if object.meta().resource_version != before {
        return Ok(SETTLES);
    }
    let written = object.meta().managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref()).max();
    let age = written
        .map_or(Duration::ZERO, |time| Duration::try_from(jiff::Timestamp::now().duration_since(time.0)).unwrap_or_default());
    Ok((SETTLES + RESOLUTION).saturating_sub(age).min(SETTLES))
}
