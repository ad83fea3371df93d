//! What happens to pods when they are created, where their policy asks for it: the extender's marker, and Spillway's scheduling
//! gate.
//!
//! CEL inside the API server, written anew whenever the policies change. A pod is told by the same selectors and conditions by
//! which the committer selects it. Where an expression fails, the pod is left as it is, as a failing condition selects nothing.
//!
//! One policy object for all BurstPolicies: its name is known beforehand, so Spillway needs no right to any other.

use policy::burst_policy::{Mode, StopPolicy};
use policy::selector::{Operator, Requirement, Selector};
use serde_json::{Value, json};

use crate::admission::{self, quoted, quoted_list};
use crate::api::names::{DECIDE_GATE, DO_NOT_BURST_LABEL, EXTENDER_MARKER};
use crate::selection::{CompiledPolicy, Policies};

/// The label by which these policies belong together.
pub const COMPONENT: &str = "pods";
/// Marks pods for the extender.
pub const MARKER: &str = "spillway-pod-marker";
/// Gates pods.
pub const GATE: &str = "spillway-pod-gate";

/// The admission policies that these BurstPolicies ask for, ready for server-side apply; none, if none asks.
#[must_use]
pub fn pod_admission(policies: &Policies) -> Vec<Value> {
    let marker = mutation(policies, wants_marker, &mark());
    let gate = mutation(policies, wants_gate, &gate());
    let objects =
        |name: &str, spec: Option<Value>| spec.map(|spec| admission::mutating(COMPONENT, name, &spec)).into_iter().flatten();
    objects(MARKER, marker).chain(objects(GATE, gate)).collect()
}

/// What is only recorded changes no pod.
fn wants_marker(compiled: &CompiledPolicy) -> bool {
    compiled.policy.extender && compiled.policy.mode == Mode::Enforce
}

/// A stopped policy would gate pods only to let them go.
pub(crate) fn wants_gate(compiled: &CompiledPolicy) -> bool {
    compiled.policy.gate && compiled.policy.mode == Mode::Enforce && compiled.policy.stop == StopPolicy::None
}

fn mutation(policies: &Policies, wants: fn(&CompiledPolicy) -> bool, patch: &str) -> Option<Value> {
    let selecting: Vec<&CompiledPolicy> =
        policies.iter().map(|compiled| &**compiled).filter(|compiled| selects(compiled)).collect();
    // Those that come after the last one that asks decide nothing.
    let last = selecting.iter().rposition(|compiled| wants(compiled))?;
    let mut variables = vec![
        json!({"name": "labels", "expression": "has(object.metadata.labels) ? object.metadata.labels : {}"}),
        json!({"name": "team", "expression": "has(namespaceObject.metadata.labels) ? namespaceObject.metadata.labels : {}"}),
    ];
    let (mut alternatives, mut others) = (Vec::new(), String::new());
    for (place, compiled) in selecting[..=last].iter().enumerate() {
        variables.push(json!({"name": format!("policy{place}"), "expression": selected(compiled)}));
        if wants(compiled) {
            alternatives.push(format!("(variables.policy{place}{others})"));
        } else {
            others = format!("{others} && !variables.policy{place}");
        }
    }
    Some(json!({
        "failurePolicy": "Ignore",
        // Idempotent: a pod that has it already is not matched.
        "reinvocationPolicy": "IfNeeded",
        "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
        ]},
        "matchConditions": untouched(),
        "variables": variables,
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
            "expression": format!("{} ? ({patch}) : []", alternatives.join(" || ")),
        }}],
    }))
}

/// A policy without one of its selectors selects nothing.
fn selects(compiled: &CompiledPolicy) -> bool {
    compiled.policy.namespace_selector.is_some() && compiled.policy.pod_selector.is_some()
}

/// Pods that never burst, that have their node, or that somebody has marked already: these are not looked at any further.
fn untouched() -> Value {
    let label = quoted(DO_NOT_BURST_LABEL);
    let marker = quoted(EXTENDER_MARKER);
    let condition = |name: &str, expression: String| json!({"name": name, "expression": expression});
    json!([
        condition("no-node", "!has(object.spec.nodeName) || object.spec.nodeName == ''".to_owned()),
        condition(
            "may-burst",
            format!(
                "!has(object.metadata.labels) || !({label} in object.metadata.labels && object.metadata.labels[{label}] == 'true')"
            )
        ),
        condition(
            "no-daemon",
            "!has(object.metadata.ownerReferences) || !object.metadata.ownerReferences.exists(o, o.kind == 'DaemonSet')"
                .to_owned()
        ),
        condition(
            "not-marked",
            format!(
                "!object.spec.containers.exists(c, has(c.resources) && has(c.resources.limits) && {marker} in c.resources.limits)"
            )
        ),
        condition(
            "not-gated",
            format!(
                "!has(object.spec.schedulingGates) || !object.spec.schedulingGates.exists(g, g.name == {})",
                quoted(DECIDE_GATE)
            )
        ),
    ])
}

/// Whether a policy selects the pod.
fn selected(compiled: &CompiledPolicy) -> String {
    let selector = |labels: &str, selector: &Option<Selector>| {
        let requirements = selector.iter().flat_map(|selector| &selector.requirements);
        requirements.map(|one| requirement(labels, one)).collect::<Vec<_>>()
    };
    let mut all = selector("variables.team", &compiled.policy.namespace_selector);
    all.extend(selector("variables.labels", &compiled.policy.pod_selector));
    all.extend(compiled.conditions.iter().map(|condition| format!("({})", condition.source())));
    if all.is_empty() { "true".to_owned() } else { all.join(" && ") }
}

fn requirement(labels: &str, requirement: &Requirement) -> String {
    let key = quoted(&requirement.key);
    let among = |values: &[std::sync::Arc<str>]| {
        format!("{key} in {labels} && {labels}[{key}] in {}", quoted_list(values.iter().map(|value| &**value)))
    };
    match &requirement.operator {
        Operator::In(values) => format!("({})", among(values)),
        Operator::NotIn(values) => format!("!({})", among(values)),
        Operator::Exists => format!("({key} in {labels})"),
        Operator::DoesNotExist => format!("!({key} in {labels})"),
        // Only selectors of nodes have these.
        Operator::Gt(_) | Operator::Lt(_) => "false".to_owned(),
    }
}

/// The marker, a limit of zero in the first container: a quantity that needs no capacity, and that real kubelets and other
/// virtual kubelets ignore.
fn mark() -> String {
    let (key, resources) = (quoted(EXTENDER_MARKER), "object.spec.containers[0].resources");
    let add =
        |path: &str, value: &str| format!("[JSONPatch{{op: 'add', path: '/spec/containers/0/resources'{path}, value: {value}}}]");
    let whole = add("", &format!("{{'limits': {{{key}: '0'}}}}"));
    let limits = add(" + '/limits'", &format!("{{{key}: '0'}}"));
    let limit = add(&format!(" + '/limits/' + jsonpatch.escapeKey({key})"), "'0'");
    format!("!has({resources}) ? {whole} : (!has({resources}.limits) ? {limits} : {limit})")
}

fn gate() -> String {
    let gate = format!("{{'name': {}}}", quoted(DECIDE_GATE));
    format!(
        "has(object.spec.schedulingGates) ? [JSONPatch{{op: 'add', path: '/spec/schedulingGates/-', value: {gate}}}] \
         : [JSONPatch{{op: 'add', path: '/spec/schedulingGates', value: [{gate}]}}]"
    )
}
