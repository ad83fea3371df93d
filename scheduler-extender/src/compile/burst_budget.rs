//! `BurstBudget`.

use std::sync::Arc;

use policy::ledger::{Budget, WhenExceeded};
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
    let (namespace_selector, policies) = match scope {
        Some(api::BudgetScope { namespace_selector, policies }) => {
            let selector = namespace_selector.as_ref().map(label_selector).transpose();
            (selector.map_err(|invalid| invalid.within("scope.namespaceSelector"))?, policies.as_deref().unwrap_or_default())
        }
        None => (None, [].as_slice()),
    };
    Ok(Budget {
        name: name(&object.metadata),
        namespace_selector,
        policies: policies.iter().map(|policy| Arc::from(policy.as_str())).collect(),
        limit,
        when_exceeded: match when_exceeded {
            api::WhenExceeded::DedicatedOnly => WhenExceeded::DedicatedOnly,
            api::WhenExceeded::Warn => WhenExceeded::Warn,
        },
        start,
        end,
    })
}
