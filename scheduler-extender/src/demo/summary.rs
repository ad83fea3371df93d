//! The end of a demonstration, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use policy::Money;
use serde_json::{Value, json};

use super::run::{Backend, Bindings, Budget, Run};

/// A table per backend, the budgets and the examples.
pub(super) fn text(run: &Run) -> String {
    let mut out = String::new();
    let done = if run.is_complete { "complete" } else { "NOT complete" };
    let bound = run.all_bound_after.map_or(String::new(), |after| format!(", all bound after {}", duration(after)));
    line(
        &mut out,
        &format!(
            "{}: {} of {} pods succeeded, {done}. {} of cluster time in {:.1} s{bound}.",
            run.title,
            run.succeeded,
            run.pods,
            duration(run.ended.since(run.started)),
            run.real.as_secs_f64(),
        ),
    );
    line(&mut out, &run.setting);
    out.push('\n');
    out.push_str(&table(&rows(run)));
    for budget in &run.budgets {
        out.push('\n');
        let Budget { name, amount, period, total, peak, held_pods } = budget;
        let (amount, peak, total) = (amount.display_decimals(2), peak.display_decimals(4), total.display_decimals(4));
        let (currency, period) = (&run.currency, period.to_lowercase());
        line(
            &mut out,
            &format!(
                "Budget {name}: {amount} {currency} per {period}. Never more than {peak} was spent or promised; {total} in the end."
            ),
        );
        if *held_pods > 0 {
            line(
                &mut out,
                &format!(
                    "  {held_pods} pods had to wait because of it, for a dedicated node or for money that others gave back."
                ),
            );
        }
    }
    let Bindings { created, conflicts, failed } = run.bindings;
    out.push('\n');
    line(&mut out, &format!("Bindings: {created} done, {conflicts} refused with 409 and looked at again, {failed} failed."));
    let calls = run.extender;
    if calls.filter + calls.preempt > 0 {
        let percentile =
            |name: &str, value: Option<Duration>| value.map(|value| format!(", {name} {:.2} ms", value.as_secs_f64() * 1000.0));
        let latencies = [percentile("p50", calls.latency_p50), percentile("p99", calls.latency_p99)];
        let latencies: String = latencies.into_iter().flatten().collect();
        let (filter, preempt, errors) = (calls.filter, calls.preempt, calls.errors);
        line(
            &mut out,
            &format!(
                "Extender: {filter} filter and {preempt} preempt calls over HTTP{latencies}; {errors} without a usable answer."
            ),
        );
    }
    for example in &run.examples {
        out.push('\n');
        line(&mut out, &format!("{}: {}", example.pod, example.outcome));
        for detail in &example.lines {
            line(&mut out, &format!("  {detail}"));
        }
    }
    out
}

/// The same as one JSON object. Money is a decimal string, times are seconds.
pub(super) fn json(run: &Run) -> Value {
    let seconds = |value: Duration| value.as_secs_f64();
    let money = |value: Money| value.to_string();
    json!({
        "title": run.title,
        "setting": run.setting,
        "seed": run.seed,
        "currency": run.currency,
        "virtualSeconds": seconds(run.ended.since(run.started)),
        "realSeconds": seconds(run.real),
        "pods": run.pods,
        "succeeded": run.succeeded,
        "complete": run.is_complete,
        "allBoundAfterSeconds": run.all_bound_after.map(seconds),
        "backends": run.backends.iter().map(|backend| json!({
            "name": backend.name,
            "detail": backend.detail,
            "pods": backend.pods,
            "vcpuHours": vcpu_hours(backend),
            "startWaitSecondsP50": backend.wait_p50.map(seconds),
            "startWaitSecondsP95": backend.wait_p95.map(seconds),
            "quoted": money(backend.quoted),
            "charged": money(backend.charged),
        })).collect::<Vec<_>>(),
        "budgets": run.budgets.iter().map(|budget| json!({
            "name": budget.name,
            "amount": money(budget.amount),
            "period": budget.period,
            "total": money(budget.total),
            "peak": money(budget.peak),
            "heldPods": budget.held_pods,
        })).collect::<Vec<_>>(),
        "bindings": {"created": run.bindings.created, "conflicts": run.bindings.conflicts, "failed": run.bindings.failed},
        "extender": {
            "filter": run.extender.filter,
            "preempt": run.extender.preempt,
            "latencySecondsP50": run.extender.latency_p50.map(seconds),
            "latencySecondsP99": run.extender.latency_p99.map(seconds),
            "errors": run.extender.errors,
        },
        "examples": run.examples.iter().map(|example| json!({
            "pod": example.pod,
            "outcome": example.outcome,
            "lines": example.lines,
        })).collect::<Vec<_>>(),
        "samples": run.samples.iter().map(|sample| json!({
            "seconds": seconds(sample.at.since(run.started)),
            "waiting": sample.waiting,
            "placed": sample.placed,
            "done": sample.done,
            "committed": money(sample.committed),
            "charged": money(sample.charged),
        })).collect::<Vec<_>>(),
    })
}

/// Head and rows of the table, the sum last.
pub(super) fn rows(run: &Run) -> Vec<Vec<String>> {
    let wait = |value: Option<Duration>| value.map_or("-".to_owned(), duration);
    let mut rows =
        vec![["BACKEND", "", "PODS", "VCPU-HOURS", "START WAIT P50", "P95", "QUOTED", "CHARGED"].map(str::to_owned).to_vec()];
    rows[0][6].push_str(&format!(" {}", run.currency));
    rows[0][7].push_str(&format!(" {}", run.currency));
    for backend in &run.backends {
        rows.push(vec![
            backend.name.clone(),
            backend.detail.clone(),
            backend.pods.to_string(),
            vcpu_hours(backend),
            wait(backend.wait_p50),
            wait(backend.wait_p95),
            backend.quoted.display_decimals(4),
            backend.charged.display_decimals(4),
        ]);
    }
    let all = Backend {
        pods: run.backends.iter().map(|backend| backend.pods).sum(),
        cpu_millis_millis: run.backends.iter().map(|backend| backend.cpu_millis_millis).sum(),
        ..Backend::default()
    };
    rows.push(vec![
        "all".to_owned(),
        String::new(),
        all.pods.to_string(),
        vcpu_hours(&all),
        String::new(),
        String::new(),
        run.quoted().display_decimals(4),
        run.charged().display_decimals(4),
    ]);
    rows
}

/// Names to the left, numbers to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
            .collect();
        line(&mut out, cells.join("  ").trim_end());
    }
    out
}

fn vcpu_hours(backend: &Backend) -> String {
    const HUNDREDTH: i128 = 1000 * 3_600_000 / 100;
    let hundredths = (backend.cpu_millis_millis + HUNDREDTH / 2) / HUNDREDTH;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// `850 ms`, `9.2 s`, `4m07s`, `1h03m`.
pub(super) fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match seconds {
        0 => format!("{} ms", value.as_millis()),
        1..60 => format!("{:.1} s", value.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a String does not fail.
    writeln!(out, "{text}").ok();
}
