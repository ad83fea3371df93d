//! The extender's server on real sockets: what kube-scheduler and less friendly clients would see.

mod harness;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use harness::{Connection, Extender, Panics, Slow, filter, fixture};
use scheduler_extender::extender::observer::ConnectionRefusal;
use scheduler_extender::extender::protocol::{Outcome, Verb};
use scheduler_extender::extender::server::{BODY_BYTES_MAX, Phase, Settings};
use scheduler_extender::extender::verbs::PassThrough;
use scheduler_extender::extender::wire::Mode;
use serde_json::{Value, json};

fn quick() -> Settings {
    Settings { prefix: "/v1".to_owned(), stop_grace: Duration::from_secs(2), ..Settings::default() }
}

async fn start(settings: Settings) -> Extender {
    Extender::start(settings, None, Arc::new(PassThrough)).await
}

// === ordinary calls ===

#[tokio::test]
async fn one_connection_serves_all_verbs_and_the_length_is_always_set() {
    let extender = start(quick()).await;
    let mut connection = Connection::open(&extender).await;
    let calls = [
        ("/v1/filter", "filter-cache", "filter-cache"),
        ("/v1/prioritize", "prioritize-cache", ""),
        ("/v1/preempt", "preempt-cache", "preempt-cache"),
        ("/v1/filter", "filter-nocache", "filter-nocache"),
    ];
    for (path, request, response) in calls {
        let answer = connection.post(path, &fixture(&format!("{request}.request"))).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()), "{path}");
        assert_eq!(answer.header("connection"), None, "{path}: the connection stays");
        if !response.is_empty() {
            let expected: Value = serde_json::from_str(&fixture(&format!("{response}.response"))).unwrap();
            assert_eq!(answer.json(), expected, "{path}");
        }
    }
    let calls = extender.observer.calls();
    let verbs: Vec<Verb> = calls.iter().map(|call| call.verb).collect();
    assert_eq!(verbs, [Verb::Filter, Verb::Prioritize, Verb::Preempt, Verb::Filter]);
    assert!(calls.iter().all(|call| call.outcome == Outcome::Answered && call.request_bytes > 0 && call.response_bytes > 0));
    assert!(calls[0].candidates == 6 && calls[0].offered == 6);
}

#[tokio::test]
async fn full_nodes_are_counted_as_a_misconfiguration() {
    let extender = start(quick()).await;
    let mut connection = Connection::open(&extender).await;
    connection.post("/v1/filter", &fixture("filter-cache.request")).await;
    connection.post("/v1/filter", &fixture("filter-nocache.request")).await;
    let modes: Vec<Option<Mode>> = extender.observer.calls().iter().map(|call| call.mode).collect();
    assert_eq!(modes, [Some(Mode::Cache), Some(Mode::NoCache)]);
}

#[tokio::test]
async fn only_posts_to_the_verbs_are_served() {
    let extender = start(Settings { prefix: "/burst/v1/".to_owned(), ..quick() }).await;
    let mut connection = Connection::open(&extender).await;
    assert_eq!(connection.post("/burst/v1/filter", &filter(&["a"])).await.status, 200);
    for path in ["/filter", "/burst/v1", "/burst/v1/", "/burst/v1/bind", "/burst/v1/filter/", "/burst/v1filter", "/"] {
        let answer = connection.post(path, "{}").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.header("content-length").is_some(), "{path}");
    }
    let answer = connection.send("GET /burst/v1/filter HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(extender.observer.calls().len(), 1);
}

#[tokio::test]
async fn a_panic_in_the_decision_fails_open_and_the_connection_stays() {
    let extender = Extender::start(quick(), None, Arc::new(Panics)).await;
    let mut connection = Connection::open(&extender).await;
    for _ in 0..3 {
        let answer = connection.post("/v1/filter", &filter(&["a", "b"])).await;
        assert_eq!((answer.status, answer.json()["NodeNames"].clone()), (200, json!(["a", "b"])));
    }
    assert!(extender.observer.calls().iter().all(|call| call.outcome == Outcome::FailedOpen));
}

// === bad requests ===

#[tokio::test]
async fn every_call_is_answered_with_200_and_json_whatever_the_body() {
    let extender = start(quick()).await;
    let mut connection = Connection::open(&extender).await;
    let deep = "[".repeat(100_000);
    for body in ["", "{", "null", "[]", "\u{0}", r#"{"Pod":{},"NodeNames":[7]}"#, deep.as_str(), r#"{"Pod":{},"Pod":{}}"#] {
        let filter = connection.post("/v1/filter", body).await;
        assert_eq!((filter.status, filter.json()["NodeNames"].clone()), (200, json!([])), "{body:.40}");
        assert!(filter.json()["Error"].as_str().unwrap().starts_with("spillway: "), "{body:.40}");
        let scores = connection.post("/v1/prioritize", body).await;
        assert_eq!((scores.status, scores.json()), (200, json!([])), "{body:.40}");
        let victims = connection.post("/v1/preempt", body).await;
        assert_eq!((victims.status, victims.json()), (200, json!({"NodeNameToMetaVictims": {}})), "{body:.40}");
    }
    let answer = connection.post("/v1/filter", &filter(&["a"])).await;
    assert_eq!(answer.json()["NodeNames"], json!(["a"]), "the connection is as good as before");
}

#[tokio::test]
async fn an_oversized_body_gets_a_clear_error() {
    let extender = start(quick()).await;
    let body = " ".repeat(BODY_BYTES_MAX + (8 << 20));
    let framings = [
        format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
    ];
    for framing in framings {
        let mut connection = Connection::open(&extender).await;
        let answer = connection.send(&format!("POST /v1/filter HTTP/1.1\r\nHost: x\r\n{framing}")).await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert_eq!(answer.json()["Error"], "spillway: the request body has more than 33554432 bytes");
    }
    assert!(extender.observer.calls().iter().all(|call| call.outcome == Outcome::TooLarge));
    assert_eq!(extender.observer.calls().len(), 2);
}

#[tokio::test]
async fn a_body_at_the_limit_is_read() {
    let extender = start(quick()).await;
    let mut body = filter(&["a"]).into_bytes();
    body.resize(BODY_BYTES_MAX, b' ');
    let answer = Connection::open(&extender).await.post("/v1/filter", std::str::from_utf8(&body).unwrap()).await;
    assert_eq!(answer.json()["NodeNames"], json!(["a"]));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let extender = start(Settings { body_timeout: Duration::from_millis(500), ..quick() }).await;
    let mut connection = Connection::open(&extender).await;
    let answer = connection.send("POST /v1/filter HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{\"Pod\":").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(answer.json()["Error"], "spillway: the request body did not arrive in time");
    assert!(connection.closed().await);

    let mut connection = Connection::open(&extender).await;
    connection.write("POST /v1/filter HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{\"Pod\":").await;
    drop(connection);
    let answer = Connection::open(&extender).await.post("/v1/filter", &filter(&["a"])).await;
    assert_eq!(answer.status, 200, "a client that goes away in the middle disturbs nobody");
}

// === connections ===

#[test]
fn the_idle_timeout_is_over_90_seconds() {
    let Settings { idle_timeout, header_timeout, .. } = Settings::default();
    assert!(idle_timeout > Duration::from_secs(90), "kube-scheduler keeps an idle connection for 90 seconds");
    assert!(header_timeout > idle_timeout, "the header timeout runs while a connection is idle");
}

#[tokio::test]
async fn idle_and_silent_connections_end_after_the_timeout_and_not_before() {
    let extender = start(Settings { idle_timeout: Duration::from_secs(2), ..quick() }).await;
    let mut silent = Connection::open(&extender).await;
    let mut idle = Connection::open(&extender).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(idle.post("/v1/filter", &filter(&["a"])).await.status, 200, "a connection in use stays");
    }
    assert!(silent.closed().await && idle.closed().await);
}

#[tokio::test]
async fn headers_that_trickle_in_end_the_connection() {
    let extender = start(Settings { header_timeout: Duration::from_millis(300), ..quick() }).await;
    let mut connection = Connection::open(&extender).await;
    connection.write("POST /v1/filter HTTP/1.1\r\n").await;
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(20) && connection.try_write("X-Y: z\r\n").await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(20), "the timeout is for all headers together");
}

#[tokio::test]
async fn connections_are_capped_and_a_freed_slot_is_used_again() {
    let extender = start(Settings { connections_max: 2, ..quick() }).await;
    let mut first = Connection::open(&extender).await;
    let mut second = Connection::open(&extender).await;
    assert_eq!(first.post("/v1/filter", &filter(&["a"])).await.status, 200);
    assert_eq!(second.post("/v1/filter", &filter(&["a"])).await.status, 200);
    assert!(Connection::open(&extender).await.closed().await, "a third is turned away");
    assert_eq!(extender.observer.refusals(), [ConnectionRefusal::TooMany]);
    drop(first);
    harness::eventually(async || Connection::open(&extender).await.post_or_closed("/v1/filter", &filter(&["a"])).await).await;
}

// === draining and stopping ===

#[tokio::test]
async fn draining_finishes_what_has_begun_and_closes_every_connection() {
    let slow = Slow::new();
    let extender = Extender::start(quick(), None, slow.clone()).await;
    let mut idle = Connection::open(&extender).await;
    slow.release(1);
    assert_eq!(idle.post("/v1/filter", &filter(&["a"])).await.status, 200);

    // Two calls have begun: one sends its body, one is being decided.
    let mut sending = Connection::open(&extender).await;
    let rest = sending.begin_post("/v1/filter", &filter(&["a"])).await;
    let mut deciding = Connection::open(&extender).await;
    let in_flight = tokio::spawn(async move {
        let answer = deciding.post("/v1/filter", &filter(&["a"])).await;
        (answer, deciding)
    });
    slow.entered(2).await;
    extender.tell(Phase::Draining);
    slow.release(2);
    let (answer, mut deciding) = in_flight.await.unwrap();
    for (answer, connection) in [(answer, &mut deciding), (sending.send(&rest).await, &mut sending)] {
        assert_eq!((answer.status, answer.json()["NodeNames"].clone()), (200, json!(["a"])), "what has begun is finished");
        assert_eq!(answer.header("connection"), Some("close"), "and is the last on its connection");
        assert!(connection.closed().await);
    }

    // Whoever comes later is answered, too, and asked to come back on another connection.
    slow.release(2);
    let mut fresh = Connection::open(&extender).await;
    for connection in [&mut idle, &mut fresh] {
        let answer = connection.post("/v1/filter", &filter(&["a"])).await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(connection.closed().await);
    }
    let refused = extender.observer.calls().iter().filter(|call| call.outcome == Outcome::Draining).count();
    assert_eq!(refused, 0);
}

#[tokio::test]
async fn stopping_closes_idle_connections_finishes_calls_and_returns() {
    let extender = start(Settings { stop_grace: Duration::from_secs(20), ..quick() }).await;
    let mut idle = Connection::open(&extender).await;
    idle.post("/v1/filter", &filter(&["a"])).await;
    let mut busy = Connection::open(&extender).await;
    busy.post("/v1/filter", &filter(&["a"])).await;
    let rest = busy.begin_post("/v1/filter", &filter(&["a"])).await;
    extender.tell(Phase::Stopping);
    assert!(idle.closed().await);
    assert_eq!(busy.send(&rest).await.status, 200);
    let address = extender.address;
    extender.ended().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_call_that_never_ends_does_not_keep_the_server() {
    let slow = Slow::new();
    let extender = Extender::start(Settings { stop_grace: Duration::from_millis(200), ..quick() }, None, slow.clone()).await;
    let mut stuck = Connection::open(&extender).await;
    stuck.write("POST /v1/filter HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    extender.tell(Phase::Stopping);
    extender.ended().await;
}
