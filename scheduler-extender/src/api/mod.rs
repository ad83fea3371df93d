//! The objects of the API group `spillway.dev/v1alpha1`, as they stand in the API server.
//!
//! ```text
//! BurstPolicy --tiers[].virtualNodes--> VirtualNode --adopt.nodeSelector--> Node
//!      ^
//!      +--scope.policies-- BurstBudget --scope.namespaceSelector--> Namespace
//! ```
//!
//! These are wire types: strings and optional fields, as their authors wrote them. Nothing decides on them;
//! `compile` turns a specification into the values that the engine works with, or says which field is wrong.
//! The schemas refuse what can be refused without knowing other objects, so that most mistakes never get in.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct, with its `pub`, inside a function")]

mod burst_budget;
mod burst_policy;
mod invalid;
pub mod names;
mod schema;
mod strict;
mod virtual_node;

pub use burst_budget::{BudgetPeriod, BudgetScope, BurstBudget, BurstBudgetSpec, BurstBudgetStatus, WhenExceeded};
pub use burst_policy::{
    AuditSummary, BurstPolicy, BurstPolicySpec, BurstPolicyStatus, ExtenderUse, GateUse, MatchCondition, Mode, NodePrice,
    Packing, PodCounts, ReturnToDedicated, SpotUse, StopPolicy, TierSpec, WhenUnsatisfiable,
};
pub use invalid::Invalid;
pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
pub use strict::strict;
pub use virtual_node::{
    AciSpec, Adopt, Architecture, CapabilityOverride, CapacityType, FargateSpec, InMemorySpec, NomadSpec, ObservedPrices,
    Pricing, SecretKeyRef, SecretRef, VirtualNode, VirtualNodeSpec, VirtualNodeStatus,
};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as KubernetesQuantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds in pods and resources: of a tier, of a virtual node, or a provider's quota and what is used of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodResources {
    /// Number of pods. As a limit: absent means no limit, 0 means closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pods")]
    pub pods: Option<i64>,
    /// Sum of the vCPUs, as a quantity. Absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cpu")]
    pub cpu: Option<KubernetesQuantity>,
    /// Sum of the memory, as a quantity. Absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::memory")]
    pub memory: Option<KubernetesQuantity>,
}

/// The specification that is in force while the object's own cannot be used: where a restart finds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InForce {
    /// Generation of the object that had it.
    pub generation: i64,
    /// The specification.
    #[schemars(schema_with = "schema::anything")]
    pub spec: serde_json::Value,
}

/// Size of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSize {
    /// vCPUs, as a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cpu")]
    pub cpu: Option<KubernetesQuantity>,
    /// Memory, as a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::memory")]
    pub memory: Option<KubernetesQuantity>,
}

#[cfg(test)]
mod tests;
