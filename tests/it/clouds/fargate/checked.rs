//! `spillway provider check fargate` against the double.

use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::Timestamp;
use providers::Clock;

use super::double::{Double, Fault};
use super::exchanges;
use crate::clouds::check::{Checked, check};

/// The double's time is faster than ours: a task runs after a fifth of a second.
const FASTER: u32 = 10;

async fn double() -> Double {
    let (started, began) = (Instant::now(), jiff::Timestamp::now().as_millisecond());
    let clock: Clock = Arc::new(move || Timestamp::from_millis(began) + started.elapsed() * FASTER);
    Double::start(clock).await
}

async fn checked(double: &Double, region: &str, more: &[&str]) -> Checked {
    let flags = ["fargate", "--region", region, "--cluster", "burst", "--subnet", "subnet-0a1b2c3d"];
    let environment = [
        ("AWS_ENDPOINT_URL", double.endpoint()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI"),
    ];
    check(&[&flags, more].concat(), &environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_makes_nothing_and_shows_a_table() {
    let double = double().await;
    let looked = checked(&double, "eu-central-1", &[]).await;
    assert_eq!(looked.code, Some(0), "{}{}", looked.output, looked.errors);
    assert_eq!(looked.line("quota"), "ok      quota, usage, health  healthy; 0 pods of no known limit, 0 vCPUs of 100 in use");
    // From the price list, not what is built in.
    let prices = "ok      prices                USD 0.04656 per vCPU, 0.00511 per GB, 0.000133 per GB of disk an hour; published";
    assert_eq!(looked.line("prices"), prices);
    assert_eq!(looked.output.lines().count(), 4, "{}", looked.output);
    let recording = double.recording();
    for exchange in &recording {
        let (_, operation) = exchange.target.rsplit_once('.').expect("an operation");
        assert!(["Describe", "List", "Get"].iter().any(|verb| operation.starts_with(verb)), "{operation} makes something");
    }
    exchanges::check(&recording, "the program").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_run_to_its_end_and_taken_away() {
    let double = double().await;
    let role = "arn:aws:iam::123456789012:role/spillway-execution";
    let flags = ["--run", "alpine:3", "--execution-role-arn", role, "--log-group", "/spillway/pods", "-o", "json"];
    let work = async {
        let uid = loop {
            if let Some(uid) = double.running().pop() {
                break uid;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        double.finish(&uid, &[("main", 0)]);
    };
    let (ran, ()) = tokio::join!(checked(&double, "us-east-1", &flags), async {
        tokio::time::timeout(Duration::from_secs(60), work).await.expect("a task that runs");
    });
    assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
    for name in ["create", "create again is the same", "delete", "delete again"] {
        assert!(ran.step(name).0, "{name}: {}", ran.output);
    }
    let (ok, words, _) = ran.step("run to its end");
    assert!(ok && words.starts_with("exit code 0, started after "), "{words}");
    assert!(ran.step("logs").1.ends_with("ready"), "{}", ran.output);
    assert_eq!(double.running(), Vec::<String>::new());
    let stopped = double.recording().iter().filter(|exchange| exchange.target.ends_with(".StopTask")).count();
    assert_eq!(stopped, 2);
    exchanges::check(&double.recording(), "the program").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_and_fails_the_command() {
    let double = double().await;
    // No price list there, and nothing built in.
    let unpriced = checked(&double, "af-south-1", &["-o", "json"]).await;
    assert_eq!(unpriced.code, Some(1), "{}", unpriced.output);
    assert_eq!(unpriced.errors, "spillway: 1 of 4 steps failed\n");
    let (ok, words, kind) = unpriced.step("prices");
    assert_eq!((ok, kind.as_deref()), (false, Some("invalid")));
    assert!(words.contains("no price of on-demand linux/amd64 of fargate in af-south-1 is known; set spec.pricing"), "{words}");
    double.inject(Fault::ExpiredCredentials);
    let denied = checked(&double, "us-east-1", &["--run", "alpine:3"]).await;
    assert_eq!((denied.code, denied.errors.as_str()), (Some(1), "spillway: 4 of 5 steps failed\n"), "{}", denied.output);
    assert!(denied.line("list").starts_with("FAILED  list "), "{}", denied.output);
    assert!(denied.line("create").contains("ExpiredTokenException"), "{}", denied.output);
    assert!(!denied.output.contains("create again") && !denied.output.contains("wJalrXUtnFEMI"), "{}", denied.output);
}
