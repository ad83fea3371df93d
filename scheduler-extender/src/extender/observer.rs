//! What the server tells about itself: the seam to metrics.

use std::time::Duration;

use super::protocol::{Outcome, Verb};
use super::wire::Mode;
use crate::metrics::{self, CallOutcome, Metrics, NodeForm, ReloadOutcome};

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

/// What came of changed certificate files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateEvent {
    /// New connections use the new certificate.
    Reloaded,
    /// The new files are unusable; the last good certificate stays.
    Rejected,
}

// === impl Observer for Metrics ===

impl Observer for Metrics {
    fn called(&self, call: &Call) {
        let verb = match call.verb {
            Verb::Filter => metrics::Verb::Filter,
            Verb::Prioritize => metrics::Verb::Prioritize,
            Verb::Preempt => metrics::Verb::Preempt,
        };
        // A request that could not be read has no form; names are the form to expect.
        let form = match call.mode {
            Some(Mode::Cache) | None => NodeForm::Names,
            Some(Mode::NoCache) => NodeForm::Objects,
        };
        let outcome = match call.outcome {
            Outcome::Answered => CallOutcome::Answered,
            Outcome::FailedOpen => CallOutcome::FailedOpen,
            Outcome::Invalid | Outcome::Incomplete => CallOutcome::Malformed,
            Outcome::TooLarge => CallOutcome::TooLarge,
            // The end of every replica's life, not something that went wrong with a call.
            Outcome::Draining => return,
        };
        self.extender_request(verb, form, outcome);
        if call.outcome == Outcome::Answered {
            self.decision_took(verb, call.took);
        }
    }

    fn certificate(&self, event: CertificateEvent) {
        self.tls_reloaded(match event {
            CertificateEvent::Reloaded => ReloadOutcome::Loaded,
            CertificateEvent::Rejected => ReloadOutcome::Failed,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(verb: Verb, outcome: Outcome, mode: Option<Mode>) -> Call {
        let took = Duration::from_micros(200);
        Call { verb, outcome, mode, took, request_bytes: 1, response_bytes: 1, candidates: 1, offered: 1 }
    }

    #[test]
    fn calls_and_reloads_become_series() {
        let metrics = Metrics::new("USD", metrics::Limits::STANDARD);
        metrics.called(&call(Verb::Filter, Outcome::Answered, Some(Mode::NoCache)));
        metrics.called(&call(Verb::Preempt, Outcome::Incomplete, None));
        metrics.called(&call(Verb::Filter, Outcome::Draining, None));
        metrics.certificate(CertificateEvent::Rejected);
        let text = metrics.render();
        for line in [
            r#"spillway_extender_requests_total{node_form="objects",outcome="answered",verb="filter"} 1"#,
            r#"spillway_extender_requests_total{node_form="names",outcome="malformed",verb="preempt"} 1"#,
            r#"spillway_extender_requests_total{node_form="names",outcome="answered",verb="filter"} 0"#,
            r#"outcome="failed"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
