//! `BurstPolicy`: which pods may burst, where to, in what order and after how long.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct, with its `pub`, inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{InForce, PodResources, schema};

/// Which pods may burst, to which virtual nodes, in what order and after how long.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spillway.dev",
    version = "v1alpha1",
    kind = "BurstPolicy",
    plural = "burstpolicies",
    shortname = "bp",
    category = "spillway",
    status = "BurstPolicyStatus",
    derive = "PartialEq",
    doc = "Which pods may burst into serverless containers, to which virtual nodes, in what order and after how long.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the policy is in force"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "Enforce or Audit"),
    printcolumn(
        name = "Waiting",
        type_ = "integer",
        json_path = ".status.pods.waiting",
        description = "Selected pods that wait for a node"
    ),
    printcolumn(
        name = "Burst",
        type_ = "integer",
        json_path = ".status.pods.burst",
        description = "Selected pods on virtual nodes"
    ),
    printcolumn(
        name = "Spend",
        type_ = "string",
        json_path = ".status.spend",
        description = "What pods of this policy have cost so far"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Tiers",
        type_ = "string",
        json_path = ".spec.tiers[*].name",
        description = "Tiers in order",
        priority = 1
    ),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1),
    printcolumn(name = "Stop", type_ = "string", json_path = ".spec.stopPolicy", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("metadata.name must have at most 63 characters, as it is repeated in every decision"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.tiers.exists(t, has(t.after) && t.after == 'Auto') || has(self.waitingCost)")
        .message("waitingCost is required when a tier has after: Auto, because Auto weighs it against the price of bursting")
        .field_path(".waitingCost")
        .reason(Reason::FieldValueRequired),
    validation = Rule::new("!has(self.gate) || self.gate != 'Use' || (has(self.tiers[0].virtualNodes) && (!has(self.extender) || self.extender != 'Use'))")
        .message("gate: Use is for policies whose first tier has virtualNodes, and that do not have extender: Use")
        .field_path(".gate")
        .reason(Reason::FieldValueInvalid)
)]
pub struct BurstPolicySpec {
    /// Which policy wins when several select a pod: the higher weight, then the older object, then the name.
    #[serde(default = "weight")]
    #[schemars(schema_with = "weight_schema")]
    pub weight: i32,

    /// `Enforce` binds pods to virtual nodes. `Audit` decides, prices and records, and binds nothing.
    #[serde(default)]
    pub mode: Mode,

    /// `Hold` starts nothing new on virtual nodes; what runs there goes on. `HoldAndDrain` also returns what can be
    /// returned. `None` works normally.
    #[serde(default)]
    pub stop_policy: StopPolicy,

    /// Namespaces whose pods are meant. Absent selects nothing, `{}` selects every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,

    /// Pods that are meant, in the namespaces selected. Absent selects nothing, `{}` selects every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub pod_selector: Option<LabelSelector>,

    /// Further conditions in CEL over `object` (the pod) and `namespaceObject` (its namespace); all must be true.
    /// Beside the standard functions only `quantity` is known. A condition that fails with an error, or that is no
    /// boolean, counts as false.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "match_conditions_schema")]
    pub match_conditions: Vec<MatchCondition>,

    /// Where the pods may go, in the order of preference: at most one tier of dedicated nodes, and at least one of
    /// virtual nodes.
    #[schemars(schema_with = "tiers_schema")]
    pub tiers: Vec<TierSpec>,

    /// What one hour of one waiting pod costs its owner, in the currency of the installation, as a decimal number.
    /// Required for `after: Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::rate")]
    pub waiting_cost: Option<String>,

    /// How long a pod is expected to run, from 1s to 8760h, while it carries no hint and its owner has no history.
    /// Absent: one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::run_duration")]
    pub expected_duration: Option<String>,

    /// Which running pods may be moved back when dedicated nodes have room again: `Never`, `Services` (pods that do
    /// not belong to a Job), or `Always`.
    #[serde(default)]
    pub return_to_dedicated: ReturnToDedicated,

    /// `Use` marks the pods, so that a kube-scheduler configured with Spillway's extender asks it about them.
    /// `Ignore` leaves them as they are.
    #[serde(default)]
    pub extender: ExtenderUse,

    /// `Use` holds new pods by the scheduling gate `spillway.dev/decide` until Spillway has decided on them: how serverless comes
    /// first where no extender is asked. Gated pods wait while Spillway is down. `Ignore` gates nothing. Only with a first tier
    /// of virtual nodes, and not together with `extender: Use`.
    #[serde(default)]
    pub gate: GateUse,

    /// What becomes of a pod that no tier can take. `Wait`: it stays an ordinary pending pod.
    #[serde(default)]
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// Default of [`BurstPolicySpec::weight`].
fn weight() -> i32 {
    100
}

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Decide and record only.
    Audit,
    /// Decide and bind.
    #[default]
    Enforce,
}

/// The brake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StopPolicy {
    /// Work normally.
    #[default]
    None,
    /// Nothing new bursts.
    Hold,
    /// Nothing new bursts, and what can be returned to dedicated nodes is returned.
    HoldAndDrain,
}

/// Which running pods may be moved back to dedicated nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReturnToDedicated {
    /// None.
    #[default]
    Never,
    /// Those that do not belong to a Job.
    Services,
    /// All.
    Always,
}

/// Whether the scheduler is to ask the extender about the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExtenderUse {
    /// Mark the pods for it.
    Use,
    /// Leave the pods as they are.
    #[default]
    Ignore,
}

/// Whether new pods are held by a scheduling gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateUse {
    /// Until they are decided on.
    Use,
    /// Not at all.
    #[default]
    Ignore,
}

/// What becomes of a pod that no tier can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// It stays pending.
    #[default]
    Wait,
}

/// A named condition in CEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatchCondition {
    /// Name of the condition, a DNS label, unique in the policy.
    #[schemars(schema_with = "schema::dns_label")]
    pub name: String,
    /// CEL expression that yields a boolean, at most 2048 characters, for example
    /// `object.spec.containers.all(c, quantity(c.resources.requests.cpu).compareTo(quantity('4')) <= 0)`.
    #[schemars(schema_with = "expression_schema")]
    pub expression: String,
}

/// One step of a policy. With `virtualNodes` it is a tier of virtual nodes, without it is the tier of dedicated nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.virtualNodes) || !has(self.nodeSelector)")
        .message("nodeSelector belongs to the tier of dedicated nodes, which has no virtualNodes")
        .field_path(".nodeSelector").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.virtualNodes) || !has(self.packing)")
        .message("packing belongs to the tier of dedicated nodes, which has no virtualNodes")
        .field_path(".packing").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.virtualNodes) || !has(self.price)")
        .message("price belongs to the tier of dedicated nodes; virtual nodes have prices of their own")
        .field_path(".price").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.virtualNodes) || !has(self.spot)")
        .message("spot belongs to tiers with virtualNodes")
        .field_path(".spot").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.virtualNodes) || !has(self.limits)")
        .message("limits belong to tiers with virtualNodes; the scheduler fills dedicated nodes by itself")
        .field_path(".limits").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.virtualNodes) || !has(self.after) || (self.after != 'Auto' && duration(self.after) == duration('0s'))")
        .message("after belongs to tiers with virtualNodes; dedicated nodes are never closed")
        .field_path(".after").reason(Reason::FieldValueForbidden)
)]
pub struct TierSpec {
    /// Name of the tier, a DNS label, unique in the policy.
    #[schemars(schema_with = "schema::dns_label")]
    pub name: String,

    /// Labels of the dedicated nodes that count for this policy. Absent: every node that is not virtual.
    /// Dedicated tier only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<BTreeMap<String, String>>,

    /// How pods that go through the extender fill dedicated nodes: `MostAllocated` (the default) fills one after the
    /// other, `Spread` leaves the choice to the scheduler. Dedicated tier only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<Packing>")]
    pub packing: Option<Packing>,

    /// What one more pod on a dedicated node costs. Absent: nothing, because the nodes are paid for.
    /// Dedicated tier only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<NodePrice>,

    /// How long after dedicated nodes had no room for a pod this tier opens: a duration from 0s (the default) to 24h,
    /// or `Auto`, which waits only while waiting is cheaper than bursting. Tiers of virtual nodes only.
    #[serde(default = "after")]
    #[schemars(schema_with = "schema::after")]
    pub after: String,

    /// Names of `VirtualNode` objects; the cheapest that can run the pod wins. Their order means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "virtual_nodes_schema")]
    pub virtual_nodes: Option<Vec<String>>,

    /// Whether virtual nodes with interruptible capacity may be used: `Allow`, or `Deny` (the default).
    /// Tiers of virtual nodes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<SpotUse>")]
    pub spot: Option<SpotUse>,

    /// Most that the pods of this policy may use in this tier at the same time. Tiers of virtual nodes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PodResources>,
}

/// Default of [`TierSpec::after`].
fn after() -> String {
    "0s".to_owned()
}

/// How dedicated nodes are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Packing {
    /// One after the other.
    #[default]
    MostAllocated,
    /// As the scheduler sees fit.
    Spread,
}

/// Whether interruptible capacity may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SpotUse {
    /// It may.
    Allow,
    /// It may not.
    #[default]
    Deny,
}

/// Marginal price of dedicated nodes, in the currency of the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePrice {
    /// Price of one vCPU for one hour, as a decimal number.
    #[serde(default = "free")]
    #[schemars(schema_with = "schema::rate")]
    pub vcpu_hour: String,
    /// Price of one gibibyte of memory for one hour, as a decimal number.
    #[serde(default = "free")]
    #[schemars(schema_with = "schema::rate")]
    pub gib_hour: String,
}

/// Default of the prices of dedicated nodes.
fn free() -> String {
    "0".to_owned()
}

/// What became of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BurstPolicyStatus {
    /// Generation of the specification that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the policy is in force. `TiersResolved`: every virtual node that it names exists.
    /// `Conflicting`: another policy with the same weight selects some of the same pods. `AdmissionInForce`: new pods are marked
    /// for the extender, or gated, as the policy asks for; only where it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Numbers of pods that the policy selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// In mode `Audit`: the waiting pods that would have burst, and what their quotes come to. Each is judged by itself: none of
    /// them uses up a budget or a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSummary>,
    /// What pods of this policy have cost so far, those that are gone included, as a decimal number. Written every 10 seconds
    /// while they run. What pods have cost since it was last written that went while Spillway was down is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend: Option<String>,
    /// The part of `spend` that pods have cost which are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<String>,
    /// Currency of `spend`, ISO 4217.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The last specification that could be used, while the present one cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
}

/// What a policy in mode `Audit` would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditSummary {
    /// Pods that would have burst.
    #[serde(default)]
    pub pods: i64,
    /// Sum of their quotes, as a decimal number.
    #[serde(default)]
    pub cost: String,
}

/// Numbers of pods by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Pending pods.
    #[serde(default)]
    pub waiting: i64,
    /// Pods on virtual nodes.
    #[serde(default)]
    pub burst: i64,
}

// === schemas ===

fn weight_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 1_000_000})
}

fn expression_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "string", "minLength": 1, "maxLength": 2048})
}

fn match_conditions_schema(generate: &mut SchemaGenerator) -> Schema {
    schema::keyed::<MatchCondition>(generate, "name", 8)
}

fn virtual_nodes_schema(_: &mut SchemaGenerator) -> Schema {
    schema::names(1, 32)
}

fn tiers_schema(generate: &mut SchemaGenerator) -> Schema {
    let mut tiers = schema::keyed::<TierSpec>(generate, "name", 8);
    tiers.insert("minItems".to_owned(), 1.into());
    tiers.insert(
        "x-kubernetes-validations".to_owned(),
        serde_json::json!([
            {
                "rule": "self.filter(t, !has(t.virtualNodes)).size() <= 1",
                "message": "at most one of the tiers may be of dedicated nodes (without virtualNodes)",
            },
            {
                "rule": "self.exists(t, has(t.virtualNodes))",
                "message": "at least one of the tiers must name virtualNodes",
            },
        ]),
    );
    tiers
}
