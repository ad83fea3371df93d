//! DaemonSets keep off virtual nodes.
//!
//! One that tolerates everything makes a pod for every virtual node. The pod waits for ever, because the node has no room, and
//! uses up `maxUnavailable`: rolling updates of the whole DaemonSet stop. So its template gets the node affinity
//! `type NotIn [virtual-kubelet]`: by an admission policy when it is written ([`crate::guards`]), and by one patch where it was
//! there before. Both go by the same rule, and a test compares them.
//!
//! The rule: a template is *open* if it tolerates the taint of virtual nodes and selects nothing that they lack. Whoever
//! mentions the label `type` has thought of virtual nodes, and is left alone.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Toleration};
use serde_json::{Value, json};

use crate::api::names::{KEPT_OFF_ANNOTATION, NODE_TYPE_LABEL, VIRTUAL_NODE_TAINT, VIRTUAL_NODE_TYPE};
use crate::hygiene;

/// Where the terms of the required node affinity stand in a DaemonSet, and what is around them.
const AFFINITY: &str = "/spec/template/spec/affinity";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Operations of a JSON patch that keep the DaemonSet off virtual nodes; none if it is off them, or meant for them.
#[must_use]
pub fn operations(daemon_set: &DaemonSet) -> Vec<Value> {
    let Some(spec) = daemon_set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return Vec::new() };
    let tolerates = spec.tolerations.iter().flatten().any(tolerates);
    let selects = spec.node_selector.iter().flatten().any(|(key, _)| decides(key));
    if !tolerates || selects {
        return Vec::new();
    }
    let node_affinity = spec.affinity.as_ref().map(|affinity| affinity.node_affinity.as_ref());
    let required = node_affinity
        .map(|node_affinity| node_affinity.map(|node| node.required_during_scheduling_ignored_during_execution.as_ref()));
    let add = |path: String, value: Value| json!({"op": "add", "path": path, "value": value});
    let selector = json!({"nodeSelectorTerms": [{"matchExpressions": [expression()]}]});
    match required {
        None => vec![add(AFFINITY.to_owned(), json!({"nodeAffinity": {REQUIRED: selector}}))],
        Some(None) => vec![add(format!("{AFFINITY}/nodeAffinity"), json!({REQUIRED: selector}))],
        Some(Some(None)) => vec![add(format!("{AFFINITY}/nodeAffinity/{REQUIRED}"), selector)],
        Some(Some(Some(selector))) => {
            let open = selector.node_selector_terms.iter().enumerate().filter(|(_, term)| is_open(term));
            let operations = open.map(|(index, term)| {
                let path = format!("{AFFINITY}/nodeAffinity/{REQUIRED}/nodeSelectorTerms/{index}/matchExpressions");
                if term.match_expressions.is_some() {
                    add(format!("{path}/-"), expression())
                } else {
                    add(path, json!([expression()]))
                }
            });
            operations.collect()
        }
    }
}

/// The whole patch, for the DaemonSet as it was seen: with a note that it was made, so that it is made once.
#[must_use]
pub fn patch(daemon_set: &DaemonSet) -> Option<Value> {
    let mut operations = operations(daemon_set);
    if operations.is_empty() {
        return None;
    }
    operations
        .insert(0, json!({"op": "test", "path": "/metadata/resourceVersion", "value": daemon_set.metadata.resource_version}));
    let note = json!({KEPT_OFF_ANNOTATION: "true"});
    operations.push(match &daemon_set.metadata.annotations {
        None => json!({"op": "add", "path": "/metadata/annotations", "value": note}),
        Some(_) => {
            let key = KEPT_OFF_ANNOTATION.replace('/', "~1");
            json!({"op": "add", "path": format!("/metadata/annotations/{key}"), "value": "true"})
        }
    });
    Some(Value::from(operations))
}

/// Whether it was patched before. If it is open all the same, somebody has taken that back, and would do so again.
#[must_use]
pub fn was_patched(daemon_set: &DaemonSet) -> bool {
    daemon_set.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(KEPT_OFF_ANNOTATION))
}

/// The taint of virtual nodes is tolerated, or all taints are.
fn tolerates(toleration: &Toleration) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == "NoSchedule") && (key.is_empty() || key == VIRTUAL_NODE_TAINT)
}

/// A label that virtual nodes lack, or the one that tells them from others.
fn decides(key: &str) -> bool {
    key == NODE_TYPE_LABEL || hygiene::unwanted().any(|unwanted| unwanted == key)
}

/// Terms are alternatives: each that lets virtual nodes in opens the template.
fn is_open(term: &NodeSelectorTerm) -> bool {
    let absence = |operator: &str| operator == "NotIn" || operator == "DoesNotExist";
    let closed = term
        .match_expressions
        .iter()
        .flatten()
        .any(|expression| expression.key == NODE_TYPE_LABEL || (decides(&expression.key) && !absence(&expression.operator)));
    // A term without any condition matches nothing.
    let empty = term.match_expressions.iter().flatten().next().is_none() && term.match_fields.iter().flatten().next().is_none();
    !closed && !empty
}

fn expression() -> Value {
    json!({"key": NODE_TYPE_LABEL, "operator": "NotIn", "values": [VIRTUAL_NODE_TYPE]})
}
