//! What a backend says of itself, as `VirtualNode.status` shows it.
//!
//! Pure: answers of a provider and the time go in, the fields of the status and the time of the next question come out.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use policy::Timestamp;
use policy::virtual_node::{Limits, Prices, Usage};
use providers::{Error, ErrorKind, Health, Observation};
use serde_json::{Value, json};

/// The condition that says whether the backend works.
pub const BACKEND_HEALTHY: &str = "BackendHealthy";

/// Questions without an answer before the backend counts as unreachable: one lost packet closes nothing.
const FAILURES: u32 = 3;

/// How often backends are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two questions to a backend that answers.
    pub interval: Duration,
    /// The first wait after a question that was not answered; doubled each time, up to twice the interval.
    pub retry: Duration,
}

/// What is known of one backend.
#[derive(Clone, Debug, Default)]
pub struct Backend {
    failures: u32,
    verdict: Option<Verdict>,
    last: Option<Observation>,
}

/// A constant reason and a sentence for the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

/// Prices with their origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priced {
    /// The prices.
    pub prices: Prices,
    /// Where they come from, for people.
    pub source: String,
}

// === impl Pace ===

impl Pace {
    /// What no cloud's limit of calls minds.
    pub const STANDARD: Pace = Pace { interval: Duration::from_secs(30), retry: Duration::from_secs(5) };
}

// === impl Backend ===

impl Backend {
    /// A provider could not even be set up.
    pub fn not_configured(message: String) -> Backend {
        let verdict = Verdict { status: "False", reason: "NotConfigured", message };
        Backend { failures: FAILURES, verdict: Some(verdict), last: None }
    }

    /// Takes in the answer to a question. An answer that works makes a backend healthy at once: the question itself is the
    /// probe after which it reopens.
    pub fn answered(&mut self, answer: Result<Observation, Error>) {
        match answer {
            Ok(observation) => {
                self.failures = 0;
                self.verdict = Some(match &observation.health {
                    Health::Healthy => Verdict { status: "True", reason: "Answers", message: "the provider answers".to_owned() },
                    Health::Degraded { reason } => Verdict { status: "False", reason: "Degraded", message: reason.clone() },
                    Health::Down { reason } => Verdict { status: "False", reason: "Down", message: reason.clone() },
                });
                self.last = Some(observation);
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let reason = match error.kind {
                    // Nobody's patience helps.
                    ErrorKind::Denied => Some("CredentialsRefused"),
                    ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::Conflict => {
                        Some("NotConfigured")
                    }
                    ErrorKind::Throttled { .. } if self.failures >= FAILURES => Some("Throttled"),
                    _ if self.failures >= FAILURES => Some("Unreachable"),
                    _ => None,
                };
                if let Some(reason) = reason {
                    self.verdict = Some(Verdict { status: "False", reason, message: sentence(&error) });
                }
            }
        }
    }

    /// How long to wait before the next question.
    pub fn wait(&self, pace: &Pace) -> Duration {
        match self.failures {
            0 => pace.interval,
            failures => (pace.retry * 2u32.saturating_pow((failures - 1).min(8))).min(pace.interval * 2),
        }
    }

    /// The fields of the status that observation owns, for server-side apply. `before` is the condition that stands there now:
    /// its time is kept while its status is the same. Nothing is known yet: `None`.
    pub fn status(
        &self,
        before: Option<&Condition>,
        generation: Option<i64>,
        priced: Option<&Priced>,
        currency: &str,
        now: Timestamp,
    ) -> Option<Value> {
        let Verdict { status, reason, message } = self.verdict.as_ref()?;
        let since = before
            .filter(|before| before.status == *status)
            .map_or_else(|| time(now), |before| before.last_transition_time.clone());
        let mut fields = json!({"conditions": [{
            "type": BACKEND_HEALTHY, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since, "observedGeneration": generation,
        }]});
        if let Some(observation) = &self.last {
            let quota = limits(&observation.quota);
            if !quota.is_null() {
                fields["quota"] = quota;
            }
            fields["usage"] = usage(&observation.usage);
            let largest = limits(&Limits { pods: None, ..observation.largest_pod });
            if !largest.is_null() {
                fields["largestPod"] = largest;
            }
            fields["observedAt"] = json!(time(observation.at));
        }
        if let Some(Priced { prices, source }) = priced {
            let Prices { vcpu, gb, ephemeral_gb, as_of, .. } = prices;
            fields["prices"] = json!({
                "vcpuHour": vcpu.hourly().to_string(), "gbHour": gb.hourly().to_string(), "ephemeralGbHour": ephemeral_gb.hourly().to_string(),
                "currency": currency, "source": source,
            });
            // Prices that do not age have no date.
            if *as_of < Timestamp::MAX {
                fields["prices"]["observedAt"] = json!(time(*as_of));
            }
        }
        Some(fields)
    }

    /// Prices that the backend published with its last answer.
    pub fn published(&self) -> Option<Prices> {
        self.last.as_ref().and_then(|observation| observation.prices)
    }
}

/// The error with the cloud's own words, where there are any.
fn sentence(error: &Error) -> String {
    match &error.source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn time(at: Timestamp) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_millisecond(at.millis()).unwrap_or_default())
}

fn limits(limits: &Limits) -> Value {
    amounts(limits.pods, limits.cpu_millis, limits.memory_bytes)
}

fn usage(usage: &Usage) -> Value {
    amounts(Some(usage.pods), Some(usage.cpu_millis), Some(usage.memory_bytes))
}

/// As `PodResources`: a number of pods, quantities of CPU and memory.
fn amounts(pods: Option<i64>, cpu_millis: Option<i64>, memory_bytes: Option<i64>) -> Value {
    let mut amounts = serde_json::Map::new();
    if let Some(pods) = pods {
        amounts.insert("pods".to_owned(), json!(pods));
    }
    if let Some(millis) = cpu_millis {
        amounts.insert("cpu".to_owned(), json!(format!("{millis}m")));
    }
    if let Some(bytes) = memory_bytes {
        amounts.insert("memory".to_owned(), json!(bytes.to_string()));
    }
    if amounts.is_empty() { Value::Null } else { Value::Object(amounts) }
}
