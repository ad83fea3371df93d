//! What the server tells about itself: the seam to metrics.

use std::time::Duration;

use super::protocol::{Outcome, Verb};
use super::wire::Mode;

/// Told about everything that is worth counting. Called on the request path: count and return.
pub trait Observer: Send + Sync + 'static {
    /// A call of a verb was answered.
    fn called(&self, call: &Call) {
        let _ = call;
    }

    /// A connection ended before it could carry a request.
    fn connection_refused(&self, why: ConnectionRefusal) {
        let _ = why;
    }

    /// The certificate files changed.
    fn certificate(&self, event: CertificateEvent) {
        let _ = event;
    }
}

/// Nobody listens.
impl Observer for () {}

/// One call, answered.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// What was asked.
    pub verb: Verb,
    /// How it ended.
    pub outcome: Outcome,
    /// How the scheduler sends nodes; `NoCache` is a misconfiguration that deserves a warning. Unknown when the
    /// request could not be read.
    pub mode: Option<Mode>,
    /// From the arrival of the whole body to the finished answer: Spillway's own share of the scheduler's time.
    pub took: Duration,
    /// Size of the request's body.
    pub request_bytes: usize,
    /// Size of the answer.
    pub response_bytes: usize,
    /// Nodes in the request.
    pub candidates: usize,
    /// Nodes that the answer left.
    pub offered: usize,
}

/// Why a connection was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionRefusal {
    /// As many connections as allowed are open.
    TooMany,
    /// No TLS session: wrong or missing client certificate, plain text, or too slow.
    Handshake,
}

impl ConnectionRefusal {
    /// Stable label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            ConnectionRefusal::TooMany => "too_many",
            ConnectionRefusal::Handshake => "handshake",
        }
    }
}

/// What came of changed certificate files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateEvent {
    /// New connections use the new certificate.
    Reloaded,
    /// The new files are unusable; the last good certificate stays.
    Rejected,
}

impl CertificateEvent {
    /// Stable label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            CertificateEvent::Reloaded => "reloaded",
            CertificateEvent::Rejected => "rejected",
        }
    }
}
