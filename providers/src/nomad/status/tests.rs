#![expect(clippy::needless_pass_by_value, reason = "`json!` makes values, and each is used once")]

use super::*;

fn job(stop: bool) -> JobStub {
    serde_json::from_value(serde_json::json!({
        "ID": "spillway-1-a", "Stop": stop, "Status": "running", "SubmitTime": 1_000_000_000_000_i64,
        "Meta": {"spillway.dev/pod-uid": "a", "spillway.dev/namespace": "media", "spillway.dev/pod": "p",
            "spillway.dev/cluster": "c", "spillway.dev/virtual-node": "n", "spillway.dev/shape": "250/1048576/0"},
    }))
    .expect("a job")
}

fn allocation(changes: serde_json::Value) -> Allocation {
    let mut all = serde_json::json!({"ID": "x", "CreateIndex": 1, "ClientStatus": "running", "DesiredStatus": "run"});
    for (name, value) in changes.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    serde_json::from_value(all).expect("an allocation")
}

fn dead(code: &str, finished: &str) -> serde_json::Value {
    serde_json::json!({"State": "dead", "StartedAt": "1970-01-01T00:20:00Z", "FinishedAt": finished, "Events": [
        {"Type": "Received", "Time": 1_100_000_000_000_i64},
        {"Type": "Terminated", "Time": 1_300_000_000_000_i64, "Details": {"exit_code": code, "oom_killed": "false"}},
    ]})
}

fn exit_of(job: &JobStub, changes: serde_json::Value) -> Option<Exit> {
    remote_pod(job, &[allocation(changes)]).expect("a pod").exit
}

#[test]
fn a_pod_comes_back_from_its_job() {
    let pod = remote_pod(&job(false), &[]).expect("a pod");
    assert_eq!((pod.uid.as_str(), &*pod.namespace, &*pod.name, pod.phase), ("a", "media", "p", RemotePhase::Pending));
    assert_eq!(pod.shape, Shape { cpu_millis: 250, memory_bytes: 1 << 20, ephemeral_bytes: 0 });
    assert_eq!(pod.created_at, Timestamp::from_millis(1_000_000));
    let mut foreign = job(false);
    foreign.meta.clear();
    assert_eq!(remote_pod(&foreign, &[]), None);
    assert_eq!(remote_pod(&job(true), &[]).and_then(|pod| pod.exit), Some(Exit::Deleted), "stopped before it was placed");
}

#[test]
fn a_running_pod_has_its_times_and_its_address() {
    let states = serde_json::json!({"main": {"State": "running", "StartedAt": "1970-01-01T00:20:00Z", "Events": [{"Type": "Received", "Time": 1_100_000_000_000_i64}]}});
    let changes = serde_json::json!({"TaskStates": states, "NetworkStatus": {"Address": "172.26.64.2"}});
    let pod = remote_pod(&job(false), &[allocation(changes)]).expect("a pod");
    assert_eq!(pod.phase, RemotePhase::Running);
    assert_eq!(pod.pull_started_at, Some(Timestamp::from_millis(1_100_000)));
    assert_eq!(pod.started_at, Some(Timestamp::from_millis(1_200_000)));
    assert_eq!(pod.address, "172.26.64.2".parse().ok());
    let silent = remote_pod(&job(false), &[allocation(serde_json::json!({"ClientStatus": "unknown"}))]).expect("a pod");
    assert_eq!(silent.phase, RemotePhase::Running, "nobody knows better");
}

#[test]
fn the_first_failure_is_the_exit_code_and_sidecars_do_not_count() {
    let states = serde_json::json!({
        "a": dead("143", "1970-01-01T00:21:40Z"), "b": dead("3", "1970-01-01T00:21:39Z"), "proxy": dead("9", "1970-01-01T00:21:00Z"),
    });
    let resources = serde_json::json!({"TaskLifecycles": {"a": null, "b": null, "proxy": {"Hook": "prestart", "Sidecar": true}}});
    let changes = serde_json::json!({"ClientStatus": "failed", "TaskStates": states, "AllocatedResources": resources});
    assert_eq!(exit_of(&job(false), changes.clone()), Some(Exit::Finished { code: 3 }));
    assert_eq!(exit_of(&job(true), changes), Some(Exit::Deleted));
}

#[test]
fn what_never_ran_says_why() {
    let failed = |kind: &str, text: &str| {
        let events = serde_json::json!([{"Type": "Received", "Time": 1}, {"Type": kind, "DisplayMessage": text}]);
        let states = serde_json::json!({"main": {"State": "dead", "Failed": true, "Events": events}});
        match exit_of(&job(false), serde_json::json!({"ClientStatus": "failed", "TaskStates": states})) {
            Some(Exit::NotStarted { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failed("Driver Failure", "Failed to pull `nope:1`: not found"), StartFailure::Image);
    assert_eq!(failed("Driver Failure", "Failed to start container: exec: \"x\": not found"), StartFailure::Container);
    assert_eq!(failed("Failed Validation", "unknown reference"), StartFailure::Configuration);
    assert_eq!(failed("Something new", ""), StartFailure::Unknown);
}

#[test]
fn what_was_taken_away_is_told_apart() {
    let exit = |changes| exit_of(&job(false), changes).expect("an exit");
    let evicted = serde_json::json!({"ClientStatus": "complete", "DesiredStatus": "evict"});
    assert_eq!(exit(evicted), Exit::Reclaimed);
    let lost = serde_json::json!({"ClientStatus": "lost", "ClientDescription": "alloc is lost since its node is down"});
    assert_eq!(exit(lost), Exit::Lost { reason: "alloc is lost since its node is down".to_owned() });
    let drained =
        serde_json::json!({"ClientStatus": "complete", "DesiredStatus": "stop", "DesiredDescription": "alloc is being migrated"});
    assert_eq!(exit(drained), Exit::Lost { reason: "alloc is being migrated".to_owned() });
}

#[test]
fn jobs_of_others_are_not_ours() {
    let owner = |node: &str| Ownership { cluster: "c".into(), virtual_node: node.into() };
    assert!(belongs(&job(false), &owner("n")));
    assert!(!belongs(&job(false), &owner("other")));
}
