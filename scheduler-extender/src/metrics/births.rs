//! Counters are born at zero.
//!
//! Prometheus sees a rise only between two values. A fan-out is over between two scrapes, and a counter that shows up with
//! all of it would never have risen: last night's Job would have cost nothing in every chart. So a series is zero on the
//! scrape that shows it first, whatever it has counted, and tells the truth from the next one on.

use prometheus::proto::{Counter, Histogram, Metric, MetricFamily, MetricType};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The series of the last scrape. What disappeared since is born again when it comes back.
#[derive(Default)]
pub(super) struct Births {
    shown: Mutex<HashSet<String>>,
}

impl Births {
    /// Sets what was not there at the last call to zero.
    pub(super) fn zero(&self, families: &mut [MetricFamily]) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = HashSet::with_capacity(shown.len());
        for family in families {
            let (name, kind) = (family.name().to_string(), family.get_field_type());
            if !matches!(kind, MetricType::COUNTER | MetricType::HISTOGRAM) {
                continue;
            }
            for metric in family.mut_metric() {
                let key = key(&name, metric);
                if !shown.contains(&key) {
                    zero(metric, kind);
                }
                now.insert(key);
            }
        }
        *shown = now;
    }
}

fn key(name: &str, metric: &Metric) -> String {
    // No label value of ours can hold a NUL: names of Kubernetes objects and constants.
    metric.get_label().iter().fold(name.to_string(), |key, label| key + "\0" + label.value())
}

fn zero(metric: &mut Metric, kind: MetricType) {
    if kind == MetricType::COUNTER {
        metric.set_counter(Counter::default());
        return;
    }
    let mut buckets = metric.get_histogram().get_bucket().to_vec();
    for bucket in &mut buckets {
        bucket.set_cumulative_count(0);
    }
    let mut empty = Histogram::default();
    empty.set_bucket(buckets);
    metric.set_histogram(empty);
}
