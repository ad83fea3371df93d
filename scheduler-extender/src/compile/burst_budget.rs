//! `BurstBudget`.

use std::sync::Arc;

use policy::ledger::{Budget, Scope, WhenExceeded};
use policy::{Money, Timestamp};

use super::{label_selector, name, window};
use crate::api::{self, Invalid};

/// Compiles a budget for the period that contains `now`. `currency` is that of the installation.
pub fn burst_budget(object: &api::BurstBudget, currency: &str, now: Timestamp) -> Result<Budget, Invalid> {
    budget_spec(object, currency, now).map_err(|invalid| invalid.within("spec"))
}

fn budget_spec(object: &api::BurstBudget, installed: &str, now: Timestamp) -> Result<Budget, Invalid> {
    let api::BurstBudgetSpec { amount, currency, period, time_zone, scope, when_exceeded } = &object.spec;
    super::virtual_node::check_currency("currency", currency, installed)?;
    let limit: Money = amount
        .parse()
        .ok()
        .filter(|limit| *limit >= Money::ZERO)
        .ok_or_else(|| Invalid::new("amount", amount, "must be a decimal number such as 12.50, zero or more"))?;
    let (start, end) = window(*period, time_zone, now).map_err(|invalid| Invalid { field: "timeZone".to_owned(), ..invalid })?;
    let scope = compile_scope(scope.as_ref()).map_err(|invalid| invalid.within("scope"))?;
    Ok(Budget {
        name: name(&object.metadata),
        scope,
        limit,
        when_exceeded: match when_exceeded {
            api::WhenExceeded::DedicatedOnly => WhenExceeded::DedicatedOnly,
            api::WhenExceeded::Warn => WhenExceeded::Warn,
        },
        start,
        end,
    })
}

/// What a budget covers that does not compile: what its scope says where that can be read, else everything.
pub fn scope(object: &api::BurstBudget) -> Scope {
    compile_scope(object.spec.scope.as_ref()).unwrap_or_default()
}

fn compile_scope(scope: Option<&api::BudgetScope>) -> Result<Scope, Invalid> {
    let Some(api::BudgetScope { namespace_selector, policies }) = scope else { return Ok(Scope::default()) };
    let selector = namespace_selector.as_ref().map(label_selector).transpose();
    Ok(Scope {
        namespace_selector: selector.map_err(|invalid| invalid.within("namespaceSelector"))?,
        policies: policies.iter().flatten().map(|policy| Arc::from(policy.as_str())).collect(),
    })
}
