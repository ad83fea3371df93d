//! A real autoscaler: Karpenter with its kwok provider, which rents Nodes that [`Component::Kwok`] plays.
//!
//! Its batching is what clusters have that nobody tuned: it looks at waiting pods one second after the last one came, ten
//! seconds after the first one at the latest.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::component::{KWOK_ANNOTATION, KWOK_ANNOTATION_VALUE};
use super::ports::PortBlock;
use super::process::CommandLine;
use super::{Component, ControlPlane, User, program, wait_until};

/// Karpenter's own types, gathered from its module when it is built.
const TYPES: &str = "karpenter-crds.yaml";
const INSTANCE_TYPES: &str = "karpenter-instance-types.json";
const NODE_CLASS: &str = "default";
/// For the types to be served, and for the pool to be found ready: a second or two each on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What Karpenter may rent, all machines of one size, and whether it gives up those that it can do without.
#[derive(Clone, Debug)]
pub struct NodePool {
    name: String,
    cpu: String,
    memory: String,
    consolidate_after: &'static str,
}

// === impl NodePool ===

impl NodePool {
    /// Machines of this size, kept however little they are used. A Node has 100m CPU and 10 MiB less to give than its machine
    /// has, and its label `karpenter.sh/nodepool` is `name`.
    #[must_use]
    pub fn new(name: &str, cpu: &str, memory: &str) -> NodePool {
        NodePool { name: name.to_owned(), cpu: cpu.to_owned(), memory: memory.to_owned(), consolidate_after: "Never" }
    }

    /// Machines whose pods would fit elsewhere are emptied and given back, as soon as Karpenter looks.
    #[must_use]
    pub fn consolidated(self) -> NodePool {
        NodePool { consolidate_after: "0s", ..self }
    }

    fn instance_types(&self) -> Value {
        let is = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
        let on_demand = [is("karpenter.sh/capacity-type", "on-demand"), is("topology.kubernetes.io/zone", "zone-a")];
        json!([{
            "name": "machine", "architecture": "amd64", "operatingSystems": ["linux"],
            "resources": {"cpu": self.cpu, "memory": self.memory, "pods": "110", "ephemeral-storage": "100Gi"},
            "offerings": [{"Price": 0.1, "Available": true, "Requirements": on_demand}],
        }])
    }

    fn manifests(&self) -> [Value; 2] {
        let class = json!({"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": NODE_CLASS});
        [
            json!({"apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": NODE_CLASS}}),
            json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": self.name}, "spec": {
                "disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": self.consolidate_after},
                "template": {
                    "metadata": {"annotations": {KWOK_ANNOTATION: KWOK_ANNOTATION_VALUE}},
                    "spec": {"nodeClassRef": class, "expireAfter": "Never",
                        "requirements": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]},
                },
            }}),
        ]
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts Karpenter with one pool, and waits until it would rent for it. It needs KWOK and, to see pods that wait, a
    /// kube-scheduler.
    ///
    /// # Errors
    /// When it is not built, does not come up or refuses the pool.
    pub async fn start_karpenter(&self, pool: &NodePool) -> Result<()> {
        std::fs::write(self.folder().join(INSTANCE_TYPES), pool.instance_types().to_string())?;
        let types = std::fs::read_to_string(program(TYPES)?)?;
        for document in serde_yaml_ng::Deserializer::from_str(&types) {
            let document = Value::deserialize(document).with_context(|| format!("{TYPES} is no YAML"))?;
            if !document.is_null() {
                self.apply(document).await?;
            }
        }
        for manifest in pool.manifests() {
            let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
            wait_until(&format!("the API server takes a {kind}"), TIMEOUT, async || self.apply(manifest.clone()).await).await?;
        }
        self.start(Component::Karpenter).await?;
        let pools = self.objects("karpenter.sh/v1", "NodePool")?;
        wait_until("Karpenter's pool ready", TIMEOUT, async || {
            let status = pools.get(&pool.name).await?.data["status"].clone();
            let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            ensure!(conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"), "{status}");
            Ok(())
        })
        .await
    }

    async fn apply(&self, manifest: Value) -> Result<()> {
        let text = |field: &str| manifest[field].as_str().unwrap_or_default().to_owned();
        let objects = self.objects(&text("apiVersion"), &text("kind"))?;
        let name = manifest["metadata"]["name"].as_str().context("metadata.name")?;
        objects.patch(name, &PatchParams::apply("control-plane").force(), &Patch::Apply(&manifest)).await?;
        Ok(())
    }

    /// Objects without a namespace.
    fn objects(&self, api_version: &str, kind: &str) -> Result<Api<DynamicObject>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Ok(Api::all_with(self.client(User::Admin)?, &resource))
    }
}

pub(super) fn command_line(kubeconfig: &Path, folder: &Path, ports: &PortBlock) -> CommandLine {
    CommandLine {
        arguments: vec![
            "-disable-leader-election=true".to_owned(),
            // Nobody reads them; 0 is any port.
            "-metrics-port=0".to_owned(),
            format!("-health-probe-port={}", Component::Karpenter.port(ports)),
            format!("-instance-types-file-path={}", folder.join(INSTANCE_TYPES).display()),
        ],
        environment: vec![("KUBECONFIG", kubeconfig.display().to_string()), ("SYSTEM_NAMESPACE", "kube-system".to_owned())],
    }
}
