//! `BurstBudget`: how much money bursting may cost, per period.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct, with its `pub`, inside a function")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{InForce, schema};

/// How much money bursting may cost, per period.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spillway.dev",
    version = "v1alpha1",
    kind = "BurstBudget",
    plural = "burstbudgets",
    shortname = "bb",
    category = "spillway",
    status = "BurstBudgetStatus",
    derive = "PartialEq",
    doc = "A hard cap, in money, on what bursting may cost per period.",
    printcolumn(name = "Amount", type_ = "string", json_path = ".spec.amount"),
    printcolumn(name = "Currency", type_ = "string", json_path = ".spec.currency"),
    printcolumn(name = "Period", type_ = "string", json_path = ".spec.period"),
    printcolumn(
        name = "Spent",
        type_ = "string",
        json_path = ".status.spent",
        description = "Accrued in this period"
    ),
    printcolumn(
        name = "Reserved",
        type_ = "string",
        json_path = ".status.reserved",
        description = "Promised to pods that still run"
    ),
    printcolumn(name = "Remaining", type_ = "string", json_path = ".status.remaining"),
    printcolumn(
        name = "Exhausted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Exhausted")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        priority = 1
    ),
    printcolumn(name = "Forecast", type_ = "string", json_path = ".status.forecast", priority = 1),
    printcolumn(name = "Ends", type_ = "date", json_path = ".status.periodEnd", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("metadata.name must have at most 63 characters, as it is repeated in every decision"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.currency == oldSelf.currency")
        .message("currency cannot be changed, because what was spent is counted in it: create another BurstBudget")
        .field_path(".currency")
        .reason(Reason::FieldValueForbidden)
)]
pub struct BurstBudgetSpec {
    /// Most that may be spent per period, as a decimal number with up to nine digits and nine decimals. 0 means that
    /// nothing may burst.
    #[schemars(schema_with = "schema::money")]
    pub amount: String,

    /// Currency of the amount, ISO 4217. The prices of every virtual node in scope must be in the same currency.
    #[schemars(schema_with = "schema::currency")]
    pub currency: String,

    /// The period after which the budget is whole again: a calendar hour, day, week (from Monday) or month in the
    /// budget's time zone.
    pub period: BudgetPeriod,

    /// IANA name of the time zone in which periods begin.
    #[serde(default = "utc")]
    #[schemars(schema_with = "schema::time_zone")]
    pub time_zone: String,

    /// What the budget pays for. Absent: everything that bursts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<BudgetScope>,

    /// `DedicatedOnly`: what no longer fits waits for dedicated nodes. `Warn`: it bursts all the same, and the
    /// condition `Exhausted` says so.
    #[serde(default)]
    pub when_exceeded: WhenExceeded,
}

/// Default of [`BurstBudgetSpec::time_zone`].
fn utc() -> String {
    "UTC".to_owned()
}

/// Calendar periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BudgetPeriod {
    /// From a full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday's midnight to the next.
    Week,
    /// From midnight on the first to the next first.
    Month,
}

/// What becomes of pods that the budget cannot pay for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenExceeded {
    /// They wait for dedicated nodes.
    #[default]
    DedicatedOnly,
    /// They burst, visibly over budget.
    Warn,
}

/// What a budget pays for; both parts must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetScope {
    /// Namespaces whose pods count. Absent or `{}`: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Names of the policies whose pods count. Absent: every policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "policies_schema")]
    pub policies: Option<Vec<String>>,
}

/// The account of the running period. Amounts are decimal numbers in the budget's currency.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BurstBudgetStatus {
    /// Generation of the specification that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the period began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_start: Option<Time>,
    /// When the period ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_end: Option<Time>,
    /// What pods have cost in this period so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<String>,
    /// What is promised to pods that still run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<String>,
    /// The total of spent and reserved that the leader may reach in this period without writing here again. What is
    /// really committed never exceeds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized: Option<String>,
    /// The replica that wrote the authorization: each time that one begins to lead it has another name. A leader that finds
    /// another name here than its own takes the books over anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized_by: Option<String>,
    /// The part of `spent` that no pod explains any more: an allowance that a former leader may have used, or pods
    /// that are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unaccounted: Option<String>,
    /// What may still be promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<String>,
    /// What will have been spent when the period ends, if bursting goes on as it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<String>,
    /// `Ready`: the budget is in force. `Exhausted`: nothing more can be promised. `NearlyExhausted`: that is near.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The last specification that could be used, while the present one cannot.
    // Written by a merge patch, in which `null` takes it away.
    #[serde(default)]
    pub in_force: Option<InForce>,
}

// === schemas ===

fn policies_schema(_: &mut SchemaGenerator) -> Schema {
    schema::names(1, 64)
}
