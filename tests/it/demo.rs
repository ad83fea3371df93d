//! `spillway demo` as a stranger runs it: the program, its flags, its output.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::scenario::program;

fn demo(flags: &[&str]) -> Output {
    Command::new(program()).arg("demo").args(flags).stdin(Stdio::null()).output().expect("the program spillway starts")
}

fn json(output: &Output) -> Value {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complaint}"))
}

fn pods(run: &Value, backend: &str) -> u64 {
    let backends = run["backends"].as_array().expect("backends");
    let found =
        backends.iter().find(|one| one["name"] == backend).unwrap_or_else(|| panic!("{backend} is missing in {backends:?}"));
    found["pods"].as_u64().expect("a number")
}

/// In nano-units: text of money is compared exactly.
fn money(value: &Value) -> policy::Money {
    value.as_str().expect("money is a string").parse().expect("money")
}

#[test]
fn one_command_shows_500_pods_over_ten_machines_and_three_clouds() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let report = folder.path().join("burst.html");
    let begun = std::time::Instant::now();
    let output = demo(&["--output", "json", "--report", report.to_str().expect("UTF-8")]);
    let run = json(&output);
    assert_eq!((&run["complete"], &run["succeeded"]), (&Value::Bool(true), &Value::from(500)));
    for backend in ["dedicated", "aci-eastus", "fargate-us-east-1", "nomad-dc1"] {
        assert!(pods(&run, backend) >= 70, "{backend}: {}", pods(&run, backend));
    }
    assert!(money(&run["budgets"][0]["peak"]) <= money(&run["budgets"][0]["amount"]));
    assert_eq!(run["examples"].as_array().map(Vec::len), Some(3));
    let page = std::fs::read_to_string(&report).expect("the report");
    assert!(page.contains("<svg") && !page.contains("://"), "the page needs something else than itself");
    assert!(String::from_utf8_lossy(&output.stderr).contains("waiting"), "no progress was shown");
    // A debug build on a busy machine; a release build on two idle cores takes less than the promised 15 s by far.
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
}

#[test]
fn a_mistake_in_a_manifest_is_named_and_ends_the_program() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/image-fan-out");
    let folder = tempfile::tempdir().expect("temporary directory");
    for file in ["nodes.yaml", "job.yaml", "virtual-nodes.yaml", "policy.yaml"] {
        let text = std::fs::read_to_string(example.join(file)).expect("the example");
        std::fs::write(folder.path().join(file), text.replace("currency: USD\n", "currency: dollars\n")).expect("a copy");
    }
    let output = demo(&["--manifests", folder.path().to_str().expect("UTF-8")]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(complaint.contains("BurstBudget media-daily") && complaint.contains("spec.currency"), "{complaint}");
}

#[tokio::test]
async fn metrics_stay_until_they_were_scraped() {
    let mut child = Command::new(program())
        .args(["demo", "--metrics-listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program spillway starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut told = |words: &str| {
        let line = lines.find_map(|line| line.ok().filter(|line| line.starts_with("Metrics: ") && line.contains(words)));
        line.unwrap_or_else(|| panic!("{words:?} was not told"))
    };
    let line = told("the burst begins");
    let address = line.trim_start_matches("Metrics: ").split(';').next().expect("an address").to_owned();
    let scrape = async || reqwest::get(&address).await.expect("scraped").text().await.expect("text");
    assert!(scrape().await.contains("spillway_build_info"));
    told("more times");
    for _ in 0..2 {
        let text = scrape().await;
        for series in
            ["spillway_decisions_total", "spillway_cost_total", "spillway_budget_limit", "spillway_extender_requests_total"]
        {
            assert!(text.contains(series), "{series} is missing");
        }
    }
    let ended = tokio::task::spawn_blocking(move || child.wait()).await.expect("waited").expect("waited");
    assert!(ended.success());
}

#[test]
fn the_same_on_a_real_control_plane() {
    let run = json(&demo(&["--kubernetes", "--output", "json"]));
    assert_eq!((&run["complete"], &run["succeeded"]), (&Value::Bool(true), &Value::from(500)));
    assert!(pods(&run, "dedicated") >= 70);
    let burst: u64 = ["aci-eastus", "fargate-us-east-1", "nomad-dc1"].map(|backend| pods(&run, backend)).into_iter().sum();
    assert_eq!(run["bindings"]["created"].as_u64(), Some(burst));
    assert!(burst > 200 && money(&run["budgets"][0]["peak"]) <= money(&run["budgets"][0]["amount"]), "{burst} pods burst");
    assert!(run["extender"]["filter"].as_u64() >= Some(70));
}
