use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

/// A task in one state, 60 s after it was made.
fn task(last_status: &str) -> sdk::builders::TaskBuilder {
    sdk::Task::builder()
        .task_arn("arn:aws:ecs:us-east-1:123456789012:task/c/0123456789abcdef0123456789abcdef")
        .group("spillway:uid-1")
        .cpu("512")
        .memory("2048")
        .created_at(DateTime::from_millis(NOW.millis() - 60_000))
        .last_status(last_status)
}

fn container(name: &str, code: Option<i32>, reason: &str) -> sdk::Container {
    let status = if code.is_some() || !reason.is_empty() { "STOPPED" } else { "RUNNING" };
    sdk::Container::builder().name(name).set_exit_code(code).reason(reason).last_status(status).build()
}

fn pod(task: sdk::builders::TaskBuilder, essential: Option<&[String]>) -> RemotePod {
    remote_pod(&task.build(), &("media".into(), "thumbnail-7".into()), essential, NOW).expect("a task of ours")
}

fn stopped(code: sdk::TaskStopCode, reason: &str) -> sdk::builders::TaskBuilder {
    task("STOPPED").stop_code(code).stopped_reason(reason).stopped_at(DateTime::from_millis(NOW.millis()))
}

#[test]
fn states_become_phases() {
    let at = DateTime::from_millis(NOW.millis() - 10_000);
    for (status, phase) in [
        ("PROVISIONING", RemotePhase::Pending),
        ("PENDING", RemotePhase::Pending),
        ("RUNNING", RemotePhase::Running),
        ("STOPPED", RemotePhase::Stopped),
        ("DELETED", RemotePhase::Stopped),
        ("SOMETHING NEW", RemotePhase::Pending),
    ] {
        assert_eq!(pod(task(status), None).phase, phase, "{status}");
    }
    assert_eq!(pod(task("PENDING").pull_started_at(at), None).phase, RemotePhase::Pulling);
    assert_eq!(pod(task("ACTIVATING").pull_started_at(at), None).phase, RemotePhase::Pulling);
    // On its way to the end it still is where it was, and is paid for.
    assert_eq!(pod(task("DEPROVISIONING").pull_started_at(at).started_at(at), None).phase, RemotePhase::Running);
    assert_eq!(pod(task("STOPPING").pull_started_at(at), None).phase, RemotePhase::Pulling);
}

#[test]
fn a_pod_is_what_its_task_says() {
    let address = sdk::KeyValuePair::builder().name("privateIPv4Address").value("10.0.3.7").build();
    let pod = pod(
        task("RUNNING")
            .ephemeral_storage(sdk::EphemeralStorage::builder().size_in_gib(40).build())
            .attachments(sdk::Attachment::builder().r#type("ElasticNetworkInterface").details(address).build())
            .containers(
                sdk::Container::builder().name("main").last_status("RUNNING").health_status(sdk::HealthStatus::Unhealthy).build(),
            ),
        None,
    );
    assert_eq!((pod.uid.as_str(), &*pod.namespace, &*pod.name), ("uid-1", "media", "thumbnail-7"));
    assert_eq!(pod.shape, Shape { cpu_millis: 500, memory_bytes: 2 << 30, ephemeral_bytes: 40 << 30 });
    assert_eq!(pod.address, Some("10.0.3.7".parse().expect("an address")));
    assert_eq!(pod.created_at, Timestamp::from_millis(NOW.millis() - 60_000));
    assert_eq!(pod.containers[0].ready, Some(false));
    assert!(pod.exit.is_none() && pod.stopped_at.is_none());
}

#[test]
fn the_free_disk_is_no_part_of_the_shape() {
    let free = sdk::EphemeralStorage::builder().size_in_gib(20).build();
    assert_eq!(pod(task("RUNNING").ephemeral_storage(free), None).shape.ephemeral_bytes, 0);
}

#[test]
fn ends_say_whose_doing_they_are() {
    use sdk::TaskStopCode::{EssentialContainerExited, SpotInterruption, TaskFailedToStart, TerminationNotice, UserInitiated};
    let exit = |task| pod(task, None).exit.expect("stopped");
    let ended = |code| {
        stopped(EssentialContainerExited, "Essential container in task exited").containers(container("main", Some(code), ""))
    };
    assert_eq!(exit(ended(0)), Exit::Finished { code: 0 });
    assert_eq!(exit(ended(3)), Exit::Finished { code: 3 });
    assert_eq!(exit(stopped(UserInitiated, STOPPED_BY_US)), Exit::Deleted);
    assert_eq!(exit(stopped(UserInitiated, "Task stopped by user")), Exit::Lost { reason: "Task stopped by user".to_owned() });
    assert_eq!(exit(stopped(SpotInterruption, "")), Exit::Reclaimed);
    assert_eq!(exit(stopped(TerminationNotice, "Your Spot Task was interrupted.")), Exit::Reclaimed);
    let lost = "Underlying infrastructure is retired";
    assert_eq!(exit(stopped(TerminationNotice, lost)), Exit::Lost { reason: lost.to_owned() });
    let pull = "CannotPullContainerError: not found";
    let never = exit(stopped(TaskFailedToStart, "Task failed to start").containers(container("main", None, pull)));
    assert_eq!(never, Exit::NotStarted { cause: crate::StartFailure::Image, reason: format!("Task failed to start; {pull}") });
    // An init container that failed is the pod's own failure.
    let init = stopped(TaskFailedToStart, "Task failed to start").containers(container("init", Some(2), ""));
    assert_eq!(exit(init.containers(container("main", None, "dependency failed"))), Exit::Finished { code: 2 });
    // No code and no start: it was never there.
    let silent = stopped(EssentialContainerExited, "Timeout waiting for network interface provisioning to complete.");
    assert!(matches!(exit(silent), Exit::NotStarted { cause: crate::StartFailure::Configuration, .. }));
}

#[test]
fn a_sidecar_killed_with_the_task_is_no_failure() {
    let both = || {
        stopped(sdk::TaskStopCode::EssentialContainerExited, "Essential container in task exited")
            .containers(container("proxy", Some(137), ""))
            .containers(container("main", Some(0), ""))
    };
    assert_eq!(pod(both(), Some(&["main".to_owned()])).exit, Some(Exit::Finished { code: 0 }));
    // Without the definition nobody can tell.
    assert_eq!(pod(both(), None).exit, Some(Exit::Finished { code: 137 }));
}

#[test]
fn containers_end_with_code_and_reason() {
    let task = stopped(sdk::TaskStopCode::EssentialContainerExited, "")
        .started_at(DateTime::from_millis(NOW.millis() - 30_000))
        .execution_stopped_at(DateTime::from_millis(NOW.millis() - 5_000))
        .containers(container("main", Some(137), "OutOfMemoryError: Container killed due to memory usage"))
        .containers(container("late", None, "CannotPullContainerError: x"));
    let pod = pod(task, None);
    assert_eq!(
        pod.containers[0].state,
        ContainerState::Terminated {
            code: 137,
            reason: "OOMKilled".to_owned(),
            started_at: Some(Timestamp::from_millis(NOW.millis() - 30_000)),
            finished_at: Some(Timestamp::from_millis(NOW.millis() - 5_000)),
        }
    );
    assert_eq!(pod.containers[1].state, ContainerState::Waiting { reason: "ImagePullBackOff".to_owned() });
}

#[test]
fn tasks_of_others_are_no_pods() {
    let theirs = task("RUNNING").group("family:web").build();
    assert_eq!(remote_pod(&theirs, &("a".into(), "b".into()), None, NOW), None);
}
