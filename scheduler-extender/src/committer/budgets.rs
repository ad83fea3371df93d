//! Budgets: periods, authorizations, and the books that a successor takes over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use policy::ledger::{Balance, Budget, WhenExceeded};
use policy::{Money, Timestamp};

use super::backends::in_force;
use super::lines::ClassId;
use super::{Committer, Intent};
use crate::{api, compile};

/// An authorization that nothing has been drawn on for so long is given back.
const IDLE: Duration = Duration::from_secs(2);
/// Between attempts to write that fail.
const RETRY: Duration = Duration::from_millis(250);
/// Balances that changed are shown at most this often; authorizations are written at once.
const SHOW: Duration = Duration::from_secs(1);

/// The BurstBudget objects.
#[derive(Default)]
pub(super) struct Budgets(BTreeMap<Arc<str>, BudgetObject>);

impl Budgets {
    /// Whether nothing is authorized beyond what is used, and written so.
    pub(super) fn are_given_back(&self, books: &policy::ledger::Books) -> bool {
        let settled = |name: &Arc<str>| books.account(name).is_none_or(|(_, balance)| balance.authorized == balance.total());
        self.0.iter().all(|(name, known)| known.writing.is_none() && settled(name))
    }
}

/// A budget as it stands in the API server.
struct BudgetObject {
    object: api::BurstBudget,
    /// The last specification that compiled.
    good: Option<api::InForce>,
    invalid: Option<String>,
    resource_version: String,
    /// The predecessor's books, until they are taken over.
    inherited: Option<api::BurstBudgetStatus>,
    /// What was taken over: seen again it is no news.
    predecessor: Option<Entered>,
    taken_over: bool,
    /// What the write under way would authorize.
    writing: Option<Money>,
    /// What pods that were refused for want of an authorization would need.
    wanted: Money,
    drawn_at: Timestamp,
    drawn: Money,
    shown: Option<(Balance, Money)>,
    shown_at: Timestamp,
    /// After a failed write: not before this moment.
    not_before: Timestamp,
    /// What was last said about a specification that has never compiled.
    complained: Option<String>,
}

/// What tells one entry in a budget's status from another: who wrote it, and which amounts.
type Entered = (String, [Option<String>; 4], Option<Time>);

/// The entry that a status holds, if a committer wrote it.
fn entered(status: Option<&api::BurstBudgetStatus>) -> Option<Entered> {
    let status = status?;
    let amounts = [&status.spent, &status.reserved, &status.unaccounted, &status.authorized].map(Clone::clone);
    Some((status.authorized_by.clone()?, amounts, status.period_start.clone()))
}

/// The amounts of a status that still count.
#[derive(Default)]
struct Inherited {
    spent: Money,
    unaccounted: Money,
    authorized: Money,
}

impl Inherited {
    fn of(status: Option<&api::BurstBudgetStatus>, budget: &Budget) -> Inherited {
        let Some(status) = status else { return Inherited::default() };
        let same_period =
            status.period_start.as_ref().is_some_and(|start| start.0.as_millisecond() / 1000 == budget.start.millis() / 1000);
        if !same_period {
            return Inherited::default();
        }
        let money = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Money>().ok()).unwrap_or(Money::ZERO);
        Inherited { spent: money(&status.spent), unaccounted: money(&status.unaccounted), authorized: money(&status.authorized) }
    }
}

impl BudgetObject {
    /// Whether somebody else has made this entry after the books were taken over: another leader, who may spend what it says.
    /// Echoes of the predecessor's last entry, as after an edit of the specification, are none.
    fn is_foreign(&self, entry: &Entered, keeper: &str) -> bool {
        entry.0 != keeper && self.predecessor.as_ref() != Some(entry)
    }
}

impl Committer {
    pub(super) fn observe_budget(&mut self, object: &api::BurstBudget, now: Timestamp) {
        let Some(name) = object.metadata.name.as_deref().map(Arc::<str>::from) else { return };
        let resource_version = object.metadata.resource_version.clone().unwrap_or_default();
        let compiled = compile::burst_budget(object, &self.settings.currency, now);
        let invalid = compiled.as_ref().err().map(ToString::to_string);
        let good = compiled.as_ref().ok().and_then(|_| in_force(object.metadata.generation.unwrap_or(0), &object.spec));
        // What cannot be read leaves the last one in force, also the one that a predecessor went by.
        let known_before = self.budgets.0.contains_key(&name);
        let compiled = compiled.or_else(|invalid| match last_good(object).filter(|_| !known_before) {
            Some(last) => compile::burst_budget(&last, &self.settings.currency, now),
            None => Err(invalid),
        });
        match self.budgets.0.get_mut(&name) {
            Some(known) => {
                known.object.clone_from(object);
                known.resource_version = resource_version;
                known.invalid = invalid;
                if !known.taken_over {
                    known.inherited.clone_from(&object.status);
                } else if !self.follows
                    && entered(object.status.as_ref()).is_some_and(|entry| known.is_foreign(&entry, &self.settings.keeper))
                {
                    tracing::warn!(budget = &*name, "another replica has written into the books; they are taken over anew");
                    self.superseded = true;
                }
                known.good = good.or(known.good.take());
            }
            None => {
                let known = BudgetObject {
                    object: object.clone(),
                    good: good.or_else(|| object.status.as_ref().and_then(|status| status.in_force.clone())),
                    invalid,
                    resource_version,
                    inherited: object.status.clone(),
                    predecessor: None,
                    taken_over: false,
                    writing: None,
                    wanted: Money::ZERO,
                    drawn_at: now,
                    drawn: Money::ZERO,
                    shown: None,
                    shown_at: Timestamp::EPOCH,
                    not_before: Timestamp::EPOCH,
                    complained: None,
                };
                self.budgets.0.insert(name.clone(), known);
            }
        }
        // A specification that does not compile leaves the last one in force; without one, nothing may be spent of it.
        let Ok(budget) = compiled else {
            if object.spec.when_exceeded == api::WhenExceeded::DedicatedOnly {
                self.ledger.set_unusable(&name, compile::scope(object));
                self.reconsider();
            }
            return;
        };
        // The object is new, or usable for the first time.
        let is_new = self.ledger.books().account(&name).is_none();
        self.ledger.set_budget(budget);
        self.reconsider();
        if is_new {
            self.recover_into(&name);
        }
        if self.synced {
            self.take_over_budget(&name, now);
            self.copy_budget(&name);
        }
    }

    pub(super) fn budget_gone(&mut self, name: &str) {
        self.budgets.0.remove(name);
        self.ledger.remove_budget(name);
        self.reconsider();
    }

    /// The pods are entered: what the predecessor wrote beyond them is counted as spent.
    pub(super) fn take_over_budgets(&mut self, now: Timestamp) {
        let names: Vec<Arc<str>> = self.budgets.0.keys().cloned().collect();
        for name in names {
            self.take_over_budget(&name, now);
            self.copy_budget(&name);
        }
    }

    /// One that follows shows what the leader has written, and the pods that it sees itself.
    fn copy_budget(&mut self, name: &Arc<str>) {
        let Some(known) = self.budgets.0.get(name).filter(|_| self.follows) else { return };
        let Some((budget, _)) = self.ledger.books().account(name) else { return };
        let Inherited { spent, unaccounted, authorized } = Inherited::of(known.object.status.as_ref(), budget);
        self.ledger.copy(name, spent, unaccounted, authorized);
    }

    fn take_over_budget(&mut self, name: &Arc<str>, now: Timestamp) {
        let Some(known) = self.budgets.0.get_mut(name) else { return };
        // Without an account there is nothing to enter; what the predecessor wrote is kept until there is one.
        let Some((budget, _)) = self.ledger.books().account(name) else { return };
        if std::mem::replace(&mut known.taken_over, true) {
            return;
        }
        known.drawn_at = now;
        let inherited = known.inherited.take();
        known.predecessor = entered(inherited.as_ref());
        if self.follows {
            return;
        }
        let Inherited { spent, unaccounted, authorized } = Inherited::of(inherited.as_ref(), budget);
        self.ledger.take_over(name, spent, unaccounted, authorized);
    }

    /// A budget has appeared while pods run: those that name it are charged to it again.
    fn recover_into(&mut self, name: &Arc<str>) {
        let charged: Vec<_> = self
            .pods
            .iter()
            .filter_map(|(uid, record)| match &record.phase {
                super::pods::Phase::Burst(burst) if burst.record.budgets.contains(name) => {
                    Some((uid.clone(), burst.record.clone()))
                }
                _ => None,
            })
            .collect();
        for (uid, record) in charged {
            self.ledger.charge_also(&uid, name, record.at);
        }
    }

    /// A pod was refused because too little was authorized for it and its equals.
    pub(super) fn want_authorization(&mut self, class: ClassId, budget: &Arc<str>) {
        let Some(class) = self.lines.get(class) else { return };
        let bill = class.policy.serverless().flat_map(|(_, tier)| &tier.virtual_nodes).filter_map(|name| self.backends.get(name));
        let run = policy::decision::expected_run(&class.policy, &class.workload);
        let dearest = bill
            .filter_map(|backend| policy::quote::quote(&class.workload, &backend.node, run, class.policy.waiting_cost).ok())
            .map(|quote| quote.bill)
            .max();
        let waiting = i128::try_from(class.line.without_room().count()).unwrap_or(1).max(1);
        let wanted = dearest.unwrap_or(Money::ZERO).scaled_up(waiting, 1);
        if let Some(known) = self.budgets.0.get_mut(budget) {
            known.wanted = known.wanted.saturating_add(wanted);
        }
    }

    /// Writes what may be spent next, before it is spent; gives back what nobody draws on.
    pub(super) fn authorize(&mut self, now: Timestamp) {
        let names: Vec<Arc<str>> = self.budgets.0.keys().cloned().collect();
        for name in names {
            let Some((budget, balance)) = self.ledger.books().account(&name).map(|(budget, balance)| (budget.clone(), *balance))
            else {
                self.complain(&name, now);
                continue;
            };
            let Some(known) = self.budgets.0.get_mut(&name) else { continue };
            if balance.total() != known.drawn {
                known.drawn = balance.total();
                known.drawn_at = now;
            }
            if known.writing.is_some() || !known.taken_over || now < known.not_before {
                continue;
            }
            let idle = (self.closing || now.since(known.drawn_at) >= IDLE) && balance.reserved == Money::ZERO;
            let authorized = if known.wanted > Money::ZERO {
                target(&budget, &balance, known.wanted)
            } else if idle {
                balance.total()
            } else {
                balance.authorized
            };
            let changed = known.shown != Some((balance, authorized)) && now.since(known.shown_at) >= SHOW;
            if authorized == balance.authorized && !changed {
                known.wanted = Money::ZERO;
                continue;
            }
            known.wanted = Money::ZERO;
            if authorized < balance.authorized {
                // Given up before it is written: nobody may spend what the status no longer says.
                self.ledger.authorize(&name, authorized);
            }
            known.writing = Some(authorized);
            known.shown = Some((balance, authorized));
            known.shown_at = now;
            let keeper = &*self.settings.keeper;
            let status = status(known, &budget, &balance, authorized, keeper, now);
            self.intents.push(Intent::WriteBudget {
                name: name.clone(),
                resource_version: known.resource_version.clone(),
                status: Box::new(status),
            });
        }
    }

    /// Says what is wrong with a budget that has never been usable; the rest of its status stays as it is.
    fn complain(&mut self, name: &Arc<str>, now: Timestamp) {
        let Some(known) = self.budgets.0.get_mut(name) else { return };
        let Some(message) = known.invalid.clone().filter(|message| known.complained.as_ref() != Some(message)) else { return };
        if known.writing.is_some() || now < known.not_before {
            return;
        }
        let mut status = known.object.status.clone().unwrap_or_default();
        status.observed_generation = known.object.metadata.generation;
        let generation = status.observed_generation;
        let ready = super::status::condition(&status.conditions, "Ready", false, "Invalid", &message, generation, now);
        status.conditions.retain(|condition| condition.type_ != ready.type_);
        status.conditions.push(ready);
        known.writing = Some(Money::ZERO);
        known.complained = Some(message);
        let (name, resource_version) = (name.clone(), known.resource_version.clone());
        self.intents.push(Intent::WriteBudget { name, resource_version, status: Box::new(status) });
    }

    pub(super) fn budget_written(&mut self, name: &Arc<str>, resource_version: Option<String>, now: Timestamp) {
        let Some(known) = self.budgets.0.get_mut(name) else { return };
        let authorized = known.writing.take();
        match resource_version {
            Some(version) => {
                known.resource_version = version;
                if let Some(authorized) = authorized {
                    self.ledger.authorize(name, authorized);
                }
            }
            // Somebody else wrote, or nobody knows: the object's next event brings the version to try again with.
            None => {
                (known.shown, known.complained) = (None, None);
                known.not_before = now + RETRY;
            }
        }
        self.reconsider();
    }

    /// Starts new periods.
    pub(super) fn roll_periods(&mut self, now: Timestamp) {
        for (name, known) in &mut self.budgets.0 {
            let over = self.ledger.books().account(name).is_some_and(|(budget, _)| now >= budget.end || now < budget.start);
            if !over {
                continue;
            }
            // A specification that cannot be read does not stop the periods of the last one.
            let last = known.good.as_ref().and_then(|good| serde_json::from_value(good.spec.clone()).ok());
            let object = api::BurstBudget { spec: last.unwrap_or_else(|| known.object.spec.clone()), ..known.object.clone() };
            if let Ok(budget) = compile::burst_budget(&object, &self.settings.currency, now) {
                self.ledger.set_budget(budget);
                known.shown = None;
                self.epoch += 1;
            }
        }
    }

    /// When a budget may be written again, if that is all that is missing.
    pub(super) fn next_write(&self, now: Timestamp) -> Option<Timestamp> {
        self.budgets.0.values().map(|known| known.not_before).filter(|moment| *moment > now).min()
    }

    pub(super) fn budget_period(&self, name: &str) -> &'static str {
        self.budgets.0.get(name).map_or("", |known| period_label(&known.object.spec.period))
    }
}

/// Twice what is wanted, so that a fan-out which is only beginning needs few writes; never more than the limit.
fn target(budget: &Budget, balance: &Balance, wanted: Money) -> Money {
    let most = if budget.when_exceeded == WhenExceeded::Warn { Money::MAX } else { budget.limit };
    balance.total().saturating_add(wanted).saturating_add(wanted).min(most).max(balance.authorized)
}

fn period_label(period: &api::BudgetPeriod) -> &'static str {
    match period {
        api::BudgetPeriod::Hour => "Hour",
        api::BudgetPeriod::Day => "Day",
        api::BudgetPeriod::Week => "Week",
        api::BudgetPeriod::Month => "Month",
    }
}

fn status(
    known: &BudgetObject,
    budget: &Budget,
    balance: &Balance,
    authorized: Money,
    keeper: &str,
    now: Timestamp,
) -> api::BurstBudgetStatus {
    let BudgetObject { object, good, invalid, .. } = known;
    let money = |amount: Money| Some(amount.to_string());
    let reserved = balance.committed.saturating_add(balance.reserved);
    let total = balance.total();
    let generation = object.metadata.generation;
    let before = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        super::status::condition(before, kind, holds, reason, message, generation, now)
    };
    let exhausted = total >= budget.limit;
    let nearly = i128::from(total.nanos()) * 10 >= i128::from(budget.limit.nanos()) * 9;
    let conditions = vec![
        match invalid {
            None => condition("Ready", true, "Accepted", "the budget is in force"),
            Some(message) => condition("Ready", false, "Invalid", message),
        },
        condition(
            "Exhausted",
            exhausted,
            if exhausted { "LimitReached" } else { "WithinLimit" },
            "compares spent and reserved with spec.amount",
        ),
        condition(
            "NearlyExhausted",
            nearly,
            if nearly { "NinetyPercent" } else { "WithinLimit" },
            "compares spent and reserved with 90 % of spec.amount",
        ),
    ];
    api::BurstBudgetStatus {
        observed_generation: generation,
        period_start: time(budget.start),
        period_end: time(budget.end),
        spent: money(balance.spent),
        reserved: money(reserved),
        authorized: money(authorized),
        authorized_by: Some(keeper.to_owned()),
        unaccounted: money(balance.unaccounted),
        remaining: money(budget.limit.saturating_sub(total).max(Money::ZERO)),
        forecast: money(forecast(budget, total, now)),
        conditions,
        in_force: good.clone().filter(|_| invalid.is_some()),
    }
}

/// The object with the specification that a predecessor went by.
fn last_good(object: &api::BurstBudget) -> Option<api::BurstBudget> {
    let good = object.status.as_ref()?.in_force.as_ref()?;
    Some(api::BurstBudget { spec: serde_json::from_value(good.spec.clone()).ok()?, ..object.clone() })
}

/// Where the total ends up if it goes on growing as it has in this period.
fn forecast(budget: &Budget, total: Money, now: Timestamp) -> Money {
    let gone = policy::millis(now.since(budget.start)).max(60_000);
    let whole = policy::millis(budget.end.since(budget.start)).max(gone);
    total.scaled_up(i128::from(whole), i128::from(gone))
}

fn time(moment: Timestamp) -> Option<Time> {
    jiff::Timestamp::from_millisecond(moment.millis()).ok().map(Time)
}
