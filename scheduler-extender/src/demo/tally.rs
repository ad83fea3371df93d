//! Counting up what became of the pods, wherever they ran.

use std::time::Duration;

use policy::{Money, Timestamp, millis};

use super::run::{Backend, percentile};

/// What became of one pod.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    /// Place of its node among the backends; `None` while it waits.
    pub(super) place: Option<usize>,
    /// When it was created.
    pub(super) created_at: Timestamp,
    /// When it was bound.
    pub(super) bound_at: Option<Timestamp>,
    /// When its containers ran.
    pub(super) started_at: Option<Timestamp>,
    /// When they ended.
    pub(super) ended_at: Option<Timestamp>,
    /// Thousandths of a CPU that it asked for.
    pub(super) cpu_millis: i64,
    /// What was promised for it.
    pub(super) quoted: Money,
    /// What it cost.
    pub(super) charged: Money,
    /// Whether it did its work.
    pub(super) is_succeeded: bool,
}

/// All pods together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// How many there are.
    pub(super) pods: usize,
    /// How many did their work.
    pub(super) succeeded: usize,
    /// From the beginning to the last Binding, if every pod is bound.
    pub(super) all_bound_after: Option<Duration>,
}

/// Enters every pod into its backend.
pub(super) fn tally(backends: &mut [Backend], fates: impl Iterator<Item = Fate>, started: Timestamp, now: Timestamp) -> Totals {
    let mut waits: Vec<Vec<Duration>> = vec![Vec::new(); backends.len()];
    let mut totals = Totals { all_bound_after: Some(Duration::ZERO), ..Totals::default() };
    for fate in fates {
        totals.pods += 1;
        totals.succeeded += usize::from(fate.is_succeeded);
        let (Some(place), Some(bound_at)) = (fate.place, fate.bound_at) else {
            totals.all_bound_after = None;
            continue;
        };
        totals.all_bound_after = totals.all_bound_after.map(|latest| latest.max(bound_at.since(started)));
        let backend = &mut backends[place];
        backend.pods += 1;
        backend.quoted = backend.quoted.saturating_add(fate.quoted);
        backend.charged = backend.charged.saturating_add(fate.charged);
        if let Some(running) = fate.started_at {
            waits[place].push(running.since(fate.created_at));
            let ran = millis(fate.ended_at.unwrap_or(now).since(running));
            backend.cpu_millis_millis += i128::from(fate.cpu_millis) * i128::from(ran);
        }
    }
    for (backend, waits) in backends.iter_mut().zip(&mut waits) {
        waits.sort_unstable();
        backend.wait_p50 = percentile(waits, 50);
        backend.wait_p95 = percentile(waits, 95);
    }
    totals
}
