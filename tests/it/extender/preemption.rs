//! Who is evicted, and who is not.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use world::control_plane::{place_of, wait_until};

use super::serverless_first;
use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, dedicated_first, marked};

/// A marked pod that may preempt everybody else.
fn important(cpu: &str) -> Value {
    let mut spec = marked(cpu);
    spec["priorityClassName"] = json!("important");
    spec
}

#[tokio::test]
async fn nobody_is_evicted_where_bursting_is_open_or_near_and_never_on_a_virtual_node() {
    let scenario = Scenario::new(Extender::Configured).await;
    scenario.important().await;
    scenario.dedicated(2, "2").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    let after =
        |after: &str| json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["virtual-0"], "after": after}]);
    scenario.policy("modest", "modest", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.policy("open", "open", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.policy("near", "near", after("50s"), json!({})).await;
    scenario.policy("far", "far", after("10h"), json!({})).await;
    scenario.start().await;

    // Unimportant pods everywhere: four fill the dedicated nodes, three had to burst.
    scenario.job("modest", 7, "1", json!({})).await;
    let before = scenario.all_bound("modest", 7).await;
    assert_eq!(before.counts(), (4, 3, 0));
    let stays = |pods: &[Pod]| pods.iter().map(|pod| pod.metadata.uid.clone().expect("a UID")).collect::<Vec<_>>();

    // Open: one by one, and many at once.
    for number in 0..20 {
        let name = format!("open-{number}");
        scenario.pod(&name, "open", "1", important("1")).await;
        assert_eq!(scenario.all_bound("open", number + 1).await.counts(), (0, number + 1, 0));
    }
    for number in 20..40 {
        scenario.pod(&format!("open-{number}"), "open", "1", important("1")).await;
    }
    assert_eq!(scenario.all_bound("open", 40).await.counts(), (0, 40, 0));

    // Near: it waits for its turn, evicting nobody.
    scenario.pod("near-0", "near", "1", important("1")).await;
    scenario.refused("near-0").await;
    assert_eq!(nominated(&scenario.get("near-0").await), "");
    let after_all = scenario.places("modest").await;
    assert_eq!(stays(&after_all.dedicated), stays(&before.dedicated), "the same pods as before");
    assert_eq!(stays(&after_all.virtual_), stays(&before.virtual_));
    let leaving = |pods: &[Pod]| pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
    assert_eq!((leaving(&after_all.dedicated), leaving(&after_all.virtual_)), (0, 0));
    assert!(scenario.metric(r#"spillway_extender_requests_total{mode="cache",outcome="answered",verb="preempt"}"#).await > 0.0);

    // Far away: plain Kubernetes, but for the pods on the virtual node.
    scenario.pod("far-0", "far", "1", important("1")).await;
    let far = scenario.all_bound("far", 1).await;
    assert_eq!(far.counts(), (1, 0, 0));
    let rest = scenario.places("modest").await;
    let (burst, kept) = (stays(&before.virtual_), stays(&rest.virtual_));
    assert!(burst.iter().all(|uid| kept.contains(uid)), "pods on virtual nodes are no victims");
    let kept = stays(&rest.dedicated);
    assert_eq!(stays(&before.dedicated).iter().filter(|uid| kept.contains(uid)).count(), 3, "one had to go");
}

#[tokio::test]
async fn the_nominated_node_is_never_refused() {
    let scenario = Scenario::new(Extender::Configured).await;
    scenario.important().await;
    let nodes = scenario.dedicated(1, "2").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    let closed = json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["virtual-0"], "after": "10h"}]);
    scenario.policy("turning", "turning", closed, json!({})).await;
    // The victim takes its time: somebody holds its object.
    let pods: Api<Pod> = Api::namespaced(scenario.client.clone(), NAMESPACE);
    scenario.pod("victim", "plain", "2", json!({})).await;
    scenario.all_bound("plain", 1).await;
    let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    pods.patch("victim", &PatchParams::default(), &hold(json!(["tests.example/hold"]))).await.expect("held");
    scenario.start().await;

    scenario.pod("chosen", "turning", "2", important("2")).await;
    let nomination = wait_until("a nomination", PATIENCE, async || {
        let pod = scenario.get("chosen").await;
        anyhow::ensure!(nominated(&pod) == nodes[0], "{:?}", pod.status);
        Ok(())
    });
    nomination.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));

    // Now its policy would send it to a virtual node, as it does with its twin.
    scenario.policy("turning", "turning", serverless_first(&["virtual-0"]), json!({})).await;
    scenario.pod("twin", "turning", "2", important("2")).await;
    wait_until("the twin on the virtual node", PATIENCE, async || {
        let pod = scenario.get("twin").await;
        anyhow::ensure!(place_of(&pod) == Some("virtual-0"), "{:?}", pod.status);
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    assert_eq!(place_of(&scenario.get("chosen").await), None, "left to its scheduler");

    let asked = r#"spillway_extender_requests_total{mode="cache",outcome="answered",verb="filter"}"#;
    let before = scenario.metric(asked).await;
    pods.patch("victim", &PatchParams::default(), &hold(Value::Null)).await.expect("let go");
    assert_eq!(scenario.all_bound("turning", 2).await.counts(), (1, 1, 0), "{}", scenario.log());
    assert_eq!(place_of(&scenario.get("chosen").await), Some(&*nodes[0]));
    assert!(scenario.metric(asked).await > before, "it was the extender that let it through");
}

/// The node that kube-scheduler has cleared for a pod.
fn nominated(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref()).unwrap_or_default()
}
