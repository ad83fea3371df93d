//! `VirtualNode`: one serverless backend, that is one provider in one region with one type of capacity.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct, with its `pub`, inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{InForce, PodResources, PodSize, schema};

mod providers;
pub use providers::{AciSpec, Architecture, FargateSpec, InMemorySpec, NomadSpec, SecretKeyRef, SecretRef};

/// One serverless backend: a provider in one region with one type of capacity.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spillway.dev",
    version = "v1alpha1",
    kind = "VirtualNode",
    plural = "virtualnodes",
    shortname = "vnode",
    category = "spillway",
    status = "VirtualNodeStatus",
    derive = "PartialEq",
    doc = "One serverless backend (a provider in one region with one type of capacity) to which pods may burst.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether pods may burst to it"
    ),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", description = "Its Node object"),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".spec.capacityType", description = "OnDemand or Spot"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods", description = "Pods on it"),
    printcolumn(
        name = "vCPU-Hour",
        type_ = "string",
        json_path = ".status.prices.vcpuHour",
        description = "Price of one vCPU for one hour"
    ),
    printcolumn(name = "Spend", type_ = "string", json_path = ".status.spend", description = "Money accrued by pods on it"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="BackendHealthy")].status"#,
        priority = 1
    ),
    printcolumn(
        name = "Hygiene",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="HygieneCompliant")].status"#,
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("metadata.name must have at most 63 characters, as it names a Node and is repeated in every decision"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.fargate), has(self.aci), has(self.nomad), has(self.inMemory)].filter(x, x).size() == 1")
        .message("exactly one of fargate, aci, nomad and inMemory must be given"),
    validation = Rule::new("has(self.fargate) == has(oldSelf.fargate) && has(self.aci) == has(oldSelf.aci) && has(self.nomad) == has(oldSelf.nomad) && has(self.inMemory) == has(oldSelf.inMemory)")
        .message("the provider (fargate, aci, nomad, inMemory) cannot be changed, because what runs there would be lost from sight: create another VirtualNode")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.adopt) == has(oldSelf.adopt)")
        .message("adopt cannot be added or removed: create another VirtualNode")
        .field_path(".adopt").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.nomad) || self.capacityType != 'Spot'")
        .message("capacityType must be OnDemand for nomad, which sells no interruptible capacity")
        .field_path(".capacityType"),
    validation = Rule::new("!has(self.spotInterruptionsPerHour) || self.capacityType == 'Spot'")
        .message("spotInterruptionsPerHour is only for capacityType Spot")
        .field_path(".spotInterruptionsPerHour").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.billedStartup) || !has(self.startLatency) || duration(self.billedStartup) <= duration(self.startLatency)")
        .message("billedStartup is a part of startLatency and cannot be longer")
        .field_path(".billedStartup")
)]
pub struct VirtualNodeSpec {
    /// AWS Fargate on ECS. Exactly one of `fargate`, `aci`, `nomad` and `inMemory` must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fargate: Option<FargateSpec>,

    /// Azure Container Instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aci: Option<AciSpec>,

    /// HashiCorp Nomad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nomad: Option<NomadSpec>,

    /// A provider that only exists in the memory of Spillway, for tests and demonstrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_memory: Option<InMemorySpec>,

    /// Type of capacity: `OnDemand`, or `Spot` for what the provider may take back. Two types make two virtual nodes.
    #[serde(default)]
    pub capacity_type: CapacityType,

    /// Present: the Node was made by another virtual kubelet and is only adopted. Absent: Spillway makes and runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,

    /// Labels that node selectors and node affinities of pods are matched with, at most 64. Spillway adds
    /// `kubernetes.io/os: linux` and the provider's `kubernetes.io/arch` where they are not given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,

    /// Secret with the provider's credentials. Absent: those of Spillway's own environment (workload identity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,

    /// Prices that are used instead of the provider's price list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pricing: Option<Pricing>,

    /// How long a pod takes to start here, up to 1h. Absent: the provider's usual time, then what was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::start_duration")]
    pub start_latency: Option<String>,

    /// The part of the start that is billed (pulling the image), up to 1h. Absent: the provider's usual time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::start_duration")]
    pub billed_startup: Option<String>,

    /// A pod that has not started so long after its Binding is failed, so that its owner makes another, which goes elsewhere:
    /// from 1s to 1h. Absent: 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::start_deadline")]
    pub start_deadline: Option<String>,

    /// How often a pod is interrupted here, per hour, as a decimal number. Spot only; absent: 0.05.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::frequency")]
    pub spot_interruptions_per_hour: Option<String>,

    /// Most that may run here at the same time. Absent: what the provider's quota allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PodResources>,

    /// The largest pod that can run here, where it differs from what the provider sells by default or says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_pod: Option<PodSize>,

    /// Exceptions from the table of what the provider can run, for example after the provider has learned something
    /// new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "capabilities_schema")]
    pub capabilities: Vec<CapabilityOverride>,
}

/// Type of capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CapacityType {
    /// Stays until the pod ends.
    #[default]
    OnDemand,
    /// May be taken back by the provider at any time.
    Spot,
}

/// A Node that another virtual kubelet made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopt {
    /// Labels that exactly one Node has. Labels of its host, zone, region and platform cannot be among them: a virtual node has
    /// none.
    #[schemars(schema_with = "schema::adopting_selector")]
    pub node_selector: BTreeMap<String, String>,
}

/// Prices of a virtual node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pricing {
    /// Currency of the prices, ISO 4217.
    #[schemars(schema_with = "schema::currency")]
    pub currency: String,
    /// Price of one vCPU for one hour, as a decimal number.
    #[schemars(schema_with = "schema::rate")]
    pub vcpu_hour: String,
    /// Price of one GB of memory for one hour, as a decimal number. A GB is what the provider's price list means by
    /// it: 2^30 bytes for Fargate and Nomad, 10^9 bytes for ACI.
    #[schemars(schema_with = "schema::rate")]
    pub gb_hour: String,
    /// Price of one GB of ephemeral storage beyond the free part for one hour, as a decimal number.
    #[serde(default = "free")]
    #[schemars(schema_with = "schema::rate")]
    pub ephemeral_gb_hour: String,
    /// Every pod is billed for at least this many seconds. Absent: the provider's own minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "minimum_billed_schema")]
    pub minimum_billed_seconds: Option<i64>,
    /// The day of these prices, as 2026-11-21. Absent: they are not judged by their age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::date")]
    pub as_of: Option<String>,
    /// Discount on all these prices, in per cent from 0 to 100, as a decimal number.
    #[serde(default = "free")]
    #[schemars(schema_with = "schema::percent")]
    pub discount_percent: String,
}

/// Default of prices and discounts that need not be given.
fn free() -> String {
    "0".to_owned()
}

/// An exception from the table of what a provider can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityOverride {
    /// Label of the rule, as it appears in Events and explanations, for example `gpu` or `startupProbe`.
    #[schemars(schema_with = "rule_schema")]
    pub rule: String,
    /// Whether pods that the rule is about can run here.
    pub allow: bool,
}

/// What became of a virtual node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualNodeStatus {
    /// Generation of the specification that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name of the Node object that stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// `Ready`: pods may burst to it. `HygieneCompliant`: its Node carries the labels and the taint that keep others
    /// away. `BackendHealthy`: the provider answers and starts pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What the provider allows in total. Absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<PodResources>,
    /// How much of the quota is used, by whomever. Absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<PodResources>,
    /// The largest pod that can be had there at the moment, of each resource for itself. Absent: unknown, or always the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_pod: Option<PodSize>,
    /// When the provider said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,
    /// Prices that quotes are made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<ObservedPrices>,
    /// Number of pods on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<i64>,
    /// What pods on it have cost so far, those that are gone included, as a decimal number in the currency of `prices`. Written
    /// every 10 seconds while they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend: Option<String>,
    /// The part of `spend` that pods have cost which are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<String>,
    /// The last specification that could be used, while the present one cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
}

/// Prices with their origin and age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObservedPrices {
    /// Price of one vCPU for one hour, as a decimal number.
    pub vcpu_hour: String,
    /// Price of one GB of memory for one hour, as a decimal number; a GB is the provider's own.
    pub gb_hour: String,
    /// Price of one GB of ephemeral storage for one hour, as a decimal number.
    #[serde(default = "free")]
    pub ephemeral_gb_hour: String,
    /// Currency of the prices, ISO 4217.
    pub currency: String,
    /// Where the prices come from, for example `spec.pricing`.
    pub source: String,
    /// When they were read there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,
}

// === schemas ===

fn capabilities_schema(generate: &mut SchemaGenerator) -> Schema {
    schema::keyed::<CapabilityOverride>(generate, "rule", 64)
}

fn rule_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(63, "^[a-z][A-Za-z0-9]*$")
}

fn minimum_billed_schema(_: &mut SchemaGenerator) -> Schema {
    schema::integer(0, 86_400)
}
