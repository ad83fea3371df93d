//! Who goes where, beside an unmodified kube-scheduler.

mod admission;
mod backends;
mod in_force;
mod leaving;
mod limits;
mod order;
mod policies;
mod untouched;

use std::time::Duration;

use serde_json::json;

use crate::scenario::{Extender, PATIENCE, Scenario, dedicated_first, record};

#[tokio::test]
async fn dedicated_first_then_overflow_exactly() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(5, "4").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("fan-out", "thumbs", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.start().await;

    scenario.job("thumbs", 100, "1", json!({})).await;
    let places = scenario.all_bound("thumbs", 100).await;
    assert_eq!(places.counts(), (20, 80, 0));
    for pod in &places.virtual_ {
        assert_eq!(&*record(pod).virtual_node, "virtual-0");
    }
    // The wave is over: every pod tolerates its node without a time limit, and says that it is scheduled.
    world::control_plane::wait_until("tolerations fitted and conditions true", Duration::from_secs(60), async || {
        for pod in scenario.places("thumbs").await.virtual_ {
            let tolerations = pod.spec.and_then(|spec| spec.tolerations).unwrap_or_default();
            anyhow::ensure!(
                tolerations.iter().any(|one| one.key.as_deref() == Some("spillway.dev/virtual-node")),
                "{:?}",
                pod.metadata.name
            );
            anyhow::ensure!(tolerations.iter().all(|one| one.toleration_seconds.is_none()), "{tolerations:?}");
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            anyhow::ensure!(conditions.iter().all(|one| one.type_ != "PodScheduled" || one.status == "True"), "{conditions:?}");
        }
        Ok(())
    })
    .await
    .expect("tidied up");
}
