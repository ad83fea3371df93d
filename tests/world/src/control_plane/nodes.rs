//! Nodes and pods of a real control plane, in the words of the tests.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::component::{KWOK_ANNOTATION, KWOK_ANNOTATION_VALUE};
use super::waiting::wait_until;
use super::{ControlPlane, User};

/// The API server's admission puts it on every Node that is made; a scheduler keeps away until it is gone.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Requests in flight while many nodes are made; more only queue up in the API server on two cores.
const PARALLEL_CREATES: usize = 32;

/// A Node has few writers, so a conflict is rare and a second one rarer.
const CONFLICTS_MAX: usize = 10;

/// Dedicated nodes of one kind, named `<prefix>-0`, `<prefix>-1` …
#[derive(Clone, Debug)]
pub struct DedicatedNodes {
    prefix: String,
    count: usize,
    cpu: String,
    memory: String,
    pods: u32,
    zones: Vec<String>,
    labels: BTreeMap<String, String>,
    taints: Vec<Value>,
}

/// A virtual Node: closed to every scheduler by its taint and `pods: "0"`, and no host, zone or machine.
#[derive(Clone, Debug)]
pub struct VirtualNodeObject {
    name: String,
    labels: BTreeMap<String, String>,
    cpu: String,
    memory: String,
}

// === impl DedicatedNodes ===

impl DedicatedNodes {
    /// `count` nodes with 4 CPUs, 16 GiB and room for 110 pods, all in one zone.
    #[must_use]
    pub fn new(prefix: &str, count: usize) -> DedicatedNodes {
        DedicatedNodes {
            prefix: prefix.to_owned(),
            count,
            cpu: "4".to_owned(),
            memory: "16Gi".to_owned(),
            pods: 110,
            zones: vec!["zone-a".to_owned()],
            labels: BTreeMap::new(),
            taints: Vec::new(),
        }
    }

    /// CPU of each, as a quantity.
    #[must_use]
    pub fn cpu(self, cpu: &str) -> DedicatedNodes {
        DedicatedNodes { cpu: cpu.to_owned(), ..self }
    }

    /// Memory of each, as a quantity.
    #[must_use]
    pub fn memory(self, memory: &str) -> DedicatedNodes {
        DedicatedNodes { memory: memory.to_owned(), ..self }
    }

    /// How many pods each takes.
    #[must_use]
    pub fn pods(self, pods: u32) -> DedicatedNodes {
        DedicatedNodes { pods, ..self }
    }

    /// The nodes are spread over these zones in turn; none: nodes without a zone label.
    #[must_use]
    pub fn zones<'a>(self, zones: impl IntoIterator<Item = &'a str>) -> DedicatedNodes {
        DedicatedNodes { zones: zones.into_iter().map(str::to_owned).collect(), ..self }
    }

    /// A further label on each.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> DedicatedNodes {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// A taint on each.
    #[must_use]
    pub fn taint(mut self, key: &str, value: &str, effect: &str) -> DedicatedNodes {
        self.taints.push(json!({"key": key, "value": value, "effect": effect}));
        self
    }

    /// The objects as they are sent.
    #[must_use]
    pub fn manifests(&self) -> Vec<Node> {
        (0..self.count).map(|index| self.manifest(index)).collect()
    }

    fn manifest(&self, index: usize) -> Node {
        let name = format!("{}-{index}", self.prefix);
        let mut labels = self.labels.clone();
        for (key, value) in
            [("kubernetes.io/hostname", name.as_str()), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")]
        {
            labels.insert(key.to_owned(), value.to_owned());
        }
        if !self.zones.is_empty() {
            let zone = self.zones[index % self.zones.len()].clone();
            labels.insert("topology.kubernetes.io/zone".to_owned(), zone);
        }
        let pods = self.pods.to_string();
        node(
            &name,
            &labels,
            &self.taints,
            &json!({"cpu": self.cpu, "memory": self.memory, "pods": pods, "ephemeral-storage": "100Gi"}),
        )
    }
}

// === impl VirtualNodeObject ===

impl VirtualNodeObject {
    /// 1 CPU and 1 GiB, as a virtual node shows while nothing runs on it.
    #[must_use]
    pub fn new(name: &str) -> VirtualNodeObject {
        let labels = BTreeMap::from([("type".to_owned(), "virtual-kubelet".to_owned())]);
        VirtualNodeObject { name: name.to_owned(), labels, cpu: "1".to_owned(), memory: "1Gi".to_owned() }
    }

    /// A further label, for instance one that an adopting VirtualNode selects.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> VirtualNodeObject {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Other cpu and memory figures.
    #[must_use]
    pub fn resources(self, cpu: &str, memory: &str) -> VirtualNodeObject {
        VirtualNodeObject { cpu: cpu.to_owned(), memory: memory.to_owned(), ..self }
    }

    /// The object as it is sent.
    #[must_use]
    pub fn manifest(&self) -> Node {
        let taint = json!({"key": "spillway.dev/virtual-node", "effect": "NoSchedule"});
        node(&self.name, &self.labels, &[taint], &json!({"cpu": self.cpu, "memory": self.memory, "pods": "0"}))
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Makes dedicated nodes, some tens at a time, and gives their names back when all are Ready and open to the scheduler.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn create_dedicated_nodes(&self, nodes: &DedicatedNodes) -> Result<Vec<String>> {
        self.create_nodes(nodes.manifests()).await
    }

    /// Makes a virtual Node that KWOK keeps Ready and whose pods KWOK runs.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create_virtual_node(&self, node: &VirtualNodeObject) -> Result<String> {
        let names = self.create_nodes(vec![node.manifest()]).await?;
        names.into_iter().next().context("one node was asked for")
    }

    /// Makes any nodes as the administrator and opens them to the scheduler at once, instead of waiting until the
    /// node-lifecycle controller gets to it.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn create_nodes(&self, nodes: Vec<Node>) -> Result<Vec<String>> {
        let names = nodes.iter().filter_map(|node| node.metadata.name.clone()).collect();
        let client = self.client(User::Admin)?;
        let share = nodes.len().div_ceil(PARALLEL_CREATES).max(1);
        let mut workers = JoinSet::new();
        for chunk in nodes.chunks(share) {
            workers.spawn(create_each(client.clone(), chunk.to_vec()));
        }
        while let Some(done) = workers.join_next().await {
            done.context("a task that makes nodes was lost")??;
        }
        Ok(names)
    }

    /// Deletes a Node; its pods stay until the controllers notice.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn delete_node(&self, name: &str) -> Result<()> {
        Api::<Node>::all(self.client(User::Admin)?).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The pods of a namespace that match a label selector (empty: all).
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, namespace: &str, label_selector: &str) -> Result<Vec<Pod>> {
        let api = Api::<Pod>::namespaced(self.client(User::Admin)?, namespace);
        Ok(api.list(&ListParams::default().labels(label_selector)).await?.items)
    }

    /// Waits until exactly `count` matching pods are there and every one satisfies `wanted`; gives them back.
    ///
    /// # Errors
    /// When the time is over; the text says where all pods are and why the waiting ones wait.
    pub async fn wait_for_pods(
        &self,
        what: &str,
        (namespace, label_selector): (&str, &str),
        count: usize,
        timeout: Duration,
        wanted: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Pod>> {
        wait_until(what, timeout, async || {
            let pods = self.pods(namespace, label_selector).await?;
            let done = pods.iter().filter(|pod| wanted(pod)).count();
            ensure!(done == count && pods.len() == count, "{done} of {count} ({})", summary(&pods));
            Ok(pods)
        })
        .await
    }

    /// Waits until exactly `count` matching pods are there and all are bound to some node.
    ///
    /// # Errors
    /// As for [`ControlPlane::wait_for_pods`].
    pub async fn wait_until_bound(&self, of: (&str, &str), count: usize, timeout: Duration) -> Result<Vec<Pod>> {
        self.wait_for_pods("all pods bound", of, count, timeout, |pod| place_of(pod).is_some()).await
    }

    /// Waits until exactly `count` matching pods are there and all run.
    ///
    /// # Errors
    /// As for [`ControlPlane::wait_for_pods`].
    pub async fn wait_until_running(&self, of: (&str, &str), count: usize, timeout: Duration) -> Result<Vec<Pod>> {
        self.wait_for_pods("all pods running", of, count, timeout, |pod| phase_of(pod) == "Running").await
    }
}

/// The node that a pod is bound to.
#[must_use]
pub fn place_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Where pods are, in one line for failure texts: `2 Running on dedicated-0, 1 Pending (0/1 nodes are available: …)`.
#[must_use]
pub fn summary(pods: &[Pod]) -> String {
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods {
        let group = match place_of(pod) {
            Some(node) => format!("{} on {node}", phase_of(pod)),
            None => format!("{} ({})", phase_of(pod), waiting_reason(pod)),
        };
        *groups.entry(group).or_default() += 1;
    }
    let lines: Vec<String> = groups.into_iter().map(|(group, count)| format!("{count} {group}")).collect();
    if lines.is_empty() { "no pods".to_owned() } else { lines.join(", ") }
}

fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn waiting_reason(pod: &Pod) -> &str {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    scheduled.and_then(|condition| condition.message.as_deref()).unwrap_or("not tried yet")
}

async fn create_each(client: Client, nodes: Vec<Node>) -> Result<()> {
    let api = Api::<Node>::all(client);
    for node in nodes {
        let made = api.create(&PostParams::default(), &node).await?;
        lift_not_ready(&api, made).await?;
    }
    Ok(())
}

async fn lift_not_ready(api: &Api<Node>, mut node: Node) -> Result<()> {
    let name = node.metadata.name.clone().unwrap_or_default();
    for _ in 0..CONFLICTS_MAX {
        let taints = node.spec.as_mut().and_then(|spec| spec.taints.as_mut());
        let Some(taints) = taints.filter(|taints| taints.iter().any(|taint| taint.key == NOT_READY)) else {
            return Ok(());
        };
        taints.retain(|taint| taint.key != NOT_READY);
        match api.replace(&name, &PostParams::default(), &node).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => node = api.get(&name).await?,
            Err(error) => return Err(error).with_context(|| format!("cannot open node {name}")),
        }
    }
    anyhow::bail!("node {name}: {CONFLICTS_MAX} conflicts in a row")
}

fn node(name: &str, labels: &BTreeMap<String, String>, taints: &[Value], resources: &Value) -> Node {
    let now = jiff::Timestamp::now().to_string();
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {KWOK_ANNOTATION: KWOK_ANNOTATION_VALUE}},
        "spec": {"taints": taints},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            // Ready from the first moment, so that no controller taints it before KWOK has seen it.
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "NodeReady", "message": "the node of a test is up",
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            }],
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "v1.36.2", "machineID": "", "operatingSystem": "linux",
                "osImage": "", "systemUUID": "",
            },
        },
    });
    serde_json::from_value(manifest).expect("the fields above are those of a Node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_node_is_closed_and_no_machine() {
        let node = VirtualNodeObject::new("nomad-dc1").label("region", "dc1").manifest();
        let labels = node.metadata.labels.unwrap();
        assert_eq!(labels.keys().collect::<Vec<_>>(), ["region", "type"]);
        assert_eq!(node.status.unwrap().allocatable.unwrap()["pods"].0, "0");
        assert_eq!(node.spec.unwrap().taints.unwrap()[0].key, "spillway.dev/virtual-node");
    }

    #[test]
    fn dedicated_nodes_take_the_zones_in_turn() {
        let zones: Vec<String> = DedicatedNodes::new("d", 3)
            .zones(["a", "b"])
            .manifests()
            .into_iter()
            .map(|node| node.metadata.labels.unwrap()["topology.kubernetes.io/zone"].clone())
            .collect();
        assert_eq!(zones, ["a", "b", "a"]);
    }

    #[test]
    fn the_summary_says_why_pods_wait() {
        let pods = |value: Value| serde_json::from_value::<Vec<Pod>>(value).unwrap();
        assert_eq!(summary(&[]), "no pods");
        let waiting = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]});
        let some = pods(json!([
            {"metadata": {}, "spec": {"containers": [], "nodeName": "d-0"}, "status": {"phase": "Running"}},
            {"metadata": {}, "spec": {"containers": []}, "status": waiting},
            {"metadata": {}, "spec": {"containers": []}},
        ]));
        assert_eq!(summary(&some), "1 Pending (0/1 nodes are available), 1 Pending (not tried yet), 1 Running on d-0");
    }
}
