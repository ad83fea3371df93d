//! What the extender's server tells, counted.

use super::Metrics;
use super::labels::NONE;
use super::series::Series;
use crate::extender::observer::{Call, CertificateEvent, ConnectionRefusal, Observer};
use crate::extender::protocol::{Outcome, Verb};
use crate::extender::wire::Mode;
use prometheus::{HistogramVec, IntCounterVec};

/// The extender's part of the series.
pub(super) struct ExtenderSeries {
    /// Shared with the committer's decisions, which have a verb of their own.
    durations: HistogramVec,
    requests: IntCounterVec,
    connections_refused: IntCounterVec,
    tls_reloads: IntCounterVec,
}

// === impl Observer ===

impl Observer for Metrics {
    fn called(&self, call: &Call) {
        let verb = call.verb.label();
        let mode = call.mode.map_or(NONE, Mode::label);
        self.extender.requests.with_label_values(&[verb, mode, call.outcome.label()]).inc();
        // A body that never arrived says nothing about how fast Spillway answers.
        if matches!(call.outcome, Outcome::Answered | Outcome::FailedOpen) {
            self.extender.durations.with_label_values(&[verb]).observe(call.took.as_secs_f64());
        }
    }

    fn connection_refused(&self, why: ConnectionRefusal) {
        self.extender.connections_refused.with_label_values(&[why.label()]).inc();
    }

    fn certificate(&self, event: CertificateEvent) {
        self.extender.tls_reloads.with_label_values(&[event.label()]).inc();
    }
}

// === impl ExtenderSeries ===

impl ExtenderSeries {
    pub(super) fn register(series: &Series<'_>, durations: HistogramVec) -> prometheus::Result<ExtenderSeries> {
        Ok(ExtenderSeries {
            durations,
            requests: series.counter(
                "spillway_extender_requests_total",
                "Calls of kube-scheduler, by verb, whether names of nodes came (cache) or whole nodes (nocache), and how they ended.",
                &["verb", "mode", "outcome"],
            )?,
            connections_refused: series.counter(
                "spillway_extender_connections_refused_total",
                "Connections to the extender that ended before a request, by why.",
                &["reason"],
            )?,
            tls_reloads: series.counter(
                "spillway_tls_reloads_total",
                "Renewed certificates that were read, by how that ended.",
                &["outcome"],
            )?,
        })
    }

    /// All series at zero. A request that could not be read has no mode, and one that was answered has one.
    pub(super) fn open(&self) {
        for verb in Verb::ALL {
            self.durations.with_label_values(&[verb.label()]);
            for outcome in Outcome::ALL {
                let modes: &[&str] = match outcome {
                    Outcome::Answered | Outcome::FailedOpen => &[Mode::Cache.label(), Mode::NoCache.label()],
                    Outcome::Invalid | Outcome::TooLarge | Outcome::Incomplete | Outcome::Draining => &[NONE],
                };
                for mode in modes {
                    self.requests.with_label_values(&[verb.label(), mode, outcome.label()]);
                }
            }
        }
        for why in [ConnectionRefusal::TooMany, ConnectionRefusal::Handshake] {
            self.connections_refused.with_label_values(&[why.label()]);
        }
        for event in [CertificateEvent::Reloaded, CertificateEvent::Rejected] {
            self.tls_reloads.with_label_values(&[event.label()]);
        }
    }
}
