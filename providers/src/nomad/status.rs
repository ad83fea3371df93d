//! From a job and its allocation to a pod.

use std::net::IpAddr;
use std::sync::Arc;

use policy::{Shape, Timestamp};

use super::translation::{META_CLUSTER, META_NAME, META_NAMESPACE, META_SHAPE, META_UID, META_VIRTUAL_NODE};
use super::wire::{Allocation, JobStub, TaskEvent, TaskState};
use crate::{ContainerState, Exit, Ownership, PodUid, RemoteContainer, RemoteId, RemotePhase, RemotePod, StartFailure};

/// Whether a job was made for this owner.
pub(super) fn belongs(job: &JobStub, owner: &Ownership) -> bool {
    let is = |key: &str, value: &str| job.meta.get(key).is_some_and(|meta| meta == value);
    is(META_CLUSTER, &owner.cluster) && is(META_VIRTUAL_NODE, &owner.virtual_node)
}

/// A pod whose job has been accepted, and of which nothing else is known yet.
pub(super) fn pending(
    job: &str,
    uid: PodUid,
    namespace: Arc<str>,
    name: Arc<str>,
    shape: Shape,
    created_at: Timestamp,
) -> RemotePod {
    RemotePod {
        id: RemoteId::new(job),
        uid,
        namespace,
        name,
        shape,
        phase: RemotePhase::Pending,
        created_at,
        pull_started_at: None,
        started_at: None,
        stopped_at: None,
        exit: None,
        address: None,
        containers: Vec::new(),
    }
}

/// The pod of a job; `None` for a job that no pod was translated to.
pub(super) fn remote_pod(job: &JobStub, allocations: &[Allocation]) -> Option<RemotePod> {
    let text = |key: &str| job.meta.get(key).map(|value| Arc::<str>::from(value.as_str()));
    let created_at = from_nanos(job.submit_time);
    let (uid, shape) = (PodUid::new(text(META_UID)?), shape(job.meta.get(META_SHAPE)?)?);
    let mut pod = pending(&job.id, uid, text(META_NAMESPACE)?, text(META_NAME)?, shape, created_at);
    let Some(allocation) = latest(allocations) else {
        // Stopped before it was placed.
        if job.stop {
            pod.phase = RemotePhase::Stopped;
            pod.stopped_at = Some(created_at);
            pod.exit = Some(Exit::Deleted);
        }
        return Some(pod);
    };
    // Clocks of servers and clients differ.
    let not_before = |at: Timestamp| at.max(created_at);
    let main = || allocation.task_states.iter().filter(|(name, _)| is_main(allocation, name)).map(|(_, state)| state);
    let received = allocation.task_states.values().filter_map(|state| event(state, &["Received"])).map(|event| event.time).min();
    pod.pull_started_at = received.map(|time| not_before(from_nanos(time)));
    pod.started_at = main().filter_map(|state| parse(state.started_at.as_ref())).min().map(not_before);
    pod.address = allocation.network_status.address.parse::<IpAddr>().ok();
    pod.containers = allocation.task_states.iter().map(|(name, state)| container(name, state)).collect();
    if is_terminal(allocation) {
        let ends = allocation.task_states.values().filter_map(|state| parse(state.finished_at.as_ref()));
        let end = ends.max().unwrap_or_else(|| from_nanos(allocation.modify_time));
        pod.phase = RemotePhase::Stopped;
        pod.stopped_at = Some(not_before(end).max(pod.started_at.unwrap_or(created_at)));
        pod.exit = Some(exit(job, allocation));
    } else if allocation.client_status != "pending" {
        // `unknown` is a client that has gone silent: its tasks go on as far as anybody knows.
        pod.phase = RemotePhase::Running;
    } else if received.is_some() {
        pod.phase = RemotePhase::Pulling;
    }
    Some(pod)
}

/// The allocation that counts, should a client that was lost have left an older one.
pub(super) fn latest(allocations: &[Allocation]) -> Option<&Allocation> {
    allocations.iter().max_by_key(|allocation| allocation.create_index)
}

/// Whether nothing of an allocation runs any more.
pub(super) fn is_terminal(allocation: &Allocation) -> bool {
    matches!(allocation.client_status.as_str(), "complete" | "failed" | "lost")
}

/// Whether a task is over, or the allocation does not have it.
pub(super) fn has_ended(allocation: &Allocation, task: &str) -> bool {
    is_terminal(allocation) || allocation.task_states.get(task).is_some_and(|state| state.state == "dead")
}

fn is_main(allocation: &Allocation, task: &str) -> bool {
    !matches!(allocation.allocated_resources.task_lifecycles.get(task), Some(Some(_)))
}

fn is_sidecar(allocation: &Allocation, task: &str) -> bool {
    let lifecycle = allocation.allocated_resources.task_lifecycles.get(task);
    lifecycle.and_then(Option::as_ref).is_some_and(|lifecycle| lifecycle.sidecar)
}

fn exit(job: &JobStub, allocation: &Allocation) -> Exit {
    let reason = || {
        let words = [&allocation.client_description, &allocation.desired_description];
        words.into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_else(|| "Nomad gives no reason".to_owned())
    };
    if !allocation.preempted_by_allocation.is_empty() || allocation.desired_status == "evict" {
        return Exit::Reclaimed;
    }
    if allocation.client_status == "lost" {
        return Exit::Lost { reason: reason() };
    }
    if job.stop {
        return Exit::Deleted;
    }
    if allocation.desired_status == "stop" {
        // Not by us: its client was drained, or an operator stopped it.
        return Exit::Lost { reason: reason() };
    }
    let mut codes: Vec<(Option<Timestamp>, i32)> = Vec::new();
    for (name, state) in &allocation.task_states {
        if let (false, Some(code)) = (is_sidecar(allocation, name), code(state)) {
            codes.push((parse(state.finished_at.as_ref()), code));
        }
    }
    codes.sort_unstable();
    if let Some((_, code)) = codes.iter().find(|(_, code)| *code != 0) {
        return Exit::Finished { code: *code };
    }
    if let Some((cause, reason)) = allocation.task_states.values().find_map(start_failure) {
        return Exit::NotStarted { cause, reason };
    }
    if allocation.client_status == "complete" {
        return Exit::Finished { code: 0 };
    }
    Exit::NotStarted { cause: StartFailure::Unknown, reason: reason() }
}

/// Why a task never ran, if so.
fn start_failure(state: &TaskState) -> Option<(StartFailure, String)> {
    let found = event(state, &["Driver Failure", "Setup Failure", "Failed Validation", "Failed Artifact Download", "Failed"])?;
    let cause = match found.kind.as_str() {
        // The docker driver tells what went wrong in words only.
        "Driver Failure" if found.display_message.to_ascii_lowercase().contains("pull") => StartFailure::Image,
        "Driver Failure" => StartFailure::Container,
        _ => StartFailure::Configuration,
    };
    Some((cause, found.display_message.clone()))
}

/// The exit code of a task that has ended for good.
fn code(state: &TaskState) -> Option<i32> {
    if state.state != "dead" {
        return None;
    }
    event(state, &["Terminated"])?.details.get("exit_code")?.parse().ok()
}

/// The last event of one of these kinds.
fn event<'a>(state: &'a TaskState, kinds: &[&str]) -> Option<&'a TaskEvent> {
    state.events.iter().rev().find(|event| kinds.contains(&event.kind.as_str()))
}

fn container(name: &str, state: &TaskState) -> RemoteContainer {
    let started_at = parse(state.started_at.as_ref());
    let state_now = match state.state.as_str() {
        "running" => ContainerState::Running { started_at },
        "dead" => ended(state, started_at),
        _ => ContainerState::Waiting { reason: waiting(state) },
    };
    RemoteContainer { name: name.into(), state: state_now, restarts: state.restarts, ready: None, image_digest: None }
}

fn ended(state: &TaskState, started_at: Option<Timestamp>) -> ContainerState {
    let finished_at = parse(state.finished_at.as_ref());
    let Some(code) = code(state) else {
        // Killed before it ran, or it could not run.
        let reason = match start_failure(state) {
            Some((StartFailure::Image, _)) => "ErrImagePull",
            Some(_) => "ContainerCannotRun",
            None => "Error",
        };
        return ContainerState::Terminated { code: 128, reason: reason.to_owned(), started_at, finished_at };
    };
    let out_of_memory =
        event(state, &["Terminated"]).is_some_and(|event| event.details.get("oom_killed").is_some_and(|value| value == "true"));
    let reason = match code {
        _ if out_of_memory => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    };
    ContainerState::Terminated { code, reason: reason.to_owned(), started_at, finished_at }
}

fn waiting(state: &TaskState) -> String {
    match state.events.last().map(|event| event.kind.as_str()) {
        Some("Restarting") => "CrashLoopBackOff",
        Some("Received" | "Task Setup" | "Driver") => "ContainerCreating",
        _ => "",
    }
    .to_owned()
}

fn shape(text: &str) -> Option<Shape> {
    let mut numbers = text.split('/').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Shape { cpu_millis: next()?, memory_bytes: next()?, ephemeral_bytes: next()? })
}

fn from_nanos(nanos: i64) -> Timestamp {
    Timestamp::from_millis(nanos.div_euclid(1_000_000))
}

fn parse(text: Option<&String>) -> Option<Timestamp> {
    let time: jiff::Timestamp = text?.parse().ok()?;
    // Go's zero time.
    (time.as_second() > 0).then(|| Timestamp::from_millis(time.as_millisecond()))
}

#[cfg(test)]
mod tests;
