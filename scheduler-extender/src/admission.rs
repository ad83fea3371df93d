//! Admission policies that Spillway generates: CEL inside the API server. What they have in common; what each says is
//! written where it belongs.
//!
//! There are no webhooks, so nothing has to be up for them to hold, and no parameter objects: a policy whose parameter is
//! lost refuses every request that it matches.

use serde_json::{Value, json};

/// Group of the kinds.
pub const GROUP: &str = "admissionregistration.k8s.io";
/// Policies that belong together carry the same value of this label: they are applied and pruned together.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Who made an object.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A ValidatingAdmissionPolicy and its binding, ready for server-side apply.
#[must_use]
pub fn validating(component: &str, name: &str, spec: &Value) -> [Value; 2] {
    let binding = json!({"policyName": name, "validationActions": ["Deny"]});
    [
        object("ValidatingAdmissionPolicy", component, name, spec),
        object("ValidatingAdmissionPolicyBinding", component, name, &binding),
    ]
}

/// A MutatingAdmissionPolicy and its binding, ready for server-side apply, in the version of Kubernetes 1.36. Where the API
/// server has an older one, it is rewritten; where it has none, they are left out.
#[must_use]
pub fn mutating(component: &str, name: &str, spec: &Value) -> [Value; 2] {
    let binding = json!({"policyName": name});
    [
        object("MutatingAdmissionPolicy", component, name, spec),
        object("MutatingAdmissionPolicyBinding", component, name, &binding),
    ]
}

/// Selects what belongs to a component.
#[must_use]
pub fn selector(component: &str) -> String {
    format!("{MANAGED_BY}=spillway,{COMPONENT}={component}")
}

/// A string literal of CEL. Whatever stands in the text, it stays inside.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('\'');
    for character in text.chars() {
        match character {
            '\'' | '\\' => literal.extend(['\\', character]),
            // Nothing that Kubernetes calls a name has one.
            control if control.is_control() => {}
            other => literal.push(other),
        }
    }
    literal.push('\'');
    literal
}

/// A list of string literals of CEL, sorted, each once.
#[must_use]
pub fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: std::collections::BTreeSet<&str> = texts.into_iter().collect();
    let literals: Vec<String> = texts.into_iter().map(quoted).collect();
    format!("[{}]", literals.join(", "))
}

fn object(kind: &str, component: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {"name": name, "labels": {
            MANAGED_BY: "spillway", "app.kubernetes.io/part-of": "spillway", COMPONENT: component,
        }},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_once_and_nothing_leaves_its_quotes() {
        assert_eq!(quoted_list(["b", "a", "b"]), "['a', 'b']");
        assert_eq!(quoted("x' || true || '"), r"'x\' || true || \''");
        for text in ["x' || true || '", "\\", "\\'", "plain"] {
            let parsed = cel::Program::compile(&quoted(text)).expect("a literal").execute(&cel::Context::default());
            assert_eq!(parsed.expect("a value"), cel::Value::String(std::sync::Arc::new(text.to_owned())));
        }
    }
}
