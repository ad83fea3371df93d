//! The guard of Nodes: a virtual node is stored with what [`crate::hygiene`] asks for from its first moment on.

use serde_json::{Value, json};

use super::Subjects;
use crate::admission::{quoted, quoted_list};
use crate::api::names::VIRTUAL_NODE_TAINT;
use crate::hygiene::{LABELS, unwanted};

/// Writes of Nodes and of their status: virtual kubelets write labels through both.
///
/// An error in an expression must not keep real kubelets from renewing their status, so it is ignored; drift that slips
/// through is repaired.
pub(super) fn node_guard(subjects: &Subjects) -> Value {
    let ours = is_ours(subjects);
    json!({
        "failurePolicy": "Ignore",
        "reinvocationPolicy": "IfNeeded",
        "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["nodes", "nodes/status"]},
        ]},
        "matchConditions": [{"name": "virtual-node", "expression": format!("{IS_VIRTUAL} || {ours}")}],
        "variables": [{"name": "ours", "expression": ours}],
        "mutations": [patch(&labels_added()), patch(&labels_removed()), patch(&tainted()), patch(&without_room())],
    })
}

/// The node says of itself that it is a virtual kubelet's.
const IS_VIRTUAL: &str =
    "(has(object.metadata.labels) && 'type' in object.metadata.labels && object.metadata.labels['type'] == 'virtual-kubelet')";

/// Managed nodes by name, adopted ones by name as soon as they are known and by their labels before: when they appear, and as
/// long as they say that they are virtual. A selector that takes in machines by mistake must not close those that are there.
fn is_ours(subjects: &Subjects) -> String {
    let by_name = format!("object.metadata.name in {}", quoted_list(subjects.closed.iter().map(|name| &**name)));
    if subjects.adopting.is_empty() {
        return format!("({by_name})");
    }
    let selectors: Vec<String> = subjects
        .adopting
        .iter()
        .map(|labels| {
            let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        })
        .collect();
    let by_labels = format!(
        "(request.operation == 'CREATE' || {IS_VIRTUAL}) && has(object.metadata.labels) && [{}].exists(s, s.all(k, k in object.metadata.labels && object.metadata.labels[k] == s[k]))",
        selectors.join(", ")
    );
    format!("({by_name} || ({by_labels}))")
}

fn labels_added() -> String {
    let pairs = |form: fn(&str, &str) -> String| LABELS.map(|(key, value)| form(&quoted(key), &quoted(value))).join(", ");
    format!(
        "has(object.metadata.labels) \
         ? [{}].filter(l, !(l[0] in object.metadata.labels && object.metadata.labels[l[0]] == l[1]))\
         .map(l, JSONPatch{{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey(l[0]), value: l[1]}}) \
         : [JSONPatch{{op: 'add', path: '/metadata/labels', value: {{{}}}}}]",
        pairs(|key, value| format!("[{key}, {value}]")),
        pairs(|key, value| format!("{key}: {value}")),
    )
}

fn labels_removed() -> String {
    let unwanted = quoted_list(unwanted());
    format!(
        "{unwanted}.filter(k, has(object.metadata.labels) && k in object.metadata.labels)\
         .map(k, JSONPatch{{op: 'remove', path: '/metadata/labels/' + jsonpatch.escapeKey(k)}})"
    )
}

fn tainted() -> String {
    let taint = format!("{{'key': '{VIRTUAL_NODE_TAINT}', 'effect': 'NoSchedule'}}");
    format!(
        "!variables.ours \
         || (has(object.spec.taints) && object.spec.taints.exists(t, t.key == '{VIRTUAL_NODE_TAINT}' && t.effect == 'NoSchedule')) \
         ? [] : has(object.spec.taints) \
         ? [JSONPatch{{op: 'add', path: '/spec/taints/-', value: {taint}}}] \
         : [JSONPatch{{op: 'add', path: '/spec/taints', value: [{taint}]}}]"
    )
}

fn without_room() -> String {
    let list = |list: &str| {
        format!(
            "(variables.ours && has(object.status) && has(object.status.{list}) && 'pods' in object.status.{list} \
             && object.status.{list}['pods'] != '0' ? [JSONPatch{{op: 'add', path: '/status/{list}/pods', value: '0'}}] : [])"
        )
    };
    format!("{} + {}", list("capacity"), list("allocatable"))
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}
