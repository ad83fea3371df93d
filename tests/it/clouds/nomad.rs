//! Nomad: the contract and what is particular to it, against a real agent where `NOMAD_ADDR` names one, else the stand-in.

mod checked;
pub(super) mod front;
mod particular;
mod replay;
mod stand_in;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use policy::{Shape, Timestamp};
use providers::nomad::{Connection, NomadProvider, Settings};
use providers::{
    Clock, Container, ContainerResources, ExecOutput, ExecRequest, Ownership, PodRequest, PodUid, Provider, RemoteId, Secret,
};
use tokio::sync::MutexGuard;

use self::front::{Fault, Front};
use self::stand_in::StandIn;
use super::contract::{self, HELLO, Stage, Trouble};

/// Writes its greeting, then waits for the file that holds its exit code.
const MAIN: &str =
    r#"echo "$GREETING"; until [ -s "$NOMAD_TASK_DIR/finish" ]; do sleep 0.05; done; exit "$(cat "$NOMAD_TASK_DIR/finish")""#;

pub(super) struct Nomad {
    front: Front,
    agent: Agent,
    trouble: Mutex<Option<Trouble>>,
    provider: Arc<NomadProvider>,
}

impl Nomad {
    pub(super) async fn new() -> Nomad {
        let agent = agent().await;
        let front = Front::start(&agent.url).await;
        let provider = Arc::new(provider(&front.url(), "nomad-dc1"));
        Nomad { front, agent, trouble: Mutex::new(None), provider }
    }

    /// The agent's address over TLS, and the authority that vouches for it, as PEM. Faults are staged with the front.
    pub(super) async fn over_tls(&self) -> (Front, String) {
        let authority = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let pem = authority.cert.pem();
        (Front::start_tls(&self.agent.url, &pem, &authority.signing_key.serialize_pem()).await, pem)
    }

    /// How many Nomad Variables a job has.
    async fn variables(&self, id: &RemoteId) -> usize {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut found = 0;
        for path in [format!("nomad/jobs/{id}"), format!("nomad/jobs/{id}/pod")] {
            let answer = http.get(format!("{}/v1/var/{path}", self.front.url())).send().await.expect("an answer");
            found += usize::from(answer.status().is_success());
        }
        found
    }
}

/// The agent that a test is for.
struct Agent {
    url: String,
    stand_in: Option<StandIn>,
    /// A real agent is there for one test at a time: what runs on it is counted.
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Agent {
    /// Seconds between a command's own end and that of its container, which would take it along: the agent must have told of
    /// the one before it sees the other. A real one on a busy machine needs longer than the stand-in.
    fn pause(&self) -> f32 {
        if self.stand_in.is_some() { 0.3 } else { 2.0 }
    }
}

/// The agent that `NOMAD_ADDR` names, else a stand-in.
async fn agent() -> Agent {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    if let Ok(url) = std::env::var("NOMAD_ADDR") {
        return Agent { url, stand_in: None, _turn: Some(TURN.lock().await) };
    }
    let stand_in = StandIn::start(&[]).await;
    Agent { url: stand_in.url(), stand_in: Some(stand_in), _turn: None }
}

fn clock() -> Clock {
    Arc::new(|| Timestamp::from_millis(jiff::Timestamp::now().as_millisecond()))
}

/// Every run has a cluster of its own: a real agent may remember the last one.
fn ownership(virtual_node: &str) -> Ownership {
    Ownership { cluster: format!("cluster-{}", std::process::id()).into(), virtual_node: virtual_node.into() }
}

fn provider(url: &str, virtual_node: &str) -> NomadProvider {
    let token = std::env::var("NOMAD_TOKEN").ok().map(Secret::new);
    let connection = Connection { address: url.to_owned(), token, authorities: None };
    NomadProvider::new(Settings::new(ownership(virtual_node), 1000), &connection, clock()).expect("a provider")
}

/// What the front does in such trouble; the rest is done by what is asked for.
pub(super) fn fault(trouble: Trouble) -> Option<Fault> {
    match trouble {
        Trouble::Throttling => Some(Fault::Status(429, "too many connections")),
        Trouble::ExpiredCredentials => Some(Fault::Status(403, "Permission denied")),
        Trouble::PartialOutage => Some(Fault::HalfOfCalls),
        Trouble::LostAnswer => Some(Fault::LostRegistration),
        Trouble::QuotaExceeded => Some(Fault::Quota),
        Trouble::NoCapacity | Trouble::UnpullableImage => None,
    }
}

/// A pod whose one container runs a script.
fn pod(uid: &PodUid, script: &str) -> PodRequest {
    let shape = Shape { cpu_millis: 50, memory_bytes: 32 << 20, ephemeral_bytes: 0 };
    let requests = ContainerResources { cpu_millis: 50, memory_bytes: 32 << 20, gpus: 0 };
    let main = Container {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        requests,
        ..Container::new("main", "busybox:1.36")
    };
    PodRequest {
        containers: vec![main],
        grace_period: Duration::from_secs(2),
        ..PodRequest::new(uid.clone(), "media", format!("pod-{uid}"), shape)
    }
}

/// Runs a command in a pod to its end.
async fn run(provider: &dyn Provider, id: &RemoteId, command: &[&str]) -> (String, String, Option<i32>) {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    let request = ExecRequest { container: "main".into(), command, tty: false, stdin: false };
    let mut session = provider.exec(id, &request).await.expect("a session");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(output) = session.output.recv().await {
        match output.expect("output") {
            ExecOutput::Stdout(bytes) => out.extend(bytes),
            ExecOutput::Stderr(bytes) => err.extend(bytes),
            ExecOutput::Exited { code } => {
                return (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned(), code);
            }
        }
    }
    panic!("it never ended");
}

#[async_trait]
impl Stage for Nomad {
    fn provider(&self) -> Arc<dyn Provider> {
        self.provider.clone()
    }

    fn restarted(&self) -> Arc<dyn Provider> {
        Arc::new(provider(&self.front.url(), "nomad-dc1"))
    }

    fn stranger(&self) -> Arc<dyn Provider> {
        Arc::new(provider(&self.front.url(), "another"))
    }

    fn request(&self, uid: &PodUid) -> PodRequest {
        let mut request = pod(uid, MAIN);
        let main = &mut request.containers[0];
        main.environment =
            vec![providers::Variable { name: "GREETING".to_owned(), value: providers::Value::Plain(HELLO.to_owned()) }];
        match *self.trouble.lock().expect("no test has panicked") {
            Some(Trouble::UnpullableImage) => main.image = "registry.invalid/none:1".into(),
            // More than any client has.
            Some(Trouble::NoCapacity) => main.requests.cpu_millis = 100_000_000,
            _ => {}
        }
        request
    }

    async fn begin(&self, trouble: Trouble) {
        *self.trouble.lock().expect("no test has panicked") = Some(trouble);
        self.front.stage(fault(trouble));
    }

    async fn end_trouble(&self) {
        *self.trouble.lock().expect("no test has panicked") = None;
        self.front.stage(None);
    }

    async fn finish(&self, uid: &PodUid, code: i32) {
        let id = self.provider.get(uid).await.expect("a pod").id;
        let pause = self.agent.pause();
        let script = format!(r#"(sleep {pause}; echo {code} > "$NOMAD_TASK_DIR/finish") > /dev/null 2>&1 &"#);
        assert_eq!(run(&*self.provider, &id, &["/bin/sh", "-c", &script]).await.2, Some(0));
    }

    async fn moment(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds() {
    contract::holds(&Nomad::new().await).await;
}
