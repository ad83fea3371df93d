//! What only Nomad has: secrets in Variables, followed output, commands, a scheduler that can be asked, an event stream, tokens,
//! TLS, a limit of connections.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use providers::nomad::{Connection, NomadProvider, Settings};
use providers::{
    Change, Container, ErrorKind, ExecInput, ExecOutput, ExecRequest, Exit, Feasibility, File, LogQuery, Mount, PodRequest,
    PodUid, Provider, RegistryCredential, RemoteId, RemotePhase, RemotePod, RestartPolicy, Secret, StartFailure, Value, Variable,
    Volume, VolumeSource,
};

use super::stand_in::StandIn;
use super::{Nomad, agent, clock, ownership, pod, provider, run};

const PATIENCE: Duration = Duration::from_secs(20);
/// Everything that a shell, a template or a parser of variables could take for something else.
const NASTY: &str = "a b\t\"q\" 'p' $HOME ${NOMAD_ALLOC_ID} {{ x }} %{ if } # <&> \\ ü\nsecond line";

fn uid(name: &str) -> PodUid {
    PodUid::new(format!("{name}-{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond() % 1_000_000_007))
}

async fn until(provider: &dyn Provider, uid: &PodUid, reached: impl Fn(&RemotePod) -> bool) -> RemotePod {
    let mut changes = provider.changes();
    let reading = async {
        loop {
            let pod = provider.get(uid).await.expect("a pod");
            if reached(&pod) {
                return pod;
            }
            // The event stream says when to look again; now and then we look without being told.
            let _ = tokio::time::timeout(Duration::from_secs(1), changes.next()).await;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("it gets there")
}

async fn output(provider: &dyn Provider, id: &RemoteId, query: &LogQuery) -> String {
    let mut stream = provider.logs(id, query).await.expect("output");
    let mut bytes = Vec::new();
    while let Some(part) = tokio::time::timeout(PATIENCE, stream.next()).await.expect("it ends") {
        bytes.extend(part.expect("output"));
    }
    String::from_utf8(bytes).expect("text")
}

fn variable(name: &str, value: Value) -> Variable {
    Variable { name: name.to_owned(), value }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_arrive_as_they_are_and_secrets_are_in_no_job() {
    let stage = Nomad::new().await;
    let uid = uid("values");
    let script = r#"printf '%s|' "$PLAIN" "$SECRET" "$0" "$HOST_IP"; cat "$NOMAD_TASK_DIR/volumes/config/a" "$NOMAD_SECRETS_DIR/volumes/keys/b""#;
    let mut request = pod(&uid, script);
    let main = &mut request.containers[0];
    main.arguments = vec![NASTY.to_owned()];
    main.environment = vec![
        variable("PLAIN", Value::Plain(NASTY.to_owned())),
        variable("SECRET", Value::Secret(Secret::new(NASTY))),
        variable("HOST_IP", Value::HostAddress),
    ];
    let at = |volume: &str| Mount { volume: volume.into(), path: format!("/{volume}"), sub_path: None, read_only: true };
    main.mounts = vec![at("config"), at("keys")];
    let file = |path: &str, secret| File { path: path.to_owned(), content: NASTY.as_bytes().to_vec(), secret, mode: 0o444 };
    let files = |name: &str, file| Volume { name: name.into(), source: VolumeSource::Files(vec![file]) };
    request.volumes = vec![files("config", file("a", false)), files("keys", file("b", true))];
    // Read by a `secret` block, which fails the task if it cannot be parsed.
    let password = Secret::new(NASTY);
    request.registries = vec![RegistryCredential { server: "docker.io".to_owned(), username: "robot$x".to_owned(), password }];
    let provider = &*stage.provider;
    let id = provider.create(&request).await.expect("accepted").id;
    let stopped = until(provider, &uid, |pod| pod.phase == RemotePhase::Stopped).await;
    assert_eq!(stopped.exit, Some(Exit::Finished { code: 0 }), "{stopped:?}");
    let text = output(provider, &id, &LogQuery::all("main")).await;
    let values: Vec<&str> = text.splitn(5, '|').collect();
    assert_eq!(values[..3], [NASTY; 3]);
    assert!(values[3].parse::<std::net::IpAddr>().is_ok(), "{text}");
    assert_eq!(values[4], [NASTY; 2].concat());
    let registered = stage.front.registered();
    let job = registered.iter().find(|job| job["ID"] == id.as_str()).expect("the job").to_string();
    assert!(job.contains("nomadVar") && !job.contains("\\\\\\\"q\\\\\\\""), "{job}");
    assert_eq!(stage.variables(&id).await, 2, "one Variable for the pod, one for its login");
    provider.delete(&id).await.expect("deleted");
    assert_eq!(stage.variables(&id).await, 0, "and none without it");
    assert_eq!(provider.get(&uid).await.expect_err("purged").kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_output_ends_with_the_container() {
    let stage = Nomad::new().await;
    let (provider, uid) = (&*stage.provider, uid("follow"));
    let script =
        r#"echo one; echo two; until [ -e "$NOMAD_TASK_DIR/go" ]; do sleep 0.05; done; echo three; echo problem >&2; echo four"#;
    let id = provider.create(&pod(&uid, script)).await.expect("accepted").id;
    until(provider, &uid, |pod| pod.phase == RemotePhase::Running).await;
    let mut stream =
        provider.logs(&id, &LogQuery { follow: true, tail_lines: Some(1), ..LogQuery::all("main") }).await.expect("output");
    let first = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("a part").expect("output");
    let mut text = String::from_utf8(first).expect("text");
    assert!(text == "two\n" || text.starts_with("one"), "{text:?}");
    let go = format!(r#"(sleep {}; touch "$NOMAD_TASK_DIR/go") > /dev/null 2>&1 &"#, stage.agent.pause());
    assert_eq!(run(provider, &id, &["/bin/sh", "-c", &go]).await.2, Some(0));
    while let Some(part) = tokio::time::timeout(PATIENCE, stream.next()).await.expect("it ends by itself") {
        text.push_str(&String::from_utf8(part.expect("output")).expect("text"));
    }
    assert_eq!(
        text.lines().filter(|line| *line != "problem" && *line != "one" && *line != "two").collect::<Vec<_>>(),
        ["three", "four"]
    );
    assert_eq!(text.matches("problem\n").count(), 1, "{text:?}");
    provider.delete(&id).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_have_streams_a_terminal_and_an_exit_code() {
    let stage = Nomad::new().await;
    let (provider, uid) = (&*stage.provider, uid("exec"));
    let id = provider.create(&pod(&uid, "exec sleep 600")).await.expect("accepted").id;
    until(provider, &uid, |pod| pod.phase == RemotePhase::Running).await;
    let told = run(provider, &id, &["/bin/sh", "-c", "echo out; echo err >&2; exit 7"]).await;
    assert_eq!(told, ("out\n".to_owned(), "err\n".to_owned(), Some(7)));
    // Input goes in until it is dropped.
    let command = |words: &[&str], tty, stdin| ExecRequest {
        container: "main".into(),
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        tty,
        stdin,
    };
    let mut session = provider.exec(&id, &command(&["/bin/cat"], false, true)).await.expect("a session");
    session.input.send(ExecInput::Stdin(b"typed".to_vec())).await.expect("sent");
    assert_eq!(session.output.recv().await.expect("output").expect("output"), ExecOutput::Stdout(b"typed".to_vec()));
    drop(session.input);
    assert_eq!(session.output.recv().await.expect("an end").expect("an end"), ExecOutput::Exited { code: Some(0) });
    // A terminal has the size that it is told.
    let words = ["/bin/sh", "-c", "sleep 0.3; stty size; exit 4"];
    let mut session = provider.exec(&id, &command(&words, true, true)).await.expect("a session");
    session.input.send(ExecInput::Resize { width: 120, height: 40 }).await.expect("sent");
    let (mut text, mut code) = (Vec::new(), None);
    while let Some(output) = session.output.recv().await {
        match output.expect("output") {
            ExecOutput::Stdout(bytes) => text.extend(bytes),
            ExecOutput::Exited { code: ended } => code = ended,
            ExecOutput::Stderr(bytes) => panic!("{bytes:?}"),
        }
    }
    assert_eq!((String::from_utf8_lossy(&text).trim(), code), ("40 120", Some(4)));
    // What cannot be started is refused in the driver's words.
    let mut session = provider.exec(&id, &command(&["/does/not/exist"], false, false)).await.expect("a session");
    let error = session.output.recv().await.expect("an answer").expect_err("no such command");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error:?}");
    let measured = async {
        loop {
            let stats = provider.stats(&id).await.expect("stats");
            // A real client without control groups measures no processes.
            let found = stats.containers.iter().any(|container| &*container.name == "main" && container.memory_bytes > 0);
            if found || stage.agent.stand_in.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, measured).await.expect("a client measures every second");
    provider.delete(&id).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_is_asked_before_anything_is_registered() {
    let stage = Nomad::new().await;
    let provider = &*stage.provider;
    let mut request = pod(&uid("plan"), "true");
    assert_eq!(provider.feasible(&request).await.expect("a plan"), Feasibility::Fits);
    request.containers[0].requests.memory_bytes = 1 << 50;
    match provider.feasible(&request).await.expect("a plan") {
        Feasibility::DoesNotFit { cause: StartFailure::NoCapacity, reason } => assert!(reason.contains("memory"), "{reason}"),
        other => panic!("{other:?}"),
    }
    request.containers[0].requests.memory_bytes = 32 << 20;
    request.platform.architecture = providers::Architecture::Arm64;
    match provider.feasible(&request).await.expect("a plan") {
        Feasibility::DoesNotFit { cause: StartFailure::NoCapacity, reason } => assert!(reason.contains("arm64"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(stage.front.registered().is_empty());
    let seen = provider.observe().await.expect("an observation");
    assert!(seen.quota.cpu_millis >= seen.largest_pod.cpu_millis && seen.largest_pod.cpu_millis > Some(0), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_pod_has_its_grace_period_and_is_purged_when_it_has_ended() {
    let stage = Nomad::new().await;
    let (provider, uid) = (&*stage.provider, uid("grace"));
    let script = r#"trap 'sleep 0.5; echo farewell; exit 0' TERM; echo ready; while :; do sleep 0.05; done"#;
    let id = provider.create(&pod(&uid, script)).await.expect("accepted").id;
    until(provider, &uid, |pod| pod.phase == RemotePhase::Running).await;
    let mut stream = provider.logs(&id, &LogQuery { follow: true, ..LogQuery::all("main") }).await.expect("output");
    let first = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("a part").expect("output");
    assert_eq!(first, b"ready\n");
    provider.delete(&id).await.expect("deleted");
    // It has until then what it writes while it ends: the job is purged only after that.
    let gone = async {
        loop {
            match provider.get(&uid).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return assert_eq!(error.kind, ErrorKind::NotFound),
            }
        }
    };
    let started = std::time::Instant::now();
    tokio::time::timeout(PATIENCE, gone).await.expect("purged by itself");
    assert!(started.elapsed() > Duration::from_millis(400), "it had its grace period");
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_and_sidecars_have_their_order() {
    let stage = Nomad::new().await;
    let (provider, uid) = (&*stage.provider, uid("order"));
    let mut request = pod(&uid, r#"cat "$NOMAD_ALLOC_DIR/data/made"; sleep 0.3"#);
    let like = |name: &str, script: &str| {
        let mut container = pod(&uid, script).containers.remove(0);
        container.name = name.into();
        container
    };
    request.init_containers = vec![
        like("init", r#"echo made > "$NOMAD_ALLOC_DIR/data/made""#),
        Container { sidecar: true, ..like("proxy", "while :; do sleep 0.1; done") },
    ];
    request.restart = RestartPolicy::OnFailure;
    let id = provider.create(&request).await.expect("accepted").id;
    let stopped = until(provider, &uid, |pod| pod.phase == RemotePhase::Stopped).await;
    assert_eq!(stopped.exit, Some(Exit::Finished { code: 0 }), "the sidecar's end does not count: {stopped:?}");
    assert_eq!(stopped.containers.len(), 3);
    assert_eq!(output(provider, &id, &LogQuery::all("main")).await, "made\n");
    provider.delete(&id).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_always_restarted_is_a_service() {
    let stage = Nomad::new().await;
    let (provider, uid) = (&*stage.provider, uid("service"));
    let request = PodRequest { restart: RestartPolicy::Always, ..pod(&uid, "exec sleep 600") };
    let id = provider.create(&request).await.expect("accepted").id;
    until(provider, &uid, |pod| pod.phase == RemotePhase::Running).await;
    provider.delete(&id).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_without_asking() {
    let stage = Nomad::new().await;
    // A virtual node of its own: pods of other tests may still be ending.
    let (provider, ours) = (&super::provider(&stage.front.url(), "listener"), uid("told"));
    let mut changes = provider.changes();
    assert_eq!(tokio::time::timeout(PATIENCE, changes.next()).await.expect("in time"), Some(Change::Everything));
    let other = super::provider(&stage.front.url(), "another");
    let theirs = uid("theirs");
    let foreign = other.create(&pod(&theirs, "true")).await.expect("accepted").id;
    let id = provider.create(&pod(&ours, "true")).await.expect("accepted").id;
    let mut told = BTreeSet::new();
    let listening = async {
        while provider.get(&ours).await.expect("a pod").phase != RemotePhase::Stopped {
            if let Some(Change::Pod(uid)) = changes.next().await {
                told.insert(uid);
            }
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("told of every change");
    assert_eq!(told, BTreeSet::from([ours]), "and of nobody else's");
    provider.delete(&id).await.expect("deleted");
    other.delete(&foreign).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_at_once_stay_below_the_limit_of_connections() {
    let agent = agent().await;
    let provider = provider(&agent.url, "crowd");
    let calls = (0..200).map(|_| provider.list(10));
    for answer in futures::future::join_all(calls).await {
        answer.expect("no 429");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_and_close() {
    let scoped = "aaaaaaaa-0000-4000-8000-000000000002";
    let stand_in = StandIn::start(&[(scoped, false)]).await;
    let with = |token: Option<&str>, namespace: &str| {
        let connection = Connection { address: stand_in.url(), token: token.map(Secret::new), authorities: None };
        let settings = Settings { namespace: namespace.to_owned(), ..Settings::new(ownership("tokens"), 1000) };
        NomadProvider::new(settings, &connection, clock()).expect("a provider")
    };
    with(Some(scoped), "default").list(1).await.expect("allowed");
    for (token, namespace) in [(None, "default"), (Some("not-a-token"), "default"), (Some(scoped), "other")] {
        let error = with(token, namespace).list(1).await.expect_err("not allowed");
        assert_eq!(error.kind, ErrorKind::Denied, "{token:?} {namespace} {error:?}");
        assert!(!format!("{error:?}").contains(scoped));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_and_no_other() {
    let stage = Nomad::new().await;
    let (front, authority) = stage.over_tls().await;
    let with = |authorities: Option<String>| {
        let connection = Connection { address: front.url(), token: None, authorities };
        NomadProvider::new(Settings::new(ownership("tls"), 1000), &connection, clock()).expect("a provider")
    };
    let provider = with(Some(authority));
    let uid = uid("tls");
    let request: PodRequest = pod(&uid, "exec sleep 600");
    let id = provider.create(&request).await.expect("accepted").id;
    until(&provider, &uid, |pod| pod.phase == RemotePhase::Running).await;
    assert_eq!(run(&provider, &id, &["/bin/echo", "over TLS"]).await.0, "over TLS\n");
    provider.delete(&id).await.expect("deleted");
    assert_eq!(with(None).list(1).await.expect_err("not trusted").kind, ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn nomads_own_client_drives_the_agent() {
    let agent = agent().await;
    let program = world::control_plane::program("nomad-client").expect("Nomad's client");
    let output = tokio::process::Command::new(program).arg(&agent.url).output().await.expect("the client runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
