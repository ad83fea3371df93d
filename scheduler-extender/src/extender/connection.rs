//! Connections with limits: how many, how long idle.

use std::future::{Future, Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tracing::{debug, warn};

use super::observer::{ConnectionRefusal, Observer};

/// Lets in as many connections as there are slots and closes those that say nothing for too long.
#[derive(Clone)]
pub(super) struct Gate {
    slots: Arc<Semaphore>,
    idle_timeout: Duration,
    observer: Arc<dyn Observer>,
}

impl Gate {
    pub(super) fn new(connections_max: usize, idle_timeout: Duration, observer: Arc<dyn Observer>) -> Gate {
        Gate { slots: Arc::new(Semaphore::new(connections_max)), idle_timeout, observer }
    }
}

impl<S> Accept<TcpStream, S> for Gate {
    type Stream = Held;
    type Service = S;
    type Future = Ready<io::Result<(Held, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            warn!("too many connections, refusing one");
            self.observer.connection_refused(ConnectionRefusal::TooMany);
            return ready(Err(io::Error::from(io::ErrorKind::QuotaExceeded)));
        };
        // An answer is one write; waiting for more to send only costs the scheduler time.
        let held = stream.set_nodelay(true).map(|()| Held {
            stream,
            idle: Box::pin(tokio::time::sleep(self.idle_timeout)),
            idle_timeout: self.idle_timeout,
            _slot: slot,
        });
        ready(held.map(|held| (held, service)))
    }
}

/// A connection that holds a slot and ends when nothing moves.
///
/// The timer sits here, below TLS and HTTP, because each of them has moments without a timeout of its own: before the
/// first byte, between two requests of HTTP/2, while an answer is not taken.
pub(super) struct Held {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    idle_timeout: Duration,
    _slot: OwnedSemaphorePermit,
}

impl Held {
    /// Restarts the timer when something moved, ends the connection when nothing did for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.idle.as_mut().reset(Instant::now() + self.idle_timeout);
            return poll;
        }
        self.idle.as_mut().poll(cx).map(|()| Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watch(cx, poll)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, poll)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl Reported ===

/// Tells when a TLS handshake fails, which the server library keeps to itself.
#[derive(Clone)]
pub(super) struct Reported<A> {
    inner: A,
    observer: Arc<dyn Observer>,
}

impl<A> Reported<A> {
    pub(super) fn new(inner: A, observer: Arc<dyn Observer>) -> Reported<A> {
        Reported { inner, observer }
    }
}

impl<A, S> Accept<TcpStream, S> for Reported<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(A::Stream, A::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let observer = self.observer.clone();
        let accepting = self.inner.accept(stream, service);
        Box::pin(async move {
            let accepted = accepting.await;
            // The gate has told about the connections that it turned away.
            if let Err(error) = &accepted
                && error.kind() != io::ErrorKind::QuotaExceeded
            {
                debug!(%error, "TLS handshake failed");
                observer.connection_refused(ConnectionRefusal::Handshake);
            }
            accepted
        })
    }
}
