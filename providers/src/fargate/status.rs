//! From a task to a pod.

use std::net::IpAddr;
use std::sync::Arc;

use aws_sdk_ecs::primitives::DateTime;
use aws_sdk_ecs::types as sdk;
use policy::{Shape, Timestamp};

use super::failure::{container_reason, start_failure};
use crate::{ContainerState, Exit, PodUid, RemoteContainer, RemoteId, RemotePhase, RemotePod};

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

/// `group` of a task: ECS keeps it when a stopped task loses its tags.
const GROUP_PREFIX: &str = "spillway:";
pub(super) const TAG_UID: &str = "spillway.dev/uid";
pub(super) const TAG_NAMESPACE: &str = "spillway.dev/namespace";
pub(super) const TAG_POD: &str = "spillway.dev/pod";
/// How our own stops begin, to tell them from those of others.
pub(super) const STOPPED_BY_US: &str = "Spillway: the pod was deleted";

/// The `group` of a pod's task.
pub(super) fn group(uid: &PodUid) -> String {
    format!("{GROUP_PREFIX}{uid}")
}

/// The pod that a task stands for, if it is one of Spillway's.
pub(super) fn uid(task: &sdk::Task) -> Option<PodUid> {
    let group = task.group().and_then(|group| group.strip_prefix(GROUP_PREFIX));
    group.or_else(|| tag(task, TAG_UID)).filter(|uid| !uid.is_empty()).map(PodUid::new)
}

/// Names of the pod; `None` once ECS has dropped the tags.
pub(super) fn names(task: &sdk::Task) -> Option<(Arc<str>, Arc<str>)> {
    Some((tag(task, TAG_NAMESPACE)?.into(), tag(task, TAG_POD)?.into()))
}

fn tag<'t>(task: &'t sdk::Task, key: &str) -> Option<&'t str> {
    task.tags().iter().find(|tag| tag.key() == Some(key)).and_then(sdk::Tag::value)
}

/// Whether a task has ended for good.
pub(super) fn has_stopped(task: &sdk::Task) -> bool {
    matches!(task.last_status(), Some("STOPPED" | "DELETED"))
}

/// A task as a pod. `essential` names the containers whose exit codes are the pod's, where that is known; others are killed
/// with the task, which says nothing. `None` where the task is not Spillway's, or nameless.
pub(super) fn remote_pod(
    task: &sdk::Task,
    names: &(Arc<str>, Arc<str>),
    essential: Option<&[String]>,
    now: Timestamp,
) -> Option<RemotePod> {
    let stopped = has_stopped(task);
    let phase = phase(task);
    Some(RemotePod {
        id: RemoteId::new(task.task_arn()?),
        uid: uid(task)?,
        namespace: names.0.clone(),
        name: names.1.clone(),
        shape: shape(task),
        phase,
        created_at: task.created_at().map_or(now, time),
        pull_started_at: task.pull_started_at().map(time),
        started_at: task.started_at().map(time),
        // A double that counts no time says nothing here; it has certainly ended by now.
        stopped_at: stopped.then(|| task.stopped_at().map_or(now, time)),
        exit: stopped.then(|| exit(task, essential)),
        address: address(task),
        containers: task.containers().iter().filter_map(|container| remote_container(container, task)).collect(),
    })
}

/// ECS's states in order: PROVISIONING, PENDING, ACTIVATING, RUNNING, DEACTIVATING, STOPPING, DEPROVISIONING, STOPPED. What is
/// on its way to the end is still where it was.
fn phase(task: &sdk::Task) -> RemotePhase {
    match task.last_status() {
        Some("STOPPED" | "DELETED") => RemotePhase::Stopped,
        Some("RUNNING") => RemotePhase::Running,
        Some("DEACTIVATING" | "STOPPING" | "DEPROVISIONING") if task.started_at().is_some() => RemotePhase::Running,
        _ if task.pull_started_at().is_some() => RemotePhase::Pulling,
        _ => RemotePhase::Pending,
    }
}

/// What was bought: the task's size, which ECS gives as text.
pub(super) fn shape(task: &sdk::Task) -> Shape {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let disk = task.ephemeral_storage().map_or(0, |storage| i64::from(storage.size_in_gib()));
    Shape {
        cpu_millis: number(task.cpu()).saturating_mul(1000) / 1024,
        memory_bytes: number(task.memory()).saturating_mul(MIB),
        ephemeral_bytes: if disk > 20 { disk * GIB } else { 0 },
    }
}

fn exit(task: &sdk::Task, essential: Option<&[String]>) -> Exit {
    let reason = task.stopped_reason().unwrap_or_default();
    let containers = task.containers();
    if reason.contains("Spot Task was interrupted") {
        return Exit::Reclaimed;
    }
    match task.stop_code() {
        Some(sdk::TaskStopCode::SpotInterruption) => Exit::Reclaimed,
        Some(sdk::TaskStopCode::UserInitiated) if reason.starts_with(STOPPED_BY_US) => Exit::Deleted,
        Some(
            sdk::TaskStopCode::UserInitiated
            | sdk::TaskStopCode::ServiceSchedulerInitiated
            | sdk::TaskStopCode::TerminationNotice,
        ) => Exit::Lost { reason: reason.to_owned() },
        Some(sdk::TaskStopCode::TaskFailedToStart) => {
            // An init container that failed is no fault of the cloud's.
            let failed = containers.iter().filter_map(sdk::Container::exit_code).find(|code| *code != 0);
            failed.map_or_else(|| not_started(task), |code| Exit::Finished { code })
        }
        _ => match (exit_code(containers, essential), task.started_at()) {
            (Some(code), _) => Exit::Finished { code },
            (None, None) if !reason.is_empty() => not_started(task),
            (None, _) => Exit::Lost { reason: reason.to_owned() },
        },
    }
}

/// The first code that is not zero of those that count, then of all; zero if all that count have ended with it.
fn exit_code(containers: &[sdk::Container], essential: Option<&[String]>) -> Option<i32> {
    let counts = |container: &&sdk::Container| {
        essential.is_none_or(|names| container.name().is_some_and(|name| names.iter().any(|essential| essential == name)))
    };
    let mut codes = containers.iter().filter(counts).map(sdk::Container::exit_code);
    let failed = codes.clone().flatten().find(|code| *code != 0);
    if failed.is_some() {
        return failed;
    }
    if codes.clone().next().is_some() && codes.all(|code| code == Some(0)) {
        return Some(0);
    }
    containers.iter().filter_map(sdk::Container::exit_code).find(|code| *code != 0)
}

fn not_started(task: &sdk::Task) -> Exit {
    // The containers' reasons are the more telling ones; the task's often only names the container.
    let told = task.containers().iter().filter_map(sdk::Container::reason).find(|reason| !reason.is_empty());
    let stopped = task.stopped_reason().unwrap_or_default();
    let reason = match told {
        Some(told) if !stopped.contains(told) => format!("{stopped}; {told}"),
        _ => stopped.to_owned(),
    };
    Exit::NotStarted { cause: start_failure(&reason), reason }
}

fn remote_container(container: &sdk::Container, task: &sdk::Task) -> Option<RemoteContainer> {
    let started_at = task.started_at().map(time);
    let reason = container.reason().unwrap_or_default();
    let state = match (container.last_status(), container.exit_code()) {
        (Some("RUNNING"), _) => ContainerState::Running { started_at },
        (Some("STOPPED"), Some(code)) => ContainerState::Terminated {
            code,
            reason: container_reason(reason).unwrap_or(if code == 0 { "Completed" } else { "Error" }).to_owned(),
            started_at,
            finished_at: task.execution_stopped_at().or(task.stopped_at()).map(time),
        },
        _ => ContainerState::Waiting { reason: container_reason(reason).unwrap_or_default().to_owned() },
    };
    let ready = match container.health_status() {
        Some(sdk::HealthStatus::Healthy) => Some(true),
        Some(sdk::HealthStatus::Unhealthy) => Some(false),
        _ => None,
    };
    Some(RemoteContainer {
        name: container.name()?.into(),
        state,
        restarts: 0,
        ready,
        image_digest: container.image_digest().map(Arc::from),
    })
}

fn address(task: &sdk::Task) -> Option<IpAddr> {
    let interfaces = task.containers().iter().flat_map(sdk::Container::network_interfaces);
    let of_containers = interfaces.filter_map(sdk::NetworkInterface::private_ipv4_address);
    let details = task.attachments().iter().flat_map(sdk::Attachment::details);
    let of_task = details.filter(|detail| detail.name() == Some("privateIPv4Address")).filter_map(sdk::KeyValuePair::value);
    of_containers.chain(of_task).find_map(|address| address.parse().ok())
}

fn time(time: &DateTime) -> Timestamp {
    Timestamp::from_millis(time.to_millis().unwrap_or(0))
}

#[cfg(test)]
mod tests;
