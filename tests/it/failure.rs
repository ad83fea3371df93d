//! What failures do to a fan-out (nothing), what pods cost in the end, and what people are told.

mod compaction;
mod down;
mod drill;
mod leader;
mod settlement;
mod why;

use anyhow::ensure;
use world::control_plane::wait_until;

use crate::scenario::{Extender, PATIENCE, Scenario, dedicated_first};

/// kube-scheduler and Spillway work on the same pods; 5 to 8 % of those on virtual nodes get a late "Unschedulable".
#[tokio::test]
async fn every_bound_pod_says_so_and_tolerates_its_node() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(5, "6").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("fan-out", "thumbs", dedicated_first(&["virtual-0"]), serde_json::json!({})).await;
    scenario.start().await;
    scenario.job("thumbs", 300, "1", serde_json::json!({})).await;
    let places = scenario.all_bound("thumbs", 300).await;
    assert_eq!(places.counts(), (30, 270, 0));
    let late = places.virtual_.iter().filter(|pod| tidy(pod, true).is_err()).count();
    println!("{late} of 270 pods on the virtual node have just been called Unschedulable by kube-scheduler");

    wait_until("bound pods say so and tolerate their node for ever", PATIENCE, async || {
        let places = scenario.places("thumbs").await;
        places.dedicated.iter().try_for_each(|pod| tidy(pod, true))?;
        places.virtual_.iter().try_for_each(|pod| tidy(pod, false))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
}

/// Whether nothing about a bound pod is wrong; of its tolerations nothing is asked when only its `conditions` are looked at.
fn tidy(pod: &k8s_openapi::api::core::v1::Pod, conditions: bool) -> anyhow::Result<()> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    for condition in pod.status.iter().flat_map(|status| status.conditions.iter().flatten()) {
        ensure!(condition.type_ != "PodScheduled" || condition.status == "True", "{name}: {condition:?}");
    }
    if conditions {
        return Ok(());
    }
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    for key in ["spillway.dev/virtual-node", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let mine: Vec<_> = tolerations.iter().filter(|one| one.key.as_deref() == Some(key)).collect();
        ensure!(!mine.is_empty(), "{name} does not tolerate {key}");
        ensure!(mine.iter().all(|one| one.toleration_seconds.is_none()), "{name} tolerates {key} for a while only: {mine:?}");
    }
    Ok(())
}
