//! The decision annotation: what a Binding says about itself.
//!
//! It is the only record of a commitment. Whoever rebuilds the books reads nothing else, so everything that settlement needs
//! stands in it: what was bought, at which hourly rate, for how long, and which budgets pay.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use policy::virtual_node::Usage;
use policy::{Money, Quantity, Reason, Timestamp, millis};
use serde::{Deserialize, Serialize};

use crate::api::Invalid;

/// Key of the annotation.
pub const ANNOTATION: &str = "spillway.dev/decision";

/// Annotations longer than this were not written by Spillway and are not read.
const LONGEST: usize = 4096;

/// A commitment, as it stands on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Policy that selected the pod.
    pub policy: Arc<str>,
    /// Its generation at that time.
    pub generation: i64,
    /// Tier of the policy.
    pub tier: Arc<str>,
    /// Name of the VirtualNode.
    pub virtual_node: Arc<str>,
    /// What was bought.
    pub usage: Usage,
    /// What is reserved for it.
    pub quote: Money,
    /// What an hour of it costs.
    pub hourly: Money,
    /// Shortest time billed.
    pub minimum: Duration,
    /// Part of the start that is billed.
    pub billed_startup: Duration,
    /// Run time that the quote assumes.
    pub run: Duration,
    /// Budgets that it is charged to.
    pub budgets: Vec<Arc<str>>,
    /// Constant label of the reason.
    pub reason: Arc<str>,
    /// When it was decided.
    pub at: Timestamp,
}

/// The JSON form. Money and quantities are strings, as everywhere in the API; times are RFC 3339, durations milliseconds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    policy: Arc<str>,
    generation: i64,
    tier: Arc<str>,
    virtual_node: Arc<str>,
    cpu: String,
    memory: String,
    quote: String,
    hourly: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    minimum_ms: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    billed_startup_ms: i64,
    run_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    budgets: Vec<Arc<str>>,
    reason: Arc<str>,
    at: jiff::Timestamp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

// === impl Record ===

impl Record {
    /// The annotation's text.
    pub fn to_json(&self) -> String {
        let wire = Wire {
            policy: self.policy.clone(),
            generation: self.generation,
            tier: self.tier.clone(),
            virtual_node: self.virtual_node.clone(),
            cpu: Quantity::from_millis(self.usage.cpu_millis).to_string(),
            memory: Quantity::from_units(self.usage.memory_bytes).to_string(),
            quote: self.quote.to_string(),
            hourly: self.hourly.to_string(),
            minimum_ms: millis(self.minimum),
            billed_startup_ms: millis(self.billed_startup),
            run_ms: millis(self.run),
            budgets: self.budgets.clone(),
            reason: self.reason.clone(),
            at: jiff::Timestamp::from_millisecond(self.at.millis()).unwrap_or_default(),
        };
        serde_json::to_string(&wire).expect("strings and integers always have a JSON form")
    }

    /// Reads an annotation. Anything else than Spillway's own writing is an error, and the pod is then reported, not guessed at.
    pub fn parse(text: &str) -> Result<Record, Invalid> {
        let invalid = |allowed: String| Invalid::new(format!("metadata.annotations[{ANNOTATION}]"), text, allowed);
        if text.len() > LONGEST {
            return Err(invalid(format!("at most {LONGEST} characters")));
        }
        let wire: Wire =
            serde_json::from_str(text).map_err(|error| invalid(format!("a decision as Spillway writes it: {error}")))?;
        let money = |text: &str| text.parse::<Money>().map_err(|error| invalid(error.to_string()));
        let quantity = |text: &str| text.parse::<Quantity>().map_err(|error| invalid(error.to_string()));
        let duration = |millis: i64| {
            u64::try_from(millis).map(Duration::from_millis).map_err(|_| invalid("durations of zero or more".to_owned()))
        };
        let (quote, hourly) = (money(&wire.quote)?, money(&wire.hourly)?);
        if quote < Money::ZERO || hourly < Money::ZERO {
            return Err(invalid("amounts of zero or more".to_owned()));
        }
        Ok(Record {
            policy: wire.policy,
            generation: wire.generation,
            tier: wire.tier,
            virtual_node: wire.virtual_node,
            usage: Usage {
                pods: 1,
                cpu_millis: quantity(&wire.cpu)?.millis_up().max(0),
                memory_bytes: quantity(&wire.memory)?.units_up().max(0),
            },
            quote,
            hourly,
            minimum: duration(wire.minimum_ms)?,
            billed_startup: duration(wire.billed_startup_ms)?,
            run: duration(wire.run_ms)?,
            budgets: wire.budgets,
            reason: wire.reason,
            at: Timestamp::from_millis(wire.at.as_millisecond()),
        })
    }

    /// Why, as a sentence; what stands there, should a later Spillway have written it.
    pub fn why(&self) -> Cow<'_, str> {
        Reason::of_commitment(&self.reason).map_or(Cow::Borrowed(&*self.reason), |reason| Cow::Owned(reason.to_string()))
    }

    /// What the pod has cost, billed from the start of the image pull, if it ran from `started` until `until`.
    ///
    /// A pod that never started is billed for what may have been pulled of its image.
    pub fn bill(&self, started: Option<Timestamp>, until: Timestamp) -> Money {
        let run = match started {
            Some(started) => until.since(started).saturating_add(self.billed_startup),
            None => until.since(self.at).min(self.billed_startup),
        };
        let seconds = run.max(self.minimum).as_millis().div_ceil(1000);
        self.hourly.scaled_up(i128::try_from(seconds).unwrap_or(i128::MAX), 3600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            policy: Arc::from("image-processing"),
            generation: 3,
            tier: Arc::from("serverless"),
            virtual_node: Arc::from("fargate-us-east-1"),
            usage: Usage { pods: 1, cpu_millis: 250, memory_bytes: 1 << 29 },
            quote: Money::from_nanos(1_234_567),
            hourly: Money::from_nanos(12_342_500),
            minimum: Duration::from_secs(60),
            billed_startup: Duration::from_secs(15),
            run: Duration::from_secs(120),
            budgets: vec![Arc::from("media")],
            reason: Arc::from("NoRoom"),
            at: Timestamp::from_millis(1_790_000_000_123),
        }
    }

    #[test]
    fn print_then_parse_is_identity() {
        assert_eq!(Record::parse(&record().to_json()), Ok(record()));
        assert!(record().to_json().len() < 600, "{}", record().to_json());
    }

    #[test]
    fn what_others_write_is_refused_by_name() {
        for text in ["", "{}", "null", "[1]", &"x".repeat(5000), &record().to_json().replace("0.001234567", "-1")] {
            let error = Record::parse(text).expect_err(text);
            assert!(error.to_string().contains(ANNOTATION), "{error}");
        }
    }

    #[test]
    fn bills_whole_seconds_and_the_minimum() {
        let record = record();
        let at = |seconds: i64| Timestamp::from_millis(1_790_000_000_123 + seconds * 1000);
        let seconds = |bill: Money| i128::from(bill.nanos()) * 3600 / i128::from(record.hourly.nanos());
        assert_eq!(seconds(record.bill(Some(at(30)), at(31))), 60, "minimum");
        assert_eq!(seconds(record.bill(Some(at(30)), at(130))), 115, "run and image pull");
        assert_eq!(seconds(record.bill(None, at(500))), 60, "never started");
    }
}
