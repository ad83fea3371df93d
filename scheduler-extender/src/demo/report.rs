//! The report: one HTML page that needs nothing but itself.

use std::fmt::Write as _;
use std::time::Duration;

use policy::Money;

use super::chart::{Chart, Series, escape};
use super::run::Run;
use super::summary::{duration, rows};

const STYLE: &str = include_str!("report.css");
/// Colours that the style sheet knows for clouds; more clouds than that repeat them.
const CLOUD_COLOURS: usize = 6;

/// The page.
pub(super) fn html(run: &Run) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Spillway: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n\
         <p class=\"lead\">{lead}</p>\n</header>\n<main>\n",
        title = escape(&run.title),
        lead = escape(&lead(run)),
    );
    figures(&mut out, run);
    pods_over_time(&mut out, run);
    money_over_time(&mut out, run);
    out.push_str("<h2>By backend</h2>\n");
    table(&mut out, run);
    examples(&mut out, run);
    let seed = run.seed.map_or(String::new(), |seed| format!(" Seed {seed}."));
    write!(
        out,
        "</main>\n<footer>spillway demo. {}{seed} Prices are list prices from the manifests.</footer>\n</body>\n</html>\n",
        escape(&run.setting)
    )
    .ok();
    out
}

fn lead(run: &Run) -> String {
    let mut places: Vec<String> = Vec::new();
    for backend in run.backends.iter().filter(|backend| backend.pods > 0) {
        places.push(format!("{} on {}", backend.pods, backend.name));
    }
    let held: usize = run.budgets.iter().map(|budget| budget.held_pods).sum();
    let held = if held > 0 { format!(" Because of the budget {held} pods had to wait.") } else { String::new() };
    format!("{} pods: {}.{held}", run.pods, places.join(", "))
}

fn figures(out: &mut String, run: &Run) {
    let money = |amount: Money| format!("{} {}", amount.display_decimals(2), run.currency);
    let mut all: Vec<(&str, String)> = vec![
        ("Pods done", format!("{} of {}", run.succeeded, run.pods)),
        ("Cluster time", duration(run.ended.since(run.started))),
        ("All bound after", run.all_bound_after.map_or("-".to_owned(), duration)),
        ("Charged by clouds", money(run.charged())),
    ];
    if let [budget] = run.budgets.as_slice() {
        all.push(("Budget", money(budget.amount)));
        all.push(("Most promised", money(budget.peak)));
    }
    out.push_str("<dl class=\"figures\">\n");
    for (name, value) in all {
        writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value)).ok();
    }
    out.push_str("</dl>\n");
}

fn pods_over_time(out: &mut String, run: &Run) {
    let mut series = Vec::new();
    let mut clouds = 0;
    for (place, backend) in run.backends.iter().enumerate() {
        let class = if backend.name == "dedicated" {
            "dedicated".to_owned()
        } else {
            clouds += 1;
            format!("cloud-{}", (clouds - 1) % CLOUD_COLOURS)
        };
        let values = run.samples.iter().map(|sample| count(sample.placed.get(place).copied().unwrap_or(0))).collect();
        series.push(Series { name: backend.name.clone(), class, values });
    }
    let waiting = run.samples.iter().map(|sample| count(sample.waiting)).collect();
    series.push(Series { name: "waiting".to_owned(), class: "waiting".to_owned(), values: waiting });
    let most_waiting = run.samples.iter().map(|sample| sample.waiting).max().unwrap_or(0);
    let chart = Chart {
        id: "pods",
        title: "Pods over time by placement".to_owned(),
        description: format!("Stacked areas. {} At most {most_waiting} pods waited at once.", lead(run)),
        seconds: seconds(run),
        unit: |value| format!("{value:.0}"),
        limit: None,
    };
    out.push_str("<h2>Pods over time, by placement</h2>\n");
    legend(out, &series);
    out.push_str(&chart.stacked(&series));
}

fn money_over_time(out: &mut String, run: &Run) {
    let line = |name: &str, class: &str, value: fn(&super::run::Sample) -> Money| Series {
        name: name.to_owned(),
        class: class.to_owned(),
        values: run.samples.iter().map(|sample| units(value(sample))).collect(),
    };
    let series = [
        line("promised and spent", "committed", |sample| sample.committed),
        line("charged by the clouds", "charged", |sample| sample.charged),
    ];
    let limit = match run.budgets.as_slice() {
        [budget] => Some((units(budget.amount), format!("budget {} {}", budget.amount.display_decimals(2), run.currency))),
        _ => None,
    };
    let chart = Chart {
        id: "money",
        title: "Money over time against the budget".to_owned(),
        description: format!(
            "Two lines: what Spillway has promised and spent, and what the clouds have charged, {} {} in the end.",
            run.charged().display_decimals(4),
            run.currency
        ),
        seconds: seconds(run),
        unit: |value| format!("{value:.2}"),
        limit,
    };
    writeln!(out, "<h2>Money over time, {}</h2>", escape(&run.currency)).ok();
    legend(out, &series);
    out.push_str(&chart.lines(&series));
}

fn legend(out: &mut String, series: &[Series]) {
    out.push_str("<ul class=\"legend\">");
    for one in series {
        write!(out, "<li><i class=\"{}\"></i>{}</li>", one.class, escape(&one.name)).ok();
    }
    out.push_str("</ul>\n");
}

fn table(out: &mut String, run: &Run) {
    let rows = rows(run);
    out.push_str("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"By backend\"><table>\n<thead><tr>");
    for cell in rows.first().into_iter().flatten() {
        write!(out, "<th scope=\"col\">{}</th>", escape(cell)).ok();
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows.iter().skip(1) {
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        writeln!(out, "<tr>{cells}</tr>").ok();
    }
    out.push_str("</tbody></table></div>\n");
}

fn examples(out: &mut String, run: &Run) {
    if run.examples.is_empty() {
        return;
    }
    out.push_str("<h2>Why</h2>\n");
    for example in &run.examples {
        write!(out, "<details open><summary><code>{}</code>: {}</summary><pre>", escape(&example.pod), escape(&example.outcome))
            .ok();
        for line in &example.lines {
            writeln!(out, "{}", escape(line)).ok();
        }
        out.push_str("</pre></details>\n");
    }
}

fn seconds(run: &Run) -> Vec<f64> {
    run.samples.iter().map(|sample| Duration::as_secs_f64(&sample.at.since(run.started))).collect()
}

/// For pixels only.
fn units(amount: Money) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a pixel is coarser than any rounding here")]
    let nanos = amount.nanos() as f64;
    nanos / 1e9
}

fn count(pods: usize) -> f64 {
    u32::try_from(pods).map_or(f64::MAX, f64::from)
}
