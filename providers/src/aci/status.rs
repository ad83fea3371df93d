//! From a container group to a remote pod.

use std::net::IpAddr;

use policy::{Shape, Timestamp};

use super::failure::start_failure;
use super::tags;
use super::wire::{ContainerView, Event, GroupView, State};
use crate::{ContainerState, Exit, RemoteContainer, RemoteId, RemotePhase, RemotePod, StartFailure};

/// The pod of a group that Azure has just shown; `None` if its tags do not say which pod it is. `now` dates an end that
/// Azure does not date.
pub(super) fn remote_pod(group: &GroupView, now: Timestamp) -> Option<RemotePod> {
    let (namespace, name) = tags::pod(group)?;
    let created_at = tags::created(group).unwrap_or(now);
    let history = History::of(group);
    let exit = exit(group, &history);
    let phase = match (&exit, state(group)) {
        (Some(_), _) => RemotePhase::Stopped,
        (None, "Running") => RemotePhase::Running,
        (None, _) if history.pull_started_at.is_some() => RemotePhase::Pulling,
        (None, _) => RemotePhase::Pending,
    };
    Some(RemotePod {
        id: RemoteId::new(group.name.as_str()),
        uid: tags::uid(group)?,
        namespace: namespace.into(),
        name: name.into(),
        shape: shape(group),
        phase,
        created_at,
        pull_started_at: history.pull_started_at,
        started_at: history.started_at,
        stopped_at: exit.is_some().then(|| history.stopped_at.unwrap_or(now)),
        exit,
        address: address(group),
        containers: containers(group).map(remote_container).collect(),
    })
}

/// How far Azure's own work on a group is; also lists show it.
pub(super) fn provisioning(group: &GroupView) -> &str {
    &group.properties.provisioning_state
}

/// Times of a group, gathered from its containers.
struct History {
    pull_started_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    stopped_at: Option<Timestamp>,
}

impl History {
    fn of(group: &GroupView) -> History {
        let pulls =
            events(group).filter(|event| event.name == "Pulling").filter_map(|event| time(event.first_timestamp.as_ref()));
        let states = || group.properties.containers.iter().flat_map(states);
        let ends = group.properties.containers.iter().filter_map(current).filter_map(|state| time(state.finish_time.as_ref()));
        History {
            pull_started_at: pulls.min(),
            started_at: states().filter_map(|state| time(state.start_time.as_ref())).min(),
            stopped_at: ends.max(),
        }
    }
}

/// How a group ended, if it did.
fn exit(group: &GroupView, history: &History) -> Option<Exit> {
    match provisioning(group) {
        "Deleting" => return Some(Exit::Deleted),
        "Failed" | "Canceled" => return Some(never_started(group)),
        _ => {}
    }
    match state(group) {
        "Succeeded" => Some(Exit::Finished { code: code(group).unwrap_or(0) }),
        "Failed" | "Terminated" => match code(group) {
            Some(code) => Some(Exit::Finished { code }),
            None if history.started_at.is_none() => Some(never_started(group)),
            None => Some(Exit::Lost { reason: reason(group) }),
        },
        // Nobody but a human stops a group and keeps it.
        "Stopped" => {
            Some(code(group).map_or_else(
                || Exit::Lost { reason: "the container group was stopped".to_owned() },
                |code| Exit::Finished { code },
            ))
        }
        "Pending" if reclaimed(group) => Some(Exit::Reclaimed),
        _ => None,
    }
}

/// Azure does not let an evicted Spot group fail: it waits for other capacity and starts from nothing. For its owner it is
/// gone, and a replacement may run somewhere else at once. A container that waits for its next restart looks alike but for its
/// end, which Azure shows as the previous state.
fn reclaimed(group: &GroupView) -> bool {
    let spot = group.properties.priority.as_deref() == Some("Spot");
    let waits = |container: &ContainerView| {
        let Some(view) = &container.properties.instance_view else { return false };
        let waiting = view.current_state.as_ref().is_none_or(|state| state.state == "Waiting");
        let restarting = view.previous_state.as_ref().is_some_and(|state| state.exit_code.is_some());
        let ran = view.events.iter().any(|event| event.name == "Started");
        waiting && ran && !restarting
    };
    spot && !group.properties.containers.is_empty() && group.properties.containers.iter().all(waits)
}

fn never_started(group: &GroupView) -> Exit {
    let reason = reason(group);
    let cause = start_failure(&reason);
    // A container that started and failed at once is not what kept the group from starting.
    let cause = if cause == StartFailure::Unknown && code(group).is_some() { StartFailure::Container } else { cause };
    Exit::NotStarted { cause, reason }
}

/// The last warning, which tells most; the group's state where there is none.
fn reason(group: &GroupView) -> String {
    const REASON_BYTES: usize = 1024;
    let own = group.properties.instance_view.iter().flat_map(|view| &view.events);
    let warnings = events(group).chain(own).filter(|event| event.kind == "Warning" || event.name.starts_with("Failed"));
    // Of equal times the later one in the list, so a plain loop over times would do; texts of times compare as times.
    let last = warnings.max_by(|one, other| one.first_timestamp.cmp(&other.first_timestamp));
    let mut reason = last.map_or_else(|| format!("provisioning state {}", provisioning(group)), |event| event.message.clone());
    let end = (0..=REASON_BYTES.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    reason.truncate(end);
    reason
}

/// The first exit code that is not zero, or zero; `None` if no container has ended.
fn code(group: &GroupView) -> Option<i32> {
    let mut codes = containers(group).filter_map(current).filter_map(|state| state.exit_code).peekable();
    codes.peek()?;
    Some(codes.find(|code| *code != 0).unwrap_or(0))
}

fn shape(group: &GroupView) -> Shape {
    const GB: f64 = 1e9;
    let requests = || group.properties.containers.iter().filter_map(|container| container.properties.resources.as_ref());
    Shape {
        cpu_millis: requests().map(|resources| whole(resources.requests.cpu, 1000.0)).sum(),
        memory_bytes: requests().map(|resources| whole(resources.requests.memory_gb, GB)).sum(),
        ephemeral_bytes: 0,
    }
}

/// A decimal of Azure's in whole units. Far beyond any size that there is, it stops.
pub(super) fn whole(decimal: f64, units: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "bounded on both sides just before")]
    let whole = (decimal * units).round().clamp(0.0, 1e15) as i64;
    whole
}

fn address(group: &GroupView) -> Option<IpAddr> {
    group.properties.ip_address.as_ref()?.ip.as_ref()?.parse().ok()
}

fn remote_container(container: &ContainerView) -> RemoteContainer {
    let view = container.properties.instance_view.as_ref();
    RemoteContainer {
        name: container.name.as_str().into(),
        state: container_state(current(container), view.map_or(&[], |view| &view.events)),
        restarts: view.map_or(0, |view| view.restart_count),
        ready: None,
        image_digest: None,
    }
}

fn container_state(state: Option<&State>, events: &[Event]) -> ContainerState {
    let Some(state) = state else { return ContainerState::Waiting { reason: String::new() } };
    let detail = state.detail_status.clone().unwrap_or_default();
    let started_at = time(state.start_time.as_ref());
    match (state.state.as_str(), state.exit_code) {
        ("Running", _) => ContainerState::Running { started_at },
        ("Terminated", code) => {
            // An end without a code was no good end.
            let code = code.unwrap_or(-1);
            let word = if code == 0 { "Completed" } else { "Error" };
            let reason = if detail.is_empty() { word.to_owned() } else { detail };
            ContainerState::Terminated { code, reason, started_at, finished_at: time(state.finish_time.as_ref()) }
        }
        _ => {
            let image = events.iter().any(|event| start_failure(&event.message) == StartFailure::Image);
            let reason = match detail.is_empty() {
                true if image => "ImagePullBackOff".to_owned(),
                _ => detail,
            };
            ContainerState::Waiting { reason }
        }
    }
}

/// Init containers first, as they run.
fn containers(group: &GroupView) -> impl Iterator<Item = &ContainerView> {
    group.properties.init_containers.iter().chain(&group.properties.containers)
}

fn events(group: &GroupView) -> impl Iterator<Item = &Event> {
    containers(group).filter_map(|container| container.properties.instance_view.as_ref()).flat_map(|view| &view.events)
}

fn current(container: &ContainerView) -> Option<&State> {
    container.properties.instance_view.as_ref()?.current_state.as_ref()
}

fn states(container: &ContainerView) -> impl Iterator<Item = &State> {
    let view = container.properties.instance_view.as_ref();
    view.into_iter().flat_map(|view| view.previous_state.iter().chain(&view.current_state))
}

fn state(group: &GroupView) -> &str {
    group.properties.instance_view.as_ref().map_or("", |view| &view.state)
}

fn time(text: Option<&String>) -> Option<Timestamp> {
    let time: jiff::Timestamp = text?.parse().ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

#[cfg(test)]
mod tests;
