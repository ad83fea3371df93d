//! What keeps a replica from writing when it does not lead any more.
//!
//! The fence is a deadline on the monotonic clock, moved by each renewal of the Lease, never moved back, and final once it is over. Everything that
//! writes for the leader gets its client from [`Fence::client`]: a request that changes something is sent only before the
//! deadline, is given up at the deadline, and asks the API server to be done within the time that then passes until a
//! successor may begin.
//!
//! What a fence cannot stop is a request that has left this process and arrives late, by a slow network or because the process
//! was stopped between looking at the clock and sending. A Binding then still needs the pod's UID and resource version, and a
//! budget's status the version that this leader has read: where the successor has done something about the same object, the
//! late request fails. Where it has not, the pod is bound within an authorization that the successor has counted as spent.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{Method, Request, Response, Uri};
use kube::Client;
use kube::client::Body;
use tokio::sync::watch;
use tower::{BoxError, Service};

/// Until when this replica may write. Clones share it.
#[derive(Clone, Debug)]
pub struct Fence {
    bound: Arc<watch::Sender<Bound>>,
    /// How long a request may take in the API server after the deadline.
    margin: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    /// Open until somebody closes it.
    None,
    /// Open until then.
    Until(Instant),
    /// Closed for ever.
    Closed,
}

/// Why a request was not sent or not waited for.
#[derive(Debug, thiserror::Error)]
#[error("this replica does not lead any more")]
pub struct Fenced;

impl Fence {
    /// A fence that stands open until somebody closes it, for a replica without rivals.
    pub fn without_rivals() -> Fence {
        Fence { bound: Arc::new(watch::Sender::new(Bound::None)), margin: None }
    }

    /// Open until this moment. `margin`: see [`super::lease::Times::margin`].
    pub(super) fn until(until: Instant, margin: Duration) -> Fence {
        Fence { bound: Arc::new(watch::Sender::new(Bound::Until(until))), margin: Some(margin) }
    }

    /// The Lease was renewed. A fence that is closed stays closed, and so does one whose time is over.
    pub(super) fn renew(&self, later: Instant) {
        self.bound.send_if_modified(|bound| match bound {
            Bound::Until(until) if Instant::now() < *until && *until < later => {
                *until = later;
                true
            }
            Bound::None | Bound::Until(_) | Bound::Closed => false,
        });
    }

    /// Nothing is written from now on.
    pub fn close(&self) {
        self.bound.send_replace(Bound::Closed);
    }

    /// How long something that is begun now may take; `None`: it must not be begun.
    pub fn left(&self) -> Option<Duration> {
        match *self.bound.borrow() {
            Bound::None => Some(Duration::MAX),
            Bound::Until(until) => until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()),
            Bound::Closed => None,
        }
    }

    /// A client that writes only while the fence is open. Reading is nobody's harm.
    pub fn client(&self, client: &Client) -> Client {
        Client::new(Fencing { fence: self.clone(), inner: client.clone() }, client.default_namespace())
    }

    /// Ends when the fence is closed or its time is over; renewals meanwhile are waited for.
    pub async fn closed(&self) {
        let mut bound = self.bound.subscribe();
        while self.left().is_some() {
            let now = *bound.borrow_and_update();
            let time_over = async {
                match now {
                    Bound::Until(until) => tokio::time::sleep_until(until.into()).await,
                    Bound::None | Bound::Closed => pending().await,
                }
            };
            tokio::select! {
                () = time_over => {}
                // The sender is ours.
                _ = bound.changed() => {}
            }
        }
    }
}

/// The middleware behind [`Fence::client`].
#[derive(Clone)]
struct Fencing {
    fence: Fence,
    inner: Client,
}

impl Service<Request<Body>> for Fencing {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Fencing { fence, inner } = self.clone();
        Box::pin(async move {
            if *request.method() == Method::GET {
                return Ok(inner.send(request).await?);
            }
            if fence.left().is_none() {
                return Err(Fenced.into());
            }
            if let Some(bounded) = fence.margin.and_then(|margin| bounded(request.uri(), margin)) {
                *request.uri_mut() = bounded;
            }
            tokio::select! {
                // First: a process that was stopped and goes on must not send what it was about to send.
                biased;
                () = fence.closed() => Err(Fenced.into()),
                answer = inner.send(request) => Ok(answer?),
            }
        })
    }
}

/// The same address with the API server's own time limit, in whole seconds.
fn bounded(uri: &Uri, limit: Duration) -> Option<Uri> {
    let seconds = limit.as_secs().max(1);
    let path = uri.path_and_query()?.as_str();
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{path}{separator}timeout={seconds}s").parse().ok();
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// An API server that counts what reaches it and answers after some time.
    #[derive(Clone)]
    struct Slow {
        calls: Arc<AtomicUsize>,
        answered: Arc<AtomicUsize>,
        takes: Duration,
        uris: Arc<std::sync::Mutex<Vec<String>>>,
    }

    impl Service<Request<Body>> for Slow {
        type Response = Response<Body>;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.uris.lock().expect("nobody panics here").push(request.uri().to_string());
            let (takes, answered) = (self.takes, self.answered.clone());
            Box::pin(async move {
                tokio::time::sleep(takes).await;
                answered.fetch_add(1, Ordering::Relaxed);
                Ok(Response::new(Body::from(b"{}".to_vec())))
            })
        }
    }

    fn slow(takes: Duration) -> (Slow, Client) {
        let slow = Slow { calls: Arc::default(), answered: Arc::default(), takes, uris: Arc::default() };
        (slow.clone(), Client::new(slow, "default"))
    }

    async fn send(client: &Client, method: Method, path: &str) -> Result<String, kube::Error> {
        client.request_text(Request::builder().method(method).uri(path).body(vec![]).expect("a request")).await
    }

    #[tokio::test]
    async fn nothing_is_written_after_the_deadline_and_everything_can_be_read() {
        let (server, client) = slow(Duration::ZERO);
        let fence = Fence::until(Instant::now() + Duration::from_millis(300), Duration::from_secs(2));
        let fenced = fence.client(&client);
        send(&fenced, Method::POST, "/one").await.expect("open");
        send(&fenced, Method::PATCH, "/two?fieldManager=x").await.expect("open");
        tokio::time::sleep(Duration::from_millis(310)).await;
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let error = send(&fenced, method, "/late").await.expect_err("closed");
            assert!(format!("{:#}", anyhow::Error::from(error)).contains("does not lead"));
        }
        send(&fenced, Method::GET, "/read").await.expect("reading is free");
        let uris = server.uris.lock().expect("nobody panics here").clone();
        assert_eq!(uris, ["/one?timeout=2s", "/two?fieldManager=x&timeout=2s", "/read"]);
    }

    #[tokio::test]
    async fn what_is_under_way_is_given_up_at_the_deadline_unless_it_moves() {
        let (server, client) = slow(Duration::from_millis(400));
        let fence = Fence::until(Instant::now() + Duration::from_millis(200), Duration::from_secs(2));
        let fenced = fence.client(&client);
        let started = Instant::now();
        send(&fenced, Method::POST, "/slow").await.expect_err("given up");
        assert!(started.elapsed() < Duration::from_millis(390), "{:?}", started.elapsed());
        assert_eq!(server.answered.load(Ordering::Relaxed), 0);

        let fence = Fence::until(Instant::now() + Duration::from_millis(200), Duration::from_secs(2));
        let fenced = fence.client(&client);
        fence.renew(Instant::now() + Duration::from_secs(60));
        send(&fenced, Method::POST, "/slow").await.expect("the Lease was renewed meanwhile");

        let (waiting, ()) = tokio::join!(send(&fenced, Method::POST, "/slow"), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fence.close();
        });
        waiting.expect_err("it was closed meanwhile");
    }

    #[tokio::test]
    async fn a_closed_fence_stays_closed() {
        let (server, client) = slow(Duration::ZERO);
        let fence = Fence::without_rivals();
        let fenced = fence.client(&client);
        send(&fenced, Method::POST, "/one").await.expect("open");
        assert_eq!(*server.uris.lock().expect("nobody panics here"), ["/one"], "no limit where nobody waits");
        fence.close();
        fence.renew(Instant::now() + Duration::from_secs(60));
        assert_eq!(fence.left(), None);
        send(&fenced, Method::POST, "/two").await.expect_err("closed");
        assert_eq!(server.calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_deadline_is_never_moved_back_and_never_forgotten() {
        let now = Instant::now();
        let fence = Fence::until(now + Duration::from_secs(10), Duration::from_secs(2));
        fence.renew(now + Duration::from_secs(5));
        assert!(fence.left().expect("open") > Duration::from_secs(9));
        let fence = Fence::until(now, Duration::from_secs(2));
        fence.renew(now + Duration::from_secs(5));
        assert_eq!(fence.left(), None, "a tenure that has ended is not prolonged");
    }
}
