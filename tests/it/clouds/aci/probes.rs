//! What only Azure has, and whether the checker checks.

use std::time::Duration;

use futures::StreamExt;
use providers::aci::{ArmError, Settings};
use providers::{
    ErrorKind, ExecInput, ExecOutput, ExecRequest, Exit, File, Health, LogQuery, PodUid, Provider, RegistryCredential,
    RemotePhase, RemotePod, Secret, Variable, Volume, VolumeSource,
};
use serde_json::{Value, json};

use super::super::contract::{HELLO, Stage, Trouble};
use super::bench::{Subscription, bench};
use super::server::TOKEN;
use super::{Azure, request};

fn uid(number: u32) -> PodUid {
    PodUid::new(format!("{number:08x}-1111-4000-8000-000000000000"))
}

/// Lets time pass until the pod runs.
async fn running(azure: &Azure, uid: &PodUid) -> RemotePod {
    for _ in 0..20 {
        azure.moment().await;
        let pod = azure.provider.get(uid).await.expect("known");
        if pod.phase == RemotePhase::Running {
            return pod;
        }
    }
    panic!("{uid} does not run");
}

async fn call(method: reqwest::Method, subscription: &Subscription, path: &str, body: Option<Value>) -> (u16, String) {
    let url = format!(
        "{}/subscriptions/{}/resourceGroups/bursts/providers/Microsoft.ContainerInstance/containerGroups/{path}?api-version=2023-05-01",
        bench().checked,
        subscription.id()
    );
    let mut call = reqwest::Client::new().request(method, url).bearer_auth(TOKEN);
    if let Some(body) = body {
        call = call.header("content-type", "application/json").body(body.to_string());
    }
    let answer = call.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

#[tokio::test]
async fn a_request_and_an_answer_that_violate_azures_description_are_caught() {
    let azure = Azure::new(10);
    let container =
        json!({"name": "main", "properties": {"image": "a", "resources": {"requests": {"cpu": 1.0, "memoryInGB": 1.0}}}});
    let group = |change: fn(&mut Value)| {
        let mut group = json!({"location": "eastus", "properties": {"priority": "Regular", "containers": [container]}});
        change(&mut group["properties"]);
        Some(group)
    };
    let put = async |change: fn(&mut Value)| call(reqwest::Method::PUT, &azure.subscription, "checked", group(change)).await;
    for (change, complaint) in [
        ((|properties| properties["restartPolicy"] = json!("Sometimes")) as fn(&mut Value), "restartPolicy"),
        (|properties| properties["containers"][0]["properties"]["comand"] = json!(["a"]), "comand"),
        (|properties| properties["containers"][0]["properties"]["resources"] = json!({}), "requests"),
        (|properties| properties["volumes"] = json!([{"emptyDir": {}}]), "name"),
    ] {
        let (status, text) = put(change).await;
        assert_eq!(status, 422, "{text}");
        assert!(text.contains(complaint), "{text}");
    }
    assert_eq!(put(|_| ()).await.0, 201, "the group itself is well formed");
    azure.moment().await;
    assert_eq!(call(reqwest::Method::GET, &azure.subscription, "checked", None).await.0, 200);
    azure.subscription.cloud().nonsense = true;
    let (status, text) = call(reqwest::Method::GET, &azure.subscription, "checked", None).await;
    assert_eq!(status, 500);
    assert!(text.contains("VIOLATIONS") && text.contains("containers"), "{text}");
    // The same through the provider: it is remembered, and the contract's test would fail.
    azure.subscription.nothing_was_violated();
    azure.subscription.cloud().nonsense = false;
    azure.provider.create(&request(&uid(1))).await.expect("accepted");
    azure.subscription.cloud().nonsense = true;
    azure.moment().await;
    assert!(azure.provider.get(&uid(1)).await.is_err());
    assert_eq!(azure.subscription.violations().len(), 1);
}

#[tokio::test]
async fn spot_groups_are_spot_have_their_own_quota_and_are_reclaimed() {
    let azure = Azure::spot(11);
    azure.provider.create(&request(&uid(1))).await.expect("accepted");
    running(&azure, &uid(1)).await;
    let observation = azure.provider.observe().await.expect("well");
    assert_eq!((observation.quota.cpu_millis, observation.usage.cpu_millis), (Some(10_000), 1000));
    assert_eq!(observation.prices.map(|prices| prices.vcpu), "0.01215".parse().ok());
    azure.subscription.cloud().evict(uid(1).as_str());
    azure.moment().await;
    assert_eq!(azure.provider.get(&uid(1)).await.expect("known").exit, Some(Exit::Reclaimed));
    azure.subscription.nothing_was_violated();
}

#[tokio::test]
async fn quota_size_and_prices_are_observed() {
    let azure = Azure::new(12);
    let observation = azure.provider.observe().await.expect("well");
    assert_eq!((observation.quota.pods, observation.quota.cpu_millis), (Some(100), Some(100_000)));
    let largest = observation.largest_pod;
    assert_eq!((largest.cpu_millis, largest.memory_bytes), (Some(4000), Some(16_000_000_000)));
    let prices = observation.prices.expect("published");
    assert_eq!((prices.vcpu, prices.gb), ("0.0405".parse().expect("a rate"), "0.00445".parse().expect("a rate")));
    assert_eq!((prices.as_of, observation.health), (azure.subscription.now(), Health::Healthy));
    azure.subscription.nothing_was_violated();
}

#[tokio::test]
async fn where_no_prices_can_be_read_the_built_in_ones_say_their_age() {
    let subscription = Subscription::new(22);
    // Nobody listens on the port that means "none".
    let unreachable = || "http://127.0.0.1:1/".to_owned();
    let provider = subscription.provider_with_prices(subscription.settings("aci-eastus"), unreachable());
    let prices = provider.observe().await.expect("well").prices.expect("built in");
    assert_eq!(prices.vcpu, "0.0405".parse().expect("a rate"));
    assert!(prices.as_of < subscription.now() - Duration::from_secs(24 * 3600), "{prices:?}");
    let settings = Settings { location: "nowhere".to_owned(), ..subscription.settings("aci-eastus") };
    let nowhere = subscription.provider_with_prices(settings, unreachable());
    assert_eq!(nowhere.observe().await.expect("well").prices, None);
}

#[tokio::test]
async fn a_quota_error_says_how_much_is_missing() {
    let azure = Azure::new(13);
    azure.subscription.cloud().quota_cores = 1;
    azure.provider.create(&request(&uid(1))).await.expect("accepted");
    let error = azure.provider.create(&request(&uid(2))).await.expect_err("no quota left");
    assert_eq!(error.kind, ErrorKind::QuotaExceeded);
    let told = error.source.as_ref().and_then(|source| source.downcast_ref::<ArmError>()).expect("Azure's words");
    let quota = told.quota.as_ref().expect("numbers");
    assert_eq!((quota.name.as_str(), quota.limit, quota.usage, quota.requested), ("StandardCores", 1, 1, 1));
    azure.subscription.nothing_was_violated();
}

#[tokio::test]
async fn azures_advice_on_throttling_comes_through() {
    let azure = Azure::new(14);
    azure.begin(Trouble::Throttling).await;
    let error = azure.provider.get(&uid(1)).await.expect_err("too many");
    assert_eq!(error.kind, ErrorKind::Throttled { retry_after: Some(Duration::from_secs(7)) });
    azure.subscription.nothing_was_violated();
}

#[tokio::test]
async fn a_group_of_that_name_with_another_uid_is_a_conflict() {
    let azure = Azure::new(15);
    azure.provider.create(&request(&uid(1))).await.expect("accepted");
    azure.moment().await;
    azure.subscription.cloud().tag(uid(1).as_str(), "spillway-uid", "somebody-else");
    let error = azure.restarted().create(&request(&uid(1))).await.expect_err("not ours");
    assert_eq!(error.kind, ErrorKind::Conflict);
    azure.subscription.nothing_was_violated();
}

#[tokio::test]
async fn a_group_that_is_not_visible_yet_is_known_to_who_made_it() {
    let azure = Azure::new(16);
    let made = azure.provider.create(&request(&uid(1))).await.expect("accepted");
    assert_eq!(azure.provider.get(&uid(1)).await.expect("made a moment ago").id, made.id);
    assert_eq!(azure.provider.list(10).await.expect("a list").len(), 1);
    let other = azure.subscription.provider(azure.subscription.settings("aci-eastus"));
    let error = other.get(&uid(1)).await.expect_err("Azure does not show it yet");
    assert_eq!(error.kind, ErrorKind::NotFound);
    azure.subscription.nothing_was_violated();
}

#[tokio::test]
async fn a_missing_resource_group_is_the_admins_matter_and_not_the_pods() {
    let azure = Azure::with(17, |settings| Settings { resource_group: "typo".to_owned(), ..settings });
    let kind = azure.provider.create(&request(&uid(1))).await.expect_err("no such group").kind;
    assert_eq!(kind, ErrorKind::Denied);
    azure.subscription.nothing_was_violated();
}

#[tokio::test]
async fn a_log_is_followed_until_the_container_ends() {
    let azure = Azure::new(18);
    let id = azure.provider.create(&request(&uid(1))).await.expect("accepted").id;
    running(&azure, &uid(1)).await;
    let mut stream = azure.provider.logs(&id, &LogQuery { follow: true, ..LogQuery::all("main") }).await.expect("a log");
    let text = |part: Option<Result<Vec<u8>, _>>| String::from_utf8(part.expect("more").expect("output")).expect("text");
    assert_eq!(text(stream.next().await), format!("{HELLO}\n"));
    azure.subscription.pass(1_000);
    azure.subscription.cloud().write(uid(1).as_str(), "tick");
    assert_eq!(text(stream.next().await), "tick\n");
    azure.subscription.pass(1_000);
    azure.subscription.cloud().write(uid(1).as_str(), "tick");
    azure.subscription.cloud().drop_output(uid(1).as_str(), 1);
    assert_eq!(text(stream.next().await), "tick\n", "the beginning has been dropped and nothing is repeated");
    azure.subscription.cloud().write(uid(1).as_str(), "bye");
    azure.finish(&uid(1), 0).await;
    assert_eq!(text(stream.next().await), "bye\n");
    let end = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("an end");
    assert!(end.is_none(), "it ends with the container");
    azure.subscription.nothing_was_violated();
}

#[tokio::test]
async fn a_command_is_talked_to_over_a_web_socket() {
    let azure = Azure::new(19);
    let id = azure.provider.create(&request(&uid(1))).await.expect("accepted").id;
    let exec = ExecRequest { container: "main".into(), command: vec!["cat".into(), "-u".into()], tty: true, stdin: true };
    let early = azure.provider.exec(&id, &exec).await.expect_err("it does not run yet");
    assert_eq!(early.kind, ErrorKind::Invalid);
    running(&azure, &uid(1)).await;
    let mut session = azure.provider.exec(&id, &exec).await.expect("a session");
    let mut said = Vec::new();
    let mut listen = async |bytes: usize| {
        while said.len() < bytes {
            match session.output.recv().await.expect("more").expect("output") {
                ExecOutput::Stdout(more) => said.extend(more),
                other => panic!("{other:?}"),
            }
        }
        String::from_utf8(std::mem::take(&mut said)).expect("text")
    };
    assert_eq!(listen(16).await, "running cat -u\r\n");
    session.input.send(ExecInput::Resize { width: 100, height: 40 }).await.expect("listens");
    session.input.send(ExecInput::Stdin(b"hello".to_vec())).await.expect("listens");
    assert_eq!(listen(5).await, "hello");
    drop(session.input);
    assert_eq!(session.output.recv().await.expect("the end").expect("no error"), ExecOutput::Exited { code: None });
    assert!(session.output.recv().await.is_none());
    azure.subscription.nothing_was_violated();
}

#[tokio::test]
async fn many_groups_are_listed_by_pages_and_read_only_when_they_have_changed() {
    let azure = {
        let subscription = Subscription::unchecked(20);
        let provider = subscription.provider(subscription.settings("aci-eastus"));
        Azure { subscription, provider: std::sync::Arc::new(provider) }
    };
    azure.subscription.cloud().page = 7;
    for number in 0..40 {
        azure.provider.create(&request(&uid(number))).await.expect("accepted");
    }
    azure.subscription.pass(60_000);
    assert_eq!(azure.provider.list(100).await.expect("a list").len(), 40);
    let running = azure.provider.list(100).await.expect("a list");
    assert!(running.iter().all(|pod| pod.phase == RemotePhase::Running), "{running:?}");
    // An hour later nothing is younger than that: a list each minute reads each group once in six minutes, on the whole.
    azure.subscription.pass(3_600_000);
    azure.provider.list(100).await.expect("a list");
    azure.subscription.cloud().reads = 0;
    for _ in 0..12 {
        azure.subscription.pass(60_000);
        azure.provider.list(100).await.expect("a list");
    }
    let reads = azure.subscription.cloud().reads;
    assert!(reads <= 12 * 6 + 40 * 3, "{reads} reads in twelve minutes");
    azure.finish(&uid(3), 9).await;
    azure.subscription.pass(11 * 60_000);
    let ended = azure.provider.list(100).await.expect("a list").into_iter().find(|pod| pod.uid == uid(3)).expect("listed");
    assert_eq!(ended.exit, Some(Exit::Finished { code: 9 }));
    assert_eq!(azure.provider.list(5).await.expect("a list").len(), 5);
}

/// Takes in what is logged.
#[derive(Clone, Default)]
struct Captured(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no test has panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_shows_a_secret() {
    const SECRET: &str = "correct horse battery staple";
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let azure = Azure::new(21);
    let secret = || Secret::new(SECRET);
    let mut pod = request(&uid(1));
    pod.containers[0].environment = vec![Variable { name: "TOKEN".to_owned(), value: providers::Value::Secret(secret()) }];
    let file = File { path: "key".to_owned(), content: SECRET.as_bytes().to_vec(), secret: true, mode: 0o600 };
    pod.volumes = vec![Volume { name: "keys".into(), source: VolumeSource::Files(vec![file]) }];
    pod.registries = vec![RegistryCredential { server: "ghcr.io".to_owned(), username: "bot".to_owned(), password: secret() }];
    azure.provider.create(&pod).await.expect("accepted");
    azure.begin(Trouble::QuotaExceeded).await;
    pod.uid = uid(2);
    let error = azure.provider.create(&pod).await.expect_err("no quota");
    tracing::info!(?pod, ?error, provider = ?azure.provider, "all that could be said");
    let logged = String::from_utf8_lossy(&captured.0.lock().expect("no test has panicked")).into_owned();
    assert!(logged.contains("all that could be said") && logged.contains("containerGroups"), "something was logged: {logged}");
    // The second is the first in Base64.
    for text in [SECRET, "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ", TOKEN] {
        assert!(!logged.contains(text), "{text} is in a log");
    }
    azure.subscription.nothing_was_violated();
}
