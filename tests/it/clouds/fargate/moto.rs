//! The wire format of the real SDK, on somebody else's double: moto.
//!
//! moto answers RunTask with a running task, forgets client tokens, knows no capacity, no Fargate quota and no reasons for
//! stopping: what is tested here is that it understands us and we understand it. Whatever passes between is recorded.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use policy::Timestamp;
use providers::fargate::Fargate;
use providers::{Clock, ErrorKind, Health, LogQuery, PodUid, Provider, RegistryCredential, RemotePhase, Secret, Value, Variable};
use tokio::process::{Child, Command};

use super::exchanges::{self, Exchange, Signed};
use super::{PASSWORD, access, pod, settings};

/// moto, with a recorder before it; both end when it is dropped.
struct Moto {
    endpoint: String,
    subnet: String,
    security_group: String,
    recorder: Arc<Recorder>,
    server: tokio::task::JoinHandle<()>,
    _process: Child,
}

struct Recorder {
    upstream: String,
    http: reqwest::Client,
    exchanges: Mutex<Vec<Exchange>>,
}

/// What moto 5.2.5 itself answers against the model: no launch type for tasks of a capacity provider, and a field of secrets
/// under an old name.
const KNOWN_OF_MOTO: [&str; 2] = ["launchType is none of its values: ", "VersionIdsToStages is unknown"];
/// moto takes a few seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl Moto {
    async fn start() -> Moto {
        let folder = exchanges::moto();
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let process = Command::new(folder.join("bin/moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("moto");
        let upstream = format!("http://127.0.0.1:{port}");
        let http = reqwest::Client::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while http.get(format!("{upstream}/moto-api/")).send().await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "moto does not answer");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Else a task ends by itself after four looks at it.
        let stay = r#"{"model_name": "ecs::task", "transition": {"progression": "manual", "times": 100000}}"#;
        let answer = http.post(format!("{upstream}/moto-api/state-manager/set-transition")).body(stay).send().await;
        answer.expect("an answer").error_for_status().expect("tasks stay as they are");
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("it/clouds/fargate/prepare_moto.py");
        let output = Command::new(folder.join("bin/python")).arg(script).arg(&upstream).kill_on_drop(true).output().await;
        let output = output.expect("python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let made = |what: &str| made[what].as_str().expect("a name").to_owned();
        let recorder = Arc::new(Recorder { upstream, http, exchanges: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(pass_on).with_state(recorder.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("served") });
        Moto { endpoint, subnet: made("subnet"), security_group: made("securityGroup"), recorder, server, _process: process }
    }

    fn recording(&self) -> Vec<Exchange> {
        self.recorder.exchanges.lock().expect("no test has failed in it").clone()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn pass_on(Extract(recorder): Extract<Arc<Recorder>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default().to_owned();
    let mut request = recorder.http.post(&recorder.upstream).body(body.clone());
    for (name, value) in headers.iter().filter(|(name, _)| *name != "host" && *name != "content-length") {
        request = request.header(name, value);
    }
    let answer = request.send().await.expect("moto's answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("moto's body");
    recorder.exchanges.lock().expect("no test has failed in it").push(Exchange {
        target,
        request: serde_json::from_slice(&body).expect("JSON"),
        status,
        answer: serde_json::from_str(&text).unwrap_or_else(|_| serde_json::json!({"__type": "NotJson", "message": text})),
        signed: Some(Signed::of(&headers, &body)),
    });
    (StatusCode::from_u16(status).expect("a status"), [("content-type", "application/x-amz-json-1.1")], text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_sdk_and_moto_understand_each_other() {
    let moto = Moto::start().await;
    let mut settings = settings("fargate");
    settings.subnets = vec![moto.subnet.clone()];
    settings.security_groups = vec![moto.security_group.clone()];
    let clock: Clock = Arc::new(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        Timestamp::EPOCH + now
    });
    let connect = async || Fargate::connect(settings.clone(), access(&moto.endpoint), clock.clone()).await.expect("connected");
    let provider = connect().await;

    let observed = provider.observe().await.expect("an answer");
    assert_eq!((observed.health, observed.quota.cpu_millis, observed.usage.pods), (Health::Healthy, None, 0));

    let mut request = pod(&PodUid::new("0b1f6c1e-0000-4000-8000-000000000002"));
    let main = &mut request.containers[0];
    // moto cannot do without.
    main.requests.memory_bytes = 256 << 20;
    main.environment = vec![
        Variable { name: "PLAIN".to_owned(), value: Value::Plain("yes".to_owned()) },
        Variable { name: "PASSWORD".to_owned(), value: Value::Secret(Secret::new(PASSWORD)) },
    ];
    main.image = "registry.example.com/private:1".into();
    request.registries = vec![RegistryCredential {
        server: "registry.example.com".to_owned(),
        username: "puller".to_owned(),
        password: Secret::new(PASSWORD),
    }];
    let created = provider.create(&request).await.expect("launched");
    assert_eq!((&created.uid, created.phase), (&request.uid, RemotePhase::Running));

    // After a restart it is found by what stands in the task.
    let restarted = connect().await;
    let listed = restarted.list(100).await.expect("a list");
    assert_eq!(listed.iter().map(|pod| &pod.id).collect::<Vec<_>>(), [&created.id]);
    assert_eq!((&listed[0].namespace, &listed[0].name), (&request.namespace, &request.name));
    let found = restarted.get(&request.uid).await.expect("found");
    assert_eq!(found.id, created.id);
    assert!(found.address.is_some(), "{found:?}");
    // moto says nothing of a task's size.
    assert_eq!(restarted.observe().await.expect("an answer").usage.pods, 1);
    assert_eq!(restarted.get(&PodUid::new("nobody")).await.expect_err("never made").kind, ErrorKind::NotFound);
    // It has written nothing yet.
    let output = restarted.logs(&created.id, &LogQuery::all("main")).await.expect("a stream");
    assert_eq!(futures::StreamExt::count(output).await, 0);

    restarted.delete(&created.id).await.expect("stopped");
    let gone = restarted.get(&request.uid).await;
    assert!(gone.as_ref().map_or(true, |pod| pod.phase == RemotePhase::Stopped), "{gone:?}");

    let recording = moto.recording();
    for operation in [
        "DescribeClusters",
        "RegisterTaskDefinition",
        "RunTask",
        "DescribeTasks",
        "ListTasks",
        "StopTask",
        "CreateSecret",
        "DeleteSecret",
        "DeregisterTaskDefinition",
        "GetLogEvents",
        "GetServiceQuota",
    ] {
        assert!(recording.iter().any(|exchange| exchange.target.ends_with(operation)), "{operation} was not tried");
    }
    // A definition of one pod goes with the pod, and so do its secrets.
    let of = |operation: &str| {
        recording.iter().filter(|exchange| exchange.target.ends_with(operation) && exchange.status == 200).count()
    };
    assert_eq!((of("CreateSecret"), of("DeleteSecret"), of("DeregisterTaskDefinition")), (2, 2, 1));
    let violations = exchanges::violations(&recording).await;
    let (known, news): (Vec<_>, Vec<_>) =
        violations.into_iter().partition(|line| KNOWN_OF_MOTO.iter().any(|known| line.ends_with(known)));
    assert!(!known.is_empty() && news.is_empty(), "moto and we against AWS's model:\n{}", news.join("\n"));
}
