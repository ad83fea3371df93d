//! Beside a real Karpenter: it rents machines for pods that wait on purpose, none for pods that burst at once, and moves
//! nobody from a machine to serverless. Where a virtual node is open by toleration instead, each of these fails; that is shown, too.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use world::control_plane::{Component, DedicatedNodes, NodePool, place_of, wait_until};

use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, dedicated_first};

/// Karpenter looks for machines to give up every ten seconds, and checks what it found fifteen seconds later.
const CONSOLIDATION: Duration = Duration::from_secs(120);

/// What virtual kubelets put on their nodes by themselves.
const PROVIDER_TAINT: &str = "virtual-kubelet.io/provider";

/// What a pod must tolerate where virtual nodes are opened by taint.
fn tolerant() -> Value {
    json!({"tolerations": [{"key": PROVIDER_TAINT, "operator": "Exists"}]})
}

/// A virtual node that nobody closes: a taint that pods may tolerate, and room for whoever does.
async fn open_virtual_node(scenario: &Scenario) {
    let open = DedicatedNodes::new("open", 1).cpu("800").memory("3200Gi").taint(PROVIDER_TAINT, "any", "NoSchedule");
    scenario.plane.create_dedicated_nodes(&open).await.expect("a node");
}

async fn karpenter(scenario: &Scenario, pool: &NodePool) {
    scenario.plane.start_karpenter(pool).await.unwrap_or_else(|error| panic!("{error:#}"));
}

/// Names of the machines that Karpenter has rented, ready or not.
async fn rented(scenario: &Scenario) -> Vec<String> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("karpenter.sh", "v1", "NodeClaim"));
    let claims: Api<DynamicObject> = Api::all_with(scenario.client.clone(), &resource);
    let claims = claims.list(&ListParams::default()).await.expect("NodeClaims");
    claims.items.into_iter().filter_map(|claim| claim.metadata.name).collect()
}

/// The machine, by its claim's name, that a bound pod is on; `None`: it is somewhere else.
async fn machine_of(scenario: &Scenario, pod: &Pod) -> Option<String> {
    let node = Api::<Node>::all(scenario.client.clone()).get(place_of(pod)?).await.expect("the pod's node");
    let owner = node.metadata.owner_references?.into_iter().find(|owner| owner.kind == "NodeClaim")?;
    Some(owner.name)
}

/// Everything that Karpenter has said, for failure texts.
fn said(scenario: &Scenario) -> String {
    scenario.plane.log(Component::Karpenter)
}

#[tokio::test]
async fn a_machine_is_rented_for_every_pod_that_waits_and_none_for_a_fan_out_that_is_committed_at_once() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(2, "4").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.virtual_node("virtual-1", "0.04").await;
    scenario.policy("fan-out", "fan-out", dedicated_first(&["virtual-0"]), json!({})).await;
    let after =
        |after: &str| json!([{"name": "dedicated"}, {"name": "serverless", "after": after, "virtualNodes": ["virtual-0"]}]);
    scenario.policy("later", "later", after("1h"), json!({})).await;
    scenario.policy("delayed", "delayed", after("15s"), json!({})).await;
    scenario.policy("poor", "poor", dedicated_first(&["virtual-0"]), json!({})).await;
    scenario.policy("closed", "closed", dedicated_first(&["virtual-1"]), json!({})).await;
    // One pod of three CPUs for an hour, and not another.
    let cap = json!({"amount": "0.12", "currency": "USD", "period": "Month", "scope": {"policies": ["poor"]}});
    let budget = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "BurstBudget", "metadata": {"name": "cap"}, "spec": cap});
    scenario.apply(budget).await.expect("a BurstBudget");
    scenario.start().await;
    scenario.virtual_node_ready("virtual-0").await;
    scenario.backend_healthy("virtual-1", false).await;
    karpenter(&scenario, &NodePool::new("rented", "4", "16Gi")).await;

    assert_nothing_is_rented_for_a_fan_out(&scenario).await;
    assert_a_machine_for_everybody_who_waits(&scenario).await;
    assert_none_where_a_toleration_opens_the_virtual_node(&scenario).await;
    assert_late_commitments_are_paid_twice(&scenario).await;
}

async fn assert_nothing_is_rented_for_a_fan_out(scenario: &Scenario) {
    scenario.job("fan-out", 300, "1", json!({})).await;
    assert_eq!(scenario.all_bound("fan-out", 300).await.counts(), (8, 292, 0));
    // A pod of nobody's: when there is a machine for it, Karpenter has looked at everything that waited before it.
    scenario.pod("next", "next", "3", json!({})).await;
    let next = scenario.bound("next").await;
    let machine = machine_of(scenario, &next).await.expect("a rented machine");
    assert_eq!(rented(scenario).await, [machine], "{}", said(scenario));
}

async fn assert_a_machine_for_everybody_who_waits(scenario: &Scenario) {
    let before = rented(scenario).await;
    scenario.pod("poor-before", "poor", "3", json!({})).await;
    assert_eq!(place_of(&scenario.bound("poor-before").await), Some("virtual-0"));
    // A machine has room for one of them.
    let waiting = [("later", "WaitingForDedicated"), ("poor", "BudgetExceeded"), ("closed", "BackendClosed")];
    for (app, _) in waiting {
        scenario.pod(app, app, "3", json!({})).await;
    }
    for (app, reason) in waiting {
        let pod = scenario.bound(app).await;
        let machine = machine_of(scenario, &pod).await;
        assert!(machine.is_some_and(|machine| !before.contains(&machine)), "{app} is on {:?}", place_of(&pod));
        scenario.event(app, reason).await;
    }
    assert_eq!(rented(scenario).await.len(), before.len() + waiting.len(), "{}", said(scenario));
}

/// Where pods tolerate, and something else keeps them from being bound, Karpenter sees an empty node and waits for ever.
async fn assert_none_where_a_toleration_opens_the_virtual_node(scenario: &Scenario) {
    let before = rented(scenario).await;
    open_virtual_node(scenario).await;
    // No scheduler serves it: the verdict is what an extender's refusal would leave behind.
    let mut spec = tolerant();
    spec["schedulerName"] = json!("nobody");
    scenario.pod("opened", "opened", "3", spec).await;
    let verdict = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
    scenario.pods().patch_status("opened", &PatchParams::default(), &Patch::Merge(&verdict)).await.expect("a verdict");
    assert_eq!(scenario.event("opened", "Nominated").await, "Pod should schedule on: node/open-0");
    assert_eq!(rented(scenario).await, before, "{}", said(scenario));
}

/// The same fan-out, its tier open only after Karpenter has looked: the machines are rented, and the pods burst all the same.
async fn assert_late_commitments_are_paid_twice(scenario: &Scenario) {
    let before = rented(scenario).await.len();
    scenario.job("delayed", 300, "1", json!({})).await;
    wait_until("machines for pods that will burst", PATIENCE, async || {
        let now = rented(scenario).await.len();
        ensure!(now > before, "none");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", said(scenario)));
}

#[tokio::test]
async fn nobody_is_moved_from_a_rented_machine_to_serverless() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("kept", "kept", dedicated_first(&["virtual-0"]), json!({})).await;
    karpenter(&scenario, &NodePool::new("rented", "4", "16Gi").consolidated()).await;
    // Two pods fill a machine: no other pod has room there. The machine that can be given up comes first, because Karpenter
    // looks at new machines late, and when it then finds nothing to give up it rests for minutes.
    deployment(&scenario, "opened", tolerant()).await;
    let opened = on_one_machine(&scenario, "opened").await;
    deployment(&scenario, "kept", json!({})).await;
    let kept = on_one_machine(&scenario, "kept").await;
    // Had it run before, the pods would have burst.
    scenario.start().await;
    scenario.virtual_node_ready("virtual-0").await;

    open_virtual_node(&scenario).await;
    wait_until("the pods that tolerate are moved", CONSOLIDATION, async || {
        let pods = scenario.plane.pods(NAMESPACE, "app=opened").await?;
        let moved = pods.iter().filter(|pod| place_of(pod) == Some("open-0")).count();
        ensure!(moved == 2 && !rented(&scenario).await.contains(&opened.machine), "{moved} of 2");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", said(&scenario)));
    // It has looked at the other machine, too, and found no place for its pods.
    let text = unconsolidatable(&scenario, &kept.machine).await;
    assert_eq!(text, "Can't replace with a cheaper node");
    let now = on_one_machine(&scenario, "kept").await;
    assert_eq!((now.machine, now.uids), (kept.machine, kept.uids), "{}", said(&scenario));
}

/// Why Karpenter keeps a machine.
async fn unconsolidatable(scenario: &Scenario, machine: &str) -> String {
    let events: Api<Event> = Api::namespaced(scenario.client.clone(), "default");
    let params = ListParams::default().fields(&format!("regarding.name={machine},reason=Unconsolidatable"));
    wait_until(&format!("a word on {machine}"), CONSOLIDATION, async || {
        let event = events.list(&params).await?.items.into_iter().next().context("no event")?;
        event.note.context("no text")
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", said(scenario)))
}

struct Placed {
    machine: String,
    uids: Vec<Option<String>>,
}

async fn deployment(scenario: &Scenario, app: &str, more: Value) {
    let mut spec = json!({"containers": [{"name": "main", "image": "registry.example/work:1",
        "resources": {"requests": {"cpu": "1500m", "memory": "128Mi"}}}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let deployment = json!({"metadata": {"name": app}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": app}},
        "template": {"metadata": {"labels": {"app": app}}, "spec": spec},
    }});
    let api: Api<Deployment> = Api::namespaced(scenario.client.clone(), NAMESPACE);
    api.create(&PostParams::default(), &serde_json::from_value(deployment).expect("a Deployment")).await.expect("a Deployment");
}

async fn on_one_machine(scenario: &Scenario, app: &str) -> Placed {
    let pods = scenario.plane.wait_until_running((NAMESPACE, &format!("app={app}")), 2, PATIENCE).await;
    let pods = pods.unwrap_or_else(|error| panic!("{error:#}\n{}", said(scenario)));
    let machine = machine_of(scenario, &pods[0]).await.expect("a rented machine");
    assert_eq!(machine_of(scenario, &pods[1]).await.as_ref(), Some(&machine));
    let mut uids: Vec<_> = pods.into_iter().map(|pod| pod.metadata.uid).collect();
    uids.sort();
    Placed { machine, uids }
}
