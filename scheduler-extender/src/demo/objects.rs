//! Spillway's own objects, as an API server would keep them: the simulated cluster knows only Kubernetes' own.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

use crate::api::{BurstBudget, BurstPolicy, VirtualNode, strict};
use crate::committer::{Event, StatusKind};

/// The objects by name, and the number of writes to them.
#[derive(Default)]
pub(super) struct Objects {
    policies: BTreeMap<String, BurstPolicy>,
    virtual_nodes: BTreeMap<String, VirtualNode>,
    budgets: BTreeMap<String, BurstBudget>,
    namespaces: Vec<Namespace>,
    writes: u64,
}

// === impl Objects ===

impl Objects {
    /// Reads our kinds out of manifests. Anything unknown is an error: in a demonstration it would be silently without effect.
    pub(super) fn read(values: Vec<Value>, namespaces: Vec<Namespace>) -> anyhow::Result<Objects> {
        let mut objects = Objects { namespaces, ..Objects::default() };
        for value in values {
            let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or("?").to_owned();
            let (kind, name) = (text("/kind"), text("/metadata/name"));
            let context = || format!("{kind} {name}");
            let version = format!("{}", objects.writes + 1);
            match kind.as_str() {
                "BurstPolicy" => {
                    let mut policy: BurstPolicy = strict(value).with_context(context)?;
                    policy.metadata.resource_version = Some(version);
                    policy.metadata.generation = Some(1);
                    objects.policies.insert(name, policy);
                }
                "VirtualNode" => {
                    let mut node: VirtualNode = strict(value).with_context(context)?;
                    node.metadata.resource_version = Some(version);
                    node.metadata.generation = Some(1);
                    objects.virtual_nodes.insert(name, node);
                }
                "BurstBudget" => {
                    let mut budget: BurstBudget = strict(value).with_context(context)?;
                    budget.metadata.resource_version = Some(version);
                    budget.metadata.generation = Some(1);
                    objects.budgets.insert(name, budget);
                }
                _ => anyhow::bail!("{kind} {name}: the demonstration knows Node, Namespace, Job, Pod and Spillway's own kinds"),
            }
            objects.writes += 1;
        }
        Ok(objects)
    }

    /// Everything, as watches tell it first.
    pub(super) fn events(&self) -> Vec<Event> {
        let namespaces = self.namespaces.iter().map(|namespace| Event::Namespace(Box::new(namespace.clone())));
        let policies = self.policies.values().map(|policy| Event::Policy(Box::new(policy.clone())));
        let virtual_nodes = self.virtual_nodes.values().map(|node| Event::VirtualNode(Box::new(node.clone())));
        let budgets = self.budgets.values().map(|budget| Event::Budget(Box::new(budget.clone())));
        namespaces.chain(policies).chain(virtual_nodes).chain(budgets).collect()
    }

    /// The virtual nodes, by name.
    pub(super) fn virtual_nodes(&self) -> impl Iterator<Item = (&String, &VirtualNode)> {
        self.virtual_nodes.iter()
    }

    /// The budgets, by name.
    pub(super) fn budgets(&self) -> impl Iterator<Item = (&String, &BurstBudget)> {
        self.budgets.iter()
    }

    /// Writes a budget's status under a resource version. The new version and what the watch says, or nothing on conflict.
    pub(super) fn write_budget(
        &mut self,
        name: &str,
        version: &str,
        status: crate::api::BurstBudgetStatus,
    ) -> Option<(String, Event)> {
        let budget = self.budgets.get_mut(name)?;
        if budget.metadata.resource_version.as_deref() != Some(version) {
            return None;
        }
        self.writes += 1;
        let version = self.writes.to_string();
        budget.metadata.resource_version = Some(version.clone());
        budget.status = Some(status);
        Some((version, Event::Budget(Box::new(budget.clone()))))
    }

    /// Applies status fields; what the watch says about it. Lists are replaced, but conditions merged by type.
    pub(super) fn apply_status(&mut self, kind: StatusKind, name: &str, fields: &Value) -> anyhow::Result<Option<Event>> {
        self.writes += 1;
        let version = Some(self.writes.to_string());
        match kind {
            StatusKind::Policy => {
                let Some(policy) = self.policies.get_mut(name) else { return Ok(None) };
                policy.status = Some(merged(policy.status.as_ref(), fields)?);
                policy.metadata.resource_version = version;
                Ok(Some(Event::Policy(Box::new(policy.clone()))))
            }
            StatusKind::VirtualNode => {
                let Some(node) = self.virtual_nodes.get_mut(name) else { return Ok(None) };
                node.status = Some(merged(node.status.as_ref(), fields)?);
                node.metadata.resource_version = version;
                Ok(Some(Event::VirtualNode(Box::new(node.clone()))))
            }
        }
    }
}

fn merged<T>(status: Option<&T>, fields: &Value) -> anyhow::Result<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let mut whole = serde_json::to_value(status)?;
    if whole.is_null() {
        whole = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = fields else { anyhow::bail!("a status is an object") };
    for (field, value) in fields {
        if field == "conditions" {
            let mut conditions = whole["conditions"].as_array().cloned().unwrap_or_default();
            for condition in value.as_array().into_iter().flatten() {
                conditions.retain(|known| known["type"] != condition["type"]);
                conditions.push(condition.clone());
            }
            whole["conditions"] = Value::Array(conditions);
        } else {
            whole[field] = value.clone();
        }
    }
    Ok(serde_json::from_value(whole)?)
}
