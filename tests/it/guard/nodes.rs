//! The Node of a virtual kubelet breaks nobody else, from the first moment that anybody can see it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use world::control_plane::{User, wait_until};

use super::{As, JSON, MERGE};
use crate::scenario::{Extender, PATIENCE, Scenario, dedicated_first, program};

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const LOAD_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A Node as old virtual kubelets make it: a host, a zone, a machine, in every load balancer, open to all.
pub(super) fn stock(name: &str, backend: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "type": "virtual-kubelet", "backend": backend, "kubernetes.io/role": "agent", LOAD_BALANCERS: "false",
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": "zone-a", "topology.kubernetes.io/region": "region",
            "failure-domain.beta.kubernetes.io/zone": "zone-a", "failure-domain.beta.kubernetes.io/region": "region",
        }},
        "spec": {"taints": [{"key": "virtual-kubelet.io/provider", "value": "test", "effect": "NoSchedule"}]},
        "status": {"capacity": {"cpu": "20", "memory": "100Gi", "pods": "100"}, "allocatable": {"cpu": "20", "memory": "100Gi", "pods": "100"},
            "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// What is wrong with a virtual node, by the words of this test.
fn wrong(node: &Node, ours: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let labels = node.labels();
    for (key, value) in [(LOAD_BALANCERS, "true"), ("kubernetes.azure.com/managed", "false"), ("type", "virtual-kubelet")] {
        if labels.get(key).map(String::as_str) != Some(value) {
            wrong.push(format!("{key}: {:?}", labels.get(key)));
        }
    }
    for word in ["hostname", "zone", "region", "/os", "/arch"] {
        wrong.extend(labels.keys().filter(|key| key.ends_with(word)).cloned());
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let closed = taints.iter().any(|taint| taint.key == "spillway.dev/virtual-node" && taint.effect == "NoSchedule");
    if closed != ours {
        wrong.push(format!("taints: {taints:?}"));
    }
    let status = node.status.clone().unwrap_or_default();
    for list in [status.capacity, status.allocatable] {
        let pods = list.and_then(|list| list.get("pods").map(|pods| pods.0.clone()));
        if ours && pods.as_deref().is_some_and(|pods| pods != "0") {
            wrong.push(format!("pods: {pods:?}"));
        }
    }
    wrong
}

/// Everything that a watch shows of Nodes with these names, from now on.
struct Seen {
    nodes: Arc<Mutex<Vec<Node>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Seen {
    async fn from_now(client: &Client) -> Seen {
        let api: Api<Node> = Api::all(client.clone());
        let version = api.list(&Default::default()).await.expect("a list").metadata.resource_version.expect("a version");
        let mut events = api.watch(&WatchParams::default().timeout(280), &version).await.expect("a watch").boxed();
        let nodes: Arc<Mutex<Vec<Node>>> = Arc::default();
        let into = nodes.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let Ok(WatchEvent::Added(node) | WatchEvent::Modified(node)) = event {
                    into.lock().expect("nobody panics with it").push(node);
                }
            }
        });
        Seen { nodes, task }
    }

    /// The states of a Node, once `last` has been seen.
    async fn of(&self, name: &str, last: &str) -> Vec<Node> {
        wait_until("the watch has caught up", PATIENCE, async || {
            ensure!(!self.task.is_finished(), "the watch has ended");
            let nodes: Vec<Node> = self
                .nodes
                .lock()
                .expect("nobody panics with it")
                .iter()
                .filter(|node| node.name_any() == name)
                .cloned()
                .collect();
            ensure!(
                nodes.iter().any(|node| node.resource_version().as_deref() == Some(last)),
                "{} states of {name}",
                nodes.len()
            );
            Ok(nodes)
        })
        .await
        .expect("a watch that works")
    }
}

async fn get(scenario: &Scenario, name: &str) -> Node {
    Api::<Node>::all(scenario.client.clone()).get(name).await.expect("the Node")
}

/// Every state of a Node that anybody could see so far was right.
async fn always_right(scenario: &Scenario, seen: &Seen, name: &str, ours: bool) {
    let last = get(scenario, name).await.resource_version().expect("a version");
    for node in seen.of(name, &last).await {
        assert_eq!(wrong(&node, ours), Vec::<String>::new(), "{name} at {:?}", node.resource_version());
    }
}

/// Attempts to undo it, as virtual kubelets and people make them, by both resources.
async fn tamper(user: &As, name: &str) {
    let patches = [
        (MERGE, json!({"metadata": {"labels": {LOAD_BALANCERS: null}}})),
        (MERGE, json!({"metadata": {"labels": {LOAD_BALANCERS: "false", "kubernetes.azure.com/managed": "true"}}})),
        (STRATEGIC, json!({"metadata": {"labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": "zone-b"}}})),
        (
            STRATEGIC,
            json!({"metadata": {"labels": {"kubernetes.io/os": "linux", "failure-domain.beta.kubernetes.io/region": "r"}}}),
        ),
        (MERGE, json!({"spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]}})),
        (MERGE, json!({"spec": {"taints": null}})),
        (STRATEGIC, json!({"status": {"capacity": {"pods": "50"}, "allocatable": {"pods": "50", "cpu": "10"}}})),
    ];
    for (content, patch) in patches {
        for subresource in ["", "/status"] {
            user.allowed("a change", "PATCH", &format!("/api/v1/nodes/{name}{subresource}"), content, &patch).await;
        }
    }
}

#[tokio::test]
async fn nobody_ever_sees_a_virtual_node_without_its_guard() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(1, "4").await;
    scenario.virtual_node_spec("adopted", json!({"inMemory": {"region": "here"}}), "0.04").await;
    scenario.virtual_node_spec("managed", json!({"inMemory": {"region": "here"}, "adopt": null}), "0.04").await;
    scenario.policy("fan-out", "thumbs", dedicated_first(&["adopted"]), json!({})).await;
    scenario.start().await;
    let dedicated = get(&scenario, "dedicated-0").await;
    let seen = Seen::from_now(&scenario.client).await;
    let kubelet = As::new(&scenario, User::Admin);

    // Its own name says that the Node is a managed one, even if nothing on it does.
    let bare = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "managed"}});
    for node in [stock("vk", "adopted"), stock("foreign", "nobody"), bare] {
        kubelet.allowed("a Node", "POST", "/api/v1/nodes", JSON, &node).await;
    }
    for (name, ours) in [("vk", true), ("foreign", false), ("managed", true)] {
        tamper(&kubelet, name).await;
        always_right(&scenario, &seen, name, ours).await;
    }
    // Others' taints and labels stay theirs, and so does the room of a node that nobody adopted.
    let foreign = get(&scenario, "foreign").await;
    assert_eq!(foreign.labels()["backend"], "nobody");
    assert_eq!(foreign.status.expect("a status").allocatable.expect("a list")["pods"].0, "50");
    // A status that says nothing new leaves a node alone, and so does a whole Node as it is.
    scenario.object_condition("VirtualNode", "adopted", "HygieneCompliant", "True", "Compliant").await;
    scenario.virtual_node_ready("adopted").await;
    // Made anew by its virtual kubelet: no moment without.
    Api::<Node>::all(scenario.client.clone()).delete("vk", &DeleteParams::default()).await.expect("it is there");
    let again: Node = serde_json::from_value(stock("vk", "adopted")).expect("a Node");
    Api::<Node>::all(scenario.client.clone()).create(&PostParams::default(), &again).await.expect("a Node");
    always_right(&scenario, &seen, "vk", true).await;
    assert_eq!(get(&scenario, "dedicated-0").await.labels(), dedicated.labels(), "machines are none of its business");
    assert_eq!(scenario.metric("spillway_hygiene_repairs_total").await, 0.0, "nothing was left to repair");
    assert_eq!(scenario.metric("spillway_virtual_node_compliant").await, 21.0, "three nodes, seven checks each");

    // A virtual node that its VirtualNode has left is a virtual kubelet that nobody has adopted.
    scenario.delete("VirtualNode", "adopted").await;
    wait_until("the taint may go", PATIENCE, async || {
        let nodes: Api<Node> = Api::all(scenario.client.clone());
        let node = nodes.patch("vk", &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": null}}))).await?;
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        ensure!(!taints.iter().any(|taint| taint.key == "spillway.dev/virtual-node"), "{taints:?}");
        Ok(())
    })
    .await
    .expect("nobody holds it");
    tamper(&kubelet, "vk").await;
    assert_eq!(wrong(&get(&scenario, "vk").await, false), Vec::<String>::new());
}

/// What the committer does by itself: for what is older than the policies, and where the API server has none.
#[tokio::test]
async fn drift_is_repaired_counted_and_shown() {
    let scenario = Scenario::new(Extender::Absent).await;
    let nodes: Api<Node> = Api::all(scenario.client.clone());
    for node in [stock("vk", "adopted"), stock("foreign", "nobody")] {
        nodes.create(&PostParams::default(), &serde_json::from_value(node).expect("a Node")).await.expect("a Node");
    }
    scenario.virtual_node_spec("adopted", json!({"inMemory": {"region": "here"}}), "0.04").await;
    scenario.start_with(&["--guards", "ignore"]).await;
    let repaired = async |name: &str, ours: bool| {
        wait_until(&format!("{name} repaired"), PATIENCE, async || {
            let wrong = wrong(&nodes.get(name).await?, ours);
            ensure!(wrong.is_empty(), "{wrong:?}");
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    };
    repaired("vk", true).await;
    repaired("foreign", false).await;
    scenario.object_condition("VirtualNode", "adopted", "HygieneCompliant", "True", "Compliant").await;
    let event = node_event(&scenario, "vk", "HygieneRepaired").await;
    assert!(event.contains("taint spillway.dev/virtual-node:NoSchedule"), "{event}");
    let taint = r#"spillway_hygiene_repairs_total{check="taint"}"#;
    assert_eq!(scenario.metric(taint).await, 1.0);

    // Once more, and as often as somebody does it; the condition says so meanwhile, and what is wrong.
    let statuses = tokio::spawn(hygiene_states(scenario.client.clone()));
    let kubelet = As::new(&scenario, User::Admin);
    tamper(&kubelet, "vk").await;
    repaired("vk", true).await;
    scenario.object_condition("VirtualNode", "adopted", "HygieneCompliant", "True", "Compliant").await;
    assert_eq!(scenario.metric(taint).await, 2.0);
    wait_until("the metric", PATIENCE, async || {
        ensure!(
            (scenario.metric(r#"spillway_virtual_node_compliant{check="taint",node="vk"}"#).await - 1.0).abs() < 0.5,
            "not yet"
        );
        Ok(())
    })
    .await
    .expect("compliant");
    let states = statuses.await.expect("no panic").expect("a watch");
    assert!(states.contains("taint spillway.dev/virtual-node:NoSchedule"), "{states}");

    // Somebody else applies the guards, as printed.
    let mut printing = tokio::process::Command::new(program());
    printing.arg("guards").arg("--kubeconfig").arg(scenario.plane.kubeconfig_path(User::Admin));
    let printed = printing.output().await.expect("the program");
    scenario.apply_yaml(&String::from_utf8(printed.stdout).expect("text")).await.expect("policies");
    wait_until("the guard is in force", PATIENCE, async || {
        let again: Node = serde_json::from_value(stock("another", "adopted"))?;
        let wrong = wrong(&nodes.create(&PostParams { dry_run: true, ..PostParams::default() }, &again).await?, true);
        ensure!(wrong.is_empty(), "{wrong:?}");
        Ok(())
    })
    .await
    .expect("in force");
}

/// The first message of a condition `HygieneCompliant` that is False.
async fn hygiene_states(client: Client) -> anyhow::Result<String> {
    let api: Api<scheduler_extender::api::VirtualNode> = Api::all(client);
    let mut events = api.watch(&WatchParams::default().timeout(60), "0").await?.boxed();
    let message = async {
        while let Some(event) = events.next().await {
            let (WatchEvent::Added(node) | WatchEvent::Modified(node)) = event? else { continue };
            let conditions = node.status.unwrap_or_default().conditions;
            let found = conditions.into_iter().find(|one| one.type_ == "HygieneCompliant" && one.status == "False");
            if let Some(condition) = found {
                return Ok(condition.message);
            }
        }
        anyhow::bail!("never False")
    };
    tokio::time::timeout(Duration::from_secs(60), message).await.context("never False")?
}

async fn node_event(scenario: &Scenario, node: &str, reason: &str) -> String {
    use k8s_openapi::api::events::v1::Event;
    let events: Api<Event> = Api::all(scenario.client.clone());
    let params = kube::api::ListParams::default().fields(&format!("regarding.name={node},reason={reason}"));
    wait_until(&format!("the event {reason} on {node}"), PATIENCE, async || {
        let found = events.list(&params).await?.items.into_iter().next().context("no event")?;
        found.note.context("no text")
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()))
}
