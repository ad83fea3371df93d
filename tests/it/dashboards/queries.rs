//! Every query of the dashboards against a real Prometheus that scrapes a real `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use scheduler_extender::metrics::{Limits, Metrics};

use super::grafana::{Dashboard, Target};
use super::prometheus::Prometheus;
use crate::metrics::{live, serve};

/// So that each range that a query uses holds several scrapes.
const SCRAPES: u32 = 8;
const RANGE_SECONDS: i64 = 6;

/// A query as Grafana sends it when everything is selected and the scrape interval is one second.
fn substituted(query: &str) -> String {
    let query =
        query.replace("$__rate_interval", "4s").replace("$__range", &format!("{RANGE_SECONDS}s")).replace("$cluster", ".*");
    let query = ["$job", "$instance", "$namespace", "$policy"].iter().fold(query, |query, name| query.replace(name, ".+"));
    assert!(!query.contains('$'), "a variable that the test does not know: {query}");
    query
}

async fn values(prometheus: &Prometheus, target: &Target) -> anyhow::Result<Vec<f64>> {
    let query = substituted(&target.expr);
    if target.instant { prometheus.query(&query).await } else { prometheus.query_range(&query, RANGE_SECONDS).await }
}

/// Checks that every panel, variable and annotation of every dashboard finds something.
async fn check_dashboards(prometheus: &Prometheus) {
    let mut empty = Vec::new();
    for path in super::files(&super::folder(), "json") {
        let dashboard = Dashboard::read(&path);
        for panel in dashboard.charts() {
            for target in &panel.targets {
                let values = values(prometheus, target).await.expect("a valid query");
                // A value of its own in every panel: in a busy cluster nothing that is shown is always zero.
                if !values.iter().any(|value| value.is_finite() && *value > 0.0) {
                    empty.push(format!("{} {}: {values:?}", panel.title, target.ref_id));
                }
            }
        }
        for annotation in &dashboard.annotations.list {
            let found = prometheus.query_range(&substituted(&annotation.expr), RANGE_SECONDS).await.expect("a valid query");
            if found.is_empty() {
                empty.push(format!("annotation {}", annotation.name));
            }
        }
        for variable in dashboard.templating.list.iter().filter(|v| v.kind == "query" && v.name != "cluster") {
            let query = variable.expression();
            let (series, label) = query
                .strip_prefix("label_values(")
                .and_then(|query| query.strip_suffix(')')?.rsplit_once(", "))
                .unwrap_or_else(|| panic!("{query} is no label_values"));
            if prometheus.label_values(label, &substituted(series)).await.expect("a valid query").is_empty() {
                empty.push(format!("variable {}", variable.name));
            }
        }
    }
    assert!(empty.is_empty(), "nothing to show:\n{}", empty.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_shows_what_a_real_prometheus_scraped() {
    let metrics = Arc::new(Metrics::new("USD", Limits::STANDARD));
    // The budget of this life is used up from tick 40 on, and the annotation for it is a query like the others.
    live(&metrics, 0);
    let address = serve(Arc::clone(&metrics)).await;
    let busy = tokio::spawn(async move {
        for tick in 1.. {
            live(&metrics, tick);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let prometheus = Prometheus::start(&address, "1s", &super::folder().join("rules")).expect("Prometheus");
    prometheus.scrapes(SCRAPES).await.expect("scrapes");
    check_dashboards(&prometheus).await;
    check_rules(&prometheus).await;
    busy.abort();
}

/// Every rule that is shipped was evaluated without an error, and the recorded series exist.
async fn check_rules(prometheus: &Prometheus) {
    let data = prometheus.get("rules", &[]).await.expect("the rules");
    let groups = data["groups"].as_array().expect("groups");
    let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
    assert!(rules.len() > 15, "{} rules", rules.len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" {
            let name = rule["name"].as_str().expect("a name");
            assert!(!prometheus.query(name).await.expect("a valid query").is_empty(), "{name} records nothing");
        }
    }
}

#[test]
fn every_series_of_the_dashboards_and_rules_is_exported() {
    let metrics = Metrics::new("USD", Limits::STANDARD);
    live(&metrics, 0);
    let text = metrics.render();
    let exported = |family: &str| {
        text.lines().any(|line| line.strip_prefix("# TYPE ").is_some_and(|rest| rest.split(' ').next() == Some(family)))
    };
    let folders = [(super::folder(), "json"), (super::folder().join("rules"), "yaml")];
    for path in folders.iter().flat_map(|(folder, extension)| super::files(folder, extension)) {
        for selector in super::promql::selectors(&super::read(&path)) {
            assert!(exported(selector.family()), "{}: no series {}", path.display(), selector.series);
        }
    }
}
