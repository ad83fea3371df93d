use std::sync::Arc;
use std::time::Duration;

use policy::{Money, Timestamp};
use world::simulation::{Manifests, Settings};

use super::run::{Backend, Bindings, Budget, Example, ExtenderCalls, Run, Sample, percentile};
use super::{EXAMPLE, Script, play, read, report, summary};
use crate::metrics::{Limits, Metrics};

fn money(text: &str) -> Money {
    text.parse().expect("the test's own amount")
}

fn run() -> Run {
    let at = |seconds| Timestamp::from_millis(1_795_219_200_000) + Duration::from_secs(seconds);
    let backend = |name: &str, pods, cpu_minutes: i128, charged| Backend {
        name: name.to_owned(),
        detail: "somewhere".to_owned(),
        pods,
        cpu_millis_millis: cpu_minutes * 60_000 * 1000,
        wait_p50: Some(Duration::from_millis(850)),
        wait_p95: Some(Duration::from_secs(247)),
        quoted: money(charged),
        charged: money(charged),
    };
    let sample = |seconds, waiting, placed: [usize; 2], committed, charged| Sample {
        at: at(seconds),
        waiting,
        placed: placed.to_vec(),
        done: 0,
        committed: money(committed),
        charged: money(charged),
    };
    Run {
        title: "media/<thumbnails>".to_owned(),
        setting: "Nowhere.".to_owned(),
        seed: Some(7),
        currency: "USD".to_owned(),
        started: at(0),
        ended: at(300),
        real: Duration::from_millis(2340),
        pods: 5,
        succeeded: 5,
        is_complete: true,
        all_bound_after: Some(Duration::from_secs(12)),
        backends: vec![backend("dedicated", 2, 90, "0"), backend("fargate", 3, 45, "0.12345")],
        samples: vec![
            sample(0, 5, [0, 0], "0", "0"),
            sample(150, 0, [2, 3], "0.2", "0.1"),
            sample(300, 0, [0, 0], "0.13", "0.12345"),
        ],
        budgets: vec![Budget {
            name: "daily".to_owned(),
            amount: money("1"),
            period: "Day".to_owned(),
            total: money("0.12345"),
            peak: money("0.2"),
            held_pods: 1,
        }],
        examples: vec![Example { pod: "media/a".to_owned(), outcome: "burst".to_owned(), lines: vec!["x < y".to_owned()] }],
        bindings: Bindings { created: 3, conflicts: 1, failed: 0 },
        extender: ExtenderCalls { filter: 3, latency_p50: Some(Duration::from_micros(250)), ..ExtenderCalls::default() },
    }
}

#[test]
fn the_summary_for_people() {
    let text = summary::text(&run());
    let expected = "\
media/<thumbnails>: 5 of 5 pods succeeded, complete. 5m00s of cluster time in 2.3 s, all bound after 12.0 s.
Nowhere.

BACKEND               PODS  VCPU-HOURS  START WAIT P50    P95  QUOTED USD  CHARGED USD
dedicated  somewhere     2        1.50          850 ms  4m07s      0.0000       0.0000
fargate    somewhere     3        0.75          850 ms  4m07s      0.1235       0.1235
all                      5        2.25                             0.1235       0.1235

Budget daily: 1.00 USD per day. Never more than 0.2000 was spent or promised; 0.1235 in the end.
  1 pods had to wait because of it, for a dedicated node or for money that others gave back.

Bindings: 3 done, 1 refused with 409 and looked at again, 0 failed.
Extender: 3 filter and 0 preempt calls over HTTP, p50 0.25 ms; 0 without a usable answer.

media/a: burst
  x < y
";
    assert_eq!(text, expected);
}

#[test]
fn the_summary_for_programs_has_exact_money() {
    let json = summary::json(&run());
    assert_eq!(json["backends"][1]["charged"], "0.12345");
    assert_eq!(json["budgets"][0]["peak"], "0.20");
    assert_eq!(json["samples"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_report_is_one_page_that_needs_nothing_else_and_trusts_no_name() {
    let page = report::html(&run());
    for outside in ["http://", "https://", "<script", "<link", "<img", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains("<thumbnails>"), "a name reached the page as markup");
    assert!(page.contains("media/&lt;thumbnails&gt;") && page.contains("x &lt; y"));
    for part in
        ["prefers-color-scheme: dark", "role=\"img\"", "<desc id=\"money-description\">", "budget 1.00 USD", "scope=\"col\""]
    {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<svg").count(), 2);
    // Nothing that is not a number may reach a path.
    assert!(!page.contains("NaN") && !page.contains("inf "));
}

#[test]
fn a_run_in_which_nothing_happened_can_be_shown() {
    let empty = Run { samples: vec![], backends: vec![], budgets: vec![], examples: vec![], pods: 0, succeeded: 0, ..run() };
    assert!(summary::text(&empty).contains("0 of 0 pods"));
    assert!(!report::html(&empty).contains("NaN"));
}

#[test]
fn percentiles_are_values_that_occurred() {
    let seconds = |values: &[u64]| values.iter().map(|value| Duration::from_secs(*value)).collect::<Vec<_>>();
    assert_eq!(percentile(&seconds(&[]), 50), None);
    assert_eq!(percentile(&seconds(&[3]), 95), Some(Duration::from_secs(3)));
    assert_eq!(percentile(&seconds(&[1, 2, 3, 4]), 50), Some(Duration::from_secs(2)));
    assert_eq!(percentile(&seconds(&[1, 2, 3, 4]), 95), Some(Duration::from_secs(4)));
}

async fn played(manifests: Manifests, settings: Settings) -> anyhow::Result<Run> {
    let metrics = Arc::new(Metrics::new("USD", Limits::STANDARD));
    play(Script { manifests, settings, currency: "USD".to_owned(), metrics, speed: None }).await
}

/// The built-in example with one text replaced in all its files.
fn example(part: &str, replacement: &str) -> Manifests {
    let mut manifests = Manifests::default();
    let whole: String = EXAMPLE.iter().map(|(_, text)| *text).collect();
    assert!(whole.contains(part), "{part:?} is not in the example");
    for (name, text) in EXAMPLE {
        manifests.read(&text.replace(part, replacement), name).expect("the example reads");
    }
    manifests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_built_in_example_keeps_the_promises() {
    let run = played(read(&[]).expect("built in"), Settings::new(1)).await.expect("played");
    assert!(run.is_complete);
    assert_eq!((run.pods, run.succeeded, run.budgets.len()), (500, 500, 1));
    let limits = [("dedicated", 70), ("aci-eastus", 100), ("fargate-us-east-1", 200), ("nomad-dc1", 100)];
    for (place, (name, limit)) in limits.into_iter().enumerate() {
        assert_eq!(run.backends[place].name, name);
        assert!(run.backends[place].pods > 0, "nothing ran on {name}");
        assert!(run.samples.iter().all(|sample| sample.placed[place] <= limit), "{name} held more than {limit}");
    }
    // Dedicated first: full from the moment when everything is bound until the waiting pods are gone.
    let crowded =
        run.samples.iter().filter(|sample| sample.waiting > 0 && sample.at.since(run.started) > Duration::from_secs(10));
    assert!(crowded.clone().count() > 100 && crowded.into_iter().all(|sample| sample.placed[0] >= 68), "dedicated room was left");
    let budget = &run.budgets[0];
    assert!(budget.peak <= budget.amount, "{} of {}", budget.peak, budget.amount);
    assert!(budget.peak > money("1.24") && budget.held_pods > 0, "the budget was never felt");
    // The books and the clouds' bills differ by the seconds that Kubernetes rounds to, and by start-up times.
    let apart = budget.total.saturating_sub(run.charged());
    assert!(apart <= money("0.02") && apart >= money("-0.02"), "books {}, bills {}", budget.total, run.charged());
    assert!(run.extender.filter >= 70 && run.extender.errors == 0, "{:?}", run.extender);
    assert_eq!(run.examples.len(), 3);
    assert!(!report::html(&run).contains("NaN"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_one_history() {
    let small = || example("completions: 500", "completions: 90");
    let mut histories = Vec::new();
    for seed in [3, 3, 4] {
        let mut run = played(small(), Settings::new(seed)).await.expect("played");
        run.extender = ExtenderCalls { filter: run.extender.filter, ..ExtenderCalls::default() };
        (run.real, run.seed) = (Duration::ZERO, None);
        histories.push(summary::json(&run));
    }
    assert_eq!(histories[0], histories[1]);
    assert_ne!(histories[0], histories[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_cost_neither_pods_nor_money() {
    let settings = Settings { lost_binding_answers_one_in: 3, ..Settings::new(5) };
    let run = played(example("completions: 500", "completions: 150"), settings).await.expect("played");
    assert!(run.is_complete && run.succeeded == 150, "{} of {}", run.succeeded, run.pods);
    assert!(run.bindings.failed > 10, "{:?}", run.bindings);
    assert!(run.budgets[0].peak <= run.budgets[0].amount);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_manifests_are_refused_by_field() {
    for (part, replacement, complaint) in [
        ("amount: \"1.25\"", "amonut: \"1.25\"", "spec.amonut: unknown field"),
        ("amount: \"1.25\"", "amount: \"-1\"", "spec.amount"),
        ("kind: BurstPolicy", "kind: BurstPlan", "BurstPlan image-processing: the demonstration knows"),
        ("mhzPerCore: 2500", "mhzPerCore: -1", "spec.nomad.mhzPerCore"),
        ("vcpuHour: \"0.012\"", "vcpuHour: \"cheap\"", "spec.pricing.vcpuHour"),
    ] {
        let error = played(example(part, replacement), Settings::new(1)).await.expect_err(complaint);
        assert!(format!("{error:#}").contains(complaint), "{error:#}");
    }
}

#[test]
fn paths_that_hold_nothing_are_named() {
    let nowhere = std::path::PathBuf::from("no/such/place");
    assert!(format!("{:#}", read(&[nowhere]).expect_err("nothing there")).contains("no/such/place"));
    let empty = tempfile::tempdir().expect("temporary directory");
    assert!(format!("{:#}", read(&[empty.path().to_owned()]).expect_err("empty")).contains("holds no *.yaml"));
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/image-fan-out");
    let read = read(&[directory]).expect("the example's own directory");
    assert_eq!((read.jobs.len(), read.nodes.len(), read.others.len()), (1, 13, 5));
}
