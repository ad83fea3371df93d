//! The rules of the module's documentation, checked over every series, and the few things that metrics can get wrong.

use super::*;
use crate::extender;
use crate::extender::observer::{Call, CertificateEvent, ConnectionRefusal, Observer};
use crate::extender::protocol::Verb;
use policy::Rate;
use policy::virtual_node::CapacityType;
use prometheus::proto::MetricType;
use std::collections::BTreeSet;

/// Every series there is. Dashboards, alerts and other people's queries hang on these names: a change here is a change of
/// the interface.
const SERIES: [&str; 32] = [
    "spillway_backend_errors_total",
    "spillway_backend_up",
    "spillway_bindings_total",
    "spillway_budget_authorized",
    "spillway_budget_blocked_pods_total",
    "spillway_budget_limit",
    "spillway_budget_period_end_timestamp_seconds",
    "spillway_budget_reserved",
    "spillway_budget_spent",
    "spillway_build_info",
    "spillway_commits_in_flight",
    "spillway_commits_queued",
    "spillway_cost_avoided_total",
    "spillway_cost_rate_per_hour",
    "spillway_cost_total",
    "spillway_daemon_sets_open",
    "spillway_decision_duration_seconds",
    "spillway_decisions_total",
    "spillway_extender_connections_refused_total",
    "spillway_extender_requests_total",
    "spillway_hygiene_repairs_total",
    "spillway_leader",
    "spillway_match_condition_errors_total",
    "spillway_pending_to_bound_seconds",
    "spillway_pods",
    "spillway_pods_waiting_with_room",
    "spillway_policy_generation",
    "spillway_price_age_seconds",
    "spillway_price_per_hour",
    "spillway_startup_seconds",
    "spillway_tls_reloads_total",
    "spillway_virtual_node_compliant",
];

/// Every label there is. All of them are closed words or pass through `Names`; none names a pod.
const LABELS: [&str; 25] = [
    "action",
    "budget",
    "capacity_type",
    "check",
    "code",
    "currency",
    "mode",
    "namespace",
    "node",
    "outcome",
    "owner_kind",
    "owner_name",
    "period",
    "phase",
    "placement",
    "policy",
    "provider",
    "reason",
    "region",
    "resource",
    "revision",
    "rustversion",
    "tier",
    "verb",
    "version",
];

/// Nouns that are counted, numbers without a unit, and yes-or-no; a gauge of something else needs a unit in its name.
const UNITLESS: [&str; 10] = [
    "spillway_backend_up",
    "spillway_commits_in_flight",
    "spillway_commits_queued",
    "spillway_daemon_sets_open",
    "spillway_leader",
    "spillway_pods",
    "spillway_pods_waiting_with_room",
    "spillway_build_info",
    "spillway_policy_generation",
    "spillway_virtual_node_compliant",
];

const SMALL: Limits = Limits { owners: 3, namespaces: 2, objects: 2 };

fn rate(nanos: i64) -> Rate {
    Rate::per_hour(Money::from_nanos(nanos))
}

fn spender<'a>(namespace: &'a str, owner_name: &'a str) -> Spender<'a> {
    Spender {
        namespace,
        owner_kind: "Job",
        owner_name,
        policy: "image-processing",
        provider: Provider::Fargate,
        region: "us-east-1",
        capacity_type: CapacityType::OnDemand,
    }
}

fn decided(namespace: &str) -> Decided<'_> {
    Decided {
        policy: "image-processing",
        namespace,
        tier: Some("serverless"),
        provider: Some(Provider::Fargate),
        outcome: Outcome::Burst,
        reason: "cheapest",
        mode: Mode::Enforce,
    }
}

fn gauges() -> Gauges {
    Gauges {
        pods: vec![Pods {
            namespace: "media".into(),
            policy: "image-processing".into(),
            tier: Some("serverless".into()),
            provider: Some(Provider::Fargate),
            node: Some("fargate-us-east-1".into()),
            phase: Phase::Running,
            count: 7,
        }],
        pods_waiting_with_room: 1,
        commits_queued: 2,
        commits_in_flight: 3,
        leader: true,
        burn: vec![Burn {
            namespace: "media".into(),
            provider: Provider::Fargate,
            node: "fargate-us-east-1".into(),
            rate: rate(1),
        }],
        policies: vec![PolicyState { policy: "image-processing".into(), generation: 3 }],
        budgets: vec![BudgetState {
            budget: "media-monthly".into(),
            period: "Month",
            limit: Money::from_nanos(4_000_000_000),
            spent: Money::from_nanos(3_000_000_000),
            reserved: Money::from_nanos(2_000_000_000),
            authorized: Money::from_nanos(1_500_000_000),
            period_end_seconds: 1_800_000_000,
        }],
        backends: vec![BackendState { provider: Provider::Fargate, node: "fargate-us-east-1".into(), up: true }],
        hygiene: vec![HygieneState { node: "vk".into(), failed: vec![crate::hygiene::Check::Taint] }],
        prices: vec![PriceState {
            provider: Provider::Fargate,
            node: "fargate-us-east-1".into(),
            region: "us-east-1".into(),
            resource: "vcpu",
            rate: rate(40_480_000),
            age_seconds: 86_400,
        }],
    }
}

fn call() -> Call {
    Call {
        verb: Verb::Filter,
        outcome: extender::protocol::Outcome::Answered,
        mode: Some(extender::wire::Mode::Cache),
        took: Duration::from_micros(200),
        request_bytes: 4000,
        response_bytes: 2000,
        candidates: 100,
        offered: 3,
    }
}

/// Every method called once.
fn everything(metrics: &Metrics) {
    metrics.decided(&decided("media"));
    metrics.chose(Duration::from_micros(8));
    metrics.bound_dedicated("dedicated", Duration::from_millis(300));
    metrics.bound_serverless("serverless", Provider::Fargate, Duration::from_millis(30));
    metrics.binding(BindingOutcome::Created);
    metrics.committed(&spender("media", "thumbnails"), Money::ZERO);
    metrics.spent(&spender("media", "thumbnails"), Money::from_nanos(12_345));
    metrics.budget_blocked("media-monthly", BudgetAction::DedicatedOnly);
    metrics.started(Provider::Fargate, "fargate-us-east-1", "serverless", Duration::from_secs(35));
    metrics.backend_error(Provider::Fargate, "fargate-us-east-1", ErrorKind::Throttled { retry_after: None });
    metrics.called(&call());
    metrics.connection_refused(ConnectionRefusal::Handshake);
    metrics.certificate(CertificateEvent::Reloaded);
    metrics.match_condition_error("image-processing");
    metrics.publish(&gauges());
}

fn families(metrics: &Metrics) -> Vec<MetricFamily> {
    metrics.registry.gather()
}

/// The lines of one series, comments left out.
fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = metrics.render();
    text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name)).map(str::to_string).collect()
}

fn labels(family: &MetricFamily) -> impl Iterator<Item = &str> {
    family.get_metric().iter().flat_map(|metric| metric.get_label().iter().map(prometheus::proto::LabelPair::name))
}

#[test]
fn the_series_are_these() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    everything(&metrics);
    let names: Vec<String> = families(&metrics).iter().map(|family| family.name().to_string()).collect();
    assert_eq!(names, SERIES);
}

#[test]
fn every_series_follows_the_rules() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    everything(&metrics);
    for family in families(&metrics) {
        let (name, help, kind) = (family.name(), family.help(), family.get_field_type());
        assert!(name.starts_with("spillway_"), "{name}: prefix");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}: snake case");
        assert!(help.ends_with('.') && help.len() > 10, "{name}: help is a sentence, not '{help}'");
        assert_eq!(name.ends_with("_total"), kind == MetricType::COUNTER, "{name}: counters, and only they, end in _total");
        let money = labels(&family).any(|label| label == "currency");
        let unit = money || name.ends_with("_seconds") || name.ends_with("_total") || UNITLESS.contains(&name);
        assert!(unit, "{name}: no unit");
        assert!(kind != MetricType::HISTOGRAM || name.ends_with("_seconds"), "{name}: histograms are of time");
        for label in labels(&family) {
            assert!(LABELS.contains(&label), "{name}: label {label} is not in the list of bounded labels");
        }
    }
}

#[test]
fn the_list_of_labels_has_no_pods_in_it() {
    assert!(LABELS.iter().all(|label| !label.contains("pod") && !label.contains("uid")));
    let metrics = Metrics::new("USD", Limits::STANDARD);
    everything(&metrics);
    let used: BTreeSet<String> =
        families(&metrics).iter().flat_map(|f| labels(f).map(str::to_string).collect::<Vec<_>>()).collect();
    assert_eq!(used.iter().map(String::as_str).collect::<Vec<_>>(), LABELS, "a label that no series has");
}

#[test]
fn words_are_distinct_and_in_snake_case() {
    fn check(words: &[&str]) {
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len(), "{words:?}");
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{words:?}");
    }
    macro_rules! check_all {
        ($($words:ident),+) => { $(check(&$words::ALL.iter().map(|word| word.label()).collect::<Vec<_>>());)+ };
    }
    check_all!(Outcome, Phase, BindingOutcome, BudgetAction);
}

#[test]
fn money_is_added_exactly() {
    let metrics = Metrics::new("EUR", Limits::STANDARD);
    for _ in 0..10 {
        metrics.spent(&spender("media", "thumbnails"), Money::from_nanos(100_000_000));
    }
    let line = &lines(&metrics, "spillway_cost_total")[0];
    assert!(line.ends_with(" 1"), "ten times 0.1 is 1 and nothing else: {line}");
    assert!(line.contains(r#"currency="EUR""#), "{line}");
}

#[test]
fn money_starts_at_zero_when_the_first_pod_is_committed() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    metrics.committed(&spender("media", "thumbnails"), Money::ZERO);
    assert!(lines(&metrics, "spillway_cost_total")[0].ends_with(" 0"));
    assert!(lines(&metrics, "spillway_cost_avoided_total")[0].ends_with(" 0"));
}

#[test]
fn owners_beyond_the_limit_are_one_owner() {
    let metrics = Metrics::new("USD", SMALL);
    for owner in 0..50 {
        metrics.spent(&spender("media", &format!("job-{owner}")), Money::from_nanos(1_000_000_000));
    }
    let lines = lines(&metrics, "spillway_cost_total");
    assert_eq!(lines.len(), 4, "three owners and the others: {lines:#?}");
    let others = lines.iter().find(|line| line.contains(r#"owner_name="other""#)).expect("a line for the others");
    assert!(others.ends_with(" 47"), "no money is lost: {others}");
}

#[test]
fn an_owner_that_is_long_done_makes_room() {
    let metrics = Metrics::new("USD", SMALL);
    for owner in ["monday", "tuesday", "wednesday"] {
        metrics.spent(&spender("media", owner), Money::from_nanos(1));
    }
    for _ in 0..120 {
        metrics.spent(&spender("media", "tuesday"), Money::from_nanos(1));
        let _scraped = metrics.scrape();
    }
    metrics.spent(&spender("media", "thursday"), Money::from_nanos(1));
    metrics.spent(&spender("media", "friday"), Money::from_nanos(1));
    metrics.spent(&spender("media", "saturday"), Money::from_nanos(1));
    let text = lines(&metrics, "spillway_cost_total").join("\n");
    for (owner, there) in [("monday", false), ("wednesday", false), ("tuesday", true), ("thursday", true), ("friday", true)] {
        assert_eq!(text.contains(&format!("owner_name=\"{owner}\"")), there, "{owner} in\n{text}");
    }
    assert!(!text.contains("saturday") && text.contains(r#"owner_name="other""#), "nobody else is idle:\n{text}");
}

#[test]
fn users_cannot_make_series_without_end() {
    let metrics = Metrics::new("USD", SMALL);
    for i in 0..100 {
        let name = format!("name-{i}");
        metrics.decided(&Decided { policy: &name, tier: Some(&name), ..decided(&name) });
        metrics.bound_serverless(&name, Provider::Fargate, Duration::ZERO);
        metrics.spent(&Spender { policy: &name, region: &name, ..spender(&name, &name) }, Money::from_nanos(1));
        metrics.budget_blocked(&name, BudgetAction::Warn);
        metrics.started(Provider::Fargate, &name, &name, Duration::ZERO);
        metrics.backend_error(Provider::Fargate, &name, ErrorKind::Throttled { retry_after: None });
        metrics.match_condition_error(&name);
        let named = |pods: Pods| Pods {
            namespace: (*name).into(),
            policy: (*name).into(),
            tier: Some((*name).into()),
            node: Some((*name).into()),
            ..pods
        };
        let mut gauges = gauges();
        gauges.pods = gauges.pods.into_iter().map(named).collect();
        metrics.publish(&gauges);
    }
    for family in families(&metrics) {
        // Nine: three values, two names and `other`, in two labels that vary independently in the worst case here.
        let limit = match family.name() {
            "spillway_extender_requests_total" => 24,
            "spillway_backend_errors_total" => 3 * ERRORS.len(),
            _ => 9,
        };
        assert!(family.get_metric().len() <= limit, "{}: {} series", family.name(), family.get_metric().len());
    }
}

#[test]
fn equal_labels_are_added_up_because_a_series_twice_fails_the_scrape() {
    let metrics = Metrics::new("USD", SMALL);
    let mut gauges = gauges();
    let pods = gauges.pods[0].clone();
    gauges.pods = (0..5).map(|i| Pods { namespace: format!("ns-{i}").into(), count: 10, ..pods.clone() }).collect();
    metrics.publish(&gauges);
    let lines = lines(&metrics, "spillway_pods");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains(r#"namespace="other""#) && line.ends_with(" 30")), "{lines:#?}");
}

#[test]
fn the_gauges_of_what_is_gone_are_gone() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    metrics.publish(&gauges());
    assert_eq!(lines(&metrics, "spillway_budget_spent").len(), 1);
    metrics.publish(&Gauges { budgets: vec![], ..gauges() });
    assert_eq!(lines(&metrics, "spillway_budget_spent").len(), 0);
    assert_eq!(lines(&metrics, "spillway_pods").len(), 1, "what is still there stays");
}

#[test]
fn names_cannot_break_out_of_their_label() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    metrics.spent(&spender("media", "a\"} 1\nspillway_cost_total{owner_name=\"b"), Money::from_nanos(1));
    assert_eq!(lines(&metrics, "spillway_cost_total").len(), 1);
}

#[test]
fn counters_of_an_object_start_at_zero_when_it_is_known() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    metrics.publish(&gauges());
    assert_eq!(lines(&metrics, "spillway_match_condition_errors_total").len(), 1);
    let blocked = lines(&metrics, "spillway_budget_blocked_pods_total");
    assert_eq!(blocked.len(), BudgetAction::ALL.len());
    assert!(blocked.iter().all(|line| line.ends_with(" 0")), "{blocked:?}");
    assert_eq!(lines(&metrics, "spillway_backend_errors_total").len(), ERRORS.len());
}

#[test]
fn calls_are_counted_in_the_words_of_the_extender() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    metrics.called(&Call { mode: Some(extender::wire::Mode::NoCache), ..call() });
    metrics.called(&Call { mode: None, outcome: extender::protocol::Outcome::Incomplete, ..call() });
    let text = metrics.render();
    for line in [
        r#"spillway_extender_requests_total{mode="nocache",outcome="answered",verb="filter"} 1"#,
        r#"spillway_extender_requests_total{mode="none",outcome="incomplete",verb="filter"} 1"#,
        r#"spillway_extender_requests_total{mode="cache",outcome="answered",verb="filter"} 0"#,
        r#"spillway_decision_duration_seconds_count{verb="filter"} 1"#,
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn fixed_series_exist_before_anything_happens() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    assert_eq!(lines(&metrics, "spillway_bindings_total").len(), BindingOutcome::ALL.len());
    assert_eq!(lines(&metrics, "spillway_tls_reloads_total").len(), 2);
    assert_eq!(lines(&metrics, "spillway_extender_requests_total").len(), 24);
    assert_eq!(lines(&metrics, "spillway_build_info").len(), 1);
    assert_eq!(lines(&metrics, "spillway_leader"), ["spillway_leader 0"]);
}

#[test]
fn a_counter_is_zero_on_the_first_scrape_that_shows_it() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    let scraped = || {
        let text = metrics.scrape();
        let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).map(str::to_string).collect::<Vec<_>>();
        [of("spillway_cost_total"), of("spillway_startup_seconds_count"), of("spillway_bindings_total{outcome=\"created\"}")]
    };
    let ends = |found: [Vec<String>; 3], values: [&str; 3]| {
        assert!(found.iter().zip(values).all(|(lines, value)| lines.len() == 1 && lines[0].ends_with(value)), "{found:?}");
    };
    metrics.spent(&spender("media", "thumbnails"), Money::from_nanos(2_000_000_000));
    metrics.started(Provider::Fargate, "fargate-us-east-1", "serverless", Duration::from_secs(35));
    metrics.binding(BindingOutcome::Created);
    ends(scraped(), [" 0", " 0", " 1"]);
    ends(scraped(), [" 2", " 1", " 1"]);
    metrics.spent(&spender("media", "thumbnails"), Money::from_nanos(1_000_000_000));
    ends(scraped(), [" 3", " 1", " 1"]);
}
