//! `/metrics` over HTTP, judged by Prometheus' own tool.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use policy::burst_policy;
use policy::virtual_node::{CapacityType, Provider};
use policy::{Money, Rate};
use providers::ErrorKind;
use scheduler_extender::admin::{self, Admin, Readiness};
use scheduler_extender::extender::observer::{Call, CertificateEvent, ConnectionRefusal, Observer};
use scheduler_extender::extender::protocol;
use scheduler_extender::extender::wire::Mode;
use scheduler_extender::metrics::{
    BackendState, BindingOutcome, BudgetAction, BudgetState, Burn, Decided, Gauges, HygieneState, Limits, Metrics, Outcome,
    Phase, Pods, PolicyState, PriceState, Spender,
};
use tokio::net::TcpListener;
use world::control_plane::program;

/// An admin port that serves these metrics for as long as the runtime lives. Returns its address.
pub(crate) async fn serve(metrics: Arc<Metrics>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let admin = Admin { metrics, readiness: Arc::new(|| Readiness::Ready), status: Arc::new(|| serde_json::json!({})) };
    tokio::spawn(admin::serve(listener, admin, std::future::pending()));
    address
}

/// One tick in the life of a busy cluster: every method of [`Metrics`] is called, every counter moves, the budget is
/// used up after forty ticks and the policy changes now and then.
pub(crate) fn live(metrics: &Metrics, tick: u64) {
    let backends = [
        ("fargate-us-east-1", Provider::Fargate, "us-east-1"),
        ("aci-eastus", Provider::Aci, "eastus"),
        ("nomad-dc1", Provider::Nomad, "dc1"),
    ];
    for (n, (node, provider, region)) in (0_u64..).zip(backends) {
        let spender = Spender {
            namespace: "media",
            owner_kind: "Job",
            owner_name: if n == 0 { "thumbnails" } else { "transcode" },
            policy: "image-processing",
            provider,
            region,
            capacity_type: if n == 0 { CapacityType::Spot } else { CapacityType::OnDemand },
        };
        metrics.committed(&spender, cents(n));
        metrics.spent(&spender, cents(1 + n));
        metrics.decided(&decided(Outcome::Burst, Some(provider), "cheapest"));
        metrics.bound_serverless("serverless", provider, Duration::from_millis(20 + 5 * n));
        metrics.started(provider, node, "serverless", Duration::from_secs(20 + 10 * n));
        metrics.backend_error(provider, node, ErrorKind::NoCapacity);
        metrics.binding(BindingOutcome::Created);
    }
    metrics.decided(&decided(Outcome::Dedicated, None, "fits"));
    metrics.decided(&decided(Outcome::Wait, None, "over_budget"));
    metrics.bound_dedicated("dedicated", Duration::from_millis(300));
    metrics.binding(BindingOutcome::Conflict);
    metrics.budget_blocked("media-monthly", BudgetAction::DedicatedOnly);
    metrics.match_condition_error("image-processing");
    metrics.certificate(CertificateEvent::Reloaded);
    metrics.connection_refused(ConnectionRefusal::Handshake);
    for verb in protocol::Verb::ALL {
        metrics.called(&Call {
            verb,
            outcome: protocol::Outcome::Answered,
            mode: Some(Mode::Cache),
            took: Duration::from_micros(180),
            request_bytes: 4000,
            response_bytes: 2000,
            candidates: 100,
            offered: 3,
        });
    }
    metrics.chose(Duration::from_micros(8));
    metrics.publish(&state(tick, &backends));
}

fn decided(outcome: Outcome, provider: Option<Provider>, reason: &'static str) -> Decided<'static> {
    let tier = provider.map(|_| "serverless");
    Decided { policy: "image-processing", namespace: "media", tier, provider, outcome, reason, mode: burst_policy::Mode::Enforce }
}

fn cents(cents: u64) -> Money {
    Money::from_nanos(i64::try_from(cents).expect("few") * 10_000_000)
}

fn state(tick: u64, backends: &[(&str, Provider, &str)]) -> Gauges {
    let pods = |tier: Option<&str>, backend: Option<(&str, Provider)>, phase, count| Pods {
        namespace: "media".into(),
        policy: "image-processing".into(),
        tier: tier.map(Into::into),
        provider: backend.map(|(_, provider)| provider),
        node: backend.map(|(node, _)| node.into()),
        phase,
        count,
    };
    let mut gauges = Gauges {
        pods: vec![pods(None, None, Phase::Pending, 12), pods(Some("dedicated"), None, Phase::Running, 100)],
        pods_waiting_with_room: tick % 2,
        commits_queued: 3,
        commits_in_flight: 8,
        leader: true,
        policies: vec![PolicyState { policy: "image-processing".into(), generation: i64::try_from(tick / 8).expect("few") }],
        budgets: vec![BudgetState {
            budget: "media-monthly".into(),
            period: "Month",
            limit: cents(100),
            spent: cents(2 * tick),
            reserved: cents(20),
            authorized: cents(30),
            period_end_seconds: jiff::Timestamp::now().as_second() + 86_400,
        }],
        ..Gauges::default()
    };
    for &(node, provider, region) in backends {
        let rate = |nanos| Rate::per_hour(Money::from_nanos(nanos));
        gauges.pods.push(pods(Some("serverless"), Some((node, provider)), Phase::Running, 30 + tick));
        gauges.pods.push(pods(Some("serverless"), Some((node, provider)), Phase::Starting, 5));
        gauges.burn.push(Burn { namespace: "media".into(), provider, node: node.into(), rate: rate(1_500_000_000) });
        gauges.backends.push(BackendState { provider, node: node.into(), up: true });
        gauges.hygiene.push(HygieneState { node: node.into(), failed: Vec::new() });
        gauges.prices.push(PriceState {
            provider,
            node: node.into(),
            region: region.into(),
            resource: "vcpu",
            rate: rate(40_480_000),
            age_seconds: 86_400,
        });
    }
    gauges
}

#[tokio::test]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let metrics = Arc::new(Metrics::new("USD", Limits::STANDARD));
    live(&metrics, 0);
    let address = serve(Arc::clone(&metrics)).await;
    let text = reqwest::get(format!("http://{address}/metrics")).await.expect("an answer").text().await.expect("text");
    assert!(text.lines().count() > 200, "the metrics of a busy process, not an empty page");
    assert_eq!(promtool_check(&text), (true, String::new()));
}

#[test]
fn promtool_would_say_something() {
    let (good, said) = promtool_check("# TYPE spillway_burst counter\nspillway_burst 1\n");
    assert!(!good && said.contains("_total"), "{said}");
}

/// Whether `promtool check metrics` is content, and what it said.
fn promtool_check(text: &str) -> (bool, String) {
    let mut promtool = Command::new(program("promtool").expect("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.success(), said)
}
