//! A running extender and a client that sees raw HTTP/1.1.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use scheduler_extender::extender::certificates::Certificates;
use scheduler_extender::extender::observer::{Call, CertificateEvent, ConnectionRefusal, Observer};
use scheduler_extender::extender::server::{Phase, Server, Settings};
use scheduler_extender::extender::verbs::{Answers, Candidates, Fault, FilterAnswer, PreemptAnswer, Score, Scores, Victims};
use scheduler_extender::extender::wire::PodView;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Longer than anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Extender {
    pub(super) address: SocketAddr,
    pub(super) observer: Arc<Recorder>,
    phase: watch::Sender<Phase>,
    serving: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Extender {
    /// Serves from a runtime of its own, as the program does, so that a blocking decision blocks only the server.
    pub(super) async fn start(settings: Settings, tls: Option<Certificates>, answers: Arc<dyn Answers>) -> Extender {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
        let address = listener.local_addr().unwrap();
        let observer = Arc::new(Recorder::default());
        let (phase, told) = watch::channel(Phase::Serving);
        let server = Server { settings, answers, observer: observer.clone() };
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async { server.serve(TcpListener::from_std(listener)?, tls, told).await })
        });
        Extender { address, observer, phase, serving }
    }

    pub(super) fn tell(&self, phase: Phase) {
        self.phase.send(phase).unwrap();
    }

    /// Waits until the server has returned.
    pub(super) async fn ended(self) {
        let joined = tokio::task::spawn_blocking(move || self.serving.join().unwrap());
        tokio::time::timeout(PATIENCE, joined).await.expect("the server returns").unwrap().unwrap();
    }
}

/// Remembers what the server tells.
#[derive(Default)]
pub(super) struct Recorder {
    calls: Mutex<Vec<Call>>,
    refusals: Mutex<Vec<ConnectionRefusal>>,
    certificates: Mutex<Vec<CertificateEvent>>,
}

impl Recorder {
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn refusals(&self) -> Vec<ConnectionRefusal> {
        self.refusals.lock().unwrap().clone()
    }

    pub(super) fn certificates(&self) -> Vec<CertificateEvent> {
        self.certificates.lock().unwrap().clone()
    }
}

impl Observer for Recorder {
    fn called(&self, call: &Call) {
        self.calls.lock().unwrap().push(*call);
    }

    fn connection_refused(&self, why: ConnectionRefusal) {
        self.refusals.lock().unwrap().push(why);
    }

    fn certificate(&self, event: CertificateEvent) {
        self.certificates.lock().unwrap().push(event);
    }
}

// === decisions ===

/// Has a bug in every verb.
pub(super) struct Panics;

impl Answers for Panics {
    fn filter(&self, _: &PodView<'_>, _: Candidates<'_>) -> Result<FilterAnswer, Fault> {
        panic!("a bug in filter")
    }

    fn prioritize(&self, _: &PodView<'_>, _: Candidates<'_>) -> Result<Scores, Fault> {
        panic!("a bug in prioritize")
    }

    fn preempt(&self, _: &PodView<'_>, _: Victims<'_>) -> Result<PreemptAnswer, Fault> {
        panic!("a bug in preempt")
    }
}

/// A filter that waits until the test lets it go.
pub(super) struct Slow {
    entered: watch::Sender<usize>,
    released: (Mutex<usize>, std::sync::Condvar),
}

impl Slow {
    pub(super) fn new() -> Arc<Slow> {
        Arc::new(Slow { entered: watch::channel(0).0, released: (Mutex::new(0), std::sync::Condvar::new()) })
    }

    pub(super) fn release(&self, calls: usize) {
        *self.released.0.lock().unwrap() += calls;
        self.released.1.notify_all();
    }

    /// Waits until so many calls have come in since the start.
    pub(super) async fn entered(&self, calls: usize) {
        let mut entered = self.entered.subscribe();
        tokio::time::timeout(PATIENCE, entered.wait_for(|count| *count >= calls)).await.expect("the call arrives").unwrap();
    }
}

impl Answers for Slow {
    fn filter(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<FilterAnswer, Fault> {
        self.entered.send_modify(|count| *count += 1);
        let free = self.released.0.lock().unwrap();
        let (mut free, waited) = self.released.1.wait_timeout_while(free, PATIENCE, |free| *free == 0).unwrap();
        assert!(!waited.timed_out(), "the test releases the call");
        *free -= 1;
        Ok(candidates.pass_all())
    }

    fn prioritize(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<Scores, Fault> {
        Ok(candidates.score(|_, _| Score::LOWEST))
    }

    fn preempt(&self, _: &PodView<'_>, victims: Victims<'_>) -> Result<PreemptAnswer, Fault> {
        Ok(victims.keep(|_| true))
    }
}

// === client ===

/// The body of a filter request in the form that kube-scheduler sends.
pub(super) fn filter(names: &[&str]) -> String {
    json!({"Pod": {"metadata": {"name": "p", "namespace": "n"}}, "Nodes": null, "NodeNames": names}).to_string()
}

/// A recorded body, such as `filter-cache.request`.
pub(super) fn fixture(name: &str) -> String {
    let path = format!("{}/../../shared/fixtures/extender/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// One TCP connection, so that a test can tell what happens to it.
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

pub(super) struct Response {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Response {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the answer is JSON")
    }
}

impl Connection {
    pub(super) async fn open(extender: &Extender) -> Connection {
        Connection { stream: TcpStream::connect(extender.address).await.unwrap(), received: Vec::new() }
    }

    pub(super) async fn post(&mut self, path: &str, body: &str) -> Response {
        self.send(&request(path, body)).await
    }

    /// Sends a request up to the middle of its body and returns the rest. When this returns the server has read the
    /// headers: it was asked to say so.
    pub(super) async fn begin_post(&mut self, path: &str, body: &str) -> String {
        let (head, body) = (request(path, body), body.len());
        let headers = head.len() - body;
        let expecting = format!("{}Expect: 100-continue\r\n\r\n", &head[..headers - 2]);
        self.write(&expecting).await;
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        while self.received.len() < go_on.len() {
            self.more().await.expect("the server wants the body");
        }
        assert_eq!(self.received.split_off(0), go_on);
        self.write(&head[headers..headers + body / 2]).await;
        head[headers + body / 2..].to_owned()
    }

    /// Whether a call came through; a connection may be turned away.
    pub(super) async fn post_or_closed(&mut self, path: &str, body: &str) -> bool {
        self.try_write(&request(path, body)).await && self.read().await.is_some_and(|response| response.status == 200)
    }

    pub(super) async fn send(&mut self, text: &str) -> Response {
        self.write(text).await;
        self.read().await.expect("an answer")
    }

    pub(super) async fn write(&mut self, text: &str) {
        assert!(self.try_write(text).await, "the connection is open");
    }

    pub(super) async fn try_write(&mut self, text: &str) -> bool {
        tokio::time::timeout(PATIENCE, self.stream.write_all(text.as_bytes())).await.expect("the server reads").is_ok()
    }

    /// Waits for the server to close the connection; anything that it says before is an error.
    pub(super) async fn closed(&mut self) -> bool {
        let mut byte = [0];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut byte)).await.expect("the server closes the connection");
        matches!(read, Ok(0) | Err(_))
    }

    /// The next response, `None` when the connection ends first. Only bodies with a length are understood: that is
    /// what the server has to send.
    async fn read(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.received[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()));
        let headers: Vec<(String, String)> = lines.filter_map(header).collect();
        let length =
            headers.iter().find(|(key, _)| key == "content-length").expect("a content length").1.parse::<usize>().unwrap();
        while self.received.len() < end + 4 + length {
            self.more().await?;
        }
        let rest = self.received.split_off(end + 4 + length);
        let body = std::mem::replace(&mut self.received, rest).split_off(end + 4);
        Some(Response { status, headers, body })
    }

    async fn more(&mut self) -> Option<()> {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.expect("the server answers");
        (read.ok()? > 0).then_some(())
    }
}

fn request(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Repeats until it is true.
pub(super) async fn eventually(mut check: impl AsyncFnMut() -> bool) {
    let patience = std::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(std::time::Instant::now() < patience, "it never became true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
