//! From the objects in the API server to the values that the engine decides by.
//!
//! Nothing illegal gets past this border: what comes out can be worked with, and what cannot is an [`Invalid`] that
//! names the field, the value and what is allowed. The schemas refuse most of it before; it is all checked here again,
//! because an object may be older than its schema, and a manifest given on the command line meets no API server.

mod burst_budget;
mod selectors;
mod virtual_node;
mod window;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use policy::burst_policy::{After, DedicatedTier, Mode, Packing, ServerlessTier, StopPolicy, Tier};
use policy::selector::Requirement;
use policy::virtual_node::Limits;
use policy::{Quantity, Rate, Timestamp};

use crate::api::{self, Invalid};
use crate::duration;
use crate::expression::Expression;
use crate::selection::CompiledPolicy;

pub use burst_budget::{burst_budget, scope};
pub use selectors::label_selector;
pub use virtual_node::virtual_node;
pub use window::{time_zone, window};

/// Run time of a pod without a hint, without a history and without `expectedDuration`: long enough that nothing is
/// promised too cheaply.
const EXPECTED_RUN: Duration = Duration::from_secs(3600);

/// Longest `expectedDuration`.
const RUN_MAX: Duration = Duration::from_secs(8760 * 3600);

/// Longest `after`.
const AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Largest weight of a policy.
const WEIGHT_MAX: i32 = 1_000_000;

/// Compiles a policy: selectors, conditions and tiers.
pub fn burst_policy(object: &api::BurstPolicy) -> Result<CompiledPolicy, Invalid> {
    policy_spec(object).map_err(|invalid| invalid.within("spec"))
}

fn policy_spec(object: &api::BurstPolicy) -> Result<CompiledPolicy, Invalid> {
    let api::BurstPolicySpec {
        weight,
        mode,
        stop_policy,
        namespace_selector,
        pod_selector,
        match_conditions,
        tiers,
        waiting_cost,
        expected_duration,
        return_to_dedicated: _,
        extender,
        gate,
        when_unsatisfiable: api::WhenUnsatisfiable::Wait,
    } = &object.spec;
    if !(0..=WEIGHT_MAX).contains(weight) {
        return Err(Invalid::new("weight", weight.to_string(), format!("must be from 0 to {WEIGHT_MAX}")));
    }
    let tiers = compile_tiers(tiers)?;
    let auto = tiers.iter().any(|tier| matches!(tier, Tier::Serverless(tier) if tier.after == After::Auto));
    if auto && waiting_cost.is_none() {
        return Err(Invalid::new("waitingCost", "", "is required when a tier has after: Auto"));
    }
    let gate = *gate == api::GateUse::Use;
    if gate && (*extender == api::ExtenderUse::Use || !matches!(tiers.first(), Some(Tier::Serverless(_)))) {
        let allowed = "is for policies whose first tier has virtualNodes, and that do not have extender: Use";
        return Err(Invalid::new("gate", "Use", allowed));
    }
    let selector = |field, selector: &Option<api::LabelSelector>| {
        selector.as_ref().map(label_selector).transpose().map_err(|invalid| invalid.within(field))
    };
    let expected_run = match expected_duration {
        Some(text) => bounded("expectedDuration", text, Duration::from_secs(1), RUN_MAX)?,
        None => EXPECTED_RUN,
    };
    let policy = policy::BurstPolicy {
        name: name(&object.metadata),
        generation: object.metadata.generation.unwrap_or(0),
        weight: *weight,
        created: created(&object.metadata),
        mode: match mode {
            api::Mode::Audit => Mode::Audit,
            api::Mode::Enforce => Mode::Enforce,
        },
        stop: match stop_policy {
            api::StopPolicy::None => StopPolicy::None,
            api::StopPolicy::Hold => StopPolicy::Hold,
            api::StopPolicy::HoldAndDrain => StopPolicy::HoldAndDrain,
        },
        namespace_selector: selector("namespaceSelector", namespace_selector)?,
        pod_selector: selector("podSelector", pod_selector)?,
        tiers,
        waiting_cost: waiting_cost.as_ref().map_or(Ok(Rate::FREE), |text| rate("waitingCost", text))?,
        expected_run,
        extender: *extender == api::ExtenderUse::Use,
        gate,
    };
    Ok(CompiledPolicy { policy: Arc::new(policy), conditions: conditions(match_conditions)? })
}

fn conditions(conditions: &[api::MatchCondition]) -> Result<Vec<Expression>, Invalid> {
    let mut names = BTreeSet::new();
    let compile = |(index, condition): (usize, &api::MatchCondition)| {
        let api::MatchCondition { name, expression } = condition;
        if !names.insert(name.clone()) {
            return Err(Invalid::new(format!("matchConditions[{index}].name"), name, "must be unique in the list"));
        }
        Expression::compile(expression).map_err(|invalid| invalid.within(&format!("matchConditions[{index}].expression")))
    };
    conditions.iter().enumerate().map(compile).collect()
}

fn compile_tiers(specs: &[api::TierSpec]) -> Result<Vec<Tier>, Invalid> {
    let mut names = BTreeSet::new();
    let mut tiers = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("tiers[{index}]");
        if !names.insert(&spec.name) {
            return Err(Invalid::new(format!("{path}.name"), &spec.name, "must be unique in the list"));
        }
        tiers.push(tier(spec).map_err(|invalid| invalid.within(&path))?);
    }
    let dedicated = tiers.iter().filter(|tier| matches!(tier, Tier::Dedicated(_))).count();
    if dedicated > 1 {
        return Err(Invalid::new("tiers", "", "at most one of the tiers may be of dedicated nodes (without virtualNodes)"));
    }
    if dedicated == tiers.len() {
        return Err(Invalid::new("tiers", "", "at least one of the tiers must name virtualNodes"));
    }
    Ok(tiers)
}

fn tier(spec: &api::TierSpec) -> Result<Tier, Invalid> {
    let api::TierSpec { name, node_selector, packing, price, after: _, virtual_nodes, spot, limits: bounds } = spec;
    let given = |field: &'static str, given: bool| given.then_some(field);
    let (foreign, place) = match virtual_nodes {
        Some(_) => (
            [
                given("nodeSelector", node_selector.is_some()),
                given("packing", packing.is_some()),
                given("price", price.is_some()),
            ],
            "belongs to the tier of dedicated nodes, which has no virtualNodes",
        ),
        None => ([given("spot", spot.is_some()), given("limits", bounds.is_some()), None], "belongs to tiers with virtualNodes"),
    };
    if let Some(field) = foreign.into_iter().flatten().next() {
        return Err(Invalid::new(field, "", place));
    }
    let name = Arc::from(name.as_str());
    match virtual_nodes {
        Some(virtual_nodes) => serverless(name, spec, virtual_nodes).map(Tier::Serverless),
        None => dedicated(name, spec).map(Tier::Dedicated),
    }
}

fn dedicated(name: Arc<str>, spec: &api::TierSpec) -> Result<DedicatedTier, Invalid> {
    if after(&spec.after)? != After::Fixed(Duration::ZERO) {
        return Err(Invalid::new("after", &spec.after, "belongs to tiers with virtualNodes; dedicated nodes are never closed"));
    }
    let (vcpu, gib) = match &spec.price {
        Some(api::NodePrice { vcpu_hour, gib_hour }) => (rate("price.vcpuHour", vcpu_hour)?, rate("price.gibHour", gib_hour)?),
        None => (Rate::FREE, Rate::FREE),
    };
    let node_selector = match &spec.node_selector {
        Some(labels) => selectors::exact(labels).map_err(|invalid| invalid.within("nodeSelector"))?,
        None => Vec::<Requirement>::new(),
    };
    let packing = match spec.packing.unwrap_or_default() {
        api::Packing::MostAllocated => Packing::MostAllocated,
        api::Packing::Spread => Packing::Spread,
    };
    Ok(DedicatedTier { name, node_selector, packing, vcpu, gib })
}

fn serverless(name: Arc<str>, spec: &api::TierSpec, virtual_nodes: &[String]) -> Result<ServerlessTier, Invalid> {
    if virtual_nodes.is_empty() {
        return Err(Invalid::new("virtualNodes", "", "must name at least one VirtualNode"));
    }
    let mut seen = BTreeSet::new();
    for (index, name) in virtual_nodes.iter().enumerate() {
        if !seen.insert(name) {
            return Err(Invalid::new(format!("virtualNodes[{index}]"), name, "must be unique in the list"));
        }
    }
    Ok(ServerlessTier {
        name,
        after: after(&spec.after)?,
        virtual_nodes: virtual_nodes.iter().map(|name| Arc::from(name.as_str())).collect(),
        spot: spec.spot == Some(api::SpotUse::Allow),
        limits: match &spec.limits {
            Some(bounds) => limits(bounds).map_err(|invalid| invalid.within("limits"))?,
            None => Limits::default(),
        },
    })
}

fn after(text: &str) -> Result<After, Invalid> {
    match text {
        "Auto" => Ok(After::Auto),
        _ => duration::parse(text)
            .filter(|duration| *duration <= AFTER_MAX)
            .map(After::Fixed)
            .ok_or_else(|| Invalid::new("after", text, "must be Auto or a duration of at most 24h, such as 45s")),
    }
}

/// Bounds in the engine's units. A fraction of a unit bounds nothing and is cut off.
pub fn limits(bounds: &api::PodResources) -> Result<Limits, Invalid> {
    let api::PodResources { pods, cpu, memory } = bounds;
    if let Some(pods) = pods.filter(|pods| *pods < 0) {
        return Err(Invalid::new("pods", pods.to_string(), "must not be negative"));
    }
    Ok(Limits {
        pods: *pods,
        cpu_millis: cpu.as_ref().map(|cpu| quantity("cpu", &cpu.0, "1000000", 1_000_000)).transpose()?,
        memory_bytes: memory.as_ref().map(|memory| quantity("memory", &memory.0, "64Pi", 1_000_000_000)).transpose()?,
    })
}

/// A quantity up to `max` in units of so many nanos, cut off.
fn quantity(field: &str, text: &str, max: &str, nanos: i128) -> Result<i64, Invalid> {
    let largest = max.parse().unwrap_or(Quantity::ZERO);
    let allowed = text.parse().ok().filter(|quantity| (Quantity::ZERO..=largest).contains(quantity));
    let refuse = || Invalid::new(field, text, format!("must be a quantity between 0 and {max}"));
    allowed.and_then(|quantity| i64::try_from(quantity.nanos() / nanos).ok()).ok_or_else(refuse)
}

fn rate(field: &str, text: &str) -> Result<Rate, Invalid> {
    text.parse()
        .map_err(|_| Invalid::new(field, text, "must be a price per hour: a decimal number such as 0.04048, zero or more"))
}

fn bounded(field: &str, text: &str, min: Duration, max: Duration) -> Result<Duration, Invalid> {
    duration::parse(text).filter(|duration| (min..=max).contains(duration)).ok_or_else(|| {
        let (min, max) = (min.as_secs(), max.as_secs() / 3600);
        Invalid::new(field, text, format!("must be a duration between {min}s and {max}h, such as 90s or 1h30m"))
    })
}

fn name(metadata: &kube::core::ObjectMeta) -> Arc<str> {
    Arc::from(metadata.name.as_deref().unwrap_or_default())
}

/// Objects from a file have no creation time; among themselves their names decide.
fn created(metadata: &kube::core::ObjectMeta) -> Timestamp {
    metadata.creation_timestamp.as_ref().map_or(Timestamp::EPOCH, |time| Timestamp::from_millis(time.0.as_millisecond()))
}

#[cfg(test)]
mod tests;
