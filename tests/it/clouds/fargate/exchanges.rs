//! Requests and answers, recorded and checked by AWS's own model of its APIs (botocore's).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use axum::http::HeaderMap;
use serde::Serialize;
use serde_json::Value;

/// A request and its answer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Exchange {
    /// `X-Amz-Target`: service and operation.
    pub(super) target: String,
    /// The request's body.
    pub(super) request: Value,
    /// The answer's HTTP status.
    pub(super) status: u16,
    /// The answer's body.
    pub(super) answer: Value,
    /// What the signature is of.
    pub(super) signed: Option<Signed>,
}

/// A request as it came.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Signed {
    headers: BTreeMap<String, String>,
    body: String,
}

impl Signed {
    pub(super) fn of(headers: &HeaderMap, body: &[u8]) -> Signed {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
        Signed { headers: headers.collect(), body: text(body) }
    }
}

impl Exchange {
    /// All of it as text.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.request, self.answer)
    }
}

/// The folder of moto and botocore, as `make components` leaves it.
pub(super) fn moto() -> PathBuf {
    let folder_in = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let cache = folder_in("XDG_CACHE_HOME").or_else(|| Some(folder_in("HOME")?.join(".cache")));
    let cache = folder_in("SPILLWAY_COMPONENTS").or_else(|| Some(cache?.join("spillway/components"))).expect("HOME is set");
    let folder = cache.join("moto-5.2.5");
    assert!(folder.join("bin/python").exists(), "{} is missing: run `make components`", folder.display());
    folder
}

/// What the model has against these exchanges, one line each.
pub(super) async fn violations(exchanges: &[Exchange]) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let lines: Vec<String> = exchanges.iter().map(|exchange| serde_json::to_string(exchange).expect("JSON")).collect();
    tokio::fs::write(file.path(), lines.join("\n")).await.expect("written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/clouds/fargate/check_exchanges.py");
    let output = tokio::process::Command::new(moto().join("bin/python"))
        .arg(script)
        .arg(file.path())
        .kill_on_drop(true)
        .output()
        .await
        .expect("python");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let counted = lines.pop().expect("a last line with the count");
    assert_eq!(counted, format!("checked {}", exchanges.len()), "every exchange was looked at");
    lines
}

/// Fails with what the model has against them.
pub(super) async fn check(exchanges: &[Exchange], whose: &str) {
    assert!(!exchanges.is_empty(), "nothing was recorded");
    let violations = violations(exchanges).await;
    assert!(violations.is_empty(), "{whose}: {} violations of AWS's model:\n{}", violations.len(), violations.join("\n"));
}

/// The checker itself: a test that cannot fail says nothing.
#[tokio::test]
async fn the_model_finds_what_is_wrong() {
    let exchange = |request: &str, status: u16, answer: &str| Exchange {
        target: "AmazonEC2ContainerServiceV20141113.StopTask".to_owned(),
        request: serde_json::from_str(request).expect("JSON"),
        status,
        answer: serde_json::from_str(answer).expect("JSON"),
        signed: None,
    };
    let good = exchange(r#"{"task": "a"}"#, 200, r#"{"task": {"taskArn": "a", "stoppedAt": 1.5, "stopCode": "UserInitiated"}}"#);
    assert_eq!(violations(&[good]).await, Vec::<String>::new());
    let cases = [
        (exchange("{}", 200, "{}"), "StopTask request: task is required"),
        (exchange(r#"{"task": "a", "tusk": 1}"#, 200, "{}"), "StopTask request: tusk is unknown"),
        (exchange(r#"{"task": 7}"#, 200, "{}"), "StopTask request: task is no string"),
        (exchange(r#"{"task": "a"}"#, 200, r#"{"task": {"taskARN": "a"}}"#), "StopTask answer: task.taskARN is unknown"),
        (exchange(r#"{"task": "a"}"#, 200, r#"{"task": {"version": "1"}}"#), "StopTask answer: task.version is no long"),
        (
            exchange(r#"{"task": "a"}"#, 200, r#"{"task": {"stopCode": "Whim"}}"#),
            "StopTask answer: task.stopCode is none of its values",
        ),
        (exchange(r#"{"task": "a"}"#, 400, r#"{"__type": "Whim"}"#), "StopTask answer: Whim is no error of it"),
    ];
    // Signed by botocore itself; then the body is another.
    let headers = [
        ("content-type", "application/x-amz-json-1.1"),
        ("host", "localhost:1"),
        ("x-amz-date", "20260921T141320Z"),
        ("x-amz-target", "AmazonEC2ContainerServiceV20141113.StopTask"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260921/us-east-1/ecs/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=9371e5c9c376656da4242d03d296fab1bcb2be148ea5e1ab3626be5cf3b1bb8a",
        ),
    ];
    let signed = |body: &str| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = exchange(r#"{"task": "a"}"#, 200, "{}");
        Exchange { signed: Some(Signed { headers, body: body.to_owned() }), ..request }
    };
    assert_eq!(violations(&[signed(r#"{"task": "a"}"#)]).await, Vec::<String>::new());
    let cases = cases.into_iter().chain([(signed(r#"{"task": "b"}"#), "StopTask request: its signature is not botocore's")]);
    for (exchange, expected) in cases {
        let found = violations(std::slice::from_ref(&exchange)).await;
        assert_eq!(found.len(), 1, "{expected}: {found:?}");
        assert!(found[0].starts_with(expected), "{expected}: {found:?}");
    }
}
