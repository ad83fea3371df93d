#![expect(clippy::needless_pass_by_value, reason = "`json!(…)` at the call reads better without a reference")]

use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn group(properties: serde_json::Value) -> GroupView {
    let tags = json!({
        "spillway-cluster": "c", "spillway-virtual-node": "v", "spillway-namespace": "media", "spillway-pod": "thumbs-7",
        "spillway-uid": "u", "spillway-created": "1794990000000",
    });
    serde_json::from_value(json!({"name": "spillway-1", "location": "eastus", "tags": tags, "properties": properties}))
        .expect("a group")
}

fn container(name: &str, view: serde_json::Value) -> serde_json::Value {
    json!({"name": name, "properties": {
        "image": "a", "resources": {"requests": {"cpu": 0.75, "memoryInGB": 1.1}}, "instanceView": view,
    }})
}

fn event(name: &str, kind: &str, message: &str, at: &str) -> serde_json::Value {
    json!({"name": name, "type": kind, "message": message, "count": 1, "firstTimestamp": at, "lastTimestamp": at})
}

fn seen(properties: serde_json::Value) -> RemotePod {
    remote_pod(&group(properties), NOW).expect("ours")
}

fn millis(text: &str) -> Option<Timestamp> {
    time(Some(&text.to_owned()))
}

#[test]
fn what_a_list_shows_is_a_pod_that_waits() {
    let pod = seen(json!({"provisioningState": "Creating", "containers": [
        {"name": "main", "properties": {"resources": {"requests": {"cpu": 1.5, "memoryInGB": 2.3}}}},
    ]}));
    assert_eq!((pod.phase, pod.exit), (RemotePhase::Pending, None));
    assert_eq!((pod.uid.as_str(), &*pod.namespace, &*pod.name), ("u", "media", "thumbs-7"));
    assert_eq!(pod.shape, Shape { cpu_millis: 1500, memory_bytes: 2_300_000_000, ephemeral_bytes: 0 });
    assert_eq!(pod.created_at, Timestamp::from_millis(1_794_990_000_000));
}

#[test]
fn a_group_of_somebody_else_is_no_pod() {
    let mut group = group(json!({"provisioningState": "Succeeded"}));
    group.tags.clear();
    assert_eq!(remote_pod(&group, NOW), None);
}

#[test]
fn from_pull_to_end() {
    let pulling = event("Pulling", "Normal", "pulling image", "2026-11-21T10:00:05Z");
    let waiting = json!({"restartCount": 0, "currentState": {"state": "Waiting"}, "events": [pulling]});
    let pod = seen(
        json!({"provisioningState": "Creating", "containers": [container("main", waiting)], "instanceView": {"state": "Pending"}}),
    );
    assert_eq!((pod.phase, pod.pull_started_at), (RemotePhase::Pulling, millis("2026-11-21T10:00:05Z")));

    let running = json!({"restartCount": 2, "currentState": {"state": "Running", "startTime": "2026-11-21T10:00:20.5Z"}, "events": [pulling]});
    let pod = seen(json!({
        "provisioningState": "Succeeded", "containers": [container("main", running)], "instanceView": {"state": "Running"},
        "ipAddress": {"ip": "10.1.0.7", "type": "Private", "ports": []},
    }));
    assert_eq!((pod.phase, pod.started_at), (RemotePhase::Running, millis("2026-11-21T10:00:20.5Z")));
    assert_eq!(pod.address, "10.1.0.7".parse().ok());
    assert_eq!(pod.containers[0].restarts, 2);

    let ended = |code: i32, detail: &str| {
        json!({"currentState": {"state": "Terminated", "exitCode": code, "detailStatus": detail,
            "startTime": "2026-11-21T10:00:20Z", "finishTime": "2026-11-21T10:01:00Z"}})
    };
    let pod = seen(json!({
        "provisioningState": "Succeeded", "instanceView": {"state": "Failed"},
        "containers": [container("good", ended(0, "Completed")), container("bad", ended(137, "OOMKilled"))],
    }));
    assert_eq!((pod.phase, pod.exit), (RemotePhase::Stopped, Some(Exit::Finished { code: 137 })));
    assert_eq!(pod.stopped_at, millis("2026-11-21T10:01:00Z"));
    assert!(matches!(&pod.containers[1].state, ContainerState::Terminated { code: 137, reason, .. } if reason == "OOMKilled"));
}

#[test]
fn groups_that_never_ran_say_why() {
    let failed = event("Failed", "Warning", "Failed to pull image \"none:1\": not found", "2026-11-21T10:00:30Z");
    let pulling = event("Pulling", "Normal", "pulling image", "2026-11-21T10:00:05Z");
    let waiting = json!({"currentState": {"state": "Waiting"}, "events": [pulling, failed]});
    let pod = seen(
        json!({"provisioningState": "Failed", "containers": [container("main", waiting)], "instanceView": {"state": "Pending"}}),
    );
    let Some(Exit::NotStarted { cause, reason }) = pod.exit else { panic!("{pod:?}") };
    assert_eq!((cause, pod.stopped_at), (StartFailure::Image, Some(NOW)));
    assert!(reason.contains("none:1"));
    assert!(matches!(&pod.containers[0].state, ContainerState::Waiting { reason } if reason == "ImagePullBackOff"));

    let pod = seen(json!({"provisioningState": "Failed", "containers": []}));
    let unknown = Exit::NotStarted { cause: StartFailure::Unknown, reason: "provisioning state Failed".to_owned() };
    assert_eq!(pod.exit, Some(unknown));
}

#[test]
fn an_evicted_spot_group_is_told_from_one_that_restarts() {
    let started = event("Started", "Normal", "Started container", "2026-11-21T10:00:20Z");
    let waits = json!({"currentState": {"state": "Waiting"}, "events": [started]});
    let restarts = json!({"currentState": {"state": "Waiting", "detailStatus": "CrashLoopBackOff"}, "events": [started],
        "previousState": {"state": "Terminated", "exitCode": 1}});
    let state = |priority: &str, view: &serde_json::Value| {
        seen(json!({"provisioningState": "Succeeded", "priority": priority, "instanceView": {"state": "Pending"},
            "containers": [container("main", view.clone())]}))
        .exit
    };
    assert_eq!(state("Spot", &waits), Some(Exit::Reclaimed));
    assert_eq!(state("Spot", &restarts), None);
    assert_eq!(state("Regular", &waits), None);
    assert_eq!(state("Spot", &json!({"currentState": {"state": "Waiting"}, "events": []})), None, "has not run yet");
}

#[test]
fn a_group_that_is_being_deleted_is_over() {
    let pod = seen(json!({"provisioningState": "Deleting", "containers": [], "instanceView": {"state": "Running"}}));
    assert_eq!(pod.exit, Some(Exit::Deleted));
}
