//! The two counters of money: exact integers inside, floats only in the text that Prometheus reads.

use super::labels::{NONE, OTHER};
use policy::Money;
use policy::virtual_node::{CapacityType, Provider};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An owner whose money did not change over this many scrapes may make room for a new owner: at a scrape interval of
/// 15 s it was seen with its last value for half an hour, so Prometheus has it. Batch Jobs come every
/// night under a new name; without this rule the first 200 would be the only ones ever seen.
const IDLE_SCRAPES: u32 = 120;

const NANO: f64 = 1e9;

const SPENT: (&str, &str) =
    ("spillway_cost_total", "Money spent on burst pods, as the provider bills them, from the first billable second.");
const AVOIDED: (&str, &str) =
    ("spillway_cost_avoided_total", "Money saved by taking the cheapest feasible offer instead of the next one.");
const LABELS: [&str; 8] = ["capacity_type", "currency", "namespace", "owner_kind", "owner_name", "policy", "provider", "region"];

/// Who caused a burst, and where the money goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spender<'a> {
    /// Namespace of the pods.
    pub namespace: &'a str,
    /// Kind of the topmost owner that is known: a `CronJob` rather than its Job, a `Job` rather than its pod.
    pub owner_kind: &'a str,
    /// Name of that owner. Never the pod's: a counter that lives as long as a pod adds up to nothing.
    pub owner_name: &'a str,
    /// The policy that allowed it.
    pub policy: &'a str,
    /// The cloud.
    pub provider: Provider,
    /// Region of the virtual node.
    pub region: &'a str,
    /// Whether the cloud may take the capacity back.
    pub capacity_type: CapacityType,
}

/// Owners with series of their own, at most `owners_max` of them. Clones share the accounts: one is written to, one
/// is in the registry.
#[derive(Clone)]
pub(super) struct Spend {
    descriptions: Arc<[Desc]>,
    currency: Arc<str>,
    owners_max: usize,
    owners: Arc<Mutex<HashMap<Owner, Account>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Owner {
    namespace: Box<str>,
    kind: Box<str>,
    name: Box<str>,
}

#[derive(Default)]
struct Account {
    scrapes_since_change: u32,
    places: BTreeMap<Place, Amounts>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    policy: Box<str>,
    provider: Provider,
    region: Box<str>,
    capacity_type: CapacityType,
}

/// In billionths of the currency.
#[derive(Default)]
struct Amounts {
    spent_nano: u128,
    avoided_nano: u128,
}

// === impl Spend ===

impl Spend {
    pub(super) fn new(currency: &str, owners_max: usize) -> prometheus::Result<Spend> {
        let describe = |(name, help): (&str, &str)| {
            let labels = LABELS.iter().map(ToString::to_string).collect();
            Desc::new(name.to_string(), help.to_string(), labels, HashMap::new())
        };
        Ok(Spend {
            descriptions: Arc::new([describe(SPENT)?, describe(AVOIDED)?]),
            currency: currency.into(),
            owners_max,
            owners: Arc::default(),
        })
    }

    /// Adds to both counters. Zero opens the series, so that the first real amount is an increase that Prometheus can see.
    pub(super) fn add(&self, spender: &Spender<'_>, spent: Money, avoided: Money) {
        let mut owners = self.lock();
        let account = account(&mut owners, spender, self.owners_max);
        if spent > Money::ZERO || avoided > Money::ZERO {
            account.scrapes_since_change = 0;
        }
        let place = Place {
            policy: or_none(spender.policy).into(),
            provider: spender.provider,
            region: or_none(spender.region).into(),
            capacity_type: spender.capacity_type,
        };
        let amounts = account.places.entry(place).or_default();
        amounts.spent_nano += increase(spent);
        amounts.avoided_nano += increase(avoided);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, Account>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metric(&self, owner: &Owner, place: &Place, nano: u128) -> Metric {
        let values: [&str; LABELS.len()] = [
            place.capacity_type.label(),
            &self.currency,
            &owner.namespace,
            &owner.kind,
            &owner.name,
            &place.policy,
            place.provider.label(),
            &place.region,
        ];
        let mut metric = Metric::from_label(LABELS.iter().zip(values).map(|(name, value)| pair(name, value)).collect());
        let mut counter = Counter::default();
        counter.set_value(money(nano));
        metric.set_counter(counter);
        metric
    }
}

impl Collector for Spend {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (mut spent, mut avoided) = (family(SPENT), family(AVOIDED));
        for (owner, account) in self.lock().iter_mut() {
            account.scrapes_since_change = account.scrapes_since_change.saturating_add(1);
            for (place, amounts) in &account.places {
                spent.mut_metric().push(self.metric(owner, place, amounts.spent_nano));
                avoided.mut_metric().push(self.metric(owner, place, amounts.avoided_nano));
            }
        }
        vec![spent, avoided]
    }
}

/// The account to book on: the owner's own, or that of all the others.
fn account<'a>(owners: &'a mut HashMap<Owner, Account>, spender: &Spender<'_>, owners_max: usize) -> &'a mut Account {
    let mut owner = Owner {
        namespace: or_none(spender.namespace).into(),
        kind: or_none(spender.owner_kind).into(),
        name: or_none(spender.owner_name).into(),
    };
    if !owners.contains_key(&owner) && owners.len() >= owners_max && !make_room(owners) {
        // One account for all of them: the namespace, too, is a name that somebody may create at will.
        owner = Owner { namespace: OTHER.into(), kind: OTHER.into(), name: OTHER.into() };
    }
    owners.entry(owner).or_default()
}

/// Forgets the owner that was idle longest, if that was long enough.
fn make_room(owners: &mut HashMap<Owner, Account>) -> bool {
    let longest = owners
        .iter()
        .filter(|(owner, account)| account.scrapes_since_change >= IDLE_SCRAPES && &*owner.name != OTHER)
        .max_by_key(|(owner, account)| (account.scrapes_since_change, Reverse(*owner)))
        .map(|(owner, _)| owner.clone());
    longest.is_some_and(|owner| owners.remove(&owner).is_some())
}

fn or_none(name: &str) -> &str {
    if name.is_empty() { NONE } else { name }
}

/// A counter never falls. Nothing here can give money back, so a negative amount is a mistake of the caller.
fn increase(amount: Money) -> u128 {
    debug_assert!(amount >= Money::ZERO, "spent or avoided money cannot be negative: {amount}");
    u128::try_from(amount.nanos()).unwrap_or(0)
}

/// The one place where an amount becomes a float: 15 significant digits are more than any chart shows.
#[allow(clippy::cast_precision_loss)]
fn money(nano: u128) -> f64 {
    nano as f64 / NANO
}

fn family((name, help): (&str, &str)) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_string());
    family.set_help(help.to_string());
    family.set_field_type(MetricType::COUNTER);
    family
}

pub(super) fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_string());
    pair.set_value(value.to_string());
    pair
}
