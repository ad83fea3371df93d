//! More of the stage: what tests change and wait for.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use world::control_plane::wait_until;

use super::{NAMESPACE, PATIENCE, Places, Scenario, is_refused};

impl Scenario {
    /// Waits for a condition of a VirtualNode, BurstPolicy or BurstBudget and returns its message.
    pub(crate) async fn object_condition(&self, kind: &str, name: &str, of: &str, status: &str, reason: &str) -> String {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("spillway.dev", "v1alpha1", kind));
        let objects: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        wait_until(&format!("{kind} {name}: {of}={status}, {reason}"), PATIENCE, async || {
            let object = objects.get(name).await?;
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.into_iter().find(|one| one["type"] == of).context("no such condition")?;
            let current = found["observedGeneration"].as_i64() == object.metadata.generation;
            ensure!(found["status"] == status && found["reason"] == reason && current, "{found}");
            Ok(found["message"].as_str().unwrap_or_default().to_owned())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()))
    }

    /// A condition of a VirtualNode's status that says whether the backend works, as an observer of the cloud writes it.
    pub(crate) async fn backend_healthy(&self, name: &str, healthy: bool) {
        let condition = json!({"type": "BackendHealthy", "status": if healthy { "True" } else { "False" },
            "reason": "Tested", "message": "a test says so", "lastTransitionTime": "2026-11-21T00:00:00Z"});
        self.virtual_node_status(name, json!({"conditions": [condition]})).await;
        let (status, reason) = if healthy { ("True", "Open") } else { ("False", "BackendUnhealthy") };
        self.object_condition("VirtualNode", name, "Ready", status, reason).await;
    }

    /// Whether the kubelet of a Node that KWOK plays says that it is not ready.
    pub(crate) async fn node_down(&self, name: &str, down: bool) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let annotation = if down { json!("yes") } else { Value::Null };
        let patch = json!({"metadata": {"annotations": {"kwok.example/down": annotation}}});
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("the node");
    }

    /// Deletes an object of Spillway's.
    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("spillway.dev", "v1alpha1", kind));
        let objects: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        objects.delete(name, &DeleteParams::default()).await.expect("it was there");
    }

    /// Waits until so many pods with label `app` are on dedicated and on virtual nodes and the others are called Unschedulable.
    pub(crate) async fn settled(&self, app: &str, counts: (usize, usize, usize)) -> Places {
        wait_until(&format!("{app} at {counts:?}"), PATIENCE, async || {
            let places = self.places(app).await;
            let refused = places.pending.iter().filter(|pod| is_refused(pod)).count();
            ensure!(places.counts() == counts && refused == places.pending.len(), "{:?}, {refused} refused", places.counts());
            Ok(places)
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()))
    }

    /// The texts of all Events with this reason on pods whose name starts so; waits for the first.
    pub(crate) async fn events_of(&self, pods: &str, reason: &str) -> Vec<String> {
        use k8s_openapi::api::events::v1::Event;
        let events: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        let params = ListParams::default().fields(&format!("reason={reason}"));
        wait_until(&format!("events {reason} on {pods}*"), PATIENCE, async || {
            let events = events.list(&params).await?.items.into_iter();
            let regards = |event: &Event| {
                event.regarding.as_ref().and_then(|pod| pod.name.as_deref()).is_some_and(|name| name.starts_with(pods))
            };
            let texts: Vec<String> = events.filter(regards).filter_map(|event| event.note).collect();
            ensure!(!texts.is_empty(), "none");
            Ok(texts)
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()))
    }

    /// Pods in this order, as fast as a busy controller makes them.
    pub(crate) async fn create_pods(&self, manifests: &[Value]) -> Result<()> {
        let pods = self.pods();
        let create = async |manifest: &Value| {
            let pod: Pod = serde_json::from_value(manifest.clone())?;
            pods.create(&PostParams::default(), &pod).await?;
            anyhow::Ok(())
        };
        futures::stream::iter(manifests.iter().map(create)).buffered(8).try_collect::<()>().await
    }

    /// Deletes every pod of the tests' namespace at once, and waits until it is gone.
    pub(crate) async fn delete_all_pods(&self) -> Result<()> {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.pods().delete_collection(&at_once, &ListParams::default()).await?;
        wait_until("no pods", PATIENCE, async || {
            let left = self.plane.pods(NAMESPACE, "").await?.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
        .await
    }

    /// Deletes every dedicated node.
    pub(crate) async fn delete_dedicated_nodes(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for node in nodes.list(&ListParams::default().labels("type!=virtual-kubelet")).await? {
            self.plane.delete_node(&node.metadata.name.unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// A priority class.
    pub(crate) async fn priority_class(&self, name: &str, value: i32, preemption: &str) {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": preemption});
        self.apply(class).await.expect("a priority class");
    }
}
