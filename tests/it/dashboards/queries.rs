//! Every query of the dashboards against a real Prometheus that scrapes a real `/metrics`.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use scheduler_extender::demo;
use scheduler_extender::metrics::{Limits, Metrics};

use super::grafana::{Dashboard, Panel, Target, Variable};
use super::prometheus::{Prometheus, seconds_now};
use crate::metrics::{live, serve};

/// The time range that the dashboards are opened on, everything selected.
struct View {
    prometheus: Prometheus,
    end: f64,
    seconds: u32,
    /// Four scrapes, as Grafana has it.
    rate_interval: &'static str,
}

/// What a panel must find.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// A number.
    Data,
    /// A number above zero.
    MoreThanZero,
}

// === impl View ===

impl View {
    /// A query as Grafana sends it.
    fn substituted(&self, query: &str) -> String {
        let query = query.replace("$__rate_interval", self.rate_interval);
        let query = query.replace("$__range", &format!("{}s", self.seconds)).replace("$cluster", ".*");
        let query = ["$job", "$instance", "$namespace", "$policy"].iter().fold(query, |query, name| query.replace(name, ".+"));
        assert!(!query.contains('$'), "a variable that the test does not know: {query}");
        query
    }

    async fn values(&self, target: &Target) -> Vec<f64> {
        let query = self.substituted(&target.expr);
        let found = if target.instant {
            self.prometheus.query(&query, self.end).await
        } else {
            self.prometheus.query_range(&query, self.end, self.seconds).await
        };
        found.unwrap_or_else(|error| panic!("{query}: {error:#}"))
    }

    /// What the panel does not show although it should.
    async fn missing(&self, panel: &Panel, wanted: Wanted) -> Vec<String> {
        let mut missing = Vec::new();
        for target in &panel.targets {
            let values = self.values(target).await;
            let shows = |value: &f64| value.is_finite() && (wanted == Wanted::Data || *value > 0.0);
            if !values.iter().any(shows) {
                missing.push(format!("{} {}: {values:?}", panel.title, target.ref_id));
            }
        }
        missing
    }

    async fn choices(&self, variable: &Variable) -> Vec<String> {
        let query = variable.expression();
        let (series, label) = query
            .strip_prefix("label_values(")
            .and_then(|query| query.strip_suffix(')')?.rsplit_once(", "))
            .unwrap_or_else(|| panic!("{query} is no label_values"));
        self.prometheus.label_values(label, &self.substituted(series)).await.expect("a valid query")
    }

    /// Every panel, variable and annotation of every dashboard.
    async fn check(&self, wanted: Wanted) {
        let mut missing = Vec::new();
        for path in super::files(&super::folder(), "json") {
            let dashboard = Dashboard::read(&path);
            for panel in dashboard.charts() {
                missing.extend(self.missing(panel, wanted).await);
            }
            for variable in dashboard.templating.list.iter().filter(|v| v.kind == "query" && v.name != "cluster") {
                if self.choices(variable).await.is_empty() {
                    missing.push(format!("variable {}", variable.name));
                }
            }
            for annotation in &dashboard.annotations.list {
                let query = self.substituted(&annotation.expr);
                let found = self.prometheus.query_range(&query, self.end, self.seconds).await.expect("a valid query");
                // Where all is well there is nothing to mark.
                if found.is_empty() && wanted == Wanted::MoreThanZero {
                    missing.push(format!("annotation {}", annotation.name));
                }
            }
        }
        assert!(missing.is_empty(), "nothing to show:\n{}", missing.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_shows_a_busy_cluster() {
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
    prometheus.scrapes(8).await.expect("scrapes");
    let end = prometheus.last_scrape().await.expect("a scrape");
    check_rules(&prometheus, end).await;
    let view = View { prometheus, end, seconds: 6, rate_interval: "4s" };
    view.check(Wanted::MoreThanZero).await;
    busy.abort();
}

/// The demonstration as a stranger runs it, with Prometheus beside it. It plays minutes in seconds, so it is scraped often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_shows_the_demo() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let prometheus = Prometheus::start(&address.to_string(), "200ms", &super::folder().join("rules")).expect("Prometheus");
    let started = seconds_now();
    let arguments = demo::Args {
        manifests: vec![],
        seed: 1,
        // However fast this machine is, the whole history is seen in some fifty scrapes.
        speed: Some(60),
        kubernetes: false,
        output: demo::Output::Json,
        report: None,
        metrics_listen: Some(address),
    };
    let run = tokio::task::spawn_blocking(move || demo::main(&arguments));
    tokio::time::timeout(Duration::from_secs(120), run).await.expect("it ends").expect("no panic").expect("it works");
    let end = prometheus.last_scrape().await.expect("a scrape");
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let seconds = (end - started).ceil() as u32;
    let view = View { prometheus, end, seconds, rate_interval: "800ms" };
    view.check(Wanted::Data).await;
    for title in [
        "Spent in the time range",
        "Avoided in the time range",
        "Spend by owner in the time range",
        "Budgets in use",
        "Pods by backend",
    ] {
        let path = super::folder().join("cost.json");
        let dashboard = Dashboard::read(&path);
        let panel = dashboard.charts().find(|panel| panel.title == title).unwrap_or_else(|| panic!("no panel {title}"));
        assert_eq!(view.missing(panel, Wanted::MoreThanZero).await, Vec::<String>::new());
    }
}

/// Every rule that is shipped was evaluated without an error, and the recorded series exist.
async fn check_rules(prometheus: &Prometheus, at: f64) {
    let data = prometheus.get("rules", &[]).await.expect("the rules");
    let groups = data["groups"].as_array().expect("groups");
    let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
    assert!(rules.len() > 15, "{} rules", rules.len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" {
            let name = rule["name"].as_str().expect("a name");
            assert!(!prometheus.query(name, at).await.expect("a valid query").is_empty(), "{name} records nothing");
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
