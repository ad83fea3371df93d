//! Kubernetes' own service controller beside the cluster: what it hands to a load balancer.

use std::collections::BTreeSet;

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use world::control_plane::{Component, DedicatedNodes, SchedulerOptions, wait_until};

use super::nodes::stock;
use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario};

/// The nodes of each hand-over so far, in order.
fn hand_overs(scenario: &Scenario) -> Vec<BTreeSet<String>> {
    let log = scenario.plane.log(Component::ServiceController);
    let calls =
        log.lines().filter(|line| line.starts_with("{\"service\"")).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    calls
        .map(|call| call["nodes"].as_array().into_iter().flatten().filter_map(|node| node.as_str().map(str::to_owned)).collect())
        .collect()
}

/// Waits until the newest hand-over has exactly these nodes.
async fn balanced_over(scenario: &Scenario, nodes: &[&str]) {
    let wanted: BTreeSet<String> = nodes.iter().map(ToString::to_string).collect();
    wait_until(&format!("a load balancer over {nodes:?}"), PATIENCE, async || {
        let last = hand_overs(scenario).pop();
        ensure!(last.as_ref() == Some(&wanted), "{last:?}");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.plane.log(Component::ServiceController)));
}

#[tokio::test]
async fn no_load_balancer_ever_gets_a_virtual_node() {
    let scenario =
        Scenario::with(Extender::Absent, SchedulerOptions::new(), |builder| builder.service_controller(true).kwok(false))
            .await
            .expect("a control plane with a service controller");
    scenario.plane.create_dedicated_nodes(&DedicatedNodes::new("dedicated", 1)).await.expect("a node");
    let services: Api<Service> = Api::namespaced(scenario.client.clone(), NAMESPACE);
    let service = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service).expect("a Service")).await.expect("a Service");
    balanced_over(&scenario, &["dedicated-0"]).await;

    // Without a guard a virtual kubelet of the old kind is a target at once.
    let nodes: Api<Node> = Api::all(scenario.client.clone());
    let create = async |name: &str, backend: &str| {
        let node = serde_json::from_value(stock(name, backend)).expect("a Node");
        nodes.create(&PostParams::default(), &node).await.expect("a Node");
    };
    create("old", "nobody").await;
    balanced_over(&scenario, &["dedicated-0", "old"]).await;

    scenario.virtual_node_spec("adopted", json!({"inMemory": {"region": "here"}}), "0.04").await;
    scenario.start().await;
    balanced_over(&scenario, &["dedicated-0"]).await;
    // From here on, never again: whoever makes it, whatever is written on it. A machine that comes last is the sign that
    // everything before it has been looked at.
    let before = hand_overs(&scenario).len();
    for (name, backend) in [("adopted", "adopted"), ("foreign", "nobody")] {
        create(name, backend).await;
        for value in [json!("false"), Value::Null] {
            let patch = json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": value}}});
            nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a patch");
            nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a patch");
        }
    }
    nodes.delete("adopted", &DeleteParams::default()).await.expect("it is there");
    create("adopted", "adopted").await;
    scenario.plane.create_dedicated_nodes(&DedicatedNodes::new("last", 1)).await.expect("a node");
    balanced_over(&scenario, &["dedicated-0", "last-0"]).await;
    for nodes in &hand_overs(&scenario)[before..] {
        assert!(nodes.iter().all(|node| node.starts_with("dedicated") || node.starts_with("last")), "{nodes:?}");
    }
}
