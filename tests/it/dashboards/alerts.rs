//! The rules that are shipped: their form, and that each alert fires and stays silent as its unit tests say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde_yaml_ng::Value;
use world::control_plane::program;

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    alert: Option<String>,
    #[serde(default)]
    record: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct UnitTests {
    tests: Vec<UnitTest>,
}

#[derive(Deserialize)]
struct UnitTest {
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<Value>,
}

fn rule_files() -> Vec<PathBuf> {
    super::files(&super::folder().join("rules"), "yaml")
}

fn test_files() -> Vec<PathBuf> {
    super::files(&super::folder().join("rules/tests"), "yaml")
}

fn rules() -> Vec<Rule> {
    let groups = rule_files().into_iter().flat_map(|path| {
        let file: RuleFile =
            serde_yaml_ng::from_str(&super::read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        file.groups
    });
    groups.inspect(|group| assert!(group.name.starts_with("spillway-"), "{}", group.name)).flat_map(|group| group.rules).collect()
}

fn alerts() -> Vec<(String, Rule)> {
    let alerts: Vec<_> = rules().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect();
    assert!(alerts.len() >= 10, "there are alerts");
    alerts
}

fn promtool(arguments: &[&str], files: &[PathBuf]) {
    let output =
        Command::new(program("promtool").expect("promtool")).args(arguments).args(files).output().expect("promtool runs");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &rule_files());
}

#[test]
fn the_unit_tests_of_the_rules_pass() {
    promtool(&["test", "rules"], &test_files());
}

#[test]
fn every_alert_has_a_case_where_it_fires_and_one_where_it_does_not() {
    let mut cases: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for path in test_files() {
        let file: UnitTests =
            serde_yaml_ng::from_str(&super::read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for case in file.tests.into_iter().flat_map(|test| test.alert_rule_test) {
            cases.entry(case.alertname).or_default().insert(!case.exp_alerts.is_empty());
        }
    }
    let alerts: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(cases.keys().cloned().collect::<BTreeSet<_>>(), alerts, "tests and alerts have the same names");
    for (alert, fires) in cases {
        assert_eq!(fires.len(), 2, "{alert}: a positive and a negative case, each");
    }
}

#[test]
fn every_alert_tells_what_is_wrong_and_what_to_do() {
    let mut names = BTreeSet::new();
    for (name, rule) in alerts() {
        assert!(names.insert(name.clone()), "{name} twice");
        assert!(name.starts_with("Spillway") && name.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}: CamelCase with prefix");
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: severity {severity:?}");
        let annotation = |key: &str| rule.annotations.get(key).unwrap_or_else(|| panic!("{name}: no {key}")).as_str();
        assert!(
            annotation("summary").ends_with('.') && !annotation("summary").contains("{{"),
            "{name}: a constant summary groups"
        );
        assert!(annotation("description").contains("{{"), "{name}: the description names the object or the number");
        let dashboard =
            annotation("dashboard_url").strip_prefix("/d/spillway-").unwrap_or_else(|| panic!("{name}: dashboard_url"));
        assert!(super::folder().join(format!("{dashboard}.json")).is_file(), "{name}: no dashboard {dashboard}");
        let (_, runbook) = annotation("runbook_url").rsplit_once("/runbooks/").unwrap_or_else(|| panic!("{name}: runbook_url"));
        assert_eq!(runbook, name.to_lowercase(), "{name}: the runbook has the alert's name");
        let text = super::read(&super::folder().join(format!("runbooks/{runbook}.md")));
        assert!(text.starts_with(&format!("# {name}\n")), "{name}: title of its runbook");
        for heading in ["\n## Look at\n", "\n## Do\n"] {
            assert!(text.contains(heading), "{name}: its runbook has no '{}'", heading.trim());
        }
    }
}

#[test]
fn every_runbook_has_its_alert() {
    let alerts: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name.to_lowercase()).collect();
    for path in super::files(&super::folder().join("runbooks"), "md") {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_string();
        assert!(alerts.contains(&name), "{name}.md belongs to no alert");
    }
}

#[test]
fn recorded_series_say_level_metric_and_operation() {
    for rule in rules() {
        let Some(name) = rule.record else { continue };
        let parts: Vec<&str> = name.split(':').collect();
        assert!(parts.len() == 3 && parts[1].starts_with("spillway_"), "{name}: level:metric:operation");
    }
}
