//! The guard of DaemonSets: [`crate::daemon_sets`] in CEL.

use serde_json::{Value, json};

use crate::admission::quoted_list;
use crate::api::names::{NODE_TYPE_LABEL, VIRTUAL_NODE_TAINT, VIRTUAL_NODE_TYPE};
use crate::hygiene::unwanted;

/// How many alternatives of a node affinity are looked at: CEL cannot count by itself. Nobody writes so many.
const TERMS_MAX: usize = 16;
const SPEC: &str = "object.spec.template.spec";
const AFFINITY: &str = "/spec/template/spec/affinity";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Writes of DaemonSets that would make pods for virtual nodes. An error must not keep anybody from deploying.
pub(super) fn daemon_set_guard() -> Value {
    let decides = quoted_list(unwanted().chain([NODE_TYPE_LABEL]));
    let tolerates = format!(
        "has({SPEC}.tolerations) && {SPEC}.tolerations.exists(t, \
         (!has(t.effect) || t.effect in ['', 'NoSchedule']) && (!has(t.key) || t.key in ['', '{VIRTUAL_NODE_TAINT}']))"
    );
    let selects_nothing = format!("!has({SPEC}.nodeSelector) || !{SPEC}.nodeSelector.exists(k, k in {decides})");
    let required = format!("{SPEC}.affinity.nodeAffinity.{REQUIRED}");
    let closed = format!(
        "has(t.matchExpressions) && t.matchExpressions.exists(e, e.key == '{NODE_TYPE_LABEL}' \
         || (e.key in {decides} && !(e.operator in ['NotIn', 'DoesNotExist'])))"
    );
    let empty =
        "(!has(t.matchExpressions) || size(t.matchExpressions) == 0) && (!has(t.matchFields) || size(t.matchFields) == 0)";
    let indices: Vec<String> = (0..TERMS_MAX).map(|index| index.to_string()).collect();
    json!({
        "failurePolicy": "Ignore",
        "reinvocationPolicy": "IfNeeded",
        "matchConstraints": {"resourceRules": [
            {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["daemonsets"]},
        ]},
        "matchConditions": [
            {"name": "tolerates-virtual-nodes", "expression": tolerates},
            {"name": "selects-nothing-they-lack", "expression": selects_nothing},
        ],
        "variables": [
            {"name": "affinity", "expression": format!("has({SPEC}.affinity)")},
            {"name": "node", "expression": format!("variables.affinity && has({SPEC}.affinity.nodeAffinity)")},
            {"name": "required", "expression": format!("variables.node && has({required})")},
            {"name": "terms", "expression": format!("variables.required ? {required}.nodeSelectorTerms : []")},
            {"name": "open", "expression": format!("variables.terms.map(t, !({closed}) && !({empty}))")},
        ],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mutation(&indices.join(", "))}}],
    })
}

fn mutation(indices: &str) -> String {
    let expression =
        format!("{{'key': dyn('{NODE_TYPE_LABEL}'), 'operator': dyn('NotIn'), 'values': dyn(['{VIRTUAL_NODE_TYPE}'])}}");
    let selector = format!("{{'nodeSelectorTerms': dyn([{{'matchExpressions': dyn([{expression}])}}])}}");
    let node = format!("{{'{REQUIRED}': dyn({selector})}}");
    let path = format!("'{AFFINITY}/nodeAffinity/{REQUIRED}/nodeSelectorTerms/' + string(i) + '/matchExpressions");
    format!(
        "variables.required \
         ? [{indices}].filter(i, i < size(variables.terms) && variables.open[i]).map(i, has(variables.terms[i].matchExpressions) \
         ? JSONPatch{{op: 'add', path: {path}/-', value: {expression}}} \
         : JSONPatch{{op: 'add', path: {path}', value: [{expression}]}}) \
         : [variables.node ? JSONPatch{{op: 'add', path: '{AFFINITY}/nodeAffinity/{REQUIRED}', value: {selector}}} \
         : variables.affinity ? JSONPatch{{op: 'add', path: '{AFFINITY}/nodeAffinity', value: {node}}} \
         : JSONPatch{{op: 'add', path: '{AFFINITY}', value: {{'nodeAffinity': dyn({node})}}}}]"
    )
}
