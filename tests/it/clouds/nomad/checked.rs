//! `spillway provider check nomad`.

use std::io::Write;

use super::agent;
use super::front::Front;
use crate::clouds::check::check;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_run_to_its_end_and_its_job_is_purged() {
    let agent = agent().await;
    let authority = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let front = Front::start_tls(&agent.url, &authority.cert.pem(), &authority.signing_key.serialize_pem()).await;
    let mut pem = tempfile::NamedTempFile::new().expect("a file");
    pem.write_all(authority.cert.pem().as_bytes()).expect("written");
    let (address, authority) = (front.url(), pem.path().to_str().expect("UTF-8"));
    let token = std::env::var("NOMAD_TOKEN").ok();
    let environment: Vec<(&str, &str)> = token.iter().map(|token| ("NOMAD_TOKEN", token.as_str())).collect();
    let flags = ["nomad", "--address", &address, "--mhz-per-core", "1000", "--ca-cert", authority, "-o", "json"];
    let ran = check(&[&flags[..], &["--run", "busybox:1.36"]].concat(), &environment).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
    assert_eq!(ran.step("prices").1, "none published: set spec.pricing of the virtual node");
    assert!(ran.step("run to its end").1.starts_with("exit code 0"), "{}", ran.output);
    assert_eq!(ran.step("logs").1, "hello");
    let (_, job, _) = ran.step("create");
    let left = reqwest::get(format!("{}/v1/job/{job}", agent.url)).await.expect("an answer");
    assert_eq!(left.status().as_u16(), 404, "{job} is still there");

    // Without the authority nobody is trusted.
    let refused = check(&flags[..5], &environment).await;
    assert_eq!(refused.code, Some(1), "{}{}", refused.output, refused.errors);
    assert!(refused.line("list").starts_with("FAILED  list"), "{}", refused.output);
}
