//! What Spillway tells Prometheus, in the words of the domain.
//!
//! ```text
//! Metrics ── registry ──┬── counters and histograms     one method each, so that no caller spells a label
//!                       ├── Spend                       money by owner: exact integers, owners bounded
//!                       └── Mirror                      gauges: replaced as a whole by publish(&Gauges)
//! ```
//!
//! Rules that hold for every series, checked by tests: the prefix `spillway_`; base units; counters end in `_total`; no
//! label names a pod; every label is bounded, because each name that users choose passes through a list of limited length
//! and is `other` beyond it.
//!
//! Money has the label `currency` instead of a currency in its name. An installation has one currency, but not every
//! installation has dollars, and a series called `_dollars` that counts euros would be a lie that dashboards repeat. The
//! number is whole units of that currency; rates are per hour, the unit of every price list.

mod births;
mod extender;
mod labels;
mod mirror;
mod series;
mod spend;
#[cfg(test)]
mod tests;

pub use labels::{BindingOutcome, BudgetAction, Limits, NONE, OTHER, Outcome, Phase};
pub use mirror::{BackendState, BudgetState, Burn, Gauges, HygieneState, Pods, PolicyState, PriceState};
pub use spend::Spender;

use crate::hygiene::Check;
use births::Births;
use extender::ExtenderSeries;
use labels::BoundedNames;
use mirror::Mirror;
use policy::Money;
use policy::burst_policy::Mode;
use policy::virtual_node::Provider;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry, TextEncoder};
use providers::ErrorKind;
use series::Series;
use spend::Spend;
use std::time::Duration;

/// 10 µs to 1 s: kube-scheduler's calls are serial, so the interesting end is the left one.
const DECISION_BUCKETS: &[f64] =
    &[0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];

/// 5 ms, about one API call, to half an hour, a pod that waits for a dedicated node.
const PENDING_BUCKETS: &[f64] = &[0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// 1 s, an allocation on a node that has the image, to 20 min, when every start deadline has passed.
const STARTUP_BUCKETS: &[f64] = &[1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0];

/// The kinds of error that say something about a backend. That a pod is not there, or there already, is no failure of it.
const ERRORS: [ErrorKind; 6] = [
    ErrorKind::Throttled { retry_after: None },
    ErrorKind::QuotaExceeded,
    ErrorKind::NoCapacity,
    ErrorKind::Denied,
    ErrorKind::Invalid,
    ErrorKind::Unavailable,
];

/// The word for a decision that no scheduler asked for, beside the extender's verbs.
const CHOOSE: &str = "choose";

/// One decision of the engine. Count changes of mind, not every look at a pod that still waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided<'a> {
    /// The policy that applies.
    pub policy: &'a str,
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// The tier that is taken or waited for, if one is.
    pub tier: Option<&'a str>,
    /// The cloud, where one is chosen.
    pub provider: Option<Provider>,
    /// What was decided.
    pub outcome: Outcome,
    /// The stable label of the reason.
    pub reason: &'static str,
    /// Whether it was acted on.
    pub mode: Mode,
}

/// All series of this process. Every method is cheap enough for the extender's path and may be called from any thread.
pub struct Metrics {
    registry: Registry,
    names: BoundedNames,
    decisions: IntCounterVec,
    decision_duration: HistogramVec,
    pending_to_bound: HistogramVec,
    startup: HistogramVec,
    bindings: IntCounterVec,
    budget_blocked: IntCounterVec,
    backend_errors: IntCounterVec,
    match_condition_errors: IntCounterVec,
    hygiene_repairs: IntCounterVec,
    daemon_sets_open: IntGauge,
    extender: ExtenderSeries,
    spend: Spend,
    mirror: Mirror,
    births: Births,
}

// === impl Metrics ===

impl Metrics {
    /// A registry of its own; nothing global, so tests and the demo may have many.
    ///
    /// # Panics
    /// Never in practice: the names of all series are constants, and a test registers them.
    #[must_use]
    pub fn new(currency: &str, limits: Limits) -> Metrics {
        Metrics::register(currency, limits).expect("the series are constants, valid and distinct")
    }

    fn register(currency: &str, limits: Limits) -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let series = Series { registry: &registry };
        let spend = Spend::new(currency, limits.owners)?;
        registry.register(Box::new(spend.clone()))?;
        let mirror = Mirror::new(currency)?;
        registry.register(Box::new(mirror.clone()))?;
        let decision_duration = series.histogram(
            "spillway_decision_duration_seconds",
            "Time from question to answer, decoding and encoding included.",
            &["verb"],
            DECISION_BUCKETS,
        )?;
        let metrics = Metrics {
            names: BoundedNames::new(limits),
            decisions: series.counter(
                "spillway_decisions_total",
                "Decisions of the engine, by what was decided and why.",
                &["policy", "namespace", "tier", "provider", "outcome", "reason", "mode"],
            )?,
            extender: ExtenderSeries::register(&series, decision_duration.clone())?,
            decision_duration,
            pending_to_bound: series.histogram(
                "spillway_pending_to_bound_seconds",
                "Time from the creation of a selected pod to its Binding.",
                &["placement", "tier", "provider"],
                PENDING_BUCKETS,
            )?,
            startup: series.histogram(
                "spillway_startup_seconds",
                "Time from the Binding of a burst pod until its containers ran.",
                &["provider", "node", "tier"],
                STARTUP_BUCKETS,
            )?,
            bindings: series.counter(
                "spillway_bindings_total",
                "Bindings sent to the API server, by its answer.",
                &["outcome"],
            )?,
            budget_blocked: series.counter(
                "spillway_budget_blocked_pods_total",
                "Pods that met an exhausted budget, by what it did to them.",
                &["budget", "action"],
            )?,
            backend_errors: series.counter(
                "spillway_backend_errors_total",
                "Calls to a provider that failed, by kind of error.",
                &["provider", "node", "code"],
            )?,
            match_condition_errors: series.counter(
                "spillway_match_condition_errors_total",
                "Evaluations of a policy's matchConditions that failed, so that the pod was not selected.",
                &["policy"],
            )?,
            hygiene_repairs: series.counter(
                "spillway_hygiene_repairs_total",
                "Repairs of Nodes of virtual kubelets that had drifted, by what was repaired.",
                &["check"],
            )?,
            daemon_sets_open: series.gauge(
                "spillway_daemon_sets_open",
                "DaemonSets that make pods for virtual nodes, so that their rolling updates stop.",
            )?,
            spend,
            mirror,
            births: Births::default(),
            registry: registry.clone(),
        };
        series.build_info()?;
        metrics.open_fixed_series();
        // Until it leads, a replica says that it does not.
        metrics.publish(&Gauges::default());
        // Those that exist from the start were zero when nobody could look.
        metrics.births.zero(&mut metrics.registry.gather());
        Ok(metrics)
    }

    /// Series whose labels are all closed words exist from the start, at zero: `increase` cannot see the step from
    /// nothing to one, and an alert on a first failure would miss it.
    fn open_fixed_series(&self) {
        for outcome in BindingOutcome::ALL {
            self.bindings.with_label_values(&[outcome.label()]);
        }
        self.decision_duration.with_label_values(&[CHOOSE]);
        for check in Check::ALL {
            self.hygiene_repairs.with_label_values(&[check.label()]);
        }
        self.extender.open();
    }

    /// A decision, when it is made or changes.
    pub fn decided(&self, decided: &Decided<'_>) {
        let Decided { policy, namespace, tier, provider, outcome, reason, mode } = *decided;
        let labels = [
            self.names.policies.admit(policy),
            self.names.namespaces.admit(namespace),
            self.names.tiers.admit_some(tier),
            labels::provider(provider),
            outcome.label(),
            reason,
            labels::mode(mode),
        ];
        self.decisions.with_label_values(&labels).inc();
    }

    /// How long the engine took for one pending pod: the share of one in the step that decided on it. The extender's calls are measured by its server.
    pub fn chose(&self, took: Duration) {
        self.decision_duration.with_label_values(&[CHOOSE]).observe(took.as_secs_f64());
    }

    /// A selected pod is bound to a dedicated node, which its scheduler did.
    pub fn bound_dedicated(&self, tier: &str, pending: Duration) {
        self.bound("dedicated", tier, None, pending);
    }

    /// A selected pod is bound to a virtual node, which the committer did.
    pub fn bound_serverless(&self, tier: &str, provider: Provider, pending: Duration) {
        self.bound("serverless", tier, Some(provider), pending);
    }

    fn bound(&self, placement: &str, tier: &str, provider: Option<Provider>, pending: Duration) {
        let labels = [placement, self.names.tiers.admit(tier), labels::provider(provider)];
        self.pending_to_bound.with_label_values(&labels).observe(pending.as_secs_f64());
    }

    /// The API server answered, or did not answer, a Binding.
    pub fn binding(&self, outcome: BindingOutcome) {
        self.bindings.with_label_values(&[outcome.label()]).inc();
    }

    /// A pod of this owner was committed, for so much less than the next best feasible offer. What it costs is zero yet, and
    /// shown, so that all of it counts as an increase.
    pub fn committed(&self, spender: &Spender<'_>, avoided: Money) {
        self.add_money(spender, Money::ZERO, avoided);
    }

    /// Money accrued or settled since the last call for the same pod. Refunds do not exist: accrue what is certain, settle
    /// the rest.
    pub fn spent(&self, spender: &Spender<'_>, money: Money) {
        self.add_money(spender, money, Money::ZERO);
    }

    fn add_money(&self, spender: &Spender<'_>, spent: Money, avoided: Money) {
        let (policy, region) = (self.names.policies.admit(spender.policy), self.names.regions.admit(spender.region));
        self.spend.add(&Spender { policy, region, ..*spender }, spent, avoided);
    }

    /// A pod met an exhausted budget. Count each pod once for a budget and period.
    pub fn budget_blocked(&self, budget: &str, action: BudgetAction) {
        self.budget_blocked.with_label_values(&[self.names.budgets.admit(budget), action.label()]).inc();
    }

    /// The containers of a burst pod run.
    pub fn started(&self, provider: Provider, node: &str, tier: &str, since_binding: Duration) {
        let labels = [provider.label(), self.names.nodes.admit(node), self.names.tiers.admit(tier)];
        self.startup.with_label_values(&labels).observe(since_binding.as_secs_f64());
    }

    /// A call to a provider failed.
    pub fn backend_error(&self, provider: Provider, node: &str, kind: ErrorKind) {
        self.backend_errors.with_label_values(&[provider.label(), self.names.nodes.admit(node), kind.label()]).inc();
    }

    /// A policy's matchConditions could not be evaluated for a pod.
    pub fn match_condition_error(&self, policy: &str) {
        self.match_condition_errors.with_label_values(&[self.names.policies.admit(policy)]).inc();
    }

    /// The Node of a virtual kubelet had drifted and was repaired.
    pub fn hygiene_repaired(&self, checks: &[Check]) {
        for check in checks {
            self.hygiene_repairs.with_label_values(&[check.label()]).inc();
        }
    }

    /// So many DaemonSets make pods for virtual nodes although they were told not to.
    pub fn daemon_sets_open(&self, count: usize) {
        self.daemon_sets_open.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Replaces all gauges by what is true now.
    pub fn publish(&self, gauges: &Gauges) {
        // What is counted by object starts at zero, too, as soon as the object is known.
        for PolicyState { policy, .. } in &gauges.policies {
            self.match_condition_errors.with_label_values(&[self.names.policies.admit(policy)]);
        }
        for BudgetState { budget, .. } in &gauges.budgets {
            for action in BudgetAction::ALL {
                self.budget_blocked.with_label_values(&[self.names.budgets.admit(budget), action.label()]);
            }
        }
        for BackendState { provider, node, .. } in &gauges.backends {
            for kind in ERRORS {
                self.backend_errors.with_label_values(&[provider.label(), self.names.nodes.admit(node), kind.label()]);
            }
        }
        self.mirror.publish(gauges, &self.names);
    }

    /// Everything in Prometheus' text format, for `/metrics`. A counter is zero on the first scrape that shows it.
    #[must_use]
    pub fn scrape(&self) -> String {
        let mut families = self.registry.gather();
        self.births.zero(&mut families);
        encode(&families)
    }

    /// Everything as it is, for tests and for people; scrapes do not notice.
    #[must_use]
    pub fn render(&self) -> String {
        encode(&self.registry.gather())
    }
}

fn encode(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    // Only a family without a name or a value of another type is refused, and neither can be built here.
    if let Err(error) = TextEncoder::new().encode_utf8(families, &mut text) {
        tracing::error!(%error, "metrics cannot be encoded");
    }
    text
}
