//! Admission policies that keep virtual nodes closed to everybody else, and from breaking others.
//!
//! The names of the Nodes stand in the expressions, because a policy with a parameter object refuses every Binding of the
//! cluster when that object or its kind is lost.

mod daemon_sets;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::admission;

/// Names of the policies and their bindings.
pub const BIND_GUARD: &str = "spillway-bind-guard";
/// See [`BIND_GUARD`].
pub const RECORD_GUARD: &str = "spillway-record-guard";
/// See [`BIND_GUARD`].
pub const NODE_GUARD: &str = "spillway-node-guard";
/// See [`BIND_GUARD`].
pub const DAEMON_SET_GUARD: &str = "spillway-daemon-set-guard";
/// The label by which the guards belong together.
pub const COMPONENT: &str = "guards";

/// Whoever holds this may bind to virtual nodes and write records: RBAC verb `bind` on `virtualnodes.spillway.dev`.
const ALLOWED: &str = "authorizer.group('spillway.dev').resource('virtualnodes').check('bind').allowed()";

/// What the guards speak of: the Nodes that stand for the cluster's VirtualNodes, or will.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// Names of Nodes that nobody else may bind to: those below, and those that carry Spillway's taint.
    pub bound: BTreeSet<Arc<str>>,
    /// Names of Nodes that VirtualNodes stand for: they are closed.
    pub closed: BTreeSet<Arc<str>>,
    /// Labels of Nodes that VirtualNodes adopt, so that a Node is closed when it appears.
    pub adopting: BTreeSet<BTreeMap<String, String>>,
}

/// A guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Guard {
    /// Who may bind to virtual nodes.
    Bindings,
    /// Who may write decisions, and create pods on virtual nodes.
    Records,
    /// What the Nodes of virtual kubelets carry.
    Nodes,
    /// DaemonSets make no pods for virtual nodes.
    DaemonSets,
}

// === impl Guard ===

impl Guard {
    /// All of them.
    pub const ALL: [Guard; 4] = [Guard::Bindings, Guard::Records, Guard::Nodes, Guard::DaemonSets];
}

// === impl Subjects ===

impl Subjects {
    /// Virtual nodes whose Nodes have these names.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Subjects {
        let names: BTreeSet<Arc<str>> = names.into_iter().map(Arc::from).collect();
        Subjects { bound: names.clone(), closed: names, adopting: BTreeSet::new() }
    }

    /// Whether there are no virtual nodes, nor will be.
    pub fn is_empty(&self) -> bool {
        let Subjects { bound, closed, adopting } = self;
        bound.is_empty() && closed.is_empty() && adopting.is_empty()
    }
}

/// These guards' policies and their bindings, ready for server-side apply.
pub fn guards(subjects: &Subjects, which: &[Guard]) -> Vec<Value> {
    let names = admission::quoted_list(subjects.bound.iter().map(|name| &**name));
    let guard = |guard: &Guard| match guard {
        Guard::Bindings => admission::validating(COMPONENT, BIND_GUARD, &bind_guard(&names)),
        Guard::Records => admission::validating(COMPONENT, RECORD_GUARD, &record_guard(&names)),
        Guard::Nodes => admission::mutating(COMPONENT, NODE_GUARD, &nodes::node_guard(subjects)),
        Guard::DaemonSets => admission::mutating(COMPONENT, DAEMON_SET_GUARD, &daemon_sets::daemon_set_guard()),
    };
    which.iter().flat_map(guard).collect()
}

/// The guards as a YAML stream, for `kubectl apply`.
pub fn print(subjects: &Subjects, which: &[Guard]) -> Result<String, serde_yaml_ng::Error> {
    let documents: Result<Vec<String>, _> = guards(subjects, which).iter().map(serde_yaml_ng::to_string).collect();
    Ok(documents?.join("---\n"))
}

/// Bindings: to a virtual node, and any that carries a record.
fn bind_guard(names: &str) -> Value {
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods/binding", "bindings"]},
        ]},
        "matchConditions": [{
            "name": "concerns-bursting",
            "expression": format!(
                "object.target.name in {names} || (has(object.metadata.annotations) && '{}' in object.metadata.annotations)",
                crate::record::ANNOTATION
            ),
        }],
        "validations": [{
            "expression": ALLOWED,
            "messageExpression": "request.userInfo.username + ' may not bind pods to virtual node ' + object.target.name + ': only Spillway does'",
            "reason": "Forbidden",
        }],
    })
}

/// Pods: the record is written by nobody else, and nobody creates a pod that is on a virtual node already.
fn record_guard(names: &str) -> Value {
    let annotation = crate::record::ANNOTATION;
    // An empty record is another thing than none.
    let record = |object: &str| {
        format!(
            "(has({object}.metadata.annotations) && '{annotation}' in {object}.metadata.annotations ? '=' + {object}.metadata.annotations['{annotation}'] : '')"
        )
    };
    let touched = format!("{} != (request.operation == 'UPDATE' ? {} : '')", record("object"), record("oldObject"));
    let placed = format!("request.operation == 'CREATE' && has(object.spec.nodeName) && object.spec.nodeName in {names}");
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
            "resources": ["pods", "pods/status", "pods/ephemeralcontainers", "pods/resize"],
        }]},
        "matchConditions": [{"name": "record-or-placement", "expression": format!("({touched}) || ({placed})")}],
        "validations": [{
            "expression": ALLOWED,
            "messageExpression": format!("'only Spillway writes {annotation} and places pods on virtual nodes (user ' + request.userInfo.username + ')'"),
            "reason": "Forbidden",
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_is_applied() {
        for which in [&Guard::ALL[..], &[Guard::Nodes]] {
            let subjects = Subjects::named(["a", "b"]);
            let printed = print(&subjects, which).expect("YAML");
            let documents: Vec<Value> = serde_yaml_ng::Deserializer::from_str(&printed)
                .map(|document| serde::Deserialize::deserialize(document).expect("a document"))
                .collect();
            assert_eq!(documents, guards(&subjects, which));
            assert_eq!(documents.len(), 2 * which.len(), "a policy and a binding each");
        }
    }

    #[test]
    fn no_guard_has_parameters() {
        for guard in guards(&Subjects::named(["a"]), &Guard::ALL) {
            assert_eq!(guard["spec"].get("paramKind"), None, "a lost parameter object would stop every Binding");
        }
    }
}
