//! What the extender's server tells, counted.

use super::Metrics;
use super::labels::NONE;
use crate::extender::observer::{Call, CertificateEvent, ConnectionRefusal, Observer};
use crate::extender::protocol::{Outcome, Verb};
use crate::extender::wire::Mode;

impl Observer for Metrics {
    fn called(&self, call: &Call) {
        let verb = call.verb.label();
        let mode = call.mode.map_or(NONE, Mode::label);
        self.extender_requests.with_label_values(&[verb, mode, call.outcome.label()]).inc();
        self.decision_duration.with_label_values(&[verb]).observe(call.took.as_secs_f64());
    }

    fn connection_refused(&self, why: ConnectionRefusal) {
        self.connections_refused.with_label_values(&[why.label()]).inc();
    }

    fn certificate(&self, event: CertificateEvent) {
        self.tls_reloads.with_label_values(&[event.label()]).inc();
    }
}

impl Metrics {
    /// See `open_fixed_series`. A request that could not be read has no mode, and one that was answered has one.
    pub(super) fn open_extender_series(&self) {
        for verb in Verb::ALL {
            self.decision_duration.with_label_values(&[verb.label()]);
            for outcome in Outcome::ALL {
                let modes: &[&str] = match outcome {
                    Outcome::Answered | Outcome::FailedOpen => &[Mode::Cache.label(), Mode::NoCache.label()],
                    Outcome::Invalid | Outcome::TooLarge | Outcome::Incomplete | Outcome::Draining => &[NONE],
                };
                for mode in modes {
                    self.extender_requests.with_label_values(&[verb.label(), mode, outcome.label()]);
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
