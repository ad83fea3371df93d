//! What a demonstration leaves behind: plain values that the summary, the JSON and the report are made of.

use std::time::Duration;

use policy::{Money, Timestamp};

/// A finished demonstration.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// What was run, such as `media/thumbnails`.
    pub(super) title: String,
    /// Where it was run, in sentences.
    pub(super) setting: String,
    /// Seed of everything random; a real control plane has none.
    pub(super) seed: Option<u64>,
    /// ISO 4217 code of all money.
    pub(super) currency: String,
    /// Virtual time at the beginning.
    pub(super) started: Timestamp,
    /// Virtual time at the end.
    pub(super) ended: Timestamp,
    /// Real time that it took.
    pub(super) real: Duration,
    /// Pods in all.
    pub(super) pods: usize,
    /// Pods that did their work.
    pub(super) succeeded: usize,
    /// Whether every Job was done and no pod was left waiting.
    pub(super) is_complete: bool,
    /// From the first pod's creation to the last pod's Binding.
    pub(super) all_bound_after: Option<Duration>,
    /// Dedicated nodes first, then the virtual nodes by name.
    pub(super) backends: Vec<Backend>,
    /// State at regular times, oldest first.
    pub(super) samples: Vec<Sample>,
    /// The budgets, by name.
    pub(super) budgets: Vec<Budget>,
    /// Why some pods went where they went.
    pub(super) examples: Vec<Example>,
    /// What the API server said to the committer's Bindings.
    pub(super) bindings: Bindings,
    /// Calls that the HTTP extender answered.
    pub(super) extender: ExtenderCalls,
}

/// What became of one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Backend {
    /// `dedicated` or the virtual node's name.
    pub(super) name: String,
    /// `10 nodes`, or provider and region.
    pub(super) detail: String,
    /// Pods that were bound there.
    pub(super) pods: usize,
    /// CPU time that they used, in thousandths of a CPU times milliseconds.
    pub(super) cpu_millis_millis: i128,
    /// From creation to running, half of the pods.
    pub wait_p50: Option<Duration>,
    /// From creation to running, 95 % of the pods.
    pub wait_p95: Option<Duration>,
    /// What Spillway promised when it bound the pods.
    pub(super) quoted: Money,
    /// What the cloud charged.
    pub(super) charged: Money,
}

/// The state at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When.
    pub(super) at: Timestamp,
    /// Pods without a node.
    pub(super) waiting: usize,
    /// Pods on each of the run's backends that have not ended, in their order.
    pub(super) placed: Vec<usize>,
    /// Pods that have ended.
    pub(super) done: usize,
    /// Spent and promised, over all budgets or, without any, over all pods.
    pub(super) committed: Money,
    /// Charged by the clouds.
    pub(super) charged: Money,
}

/// A budget at the end.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Its name.
    pub(super) name: String,
    /// Its amount per period.
    pub(super) amount: Money,
    /// `Day`, `Hour`, …
    pub(super) period: String,
    /// What was spent and promised in the end.
    pub(super) total: Money,
    /// The most that was spent and promised at any moment.
    pub(super) peak: Money,
    /// Pods that had to wait because of it.
    pub(super) held_pods: usize,
}

/// The explanation of one pod's placement.
#[derive(Clone, Debug)]
pub(super) struct Example {
    /// `namespace/name`.
    pub(super) pod: String,
    /// Where it went, in one line.
    pub(super) outcome: String,
    /// The verdicts, one a line.
    pub(super) lines: Vec<String>,
}

/// What the API server said to Bindings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bindings {
    /// Done.
    pub(super) created: u64,
    /// Refused with 409: kube-scheduler was faster, or the pod had changed.
    pub(super) conflicts: u64,
    /// Any other answer, or none.
    pub(super) failed: u64,
}

/// How often the extender was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExtenderCalls {
    /// Calls of `filter`.
    pub(super) filter: u64,
    /// Calls of `preempt`.
    pub(super) preempt: u64,
    /// Half of them took at most this long, the network included.
    pub latency_p50: Option<Duration>,
    /// 99 % of them took at most this long.
    pub latency_p99: Option<Duration>,
    /// Calls without a usable answer.
    pub(super) errors: u64,
}

// === impl Backend ===

impl Backend {
    /// A place where nothing has run yet.
    pub(super) fn new(name: &str, detail: &str) -> Backend {
        Backend { name: name.to_owned(), detail: detail.to_owned(), ..Backend::default() }
    }
}

// === impl Run ===

impl Run {
    /// Charged by all clouds together.
    pub(super) fn charged(&self) -> Money {
        self.backends.iter().map(|backend| backend.charged).sum()
    }

    /// Promised to all pods together.
    pub(super) fn quoted(&self) -> Money {
        self.backends.iter().map(|backend| backend.quoted).sum()
    }
}

/// The smallest value that at least `percent` of the values do not exceed.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    debug_assert!(sorted.is_sorted());
    let rank = (sorted.len() * percent.min(100)).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}
