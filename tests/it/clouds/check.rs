//! `spillway provider check`, as a user runs it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::scenario::program;

/// What came of it.
pub(super) struct Checked {
    pub(super) output: String,
    pub(super) errors: String,
    pub(super) code: Option<i32>,
}

/// A check takes a few looks, 2 s apart.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the program with these flags, and with nothing in its environment but this.
pub(super) async fn check(flags: &[&str], environment: &[(&str, &str)]) -> Checked {
    let mut command = Command::new(program());
    command.args(["provider", "check"]).args(flags).env_clear().envs(environment.iter().copied());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("its end").expect("the program spillway starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Checked { output: text(output.stdout), errors: text(output.stderr), code: output.status.code() }
}

impl Checked {
    /// What `-o json` says of a step: whether it went well, the words, the kind of error.
    pub(super) fn step(&self, name: &str) -> (bool, String, Option<String>) {
        let answer: Value = serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {}", self.output));
        let steps = answer["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("no step {name}: {answer}"));
        let text = |field: &str| step[field].as_str().map(str::to_owned);
        (step["ok"] == true, text("detail").expect("words"), text("error"))
    }

    /// The line about a step in the table.
    pub(super) fn line(&self, name: &str) -> &str {
        let of = |line: &&str| line.get(8..).is_some_and(|line| line.starts_with(name));
        self.output.lines().find(of).unwrap_or_else(|| panic!("no {name}: {}", self.output))
    }
}

/// Nothing is asked of Azure.
#[tokio::test]
async fn settings_that_cannot_be_are_named() {
    let checked = check(
        &["aci", "--subscription-id", "a/b", "--resource-group", "burst", "--location", "eastus"],
        &[
            ("AZURE_TENANT_ID", "00000000-0000-4000-8000-000000000001"),
            ("AZURE_CLIENT_ID", "00000000-0000-4000-8000-000000000002"),
            ("AZURE_CLIENT_SECRET", "hunter2-is-secret"),
        ],
    )
    .await;
    assert_eq!((checked.output.as_str(), checked.code), ("", Some(1)), "{}", checked.errors);
    assert!(checked.errors.starts_with("spillway: spec.aci.subscriptionId: "), "{}", checked.errors);
    assert!(!checked.errors.contains("hunter2"), "{}", checked.errors);
}
