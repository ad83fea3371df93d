//! Keeps existing DaemonSets off virtual nodes, and says which come back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::{sleep, timeout};

use super::Handle;
use crate::daemon_sets;
use crate::metrics::Metrics;

/// How often it is looked whether there are virtual nodes at all. Before, nothing is written on anybody's DaemonSets.
const LOOK: Duration = Duration::from_millis(100);
/// An answer that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(10);
const NAME: &str = "spillway.dev/daemon-sets";

/// What is known of the cluster's DaemonSets, by their UIDs.
struct Keeper {
    client: Client,
    recorder: Recorder,
    /// Patched by this process. Each is patched once: if somebody takes that back, patching it again would restart all its pods
    /// for ever.
    patched: HashSet<String>,
    /// Those that make pods for virtual nodes all the same, with the generation that was complained of.
    open: HashMap<String, Option<i64>>,
    metrics: Arc<Metrics>,
}

/// Patches DaemonSets as soon as there are virtual nodes, for ever.
pub(super) async fn keep_off(client: Client, wanted: bool, handle: Handle, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    if !wanted {
        handle.kept_off.store(true, Ordering::Relaxed);
        return std::future::pending().await;
    }
    while handle.published.load().to_guard.is_empty() {
        sleep(LOOK).await;
    }
    let recorder = Recorder::new(client.clone(), Reporter { controller: NAME.to_owned(), instance: None });
    let mut keeper = Keeper { client: client.clone(), recorder, patched: HashSet::new(), open: HashMap::new(), metrics };
    let mut events = watcher(Api::<DaemonSet>::all(client), watcher::Config::default()).default_backoff().boxed();
    let mut listed = HashSet::new();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(daemon_set))) => {
                listed.extend(daemon_set.uid());
                keeper.look_at(&daemon_set).await;
            }
            Ok(Some(watcher::Event::InitDone)) => {
                keeper.open.retain(|uid, _| listed.contains(uid));
                keeper.patched.retain(|uid| listed.contains(uid));
                handle.kept_off.store(true, Ordering::Relaxed);
            }
            Ok(Some(watcher::Event::Apply(daemon_set))) => keeper.look_at(&daemon_set).await,
            Ok(Some(watcher::Event::Delete(daemon_set))) => keeper.forget(&daemon_set),
            Ok(None) => anyhow::bail!("the watch of daemonsets ended"),
            Err(error) => tracing::warn!(%error, "watch of daemonsets interrupted; it is resumed with backoff"),
        }
        keeper.metrics.daemon_sets_open(keeper.open.len());
    }
}

// === impl Keeper ===

impl Keeper {
    async fn look_at(&mut self, daemon_set: &DaemonSet) {
        let Some(uid) = daemon_set.uid() else { return };
        let Some(patch) = daemon_sets::patch(daemon_set).filter(|_| daemon_set.metadata.deletion_timestamp.is_none()) else {
            self.open.remove(&uid);
            return;
        };
        if self.patched.contains(&uid) || daemon_sets::was_patched(daemon_set) {
            return self.complain(daemon_set, uid).await;
        }
        match self.write(daemon_set, &patch).await {
            Ok(()) => {
                tracing::info!(
                    namespace = daemon_set.namespace(),
                    name = daemon_set.name_any(),
                    "DaemonSet kept off virtual nodes"
                );
                self.patched.insert(uid);
            }
            // It has changed or gone meanwhile: the watch tells.
            Err(Some(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                let error = error.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                tracing::warn!(
                    namespace = daemon_set.namespace(),
                    name = daemon_set.name_any(),
                    error,
                    "DaemonSet not kept off virtual nodes"
                );
                self.complain(daemon_set, uid).await;
            }
        }
    }

    async fn write(&self, daemon_set: &DaemonSet, patch: &serde_json::Value) -> Result<(), Option<kube::Error>> {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &daemon_set.namespace().unwrap_or_default());
        let patch = serde_json::from_value(patch.clone()).map_err(|error| Some(kube::Error::SerdeError(error)))?;
        let params = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
        match timeout(PATIENCE, api.patch(&daemon_set.name_any(), &params, &Patch::Json::<()>(patch))).await {
            Ok(answer) => answer.map(drop).map_err(Some),
            Err(_) => Err(None),
        }
    }

    /// Counted as long as it lasts, told once for each generation.
    async fn complain(&mut self, daemon_set: &DaemonSet, uid: String) {
        let generation = daemon_set.metadata.generation;
        if self.open.insert(uid, generation) == Some(generation) {
            return;
        }
        let event = KubeEvent {
            type_: EventType::Warning,
            reason: "ReachesVirtualNodes".to_owned(),
            note: Some(
                "it makes pods for virtual nodes, which have no room for them, and its rolling updates will stop: \
                 give its template the required node affinity `type NotIn [virtual-kubelet]`"
                    .to_owned(),
            ),
            action: "KeepOff".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &daemon_set.object_ref(&())).await {
            tracing::debug!(%error, "event not written");
        }
    }

    fn forget(&mut self, daemon_set: &DaemonSet) {
        if let Some(uid) = daemon_set.uid() {
            self.open.remove(&uid);
            self.patched.remove(&uid);
        }
    }
}
