//! Keeps what happens to pods at admission as the policies want it: marker and gate.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::Handle;
use super::admission::AdmissionPolicies;
use crate::pod_admission;
use crate::selection::Policies;

/// How often the policies are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// After so long they are applied again, in case that somebody has changed or removed them.
const REPEAT: Duration = Duration::from_secs(10);
/// Between attempts that fail.
const RETRY: Duration = Duration::from_secs(2);
/// An answer that takes longer is as good as none; putting policies in force takes two seconds by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Applies and removes the generated policies as BurstPolicies come, change and go, for ever.
pub(super) async fn keep(client: Client, apply: bool, handle: Handle) -> anyhow::Result<()> {
    if !apply {
        return std::future::pending().await;
    }
    let mut applied: Option<(Arc<Policies>, Instant)> = None;
    let mut warned = false;
    loop {
        sleep(LOOK).await;
        let state = handle.published.load_full();
        let current =
            applied.as_ref().is_some_and(|(policies, at)| Arc::ptr_eq(policies, &state.policies) && at.elapsed() < REPEAT);
        if !state.synced || current {
            continue;
        }
        let wanted = pod_admission::pod_admission(&state.policies);
        match timeout(PATIENCE, put_in_force(&client, &wanted, &mut warned)).await {
            Ok(Ok(())) => applied = Some((state.policies.clone(), Instant::now())),
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "admission policies for pods not applied; it is tried again");
                sleep(RETRY).await;
            }
            Err(_) => tracing::warn!("no answer to the admission policies for pods; it is tried again"),
        }
    }
}

async fn put_in_force(client: &Client, wanted: &[Value], warned: &mut bool) -> anyhow::Result<()> {
    let policies = AdmissionPolicies::of(client, pod_admission::COMPONENT).await?;
    if !policies.can_mutate() && !wanted.is_empty() && !std::mem::replace(warned, true) {
        tracing::warn!(
            "this API server has no MutatingAdmissionPolicies: `spillway doctor` says what to write into pod templates"
        );
    }
    policies.put_in_force(wanted).await?;
    policies.prune(wanted).await
}
