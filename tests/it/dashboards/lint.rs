//! The rules that dashboards keep. Their names are those of Grafana's dashboard-linter, so that `dashboards/.lint`, where
//! the exceptions stand with their reasons, serves both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;

use super::grafana::{Dashboard, GridPosition, Panel, Target};
use super::promql::selectors;

/// Units that Grafana knows and that these dashboards have a use for.
const UNITS: [&str; 6] = ["currencyUSD", "percentunit", "short", "s", "cps", "bool_yes_no"];

#[derive(Deserialize)]
struct Exceptions {
    exclusions: BTreeMap<String, Exclusion>,
}

#[derive(Deserialize)]
struct Exclusion {
    reason: String,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    dashboard: String,
    panel: String,
}

fn dashboards() -> Vec<(PathBuf, Dashboard)> {
    super::files(&super::folder(), "json").into_iter().map(|path| (path.clone(), Dashboard::read(&path))).collect()
}

fn exceptions() -> Exceptions {
    serde_yaml_ng::from_str(&super::read(&super::folder().join(".lint"))).expect("dashboards/.lint")
}

/// Calls `check` for every target of every panel.
fn each_target(mut check: impl FnMut(&Dashboard, &Panel, &Target)) {
    let mut targets = 0;
    for (_, dashboard) in &dashboards() {
        for panel in dashboard.charts() {
            for target in &panel.targets {
                check(dashboard, panel, target);
                targets += 1;
            }
        }
    }
    assert!(targets > 20, "there are targets");
}

#[test]
fn the_dashboard_itself() {
    let mut uids = BTreeSet::new();
    for (path, dashboard) in &dashboards() {
        let (product, view) = dashboard.title.split_once(" / ").expect("a title 'Product / View'");
        assert_eq!(product, "Spillway");
        let file = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(dashboard.uid, format!("spillway-{file}"), "a stable uid that says what it is");
        assert_eq!(view.to_lowercase().replace(' ', "-"), file);
        assert!(uids.insert(dashboard.uid.clone()), "{} twice", dashboard.uid);
        assert_eq!(dashboard.tags, ["spillway"]);
        assert_eq!(dashboard.timezone, "utc");
        assert!(!dashboard.editable, "uneditable-dashboard: edits are lost with the next release");
    }
}

#[test]
fn the_variables() {
    for (_, dashboard) in &dashboards() {
        let datasources: Vec<_> = dashboard.templating.list.iter().filter(|v| v.kind == "datasource").collect();
        assert_eq!(datasources.len(), 1, "template-datasource-rule");
        assert_eq!((datasources[0].name.as_str(), datasources[0].label.as_str()), ("datasource", "Data source"));
        assert_eq!(datasources[0].query, "prometheus");
        for (name, label) in [("job", "Job"), ("instance", "Instance")] {
            let variable = dashboard.variable(name);
            assert_eq!(variable.label, label, "template-{name}-rule");
            assert_eq!((variable.kind.as_str(), variable.multi, variable.all_value.as_deref()), ("query", true, Some(".+")));
        }
        // Most installations have no label `cluster`, and `.+` would then select nothing.
        assert_eq!(dashboard.variable("cluster").all_value.as_deref(), Some(".*"));
        for variable in dashboard.templating.list.iter().filter(|v| v.kind == "query") {
            let name = &variable.name;
            assert_eq!(variable.refresh, 2, "template-on-time-change-reload-rule: {name}");
            assert_eq!(variable.datasource.as_ref().map(|d| d.uid.as_str()), Some("${datasource}"), "{name}");
            assert!(variable.multi && variable.include_all, "{name}");
            assert!(variable.expression().starts_with("label_values(spillway_"), "template-label-promql-rule: {name}");
        }
    }
}

#[test]
fn every_panel_says_what_it_shows() {
    for (_, dashboard) in &dashboards() {
        let mut titles = BTreeSet::new();
        for panel in dashboard.charts() {
            let title = &panel.title;
            assert!(
                !title.is_empty() && titles.insert(title),
                "panel-title-description-rule: '{title}' is missing or there twice"
            );
            assert!(panel.description.ends_with('.'), "panel-title-description-rule: {title}: a description in sentences");
            assert!(UNITS.contains(&panel.unit()), "panel-units-rule: {title}: '{}'", panel.unit());
            assert!(!panel.targets.is_empty(), "panel-no-targets-rule: {title}");
            assert_eq!(
                panel.datasource.as_ref().map(|d| d.uid.as_str()),
                Some("${datasource}"),
                "panel-datasource-rule: {title}"
            );
            let refs: BTreeSet<_> = panel.targets.iter().map(|target| &target.ref_id).collect();
            assert_eq!(refs.len(), panel.targets.len(), "{title}: refIds are distinct");
        }
    }
}

#[test]
fn every_target_uses_the_variables() {
    each_target(|_, panel, target| {
        let title = &panel.title;
        assert_eq!((target.datasource.kind.as_str(), target.datasource.uid.as_str()), ("prometheus", "${datasource}"), "{title}");
        let selectors = selectors(&target.expr);
        assert!(!selectors.is_empty(), "{title}: selects a series of Spillway's");
        for selector in selectors {
            for matcher in [r#"cluster=~"$cluster""#, r#"job=~"$job""#, r#"instance=~"$instance""#] {
                assert!(selector.matchers.contains(matcher), "target-job-rule, target-instance-rule: {title}: {selector:?}");
            }
        }
    });
}

#[test]
fn every_annotation_uses_the_variables() {
    for (_, dashboard) in &dashboards() {
        assert!(!dashboard.annotations.list.is_empty());
        for annotation in &dashboard.annotations.list {
            assert_eq!(annotation.datasource.uid, "${datasource}", "{}", annotation.name);
            assert!(selectors(&annotation.expr).iter().all(|s| s.matchers.contains(r#"job=~"$job""#)), "{}", annotation.name);
        }
    }
}

#[test]
fn every_rate_is_over_the_rate_interval() {
    let exceptions = exceptions();
    let excluded = &exceptions.exclusions["target-rate-interval-rule"];
    let mut used = BTreeSet::new();
    each_target(|dashboard, panel, target| {
        for selector in selectors(&target.expr) {
            if !matches!(selector.function.as_deref(), Some("rate" | "irate" | "increase")) {
                continue;
            }
            if selector.range.as_deref() == Some("$__rate_interval") {
                continue;
            }
            let is_this = |entry: &&Entry| entry.dashboard == dashboard.title && entry.panel == panel.title;
            assert!(
                excluded.entries.iter().any(|entry| is_this(&entry)),
                "target-rate-interval-rule: {}: {selector:?}",
                panel.title
            );
            // A total over what is shown is one value; drawn over time it would be a sum of sums.
            assert_eq!((selector.range.as_deref(), target.instant), (Some("$__range"), true), "{}: {selector:?}", panel.title);
            used.insert((dashboard.title.clone(), panel.title.clone()));
        }
    });
    assert_eq!(used.len(), excluded.entries.len(), "every exception is in use");
}

#[test]
fn exceptions_have_reasons() {
    for (rule, exclusion) in exceptions().exclusions {
        assert!(exclusion.reason.ends_with('.') && exclusion.reason.len() > 40, "{rule}: a reason in a sentence");
        assert!(!exclusion.entries.is_empty(), "{rule}: never a whole rule");
    }
}

#[test]
fn counters_are_aggregated() {
    each_target(|_, panel, target| {
        for selector in selectors(&target.expr) {
            let over_time =
                matches!(selector.function.as_deref(), Some("rate" | "irate" | "increase")) && selector.range.is_some();
            assert_eq!(
                selector.is_counter() || selector.series.ends_with("_bucket"),
                over_time,
                "target-counter-agg-rule: {}: {selector:?}",
                panel.title
            );
        }
    });
}

#[test]
fn money_is_shown_as_money_and_currencies_are_never_added_up() {
    let mut money = 0;
    each_target(|_, panel, target| {
        let is_money = selectors(&target.expr).iter().any(|s| {
            s.series.contains("_cost_")
                || s.series.starts_with("spillway_budget_spent")
                || s.series.starts_with("spillway_price_per")
        });
        if !is_money || panel.unit() == "percentunit" {
            return;
        }
        money += 1;
        assert_eq!(panel.unit(), "currencyUSD", "{}", panel.title);
        assert!(target.expr.contains("by (currency"), "{}: grouped by currency", panel.title);
        let instant_table = target.legend_format.is_empty();
        assert!(instant_table || target.legend_format.contains("{{currency}}"), "{}: says the currency", panel.title);
    });
    assert!(money >= 8, "the dashboard is about money");
}

#[test]
fn panels_lie_side_by_side() {
    for (_, dashboard) in &dashboards() {
        let ids: BTreeSet<_> = dashboard.panels.iter().map(|panel| panel.id).collect();
        assert_eq!(ids.len(), dashboard.panels.len(), "ids are distinct");
        for (n, panel) in dashboard.panels.iter().enumerate() {
            let GridPosition { x, w, .. } = panel.grid_pos;
            assert!(x + w <= 24, "{}: the grid has 24 columns", panel.title);
            for other in &dashboard.panels[n + 1..] {
                assert!(!overlap(panel.grid_pos, other.grid_pos), "'{}' and '{}' overlap", panel.title, other.title);
            }
        }
    }
}

fn overlap(a: GridPosition, b: GridPosition) -> bool {
    a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
}
