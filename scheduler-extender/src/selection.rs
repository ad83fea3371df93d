//! Which policy a pod belongs to: selectors first, then CEL, the first policy in order of precedence.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use policy::BurstPolicy;
use policy::selector::{Labels, Selector};
use policy::snapshot::Namespaces;
use serde_json::Value;

use crate::expression::{Expression, Subject};

/// A policy that compiled.
#[derive(Clone, Debug)]
pub struct CompiledPolicy {
    /// What the engine decides by.
    pub policy: Arc<BurstPolicy>,
    /// `spec.matchConditions`: all must hold.
    pub conditions: Vec<Expression>,
}

/// The policies in order of precedence.
#[derive(Clone, Debug, Default)]
pub struct Policies(Vec<Arc<CompiledPolicy>>);

/// Selectors of Services that keep traffic local, by namespace: pods behind them are not burstable.
pub type LocalServices = std::collections::HashMap<Arc<str>, Vec<(Arc<str>, Selector)>, foldhash::fast::RandomState>;

/// The answer of [`Policies::select`].
#[derive(Debug, Default)]
pub struct Selection {
    /// The policy, if one selects the pod.
    pub policy: Option<Arc<CompiledPolicy>>,
    /// Policies whose conditions could not be evaluated on this pod; they do not select it.
    pub failed: Vec<Arc<str>>,
}

// === impl CompiledPolicy ===

impl CompiledPolicy {
    /// Whether pods that wait under `before` can wait on under this later version of it.
    pub fn succeeds(&self, before: &CompiledPolicy) -> bool {
        self.conditions == before.conditions && self.policy.succeeds(&before.policy)
    }
}

// === impl Policies ===

impl Policies {
    /// Policies in any order.
    pub fn new(mut policies: Vec<Arc<CompiledPolicy>>) -> Policies {
        policies.sort_by_cached_key(|compiled| compiled.policy.precedence());
        Policies(policies)
    }

    /// In order of precedence.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        self.0.iter()
    }

    /// The policy of a pod. Its JSON form, which conditions look at, is only made where there are conditions.
    pub fn select(&self, namespaces: &Namespaces, pod: &Pod, labels: &Labels) -> Selection {
        let mut selection = Selection::default();
        let Some(namespace) = pod.metadata.namespace.as_deref() else { return selection };
        let Some(namespace_labels) = namespaces.get(namespace) else { return selection };
        let mut values: Option<(Value, Value)> = None;
        for compiled in &self.0 {
            if !compiled.policy.selects(namespace_labels, labels) {
                continue;
            }
            if !compiled.conditions.is_empty() {
                let (object, namespace_object) =
                    values.get_or_insert_with(|| (pod_value(pod), namespace_value(namespace, namespace_labels)));
                match holds(&compiled.conditions, object, namespace_object) {
                    Some(true) => {}
                    Some(false) => continue,
                    None => {
                        selection.failed.push(compiled.policy.name.clone());
                        continue;
                    }
                }
            }
            selection.policy = Some(compiled.clone());
            return selection;
        }
        selection
    }

    /// Another policy of the same weight that selects the pod, too, so that only age or name decide between the two.
    pub fn rival(&self, namespaces: &Namespaces, pod: &Pod, labels: &Labels, winner: &CompiledPolicy) -> Option<Arc<str>> {
        let namespace = pod.metadata.namespace.as_deref()?;
        let namespace_labels = namespaces.get(namespace)?;
        let rivals = self.0.iter().filter(|other| {
            other.policy.weight == winner.policy.weight
                && other.policy.name != winner.policy.name
                && other.policy.selects(namespace_labels, labels)
        });
        let also = |other: &CompiledPolicy| {
            other.conditions.is_empty()
                || holds(&other.conditions, &pod_value(pod), &namespace_value(namespace, namespace_labels)) == Some(true)
        };
        rivals.into_iter().find(|other| also(other)).map(|other| other.policy.name.clone())
    }
}

/// Whether all conditions hold; `None` if one cannot be evaluated and none of the others says no.
fn holds(conditions: &[Expression], object: &Value, namespace: &Value) -> Option<bool> {
    let mut subject = Subject::new(object, namespace);
    let mut failed = false;
    for condition in conditions {
        match subject.matches(condition) {
            Ok(true) => {}
            Ok(false) => return Some(false),
            Err(_) => failed = true,
        }
    }
    (!failed).then_some(true)
}

fn pod_value(pod: &Pod) -> Value {
    serde_json::to_value(pod).unwrap_or(Value::Null)
}

fn namespace_value(name: &str, labels: &Labels) -> Value {
    let labels: serde_json::Map<String, Value> = labels.iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
    serde_json::json!({"metadata": {"name": name, "labels": labels}})
}
