//! Standard Kubernetes YAML in.

use anyhow::{Context as _, bail};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Objects read from manifests. What the simulation does not know goes to the driver untouched.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// Nodes, dedicated and virtual.
    pub nodes: Vec<Node>,
    /// Pods without an owner.
    pub pods: Vec<Pod>,
    /// Jobs.
    pub jobs: Vec<Job>,
    /// Namespaces, for their labels.
    pub namespaces: Vec<Namespace>,
    /// Everything else, such as Spillway's own kinds.
    pub others: Vec<Value>,
}

/// More objects than any demonstration needs; beyond it the input is a mistake.
const OBJECTS_MAX: usize = 100_000;

impl Manifests {
    /// Reads one or many YAML documents; lists (`kind: List`) are opened. `origin` names the text in errors.
    pub fn read(&mut self, text: &str, origin: &str) -> anyhow::Result<()> {
        for (place, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
            let at = || format!("{origin}, document {}", place + 1);
            let value = Value::deserialize(document).with_context(at)?;
            self.add(value, 0).with_context(at)?;
        }
        Ok(())
    }

    fn add(&mut self, value: Value, depth: usize) -> anyhow::Result<()> {
        if value.is_null() {
            return Ok(()); // An empty document, as after a final `---`.
        }
        let field = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some(kind) = field("kind") else { bail!("not a Kubernetes object: it has no `kind`") };
        let Some(api_version) = field("apiVersion") else { bail!("{kind} has no `apiVersion`") };
        match (api_version.as_str(), kind.as_str()) {
            ("v1", "List") => {
                if depth > 0 {
                    bail!("a List within a List");
                }
                for item in value.get("items").and_then(Value::as_array).cloned().unwrap_or_default() {
                    self.add(item, depth + 1)?;
                }
            }
            ("v1", "Node") => self.nodes.push(typed(value)?),
            ("v1", "Pod") => self.pods.push(typed(value)?),
            ("v1", "Namespace") => self.namespaces.push(typed(value)?),
            ("batch/v1", "Job") => self.jobs.push(typed(value)?),
            _ => self.others.push(value),
        }
        let count = self.nodes.len() + self.pods.len() + self.jobs.len() + self.namespaces.len() + self.others.len();
        if count > OBJECTS_MAX {
            bail!("more than {OBJECTS_MAX} objects");
        }
        Ok(())
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> anyhow::Result<T> {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or("?").to_owned();
    let what = format!("{} {}", text("/kind"), text("/metadata/name"));
    serde_json::from_value(value).context(what)
}
