//! Gauges that mirror state: all of them are set at once from one value, so a scrape never sees half a change, and the
//! series of an object that is gone disappears with it.

use super::labels::{self, BoundedNames, Phase};
use super::spend::pair;
use crate::hygiene::Check;
use arc_swap::ArcSwap;
use policy::virtual_node::Provider;
use policy::{Money, Rate};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, Metric, MetricFamily, MetricType};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The state that the gauges show, as one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Pods that a policy selects. Entries with equal labels are added up.
    pub pods: Vec<Pods>,
    /// Pending pods that would fit on a dedicated node now. More than a moment of this is a scheduler's trouble.
    pub pods_waiting_with_room: u64,
    /// Commitments that are decided and wait for their turn, for the bound on Bindings per second.
    pub commits_queued: u64,
    /// Bindings whose answer is awaited.
    pub commits_in_flight: u64,
    /// Whether this replica commits. Exactly one should.
    pub leader: bool,
    /// What the running burst pods cost.
    pub burn: Vec<Burn>,
    /// The policies in force.
    pub policies: Vec<PolicyState>,
    /// The budgets in their current period.
    pub budgets: Vec<BudgetState>,
    /// The virtual nodes.
    pub backends: Vec<BackendState>,
    /// The price list in use.
    pub prices: Vec<PriceState>,
    /// The Nodes of virtual kubelets.
    pub hygiene: Vec<HygieneState>,
}

/// How many pods are where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods {
    /// Their namespace.
    pub namespace: Arc<str>,
    /// The policy that selects them.
    pub policy: Arc<str>,
    /// The tier that they are bound to; none while they are pending.
    pub tier: Option<Arc<str>>,
    /// The cloud; none for dedicated nodes and pending pods.
    pub provider: Option<Provider>,
    /// The virtual node; none for dedicated nodes and pending pods.
    pub node: Option<Arc<str>>,
    /// How far they are.
    pub phase: Phase,
    /// How many.
    pub count: u64,
}

/// Money per hour at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burn {
    /// Namespace of the pods.
    pub namespace: Arc<str>,
    /// The cloud.
    pub provider: Provider,
    /// The virtual node.
    pub node: Arc<str>,
    /// Sum of the rates of what is billed now.
    pub rate: Rate,
}

/// A policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyState {
    /// Name of the BurstPolicy.
    pub policy: Arc<str>,
    /// The generation that decisions follow. Dashboards mark where it changes, since the money follows soon after.
    pub generation: i64,
}

/// A budget in its current period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetState {
    /// Name of the BurstBudget.
    pub budget: Arc<str>,
    /// Its period as the object spells it, for example `Month`.
    pub period: &'static str,
    /// The cap.
    pub limit: Money,
    /// Settled and accrued.
    pub spent: Money,
    /// Committed and not yet spent.
    pub reserved: Money,
    /// Written into the object's status as an allowance for this leader, spent or not.
    pub authorized: Money,
    /// When the period ends, in seconds since 1970.
    pub period_end_seconds: i64,
}

/// A virtual node as the committer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendState {
    /// The cloud.
    pub provider: Provider,
    /// The virtual node.
    pub node: Arc<str>,
    /// Whether it takes new pods: healthy, and not closed after failures.
    pub up: bool,
}

/// One line of the price list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceState {
    /// The cloud.
    pub provider: Provider,
    /// The virtual node: it may override the price of its region.
    pub node: Arc<str>,
    /// The region.
    pub region: Arc<str>,
    /// What is priced: `vcpu`, `gib` and what else the provider bills.
    pub resource: &'static str,
    /// The price of one of it for an hour.
    pub rate: Rate,
    /// Since when the price is known to hold.
    pub age_seconds: u64,
}

/// Whether the Node of a virtual kubelet breaks nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HygieneState {
    /// Name of the Node. Not every one has a VirtualNode.
    pub node: Arc<str>,
    /// What does not hold.
    pub failed: Vec<Check>,
}

struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

const PODS: Family = Family {
    name: "spillway_pods",
    help: "Pods that a burst policy selects, by where they are.",
    labels: &["namespace", "policy", "tier", "provider", "node", "phase"],
};
const WAITING_WITH_ROOM: Family = Family {
    name: "spillway_pods_waiting_with_room",
    help: "Pending pods that would fit on a dedicated node now and wait all the same.",
    labels: &[],
};
const COMMITS_QUEUED: Family =
    Family { name: "spillway_commits_queued", help: "Commitments that are decided and wait for their turn.", labels: &[] };
const COMMITS_IN_FLIGHT: Family =
    Family { name: "spillway_commits_in_flight", help: "Bindings that were sent and are not answered yet.", labels: &[] };
const LEADER: Family = Family {
    name: "spillway_leader",
    help: "Whether this replica holds the lease and commits (1) or stands by (0).",
    labels: &[],
};
const BURN: Family = Family {
    name: "spillway_cost_rate_per_hour",
    help: "Money per hour that the burst pods cost at this moment.",
    labels: &["currency", "namespace", "provider", "node"],
};
const GENERATION: Family = Family {
    name: "spillway_policy_generation",
    help: "Generation of a burst policy that decisions follow.",
    labels: &["policy"],
};
const BUDGET_LABELS: &[&str] = &["currency", "budget", "period"];
const LIMIT: Family =
    Family { name: "spillway_budget_limit", help: "The hard cap of a budget in its current period.", labels: BUDGET_LABELS };
const SPENT: Family = Family {
    name: "spillway_budget_spent",
    help: "Money of a budget that is spent in the current period.",
    labels: BUDGET_LABELS,
};
const RESERVED: Family = Family {
    name: "spillway_budget_reserved",
    help: "Money of a budget that is committed to pods and not yet spent.",
    labels: BUDGET_LABELS,
};
const AUTHORIZED: Family = Family {
    name: "spillway_budget_authorized",
    help: "Money of a budget that the leader may commit without another write to its status.",
    labels: BUDGET_LABELS,
};
const PERIOD_END: Family = Family {
    name: "spillway_budget_period_end_timestamp_seconds",
    help: "When the current period of a budget ends, in seconds since 1970.",
    labels: &["budget", "period"],
};
const UP: Family = Family {
    name: "spillway_backend_up",
    help: "Whether a virtual node takes new pods (1) or is unhealthy or closed after failures (0).",
    labels: &["provider", "node"],
};
const PRICE: Family = Family {
    name: "spillway_price_per_hour",
    help: "Price of one unit of a resource for one hour, as decisions use it.",
    labels: &["currency", "provider", "node", "region", "resource"],
};
const PRICE_AGE: Family = Family {
    name: "spillway_price_age_seconds",
    help: "Age of the prices that decisions use.",
    labels: &["provider", "node", "region"],
};

const COMPLIANT: Family = Family {
    name: "spillway_virtual_node_compliant",
    help: "Whether the Node of a virtual kubelet carries what keeps it from breaking others (1) or has drifted (0).",
    labels: &["node", "check"],
};

const FAMILIES: &[&Family] = &[
    &PODS,
    &WAITING_WITH_ROOM,
    &COMMITS_QUEUED,
    &COMMITS_IN_FLIGHT,
    &LEADER,
    &BURN,
    &GENERATION,
    &LIMIT,
    &SPENT,
    &RESERVED,
    &AUTHORIZED,
    &PERIOD_END,
    &UP,
    &PRICE,
    &PRICE_AGE,
    &COMPLIANT,
];

/// One whole unit. Every gauge is kept as an integer number of billionths until it is rendered, so that amounts are added
/// exactly and there is one conversion to float.
const NANO: i128 = 1_000_000_000;

/// The collector behind `Metrics::publish`.
#[derive(Clone)]
pub(super) struct Mirror {
    descriptions: Arc<[Desc]>,
    currency: Arc<str>,
    published: Arc<ArcSwap<Vec<MetricFamily>>>,
}

/// What the same labels add up to, or the largest of it.
struct Lines {
    family: &'static Family,
    values: BTreeMap<Vec<String>, i128>,
}

// === impl Mirror ===

impl Mirror {
    pub(super) fn new(currency: &str) -> prometheus::Result<Mirror> {
        let descriptions = FAMILIES
            .iter()
            .map(|family| {
                let labels = family.labels.iter().map(ToString::to_string).collect();
                Desc::new(family.name.to_string(), family.help.to_string(), labels, HashMap::new())
            })
            .collect::<prometheus::Result<_>>()?;
        Ok(Mirror { descriptions, currency: currency.into(), published: Arc::default() })
    }

    /// Replaces everything that was published before.
    pub(super) fn publish(&self, gauges: &Gauges, names: &BoundedNames) {
        let Gauges {
            pods,
            pods_waiting_with_room,
            commits_queued,
            commits_in_flight,
            leader,
            burn,
            policies,
            budgets,
            backends,
            prices,
            hygiene,
        } = gauges;
        let mut families = vec![
            pods_lines(pods, names),
            single(&WAITING_WITH_ROOM, *pods_waiting_with_room),
            single(&COMMITS_QUEUED, *commits_queued),
            single(&COMMITS_IN_FLIGHT, *commits_in_flight),
            single(&LEADER, u64::from(*leader)),
            self.burn_lines(burn, names),
            policy_lines(policies, names),
            backend_lines(backends, names),
            hygiene_lines(hygiene, names),
        ];
        families.extend(self.budget_lines(budgets, names));
        families.extend(self.price_lines(prices, names));
        self.published.store(Arc::new(families.into_iter().map(Lines::render).collect()));
    }

    fn burn_lines(&self, burn: &[Burn], names: &BoundedNames) -> Lines {
        let mut lines = Lines::new(&BURN);
        for Burn { namespace, provider, node, rate } in burn {
            let labels = [&*self.currency, names.namespaces.admit(namespace), provider.label(), names.nodes.admit(node)];
            lines.add(&labels, nano(rate.hourly()));
        }
        lines
    }

    fn budget_lines(&self, budgets: &[BudgetState], names: &BoundedNames) -> [Lines; 5] {
        let [mut limit, mut spent, mut reserved, mut authorized] = [&LIMIT, &SPENT, &RESERVED, &AUTHORIZED].map(Lines::new);
        let mut period_end = Lines::new(&PERIOD_END);
        for state in budgets {
            let (budget, period) = (names.budgets.admit(&state.budget), state.period);
            let labels = [&*self.currency, budget, period];
            limit.add(&labels, nano(state.limit));
            spent.add(&labels, nano(state.spent));
            reserved.add(&labels, nano(state.reserved));
            authorized.add(&labels, nano(state.authorized));
            period_end.highest(&[budget, period], i128::from(state.period_end_seconds) * NANO);
        }
        [limit, spent, reserved, authorized, period_end]
    }

    fn price_lines(&self, prices: &[PriceState], names: &BoundedNames) -> [Lines; 2] {
        let (mut price, mut age) = (Lines::new(&PRICE), Lines::new(&PRICE_AGE));
        for state in prices {
            let PriceState { provider, node, region, resource, rate, age_seconds } = state;
            let (node, region) = (names.nodes.admit(node), names.regions.admit(region));
            price.highest(&[&*self.currency, provider.label(), node, region, resource], nano(rate.hourly()));
            age.highest(&[provider.label(), node, region], i128::from(*age_seconds) * NANO);
        }
        [price, age]
    }
}

impl Collector for Mirror {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.published.load().as_ref().clone()
    }
}

fn pods_lines(pods: &[Pods], names: &BoundedNames) -> Lines {
    let mut lines = Lines::new(&PODS);
    for Pods { namespace, policy, tier, provider, node, phase, count } in pods {
        let labels = [
            names.namespaces.admit(namespace),
            names.policies.admit(policy),
            names.tiers.admit_some(tier.as_deref()),
            labels::provider(*provider),
            names.nodes.admit_some(node.as_deref()),
            phase.label(),
        ];
        lines.add(&labels, i128::from(*count) * NANO);
    }
    lines
}

fn policy_lines(policies: &[PolicyState], names: &BoundedNames) -> Lines {
    let mut lines = Lines::new(&GENERATION);
    for PolicyState { policy, generation } in policies {
        lines.highest(&[names.policies.admit(policy)], i128::from(*generation) * NANO);
    }
    lines
}

fn backend_lines(backends: &[BackendState], names: &BoundedNames) -> Lines {
    let mut lines = Lines::new(&UP);
    for BackendState { provider, node, up } in backends {
        lines.highest(&[provider.label(), names.nodes.admit(node)], i128::from(*up) * NANO);
    }
    lines
}

fn hygiene_lines(hygiene: &[HygieneState], names: &BoundedNames) -> Lines {
    let mut lines = Lines::new(&COMPLIANT);
    for HygieneState { node, failed } in hygiene {
        for check in Check::ALL {
            lines.lowest(&[names.nodes.admit(node), check.label()], i128::from(!failed.contains(&check)) * NANO);
        }
    }
    lines
}

fn single(family: &'static Family, value: u64) -> Lines {
    let mut lines = Lines::new(family);
    lines.add(&[], i128::from(value) * NANO);
    lines
}

fn nano(amount: Money) -> i128 {
    i128::from(amount.nanos())
}

// === impl Lines ===

impl Lines {
    fn new(family: &'static Family) -> Lines {
        Lines { family, values: BTreeMap::new() }
    }

    fn at(&mut self, labels: &[&str]) -> &mut i128 {
        assert_eq!(labels.len(), self.family.labels.len(), "labels of {}", self.family.name);
        self.values.entry(labels.iter().map(ToString::to_string).collect()).or_default()
    }

    fn add(&mut self, labels: &[&str], nano: i128) {
        *self.at(labels) += nano;
    }

    /// For what cannot be added, such as an age, where names share the label `other`.
    fn highest(&mut self, labels: &[&str], nano: i128) {
        let value = self.at(labels);
        *value = nano.max(*value);
    }

    /// For what holds only if it holds for all that share a label.
    fn lowest(&mut self, labels: &[&str], nano: i128) {
        let labels = labels.iter().map(ToString::to_string).collect();
        self.values.entry(labels).and_modify(|value| *value = nano.min(*value)).or_insert(nano);
    }

    #[allow(clippy::cast_precision_loss)]
    fn render(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.family.name.to_string());
        family.set_help(self.family.help.to_string());
        family.set_field_type(MetricType::GAUGE);
        for (values, nano) in self.values {
            let mut labels: Vec<_> = self.family.labels.iter().zip(&values).map(|(name, value)| pair(name, value)).collect();
            labels.sort_by(|a, b| a.name().cmp(b.name()));
            let mut metric = Metric::from_label(labels);
            let mut gauge = Gauge::default();
            gauge.set_value(nano as f64 / NANO as f64);
            metric.set_gauge(gauge);
            family.mut_metric().push(metric);
        }
        family
    }
}
