use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use aws_config::Region;
use aws_types::service_config::LoadServiceConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// 2026-09-21 14:13:20 UTC.
const NOW: i64 = 1_790_000_000_000;

fn config(region: &'static str) -> aws_types::sdk_config::Builder {
    let credentials = Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI", Some("session".to_owned()), None, "test");
    let config = SdkConfig::builder().region(Region::new(region));
    config.credentials_provider(SharedCredentialsProvider::new(credentials))
}

async fn signed(config: SdkConfig) -> Signed {
    let clock: Clock = Arc::new(|| Timestamp::from_millis(NOW));
    Signed::new(&config, reqwest::Client::new(), clock).await.expect("prepared")
}

/// Calculated with botocore, AWS's library for Python.
#[tokio::test]
async fn requests_are_signed_as_aws_does_it_elsewhere() {
    let signed = signed(config("eu-central-1").build()).await;
    let body = br#"{"QuotaCode":"L-3032A538","ServiceCode":"fargate"}"#;
    let url = signed.endpoint(&QUOTAS);
    let headers = signed.headers(&QUOTAS, "GetServiceQuota", &url, body, Operation::Observe).await.expect("signed");
    let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.sort_unstable();
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260921/eu-central-1/servicequotas/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, \
         Signature=eb33a07b683f769175a4bcd25de1e6c9d46e9da9530a9b7fcd084da8f06886dd";
    let expected = [
        ("authorization", authorization),
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-date", "20260921T141320Z"),
        ("x-amz-security-token", "session"),
        ("x-amz-target", "ServiceQuotasV20190624.GetServiceQuota"),
    ];
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn services_are_where_their_region_and_partition_have_them() {
    let plain = |region| config(region).build();
    let cases = [
        (plain("us-east-1"), LOGS, "https://logs.us-east-1.amazonaws.com"),
        (plain("eu-central-1"), SECRETS, "https://secretsmanager.eu-central-1.amazonaws.com"),
        (plain("us-gov-west-1"), QUOTAS, "https://servicequotas.us-gov-west-1.amazonaws.com"),
        (plain("cn-north-1"), LOGS, "https://logs.cn-north-1.amazonaws.com.cn"),
        (config("us-west-2").use_fips(true).build(), SECRETS, "https://secretsmanager-fips.us-west-2.amazonaws.com"),
        (config("us-west-2").use_dual_stack(true).build(), LOGS, "https://logs.us-west-2.api.aws"),
    ];
    for (config, service, url) in cases {
        assert_eq!(signed(config).await.endpoint(&service), url);
    }
}

/// `AWS_ENDPOINT_URL_CLOUDWATCH_LOGS`, as the SDK reads it.
#[derive(Debug)]
struct LogsElsewhere;

impl LoadServiceConfig for LogsElsewhere {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        assert_eq!((key.env(), key.profile()), ("AWS_ENDPOINT_URL", "endpoint_url"));
        (key.service_id() == "CloudWatch Logs").then(|| "https://vpce-1.example".to_owned())
    }
}

#[tokio::test]
async fn services_can_be_elsewhere() {
    let all = config("us-east-1").endpoint_url("http://localhost:1").build();
    assert_eq!(signed(all.clone()).await.endpoint(&LOGS), "http://localhost:1");
    assert_eq!(elsewhere(&all, "Pricing").as_deref(), Some("http://localhost:1"));
    let one = config("us-east-1").service_config(LogsElsewhere).build();
    assert_eq!(elsewhere(&one, "Pricing"), None);
    let one = signed(one).await;
    assert_eq!(one.endpoint(&LOGS), "https://vpce-1.example");
    assert_eq!(one.endpoint(&SECRETS), "https://secretsmanager.us-east-1.amazonaws.com");
}

#[test]
fn names_of_errors_come_in_three_forms() {
    for kind in ["FooError", "FooError:http://internal.amazon.com/coral/", "aws.protocoltests#FooError", "a#FooError:http://b#c"]
    {
        assert_eq!(code(kind), "FooError", "{kind}");
    }
    assert_eq!(code(""), "");
}

/// Gives one answer for each request; how many there were. The last is given for ever.
async fn server(answers: &[(u16, &str)]) -> (Signed, Arc<AtomicUsize>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answers: Vec<String> = answers
        .iter()
        .map(|(status, body)| format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        .collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            // Every request in these tests is `{}`.
            while !request.ends_with(b"\r\n\r\n{}") {
                if stream.read_buf(&mut request).await.expect("a request") == 0 {
                    break;
                }
            }
            let place = counter.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
            // Whoever has read enough hangs up.
            let _ = stream.write_all(answers[place].as_bytes()).await;
        }
    });
    (signed(config("us-east-1").endpoint_url(url).build()).await, asked, task)
}

async fn ask(signed: &Signed) -> Result<Value, Error> {
    signed.call(&SECRETS, "DescribeSecret", &json!({}), Operation::Create).await
}

#[tokio::test]
async fn what_may_work_later_is_tried_three_times_in_all() {
    let throttled = (400, r#"{"__type": "ThrottlingException", "message": "Rate exceeded"}"#);
    let (signed, asked, task) = server(&[throttled, (503, "<html>busy</html>"), (200, r#"{"ARN": "a"}"#)]).await;
    assert_eq!(ask(&signed).await.expect("an answer"), json!({"ARN": "a"}));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    task.abort();
    let (signed, asked, task) = server(&[throttled]).await;
    let error = ask(&signed).await.expect_err("refused");
    assert_eq!((error.kind, asked.load(Ordering::SeqCst)), (ErrorKind::Throttled { retry_after: None }, 3));
    task.abort();
    let (signed, asked, task) = server(&[(503, "<html>busy</html>")]).await;
    let error = ask(&signed).await.expect_err("refused");
    assert_eq!((error.kind, asked.load(Ordering::SeqCst)), (ErrorKind::Unavailable, 3));
    assert_eq!(error.source.expect("words").to_string(), "HTTP 503");
    task.abort();
}

#[tokio::test]
async fn what_was_refused_for_good_is_not_tried_again() {
    let cases = [
        (r#"{"__type": "ResourceExistsException", "Message": "It exists."}"#, ErrorKind::Conflict),
        (r#"{"__type": "com.amazonaws#ResourceNotFoundException", "message": "None."}"#, ErrorKind::NotFound),
        (r#"{"__type": "ExpiredTokenException", "message": "It is expired."}"#, ErrorKind::Denied),
        (r#"{"__type": "ValidationException", "message": "Not so."}"#, ErrorKind::Invalid),
    ];
    for (body, kind) in cases {
        let (signed, asked, task) = server(&[(400, body)]).await;
        let error = ask(&signed).await.expect_err("refused");
        assert_eq!((error.kind, asked.load(Ordering::SeqCst)), (kind, 1), "{body}");
        task.abort();
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_no_json_is_none() {
    let long = format!(r#"{{"ARN": "{}"}}"#, "a".repeat(MOST_BYTES));
    let (signed, _, task) = server(&[(200, &long)]).await;
    let error = ask(&signed).await.expect_err("too long");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.source.expect("words").to_string().contains("more than 8388608 bytes"));
    task.abort();
    let (signed, _, task) = server(&[(200, "<html>")]).await;
    assert_eq!(ask(&signed).await.expect_err("no JSON").kind, ErrorKind::Unavailable);
    task.abort();
}

#[tokio::test]
async fn credentials_are_kept_until_shortly_before_they_expire() {
    let millis = Arc::new(AtomicI64::new(NOW));
    let read = millis.clone();
    let clock: Clock = Arc::new(move || Timestamp::from_millis(read.load(Ordering::SeqCst)));
    let signed = Signed::new(&config("us-east-1").build(), reqwest::Client::new(), clock).await.expect("prepared");
    let asked_for = async || signed.credentials(Operation::Create).await.expect("credentials").access_key_id().to_owned();
    assert_eq!(asked_for().await, "AKIDEXAMPLE");
    let expiry = signed.now() + Duration::from_secs(1000);
    let kept = Credentials::new("AKIDKEPT", "secret", None, Some(expiry), "test");
    *signed.kept.lock().await = Some((kept.clone(), good_until(&kept, signed.now())));
    for (seconds, id) in [(0, "AKIDKEPT"), (939, "AKIDKEPT"), (940, "AKIDEXAMPLE"), (941, "AKIDEXAMPLE")] {
        millis.store(NOW + seconds * 1000, Ordering::SeqCst);
        assert_eq!(asked_for().await, id, "after {seconds} s");
    }
    // These do not say when they expire; whoever wrote them may have written new ones.
    let (_, until) = signed.kept.lock().await.clone().expect("kept");
    assert_eq!(until, SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_940_000) + UNDATED);
}
