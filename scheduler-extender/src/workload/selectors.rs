//! Node selectors, taints and tolerations: strings on the wire, operators with their values in the engine. Label selectors
//! stand in policies and are compiled with them, in [`crate::compile`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as wire;
use policy::selector::{NodeTerm, Operator, Requirement};
use policy::taint::{Effect, Taint, Toleration};

use crate::api::Invalid;

/// Labels that must be there with these values: `matchLabels`, `nodeSelector`, a Service's selector.
pub fn match_labels(labels: &BTreeMap<String, String>) -> Vec<Requirement> {
    labels.iter().map(|(key, value)| Requirement::equals(key, value)).collect()
}

/// The terms of a node selector, one of which must match.
pub fn node_selector(selector: &wire::NodeSelector) -> Result<Vec<NodeTerm>, Invalid> {
    let term = |(place, wire): (usize, &wire::NodeSelectorTerm)| {
        node_term(wire).map_err(|invalid| invalid.within(&format!("nodeSelectorTerms[{place}]")))
    };
    selector.node_selector_terms.iter().enumerate().map(term).collect()
}

fn node_term(term: &wire::NodeSelectorTerm) -> Result<NodeTerm, Invalid> {
    Ok(NodeTerm {
        labels: requirements("matchExpressions", term.match_expressions.as_deref(), |_| Ok(()))?,
        fields: requirements("matchFields", term.match_fields.as_deref(), |requirement| match requirement.key.as_str() {
            "metadata.name" => Ok(()),
            other => Err(Invalid::new("key", other, "must be metadata.name")),
        })?,
    })
}

fn requirements(
    field: &str,
    wire: Option<&[wire::NodeSelectorRequirement]>,
    key_is_known: fn(&wire::NodeSelectorRequirement) -> Result<(), Invalid>,
) -> Result<Vec<Requirement>, Invalid> {
    let one = |(place, wire): (usize, &wire::NodeSelectorRequirement)| {
        key_is_known(wire)
            .and_then(|()| operator(&wire.operator, wire.values.as_deref().unwrap_or_default()))
            .map(|operator| Requirement { key: Arc::from(wire.key.as_str()), operator })
            .map_err(|invalid| invalid.within(&format!("{field}[{place}]")))
    };
    wire.unwrap_or_default().iter().enumerate().map(one).collect()
}

fn operator(operator: &str, values: &[String]) -> Result<Operator, Invalid> {
    let some = || match values {
        [] => Err(Invalid::new("values", "", format!("must not be empty with the operator {operator}"))),
        values => Ok(values.iter().map(|value| Arc::from(value.as_str())).collect()),
    };
    let none = || match values {
        [] => Ok(()),
        [first, ..] => Err(Invalid::new("values", first, format!("must be empty with the operator {operator}"))),
    };
    let bound = || match values {
        [bound] => bound.parse().map_err(|_| Invalid::new("values", bound, "must be one integer")),
        values => Err(Invalid::new("values", values.join(","), format!("must be one integer with the operator {operator}"))),
    };
    match operator {
        "In" => some().map(Operator::In),
        "NotIn" => some().map(Operator::NotIn),
        "Exists" => none().map(|()| Operator::Exists),
        "DoesNotExist" => none().map(|()| Operator::DoesNotExist),
        "Gt" => bound().map(Operator::Gt),
        "Lt" => bound().map(Operator::Lt),
        other => Err(Invalid::new("operator", other, "must be In, NotIn, Exists, DoesNotExist, Gt or Lt")),
    }
}

/// A taint of a node.
pub fn taint(taint: &wire::Taint) -> Result<Taint, Invalid> {
    Ok(Taint {
        key: Arc::from(taint.key.as_str()),
        value: Arc::from(taint.value.as_deref().unwrap_or_default()),
        effect: effect(&taint.effect)?,
    })
}

/// The taints of a node.
pub fn taints(spec: &wire::NodeSpec) -> Result<Vec<Taint>, Invalid> {
    let one = |(place, wire)| taint(wire).map_err(|invalid| invalid.within(&format!("spec.taints[{place}]")));
    spec.taints.iter().flatten().enumerate().map(one).collect()
}

/// A toleration of a pod. For how long it tolerates plays no part before the pod runs.
pub fn toleration(toleration: &wire::Toleration) -> Result<Toleration, Invalid> {
    let key = toleration.key.as_deref().filter(|key| !key.is_empty());
    let value = toleration.value.as_deref().unwrap_or_default();
    let value = match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" if key.is_none() => {
            return Err(Invalid::new("operator", "Equal", "must be Exists where there is no key"));
        }
        "" | "Equal" => Some(Arc::from(value)),
        "Exists" => None,
        other => return Err(Invalid::new("operator", other, "must be Equal or Exists")),
    };
    let effect = toleration.effect.as_deref().filter(|effect| !effect.is_empty()).map(effect).transpose()?;
    Ok(Toleration { key: key.map(Arc::from), value, effect })
}

fn effect(effect: &str) -> Result<Effect, Invalid> {
    match effect {
        "NoSchedule" => Ok(Effect::NoSchedule),
        "PreferNoSchedule" => Ok(Effect::PreferNoSchedule),
        "NoExecute" => Ok(Effect::NoExecute),
        other => Err(Invalid::new("effect", other, "must be NoSchedule, PreferNoSchedule or NoExecute")),
    }
}
