//! Keeps what happens to pods at admission as the policies want it: marker and gate.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Handle;
use super::admission::{AdmissionPolicies, refused};
use crate::committer::Event;
use crate::pod_admission::{self, LeftOut, Obstacle, Outcome, asks, too_large};
use crate::selection::Policies;

/// How often the policies are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// After so long they are applied again, in case that somebody has changed or removed them.
const REPEAT: Duration = Duration::from_secs(10);
/// Between attempts that fail.
const RETRY: Duration = Duration::from_secs(2);
/// An answer that takes longer is as good as none; putting policies in force takes two seconds by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Applies and removes the generated policies as BurstPolicies come, change and go, for ever, and tells what became of them.
pub(super) async fn keep(client: Client, apply: bool, handle: Handle, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    if !apply {
        return std::future::pending().await;
    }
    let mut last: Option<(Outcome, Instant)> = None;
    let mut warned = false;
    loop {
        sleep(LOOK).await;
        let state = handle.published.load_full();
        let before = last.as_ref().filter(|(outcome, _)| Arc::ptr_eq(&outcome.policies, &state.policies));
        if !state.synced || before.is_some_and(|(_, at)| at.elapsed() < REPEAT) {
            continue;
        }
        // Who was refused once is not asked again, as long as nothing changes.
        let left_out = before.map_or_else(|| too_large(&state.policies), |(outcome, _)| outcome.left_out.clone());
        match timeout(PATIENCE, put_in_force(&client, &state.policies, left_out)).await {
            Ok(Ok(outcome)) => {
                if !outcome.supported
                    && outcome.policies.iter().any(|policy| asks(policy))
                    && !std::mem::replace(&mut warned, true)
                {
                    tracing::warn!(
                        "this API server has no MutatingAdmissionPolicies: `spillway doctor` says what to write into pod templates"
                    );
                }
                if before.is_none() {
                    for (policy, obstacle) in &outcome.left_out {
                        tracing::warn!(policy = &**policy, ?obstacle, "policy left out of what is done to pods at admission");
                    }
                }
                events.send(Event::PodAdmission(Arc::new(outcome.clone()))).await?;
                last = Some((outcome, Instant::now()));
            }
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "admission policies for pods not applied; it is tried again");
                sleep(RETRY).await;
            }
            Err(_) => tracing::warn!("no answer to the admission policies for pods; it is tried again"),
        }
    }
}

async fn put_in_force(client: &Client, policies: &Arc<Policies>, mut left_out: LeftOut) -> anyhow::Result<Outcome> {
    let admission = AdmissionPolicies::of(client, pod_admission::COMPONENT).await?;
    let mut wanted = pod_admission::pod_admission(policies, &left_out);
    if let Err(error) = admission.put_in_force(&wanted).await {
        // One of them may be to blame for it: the others are put in force without it.
        let blamed = if refused(&error).is_some() { refusals(&admission, policies).await? } else { LeftOut::new() };
        if blamed.is_empty() {
            return Err(error);
        }
        left_out.extend(blamed);
        wanted = pod_admission::pod_admission(policies, &left_out);
        admission.put_in_force(&wanted).await?;
    }
    admission.prune(&wanted).await?;
    Ok(Outcome { policies: policies.clone(), supported: admission.can_mutate(), left_out })
}

/// Those that the API server does not take even if they are alone.
async fn refusals(admission: &AdmissionPolicies, policies: &Policies) -> anyhow::Result<LeftOut> {
    let mut refusals = LeftOut::new();
    for (name, alone) in pod_admission::each_alone(policies) {
        if let Some(message) = admission.refusal(&alone).await? {
            refusals.insert(name, Obstacle::Refused(message));
        }
    }
    Ok(refusals)
}
