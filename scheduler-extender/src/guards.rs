//! Admission policies that keep virtual nodes closed to everybody else.
//!
//! Pure CEL inside the API server: no webhook, nothing to be down. The names of the Nodes stand in the expression, because a
//! policy with a parameter object refuses every Binding of the cluster when that object or its kind is lost.

use serde_json::{Value, json};

/// Names of the policies and their bindings.
pub const BIND_GUARD: &str = "spillway-bind-guard";
/// See [`BIND_GUARD`].
pub const RECORD_GUARD: &str = "spillway-record-guard";

/// Whoever holds this may bind to virtual nodes and write records: RBAC verb `bind` on `virtualnodes.spillway.dev`.
const ALLOWED: &str = "authorizer.group('spillway.dev').resource('virtualnodes').check('bind').allowed()";

/// The guard policies and their bindings for virtual nodes with these Node names, ready for server-side apply.
pub fn guards(nodes: &[String]) -> Vec<Value> {
    let mut names: Vec<&String> = nodes.iter().collect();
    names.sort();
    names.dedup();
    let list: Vec<String> = names.iter().map(|name| format!("'{}'", name.replace(['\\', '\''], ""))).collect();
    let list = format!("[{}]", list.join(", "));
    vec![bind_guard(&list), binding(BIND_GUARD), record_guard(&list), binding(RECORD_GUARD)]
}

/// The guards as a YAML stream, for `kubectl apply`.
pub fn print(nodes: &[String]) -> Result<String, serde_yaml_ng::Error> {
    let documents: Result<Vec<String>, _> = guards(nodes).iter().map(serde_yaml_ng::to_string).collect();
    Ok(documents?.join("---\n"))
}

/// Bindings: to a virtual node, and any that carries a record.
fn bind_guard(names: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": BIND_GUARD, "labels": labels()},
        "spec": {
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
        },
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
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": RECORD_GUARD, "labels": labels()},
        "spec": {
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
        },
    })
}

fn binding(name: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name, "labels": labels()},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    })
}

fn labels() -> Value {
    json!({"app.kubernetes.io/managed-by": "spillway", "app.kubernetes.io/part-of": "spillway"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_once_and_cannot_leave_their_quotes() {
        let text = serde_json::to_string(&guards(&["b".into(), "a".into(), "b".into(), "x' || true || '".into()])).expect("JSON");
        assert!(text.contains("['a', 'b', 'x || true || ']"), "{text}");
    }

    #[test]
    fn no_guard_has_parameters() {
        for guard in guards(&["a".into()]) {
            assert_eq!(guard["spec"].get("paramKind"), None, "a lost parameter object would stop every Binding");
        }
    }
}
