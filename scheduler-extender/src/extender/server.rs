//! The HTTP server: `POST {prefix}/filter`, `/prioritize` and `/preempt`.
//!
//! HTTP/1.1 on plain text, HTTP/1.1 or HTTP/2 on TLS. Everything has a limit: connections, bodies, the memory of all
//! bodies together, and the time that each step may take.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode, Version};
use axum::response::Response;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use futures::StreamExt;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::warn;

use super::certificates::Certificates;
use super::connection::{Gate, Reported};
use super::observer::{Call, Observer};
use super::protocol::{self, Answer, Outcome, Verb};
use super::verbs::Answers;
use super::wire::Mode;

/// Largest body of a request: 5,000 whole Nodes have about 16 MB, the same as names less than 0.3 MB.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// How much of an oversized body is read and thrown away. A client that is answered before it has sent everything may
/// see a reset connection instead of the answer.
const DISCARD_BYTES_MAX: usize = 64 << 20;

/// Memory for all bodies that are being received at the same time.
const BODIES_BYTES_MAX: usize = 256 << 20;

/// Unit in which that memory is handed out, as a semaphore counts in 32 bits.
const BODY_UNIT_BYTES: usize = 1 << 10;

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First part of the path, as in `urlPrefix` of the scheduler's configuration; a slash at the end does not matter.
    pub prefix: String,
    /// Open connections. kube-scheduler needs one or two.
    pub connections_max: usize,
    /// A connection on which nothing moves is closed after this. More than 90 seconds: Go's client keeps idle
    /// connections that long, and a request sent into a connection that is just being closed fails without a retry.
    pub idle_timeout: Duration,
    /// Time for the headers of a request, counted from the end of the previous one, so more than `idle_timeout`.
    pub header_timeout: Duration,
    /// Time for the body of a request.
    pub body_timeout: Duration,
    /// How often the certificate files are looked at.
    pub certificate_poll: Duration,
    /// How long calls in flight may take when the server stops.
    pub stop_grace: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            prefix: String::new(),
            connections_max: 256,
            idle_timeout: Duration::from_secs(120),
            header_timeout: Duration::from_secs(150),
            body_timeout: Duration::from_secs(10),
            certificate_poll: Duration::from_secs(5),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// What the server is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Answer.
    Serving,
    /// Answer, and ask every caller on every connection to come back on another one: `Connection: close`. Taking the replica
    /// out of a Service does not do that, because established connections stay where they are. New connections are still
    /// accepted, until whoever routes them has noticed: a call that fails is a scheduling cycle without an answer.
    Draining,
    /// Accept no connection, close idle ones, return when the calls in flight are answered. Calls that come all the same are
    /// told to go elsewhere: 503.
    Stopping,
}

/// The extender's server.
pub struct Server {
    /// Limits.
    pub settings: Settings,
    /// Who decides.
    pub answers: Arc<dyn Answers>,
    /// Who counts.
    pub observer: Arc<dyn Observer>,
}

impl Server {
    /// Serves until told to stop, or until nobody is left who could tell.
    pub async fn serve(self, listener: TcpListener, tls: Option<Certificates>, phase: watch::Receiver<Phase>) -> io::Result<()> {
        let Server { settings, answers, observer } = self;
        let gate = Gate::new(settings.connections_max, settings.idle_timeout, observer.clone());
        let handle = Handle::new();
        let stop = stop_when_told(phase.clone(), handle.clone(), settings.stop_grace);
        let poll = settings.certificate_poll;
        let serving = Serving { listener, handle, header_timeout: settings.header_timeout };
        let state = Arc::new(Shared {
            prefix: settings.prefix.trim_end_matches('/').to_owned(),
            body_timeout: settings.body_timeout,
            answers,
            observer: observer.clone(),
            phase,
            bodies: Semaphore::new(BODIES_BYTES_MAX / BODY_UNIT_BYTES),
            warned_about_mode: AtomicBool::new(false),
        });
        match tls {
            None => tokio::select! {
                served = serving.run(gate, state) => served,
                never = stop => match never {},
            },
            Some(certificates) => {
                let acceptor = RustlsAcceptor::new(certificates.config()).acceptor(gate);
                tokio::select! {
                    served = serving.run(Reported::new(acceptor, observer.clone()), state) => served,
                    never = stop => match never {},
                    never = certificates.follow(poll, observer.as_ref()) => match never {},
                }
            }
        }
    }
}

/// Stops the server when the phase says so; a sender that is gone can only mean that the program ends.
async fn stop_when_told(mut phase: watch::Receiver<Phase>, handle: Handle<SocketAddr>, grace: Duration) -> Infallible {
    let _ = phase.wait_for(|phase| *phase == Phase::Stopping).await;
    handle.graceful_shutdown(Some(grace));
    std::future::pending().await
}

struct Serving {
    listener: TcpListener,
    handle: Handle<SocketAddr>,
    header_timeout: Duration,
}

impl Serving {
    async fn run<A>(self, acceptor: A, state: Arc<Shared>) -> io::Result<()>
    where
        A: Accept<TcpStream, Router, Service = Router> + Clone + Send + Sync + 'static,
        A::Stream: AsyncRead + AsyncWrite + Unpin + Send,
        A::Future: Send,
    {
        /// Calls at the same time on one HTTP/2 connection; the scheduler makes one or two.
        const STREAMS_MAX: u32 = 64;
        let server = axum_server::Server::<SocketAddr>::from_listener(self.listener);
        let mut server = server.handle(self.handle).acceptor(acceptor);
        server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(self.header_timeout);
        server.http_builder().http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
        // One handler for all paths: the prefix is the operator's text, not a pattern.
        let app = Router::new().fallback(handle).with_state(state);
        server.serve(app.into_make_service()).await
    }
}

// === one call ===

struct Shared {
    prefix: String,
    body_timeout: Duration,
    answers: Arc<dyn Answers>,
    observer: Arc<dyn Observer>,
    phase: watch::Receiver<Phase>,
    /// Free memory for bodies, in units.
    bodies: Semaphore,
    warned_about_mode: AtomicBool,
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(verb) = shared.verb(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "spillway extender: filter, prioritize and preempt are served here\n");
    };
    if request.method() != Method::POST {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "spillway extender: POST only\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let version = request.version();
    // Asked before the body: what has begun is finished.
    let stopping = shared.phase() == Phase::Stopping;
    let received = receive(&shared, request).await;
    let started = Instant::now();
    let request_bytes = received.as_ref().map_or(0, |received| received.body.len());
    let answer = if stopping { unwelcome(verb) } else { shared.answer(verb, received) };
    shared.warn_about_mode(answer.mode);
    shared.observer.called(&Call {
        verb,
        outcome: answer.outcome,
        mode: answer.mode,
        took: started.elapsed(),
        request_bytes,
        response_bytes: answer.body.len(),
        candidates: answer.candidates,
        offered: answer.offered,
    });
    // What is left of a broken body is not worth reading.
    let broken = matches!(answer.outcome, Outcome::TooLarge | Outcome::Incomplete);
    let close = broken || shared.phase() != Phase::Serving;
    // HTTP/2 knows no such header; its connections end with the phase `Stopping`.
    respond(answer, close && version < Version::HTTP_2)
}

/// The answer of a replica that has left.
fn unwelcome(verb: Verb) -> Answer {
    protocol::refused(verb, Outcome::Draining, "spillway: this replica is draining")
}

impl Shared {
    fn verb(&self, path: &str) -> Option<Verb> {
        let verb = path.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        Verb::ALL.into_iter().find(|known| known.label() == verb)
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    fn answer(&self, verb: Verb, received: Result<Received<'_>, Broken>) -> Answer {
        match received {
            Ok(received) => protocol::answer(verb, &received.body, self.answers.as_ref()),
            Err(broken) => protocol::refused(verb, broken.outcome(), &broken.to_string()),
        }
    }

    /// Full Nodes work, but cost far more and spoil the scheduler's scoring: said once, counted always.
    fn warn_about_mode(&self, mode: Option<Mode>) {
        if mode == Some(Mode::NoCache) && !self.warned_about_mode.swap(true, Ordering::Relaxed) {
            warn!("kube-scheduler sends whole Nodes: set nodeCacheCapable to true in its extender configuration");
        }
    }
}

fn respond(answer: Answer, close: bool) -> Response {
    let status = if answer.outcome == Outcome::Draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut response = sized(status, "application/json", answer.body);
    if close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn text(status: StatusCode, body: &'static str) -> Response {
    sized(status, "text/plain", body.as_bytes().to_vec())
}

/// With a length, always: a body that ends in a separate packet costs Go's client the connection.
fn sized(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

// === bodies ===

/// Why a body did not arrive.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Broken {
    #[error("spillway: the request body has more than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("spillway: the request body did not arrive in time")]
    Late,
    #[error("spillway: the request body broke off")]
    Cut,
}

impl Broken {
    fn outcome(self) -> Outcome {
        match self {
            Broken::TooLarge => Outcome::TooLarge,
            Broken::Late | Broken::Cut => Outcome::Incomplete,
        }
    }
}

/// A body, and its share of the memory for bodies until it is answered.
struct Received<'s> {
    body: Vec<u8>,
    _memory: SemaphorePermit<'s>,
}

async fn receive(shared: &Shared, request: Request) -> Result<Received<'_>, Broken> {
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let expected = declared.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
    let units = u32::try_from(expected / BODY_UNIT_BYTES + 1).map_err(|_| Broken::TooLarge)?;
    let receiving = async {
        let memory = shared.bodies.acquire_many(units).await.map_err(|_| Broken::Cut)?;
        let body = collect(request.into_body().into_data_stream(), declared).await?;
        Ok(Received { body, _memory: memory })
    };
    tokio::time::timeout(shared.body_timeout, receiving).await.unwrap_or(Err(Broken::Late))
}

async fn collect(mut chunks: BodyDataStream, declared: Option<usize>) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::with_capacity(declared.filter(|length| *length <= BODY_BYTES_MAX).unwrap_or(0));
    let mut received = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Broken::Cut)?;
        received += chunk.len();
        if received <= BODY_BYTES_MAX {
            body.extend_from_slice(&chunk);
        } else {
            body = Vec::new();
            if received > BODY_BYTES_MAX + DISCARD_BYTES_MAX {
                break;
            }
        }
    }
    if received > BODY_BYTES_MAX { Err(Broken::TooLarge) } else { Ok(body) }
}
