//! What happens to pods when they are created, where their policy asks for it: the extender's marker, and Spillway's scheduling
//! gate.
//!
//! CEL inside the API server, written anew whenever the policies change. A pod is told by the same selectors and conditions by
//! which the committer selects it. Where an expression fails, the pod is left as it is, as a failing condition selects nothing.
//!
//! One policy object for all BurstPolicies: its name is known beforehand, so Spillway needs no right to any other, as whoever may
//! write every MutatingAdmissionPolicy may change every object of the cluster. A BurstPolicy that the API server does not take is
//! left out, and says so; the others do not notice it. One whose conditions fail on a pod fails alone: `true || error` is true.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// Condition of a BurstPolicy: whether what it asks for at admission is in force.
pub const IN_FORCE: &str = "AdmissionInForce";

/// What all BurstPolicies may come to together: etcd takes 1.5 MiB per object.
const LARGEST: usize = 1 << 20;

/// BurstPolicies that are left out, by name.
pub type LeftOut = BTreeMap<Arc<str>, Obstacle>;

/// Why a BurstPolicy is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The API server does not take its conditions, and says this.
    Refused(String),
    /// Those before it in order of precedence leave no room for it.
    TooLarge,
}

/// What became of what the BurstPolicies ask for.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Those that it is about.
    pub policies: Arc<Policies>,
    /// Whether the API server has MutatingAdmissionPolicies.
    pub supported: bool,
    /// Those that are left out.
    pub left_out: LeftOut,
}

/// The admission policies that these BurstPolicies ask for, ready for server-side apply; none, if none asks.
#[must_use]
pub fn pod_admission(policies: &Policies, left_out: &LeftOut) -> Vec<Value> {
    let selecting: Vec<&CompiledPolicy> =
        selecting(policies).filter(|compiled| !left_out.contains_key(&compiled.policy.name)).collect();
    let marker = mutation(&selecting, wants_marker, &mark());
    let gate = mutation(&selecting, wants_gate, &gate());
    let objects =
        |name: &str, spec: Option<Value>| spec.map(|spec| admission::mutating(COMPONENT, name, &spec)).into_iter().flatten();
    objects(MARKER, marker).chain(objects(GATE, gate)).collect()
}

/// The MutatingAdmissionPolicy of each BurstPolicy as if it were the only one, to ask the API server whether it takes it.
pub fn each_alone(policies: &Policies) -> impl Iterator<Item = (Arc<str>, Value)> {
    let alone = |compiled: &CompiledPolicy| {
        let spec = mutation(&[compiled], |_| true, &mark())?;
        let [policy, _] = admission::mutating(COMPONENT, MARKER, &spec);
        Some((compiled.policy.name.clone(), policy))
    };
    selecting(policies).filter_map(alone)
}

/// Those that do not fit behind the ones before them.
#[must_use]
pub fn too_large(policies: &Policies) -> LeftOut {
    let mut size = 0;
    let beyond = selecting(policies).filter(|compiled| {
        let own = selected(compiled).len();
        let fits = size + own <= LARGEST;
        size += if fits { own } else { 0 };
        !fits
    });
    beyond.map(|compiled| (compiled.policy.name.clone(), Obstacle::TooLarge)).collect()
}

/// Whether a BurstPolicy wants anything done to its pods at admission.
pub(crate) fn asks(compiled: &CompiledPolicy) -> bool {
    wants_marker(compiled) || wants_gate(compiled)
}

/// What is only recorded changes no pod.
fn wants_marker(compiled: &CompiledPolicy) -> bool {
    compiled.policy.extender && compiled.policy.mode == Mode::Enforce
}

/// A stopped policy would gate pods only to let them go.
pub(crate) fn wants_gate(compiled: &CompiledPolicy) -> bool {
    compiled.policy.gate && compiled.policy.mode == Mode::Enforce && compiled.policy.stop == StopPolicy::None
}

fn mutation(selecting: &[&CompiledPolicy], wants: fn(&CompiledPolicy) -> bool, patch: &str) -> Option<Value> {
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

/// In order of precedence. A policy without one of its selectors selects nothing.
fn selecting(policies: &Policies) -> impl Iterator<Item = &CompiledPolicy> {
    let selects =
        |compiled: &&CompiledPolicy| compiled.policy.namespace_selector.is_some() && compiled.policy.pod_selector.is_some();
    policies.iter().map(|compiled| &**compiled).filter(selects)
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

// === impl Outcome ===

impl Outcome {
    /// What is to be said of a BurstPolicy: whether it holds, reason and message. `None`: it asks for nothing and is in nobody's
    /// way.
    pub(crate) fn of(&self, compiled: &Arc<CompiledPolicy>) -> Option<(bool, &'static str, String)> {
        let asks = asks(compiled);
        if !self.policies.iter().any(|known| Arc::ptr_eq(known, compiled)) {
            return asks.then(|| (false, "Pending", "marker or gate are being put in force".to_owned()));
        }
        match self.left_out.get(&compiled.policy.name) {
            _ if asks && !self.supported => {
                let message =
                    "this API server has no MutatingAdmissionPolicies: `spillway doctor` says what to write into pod templates";
                Some((false, "Unsupported", message.to_owned()))
            }
            Some(Obstacle::Refused(message)) => Some((false, "Refused", format!("spec.matchConditions: {message}"))),
            Some(Obstacle::TooLarge) => {
                Some((false, "TooLarge", "spec.matchConditions: those of all policies together are too long".to_owned()))
            }
            None => asks.then(|| (true, "InForce", "new pods are marked or gated as the policy asks for".to_owned())),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;

    fn policy(name: &str, spec: &Value) -> Arc<CompiledPolicy> {
        let mut object = json!({"metadata": {"name": name, "generation": 1}, "spec": {
            "namespaceSelector": {}, "podSelector": {"matchLabels": {"app": name}},
            "tiers": [{"name": "serverless", "virtualNodes": ["cloud"]}]}});
        for (key, value) in spec.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        let object = serde_json::from_value(object).expect("a BurstPolicy");
        Arc::new(compile::burst_policy(&object).expect("the test's own policy"))
    }

    #[test]
    fn who_is_left_out_is_in_nobodys_expression() {
        let policies =
            Policies::new(vec![policy("heavy", &json!({"weight": 200})), policy("light", &json!({"extender": "Use"}))]);
        let text = |left_out: &LeftOut| Value::from(pod_admission(&policies, left_out)).to_string();
        assert!(text(&LeftOut::new()).contains("'heavy'"));
        let heavy = LeftOut::from([(Arc::from("heavy"), Obstacle::Refused("no".to_owned()))]);
        assert!(!text(&heavy).contains("'heavy'") && text(&heavy).contains("'light'"));
        let light = LeftOut::from([(Arc::from("light"), Obstacle::TooLarge)]);
        assert_eq!(pod_admission(&policies, &light), [] as [Value; 0], "nobody else asks");
        let alone: Vec<Arc<str>> = each_alone(&policies).map(|(name, _)| name).collect();
        assert_eq!(alone, [Arc::from("heavy"), Arc::from("light")]);
    }

    #[test]
    fn what_is_too_large_together_is_cut_off_at_the_end() {
        let expression = format!("object.metadata.name != '{}'", "x".repeat(2000));
        let conditions: Vec<Value> =
            (0..8).map(|number| json!({"name": format!("c{number}"), "expression": expression})).collect();
        let many = (0..80).map(|number| policy(&format!("p{number:02}"), &json!({"matchConditions": conditions}))).collect();
        let left_out = too_large(&Policies::new(many));
        let names: Vec<&str> = left_out.keys().map(|name| &**name).collect();
        assert_eq!((names.first(), names.last(), names.len()), (Some(&"p64"), Some(&"p79"), 16));
        assert!(too_large(&Policies::new(vec![policy("p", &json!({}))])).is_empty());
    }

    #[test]
    fn a_policy_says_what_became_of_it() {
        let (asks, quiet) = (policy("asks", &json!({"extender": "Use"})), policy("quiet", &json!({})));
        let outcome = |supported, left_out: &[(&Arc<CompiledPolicy>, Obstacle)]| Outcome {
            policies: Arc::new(Policies::new(vec![asks.clone(), quiet.clone()])),
            supported,
            left_out: left_out.iter().map(|(of, obstacle)| (of.policy.name.clone(), obstacle.clone())).collect(),
        };
        let reason = |outcome: &Outcome, of| outcome.of(of).map(|(holds, reason, _)| (holds, reason));
        let refused = Obstacle::Refused("no".to_owned());
        let table = [
            (outcome(true, &[]), Some((true, "InForce")), None),
            (outcome(false, &[]), Some((false, "Unsupported")), None),
            (outcome(true, &[(&asks, refused.clone()), (&quiet, refused)]), Some((false, "Refused")), Some((false, "Refused"))),
            (outcome(true, &[(&asks, Obstacle::TooLarge)]), Some((false, "TooLarge")), None),
            (Outcome::default(), Some((false, "Pending")), None),
        ];
        for (outcome, of_asks, of_quiet) in table {
            assert_eq!((reason(&outcome, &asks), reason(&outcome, &quiet)), (of_asks, of_quiet), "{outcome:?}");
        }
    }
}
