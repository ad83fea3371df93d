//! Fargate: the contract on a double of ECS that keeps state, the real SDK's wire format on moto, and every exchange of both
//! checked by AWS's own model of the API.

mod checked;
mod double;
mod exchanges;
mod moto;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use policy::{Shape, Timestamp};
use providers::fargate::{Access, Credential, Fargate, Settings};
use providers::{
    CallLimit, Clock, Container, ErrorKind, Exit, Health, LogQuery, Ownership, PodRequest, PodUid, Provider, RegistryCredential,
    RemotePhase, RestartPolicy, Secret, StartFailure, Value, Variable,
};

use self::double::{Double, Fault};
use super::contract::{self, HELLO, Stage, Trouble};

const PASSWORD: &str = "hunter2-is-secret";

/// Fargate on the double, in virtual time.
pub(super) struct Ecs {
    double: Double,
    millis: Arc<AtomicI64>,
    provider: Arc<Fargate>,
    restarted: Arc<Fargate>,
    stranger: Arc<Fargate>,
}

fn settings(virtual_node: &str) -> Settings {
    let ownership = Ownership { cluster: "c1".into(), virtual_node: virtual_node.into() };
    Settings {
        security_groups: vec!["sg-0123456789abcdef0".to_owned()],
        execution_role_arn: Some("arn:aws:iam::123456789012:role/spillway-execution".to_owned()),
        log_group: Some("/spillway/pods".to_owned()),
        // Virtual time stands still while a call waits for its turn.
        launches: CallLimit::per_second(20, 100_000),
        ..Settings::new("us-east-1", "burst", vec!["subnet-0123456789abcdef0".to_owned()], ownership)
    }
}

fn access(endpoint: &str) -> Access {
    Access {
        credential: Credential::AccessKey {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI"),
            session_token: None,
        },
        endpoint: Some(endpoint.to_owned()),
        price_list: None,
        log_pace: Duration::from_millis(5),
    }
}

fn pod(uid: &PodUid) -> PodRequest {
    let shape = Shape { cpu_millis: 250, memory_bytes: 512 << 20, ephemeral_bytes: 0 };
    let main = Container { arguments: vec![HELLO.to_owned()], ..Container::new("main", "hello") };
    PodRequest { containers: vec![main], ..PodRequest::new(uid.clone(), "media", format!("pod-{uid}"), shape) }
}

impl Ecs {
    pub(super) async fn start() -> Ecs {
        let millis = Arc::new(AtomicI64::new(1_790_000_000_000));
        let read = millis.clone();
        let clock: Clock = Arc::new(move || Timestamp::from_millis(read.load(Ordering::Relaxed)));
        let double = Double::start(clock.clone()).await;
        let connect = async |virtual_node: &str| {
            let connected = Fargate::connect(settings(virtual_node), access(double.endpoint()), clock.clone()).await;
            Arc::new(connected.expect("connected"))
        };
        let provider = connect("fargate").await;
        let restarted = connect("fargate").await;
        let stranger = connect("another").await;
        Ecs { double, millis, provider, restarted, stranger }
    }

    /// How other providers reach it.
    pub(super) fn access(&self) -> Access {
        access(self.double.endpoint())
    }

    /// Somebody takes the capacity providers from the cluster.
    pub(super) fn lose_capacity_providers(&self) {
        self.double.inject(Fault::NoClusterProviders);
    }

    fn pass(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).expect("short");
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }

    async fn started(&self, request: &PodRequest) -> providers::RemotePod {
        let pod = self.provider.create(request).await.expect("accepted");
        self.pass(Duration::from_secs(10));
        pod
    }
}

#[async_trait]
impl Stage for Ecs {
    fn provider(&self) -> Arc<dyn Provider> {
        self.provider.clone()
    }

    fn restarted(&self) -> Arc<dyn Provider> {
        self.restarted.clone()
    }

    fn stranger(&self) -> Arc<dyn Provider> {
        self.stranger.clone()
    }

    fn request(&self, uid: &PodUid) -> PodRequest {
        pod(uid)
    }

    async fn begin(&self, trouble: Trouble) {
        self.double.inject(match trouble {
            Trouble::Throttling => Fault::Throttling,
            Trouble::ExpiredCredentials => Fault::ExpiredCredentials,
            Trouble::PartialOutage => Fault::PartialOutage,
            Trouble::LostAnswer => Fault::LostAnswer,
            Trouble::NoCapacity => Fault::NoCapacity,
            Trouble::QuotaExceeded => Fault::Quota,
            Trouble::UnpullableImage => Fault::UnpullableImage,
        });
    }

    async fn end_trouble(&self) {
        self.double.heal();
    }

    async fn finish(&self, uid: &PodUid, code: i32) {
        self.double.finish(uid.as_str(), &[("main", code)]);
    }

    async fn moment(&self) {
        self.pass(Duration::from_millis(500));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_and_every_exchange_is_as_the_model_says() {
    let stage = Ecs::start().await;
    contract::holds(&stage).await;
    exchanges::check(&stage.double.recording(), "double").await;
}

/// A secret variable and a login.
fn with_secrets(uid: &str) -> PodRequest {
    let mut request = pod(&PodUid::new(uid));
    request.containers[0].environment =
        vec![Variable { name: "PASSWORD".to_owned(), value: Value::Secret(Secret::new(PASSWORD)) }];
    request.containers[0].image = "registry.example.com/private:1".into();
    request.registries = vec![RegistryCredential {
        server: "registry.example.com".to_owned(),
        username: "puller".to_owned(),
        password: Secret::new(PASSWORD),
    }];
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_the_store_for_the_pods_time_and_nowhere_else() {
    let stage = Ecs::start().await;
    let request = with_secrets("0b1f6c1e-0000-4000-8000-000000000001");
    let created = stage.started(&request).await;
    assert_eq!(stage.double.secrets().len(), 2, "variables and a login: {:?}", stage.double.secrets());
    assert!(stage.double.secrets().iter().all(|name| name.contains(request.uid.as_str())));
    assert_eq!(stage.double.environment_of(request.uid.as_str(), "main", "PASSWORD").as_deref(), Some(PASSWORD));
    for exchange in stage.double.recording() {
        let is_the_stores = exchange.target.starts_with("secretsmanager.");
        assert!(is_the_stores || !exchange.shown().contains(PASSWORD), "{} shows a secret", exchange.target);
    }
    // Another try, also after a restart, makes nothing new.
    assert_eq!(stage.restarted.create(&request).await.expect("there").id, created.id);
    assert_eq!((stage.double.secrets().len(), stage.double.definitions().len()), (2, 1));
    stage.restarted.delete(&created.id).await.expect("deleted");
    assert_eq!(stage.double.secrets(), Vec::<String>::new());
    assert_eq!(stage.double.definitions(), Vec::<String>::new(), "a definition of one pod goes with it");
    exchanges::check(&stage.double.recording(), "double").await;
}

/// Takes in what is logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no test has failed in it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One thread, because what it logs is captured by thread.
#[tokio::test]
async fn no_log_shows_a_secret() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let stage = Ecs::start().await;
    let mut request = with_secrets("0b1f6c1e-0000-4000-8000-000000000003");
    stage.started(&request).await;
    stage.double.inject(Fault::Quota);
    request.uid = PodUid::new("0b1f6c1e-0000-4000-8000-000000000004");
    let error = stage.provider.create(&request).await.expect_err("no quota");
    tracing::info!(?request, ?error, "all that could be said");
    let logged = String::from_utf8_lossy(&captured.0.lock().expect("no test has failed in it")).into_owned();
    assert!(logged.contains("all that could be said") && logged.contains("RunTask"), "something was logged: {logged}");
    let shown = logged.lines().find(|line| line.contains(PASSWORD));
    assert_eq!(shown, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_nobody_took_away_are_found_later() {
    let stage = Ecs::start().await;
    let with_secret = |uid: &str| {
        let mut request = pod(&PodUid::new(uid));
        let value = Value::Secret(Secret::new(PASSWORD));
        request.containers[0].environment = vec![Variable { name: "PASSWORD".to_owned(), value }];
        request
    };
    let (gone, there) = (with_secret("gone"), with_secret("there"));
    stage.started(&gone).await;
    stage.started(&there).await;
    stage.double.lose("gone");
    stage.restarted.list(1000).await.expect("a list");
    assert_eq!(stage.double.secrets().len(), 2, "young ones may belong to a pod that is being made");
    stage.pass(Duration::from_secs(2 * 3600));
    stage.restarted.list(1000).await.expect("a list");
    assert_eq!(stage.double.secrets().len(), 1);
    assert!(stage.double.secrets()[0].contains("there"));
    assert_eq!(stage.double.definitions().len(), 1);
    // Nothing was launched, and nobody will ever delete it: nothing stays behind.
    stage.double.inject(Fault::NoCapacity);
    let refused = stage.provider.create(&with_secret("refused")).await.expect_err("no room");
    assert_eq!(refused.kind, ErrorKind::NoCapacity);
    assert_eq!(stage.double.secrets().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_shares_one_definition() {
    let stage = Ecs::start().await;
    let requests: Vec<PodRequest> = (0..40)
        .map(|index| {
            let mut request = pod(&PodUid::new(format!("fan-{index}")));
            request.containers[0].arguments = vec![index.to_string()];
            let value = Value::Plain(index.to_string());
            request.containers[0].environment = vec![Variable { name: "JOB_COMPLETION_INDEX".to_owned(), value }];
            request
        })
        .collect();
    let created = futures::future::join_all(requests.iter().map(|request| stage.provider.create(request))).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    assert_eq!(stage.double.definitions().len(), 1);
    assert_eq!(stage.double.environment_of("fan-7", "main", "JOB_COMPLETION_INDEX").as_deref(), Some("7"));
    assert_eq!(stage.provider.list(1000).await.expect("a list").len(), 40);
    // Somebody tidies up behind our back.
    stage.double.deregister_all();
    stage.provider.create(&pod(&PodUid::new("after"))).await.expect("registered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_made_is_there_although_ecs_does_not_know_it_yet() {
    let stage = Ecs::start().await;
    stage.double.inject(Fault::Forgetful);
    let uid = PodUid::new("new");
    let created = stage.provider.create(&pod(&uid)).await.expect("accepted");
    assert_eq!(stage.provider.get(&uid).await.expect("as RunTask said").id, created.id);
    assert_eq!(stage.provider.list(10).await.expect("a list").len(), 1);
    stage.pass(Duration::from_secs(180));
    assert_eq!(stage.provider.get(&uid).await.expect_err("believed by now").kind, ErrorKind::NotFound);
    assert_eq!(stage.provider.list(10).await.expect("a list"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_task_keeps_its_pod_without_its_tags() {
    let stage = Ecs::start().await;
    let uid = PodUid::new("stopped");
    let id = stage.started(&pod(&uid)).await.id;
    stage.restarted.delete(&id).await.expect("deleted");
    stage.pass(Duration::from_secs(10));
    let fresh = stage.restarted.get(&uid).await.expect("found by its group");
    assert_eq!((fresh.phase, fresh.exit), (RemotePhase::Stopped, Some(Exit::Deleted)));
    // ECS forgets it after an hour.
    stage.pass(Duration::from_secs(2 * 3600));
    assert_eq!(stage.restarted.get(&uid).await.expect_err("forgotten").kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_killed_with_its_pod_does_not_fail_it() {
    let stage = Ecs::start().await;
    let uid = PodUid::new("sidecar");
    let mut request = pod(&uid);
    request.init_containers = vec![Container { sidecar: true, ..Container::new("proxy", "envoy") }];
    stage.started(&request).await;
    stage.double.finish("sidecar", &[("main", 0), ("proxy", 137)]);
    stage.pass(Duration::from_secs(10));
    assert_eq!(stage.restarted.get(&uid).await.expect("known").exit, Some(Exit::Finished { code: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn spot_says_when_it_was_taken_back() {
    let stage = Ecs::start().await;
    let uid = PodUid::new("spot");
    stage.started(&pod(&uid)).await;
    stage.double.interrupt("spot");
    stage.pass(Duration::from_secs(10));
    assert_eq!(stage.provider.get(&uid).await.expect("known").exit, Some(Exit::Reclaimed));
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_fargate_does_not_sell_are_invalid() {
    let stage = Ecs::start().await;
    let mut request = pod(&PodUid::new("odd"));
    request.shape = Shape { cpu_millis: 250, memory_bytes: 8 << 30, ephemeral_bytes: 0 };
    assert_eq!(stage.provider.create(&request).await.expect_err("not sold").kind, ErrorKind::Invalid);
    request.restart = RestartPolicy::OnFailure;
    let refused = stage.provider.create(&request).await.expect_err("not translated");
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert!(refused.source.expect("words").to_string().starts_with("restartOnFailure: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_to_its_end() {
    let stage = Ecs::start().await;
    let uid = PodUid::new("log");
    let id = stage.started(&pod(&uid)).await.id;
    let query = LogQuery { follow: true, timestamps: true, ..LogQuery::all("main") };
    let mut output = stage.provider.logs(&id, &query).await.expect("output");
    let first = String::from_utf8(output.next().await.expect("a line").expect("output")).expect("text");
    assert!(first.ends_with(&format!("Z {HELLO}\n")) && first.starts_with("20"), "{first:?}");
    stage.double.write("log", "main", "last words");
    stage.double.finish("log", &[("main", 0)]);
    stage.pass(Duration::from_secs(10));
    let rest: Vec<_> = output.map(|part| String::from_utf8(part.expect("output")).expect("text")).collect().await;
    assert!(rest.concat().contains("last words"), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_says_what_can_be_had() {
    let stage = Ecs::start().await;
    let observed = stage.provider.observe().await.expect("well");
    assert_eq!((observed.quota.cpu_millis, observed.health), (Some(100_000), Health::Healthy));
    assert_eq!(observed.prices.expect("built in").vcpu, "0.04048".parse().expect("a price"));
    // Really used up, not only said so: 100 vCPU are 6 tasks of 16.
    let large = |index: usize| PodRequest {
        shape: Shape { cpu_millis: 16_000, memory_bytes: 32 << 30, ephemeral_bytes: 0 },
        ..pod(&PodUid::new(format!("large-{index}")))
    };
    for index in 0..6 {
        stage.provider.create(&large(index)).await.expect("room");
    }
    assert_eq!(stage.provider.create(&large(6)).await.expect_err("none left").kind, ErrorKind::QuotaExceeded);
    stage.pass(Duration::from_secs(10));
    let usage = stage.provider.observe().await.expect("well").usage;
    assert_eq!((usage.pods, usage.cpu_millis), (6, 96_000));
    stage.double.inject(Fault::NoClusterProviders);
    assert!(matches!(stage.provider.observe().await.expect("an answer").health, Health::Down { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_for_not_starting_is_told_apart() {
    let stage = Ecs::start().await;
    for (place, (words, cause)) in [
        ("CannotPullContainerError: pull image manifest has been retried", StartFailure::Image),
        ("ResourceInitializationError: unable to pull secrets or registry auth", StartFailure::Configuration),
        ("CannotStartContainerError: executable file not found", StartFailure::Container),
        ("Capacity is unavailable at this time. Please try again later", StartFailure::NoCapacity),
        ("Timeout waiting for network interface provisioning to complete.", StartFailure::Configuration),
        ("Nobody knows", StartFailure::Unknown),
    ]
    .into_iter()
    .enumerate()
    {
        let uid = PodUid::new(format!("never-{place}"));
        stage.started(&pod(&uid)).await;
        stage.double.fail_to_start(uid.as_str(), words);
        stage.pass(Duration::from_secs(10));
        let exit = stage.provider.get(&uid).await.expect("known").exit;
        assert!(matches!(&exit, Some(Exit::NotStarted { cause: told, .. }) if *told == cause), "{words}: {exit:?}");
    }
}

/// 100 tasks fit in one DescribeTasks and on one page of ListTasks.
#[tokio::test(flavor = "multi_thread")]
async fn more_tasks_than_one_page_are_listed() {
    let stage = Ecs::start().await;
    for index in 0..130 {
        stage.provider.create(&pod(&PodUid::new(format!("many-{index}")))).await.expect("room");
    }
    stage.pass(Duration::from_secs(10));
    assert_eq!(stage.restarted.list(1000).await.expect("a list").len(), 130);
    assert_eq!(stage.restarted.list(110).await.expect("a list").len(), 110);
    assert_eq!(stage.restarted.observe().await.expect("well").usage.pods, 130);
}
