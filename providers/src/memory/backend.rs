//! The cloud itself.

use std::collections::BTreeMap;

use policy::virtual_node::{Limits, Usage};
use policy::{Money, Timestamp};

use super::billing::charge;
use super::{Fault, FaultWindow, Settings};
use crate::{
    Error, ErrorKind, Exit, Health, LogQuery, Observation, Operation, PodRequest, PodUid, RemoteId, RemotePhase, RemotePod,
    TokenBucket,
};

/// A cloud in memory. The same calls at the same times give the same answers.
#[derive(Clone, Debug)]
pub struct Backend {
    settings: Settings,
    creates: TokenBucket,
    faults: Vec<FaultWindow>,
    calls: u64,
    pods: BTreeMap<PodUid, Held>,
    /// What runs, kept with `pods` so that a quota check does not walk them; `settle` ends what has ended.
    usage: Usage,
    /// Ends that are already certain, by time, still to be taken out of `usage`.
    ends: BTreeMap<(Timestamp, PodUid), ()>,
}

/// What was accepted, and what has been certain about it since.
#[derive(Clone, Debug)]
struct Held {
    request: PodRequest,
    created_at: Timestamp,
    pull_at: Timestamp,
    run_at: Timestamp,
    end: Option<(Timestamp, Exit)>,
}

impl Backend {
    /// An empty cloud.
    pub fn new(settings: Settings) -> Backend {
        let creates = TokenBucket::new(settings.creates);
        Backend {
            settings,
            creates,
            faults: Vec::new(),
            calls: 0,
            pods: BTreeMap::new(),
            usage: Usage::default(),
            ends: BTreeMap::new(),
        }
    }

    /// What it is like.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes the quota, as a cloud's operator does.
    pub fn set_quota(&mut self, quota: Limits) {
        self.settings.quota = quota;
    }

    /// Lets something go wrong.
    pub fn inject(&mut self, window: FaultWindow) {
        self.faults.push(window);
    }

    /// Ends every fault.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Quota, usage, health and prices.
    pub fn observe(&mut self, now: Timestamp) -> Result<Observation, Error> {
        self.settle(now);
        self.answerable(Operation::Observe, now)?;
        let no_capacity = self.faults.iter().any(|window| window.is_active(now) && window.fault == Fault::NoCapacity);
        let health = if no_capacity { Health::Degraded { reason: "no capacity".to_owned() } } else { Health::Healthy };
        Ok(Observation {
            at: now,
            quota: self.settings.quota,
            usage: self.usage,
            largest_pod: Limits::default(),
            health,
            prices: Some(self.settings.prices),
        })
    }

    /// Accepts a pod. A UID that is known is answered with what is there.
    pub fn create(&mut self, request: &PodRequest, now: Timestamp) -> Result<RemotePod, Error> {
        self.settle(now);
        self.answerable(Operation::Create, now)?;
        if let Some(held) = self.pods.get(&request.uid) {
            return Ok(held.at(now));
        }
        self.creates.take(now).map_err(|wait| self.error(ErrorKind::Throttled { retry_after: Some(wait) }, Operation::Create))?;
        if request.containers.is_empty() || request.shape.cpu_millis <= 0 || request.shape.memory_bytes <= 0 {
            return Err(self.error(ErrorKind::Invalid, Operation::Create));
        }
        self.check_room(request, now)?;
        let (pull_at, run_at) = self.settings.start.schedule(&request.uid, request.image_bytes, now);
        let mut held = Held { request: request.clone(), created_at: now, pull_at, run_at, end: None };
        let mut answer_lost = false;
        for window in self.faults.iter().filter(|window| window.is_active(now)) {
            match &window.fault {
                Fault::FailAfterAcceptance { after, cause, reason } => {
                    held.end = Some((now + *after, Exit::NotStarted { cause: *cause, reason: reason.clone() }));
                }
                Fault::LostAnswer => answer_lost = true,
                Fault::Throttle { .. } | Fault::Outage | Fault::PartialOutage { .. } | Fault::Denied | Fault::NoCapacity => {}
            }
        }
        if let Some((at, _)) = &held.end {
            self.ends.insert((*at, request.uid.clone()), ());
        }
        self.usage.cpu_millis += request.shape.cpu_millis;
        self.usage.memory_bytes += request.shape.memory_bytes;
        self.usage.pods += 1;
        let accepted = held.at(now);
        self.pods.insert(request.uid.clone(), held);
        if answer_lost { Err(self.error(ErrorKind::Unavailable, Operation::Create)) } else { Ok(accepted) }
    }

    /// One pod.
    pub fn get(&mut self, uid: &PodUid, now: Timestamp) -> Result<RemotePod, Error> {
        self.settle(now);
        self.answerable(Operation::Get, now)?;
        self.peek(uid, now).ok_or_else(|| self.error(ErrorKind::NotFound, Operation::Get))
    }

    /// The pods that have not stopped and then those that have, at most `limit`.
    pub fn list(&mut self, limit: usize, now: Timestamp) -> Result<Vec<RemotePod>, Error> {
        self.settle(now);
        self.answerable(Operation::List, now)?;
        let mut pods: Vec<RemotePod> = self.pods.values().map(|held| held.at(now)).collect();
        pods.sort_by_key(|pod| pod.phase == RemotePhase::Stopped);
        pods.truncate(limit);
        Ok(pods)
    }

    /// Ends a pod; `Ok` also when it is gone.
    pub fn delete(&mut self, id: &RemoteId, now: Timestamp) -> Result<(), Error> {
        self.settle(now);
        self.answerable(Operation::Delete, now)?;
        let uid = PodUid::new(id.as_str().strip_prefix(ID_PREFIX).unwrap_or(id.as_str()));
        self.end(&uid, now, Exit::Deleted);
        Ok(())
    }

    /// The output of a container: its arguments, as `echo` would write them. Nothing comes later, so it is not followed.
    pub fn logs(&mut self, id: &RemoteId, query: &LogQuery, now: Timestamp) -> Result<Vec<u8>, Error> {
        self.answerable(Operation::Logs, now)?;
        let uid = PodUid::new(id.as_str().strip_prefix(ID_PREFIX).unwrap_or(id.as_str()));
        let held = self.pods.get(&uid).filter(|held| held.run_at <= now);
        let container = held.and_then(|held| held.request.containers.iter().find(|one| one.name == query.container));
        let container = container.ok_or_else(|| self.error(ErrorKind::NotFound, Operation::Logs))?;
        let mut output = container.arguments.join(" ").into_bytes();
        output.push(b'\n');
        if query.tail_lines == Some(0) {
            output.clear();
        }
        output.truncate(query.limit_bytes.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX));
        Ok(output)
    }

    /// The containers end by themselves: the world's part, a cloud does not know how long a pod runs. Nothing happens to a pod
    /// that does not run at `now`.
    pub fn finish(&mut self, uid: &PodUid, code: i32, now: Timestamp) {
        if self.peek(uid, now).is_some_and(|pod| pod.phase == RemotePhase::Running) {
            self.end(uid, now, Exit::Finished { code });
        }
    }

    /// The cloud takes a machine back.
    pub fn reclaim(&mut self, uid: &PodUid, now: Timestamp) {
        self.end(uid, now, Exit::Reclaimed);
    }

    /// A pod as it is, without a call: for the world that plays the cloud, not for its customers.
    pub fn peek(&self, uid: &PodUid, now: Timestamp) -> Option<RemotePod> {
        self.pods.get(uid).map(|held| held.at(now))
    }

    /// When this pod's phase changes by itself next.
    pub fn next_change_at(&self, uid: &PodUid, now: Timestamp) -> Option<Timestamp> {
        let held = self.pods.get(uid)?;
        let end = held.end.as_ref().map_or(Timestamp::MAX, |(at, _)| *at);
        [held.pull_at.min(end), held.run_at.min(end), end].into_iter().find(|at| *at > now && *at < Timestamp::MAX)
    }

    /// What has been charged for one pod until now.
    pub fn charged(&self, uid: &PodUid, now: Timestamp) -> Money {
        self.pods.get(uid).map_or(Money::ZERO, |held| self.charge(held, now))
    }

    /// The whole bill until now.
    pub fn bill(&self, now: Timestamp) -> Money {
        self.pods.values().map(|held| self.charge(held, now)).sum()
    }

    fn charge(&self, held: &Held, now: Timestamp) -> Money {
        let end = held.end.as_ref().map_or(now, |(at, _)| now.min(*at));
        if end <= held.pull_at {
            return Money::ZERO;
        }
        charge(self.settings.provider, &self.settings.prices, &held.request.shape, end.since(held.pull_at))
    }

    fn end(&mut self, uid: &PodUid, now: Timestamp, exit: Exit) {
        let Some(held) = self.pods.get_mut(uid) else { return };
        if let Some((at, _)) = held.end.take_if(|(at, _)| *at > now) {
            self.ends.remove(&(at, uid.clone()));
        }
        if held.end.is_none() {
            held.end = Some((now, exit));
            self.ends.insert((now, uid.clone()), ());
        }
        self.settle(now);
    }

    /// Takes out of `usage` what has ended by `now`.
    fn settle(&mut self, now: Timestamp) {
        while let Some(entry) = self.ends.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, uid), ()) = entry.remove_entry();
            let held = self.pods.get(&uid).expect("an end is recorded for a held pod only");
            self.usage.cpu_millis -= held.request.shape.cpu_millis;
            self.usage.memory_bytes -= held.request.shape.memory_bytes;
            self.usage.pods -= 1;
        }
        assert!(self.usage.pods >= 0, "a pod ended twice");
    }

    fn check_room(&self, request: &PodRequest, now: Timestamp) -> Result<(), Error> {
        if self.faults.iter().any(|window| window.is_active(now) && window.fault == Fault::NoCapacity) {
            return Err(self.error(ErrorKind::NoCapacity, Operation::Create));
        }
        let quota = self.settings.quota;
        let over = |limit: Option<i64>, used: i64, more: i64| limit.is_some_and(|limit| used.saturating_add(more) > limit);
        if over(quota.cpu_millis, self.usage.cpu_millis, request.shape.cpu_millis)
            || over(quota.memory_bytes, self.usage.memory_bytes, request.shape.memory_bytes)
            || over(quota.pods, self.usage.pods, 1)
        {
            return Err(self.error(ErrorKind::QuotaExceeded, Operation::Create));
        }
        Ok(())
    }

    /// The faults that hit every call.
    fn answerable(&mut self, operation: Operation, now: Timestamp) -> Result<(), Error> {
        self.calls += 1;
        for window in self.faults.iter().filter(|window| window.is_active(now)) {
            let kind = match &window.fault {
                Fault::Throttle { retry_after } => ErrorKind::Throttled { retry_after: *retry_after },
                Fault::Outage => ErrorKind::Unavailable,
                Fault::PartialOutage { one_in } if self.calls.is_multiple_of(u64::from((*one_in).max(1))) => {
                    ErrorKind::Unavailable
                }
                Fault::Denied => ErrorKind::Denied,
                Fault::PartialOutage { .. } | Fault::NoCapacity | Fault::FailAfterAcceptance { .. } | Fault::LostAnswer => {
                    continue;
                }
            };
            return Err(self.error(kind, operation));
        }
        Ok(())
    }

    fn error(&self, kind: ErrorKind, operation: Operation) -> Error {
        Error::new(kind, self.settings.provider.label(), operation)
    }
}

const ID_PREFIX: &str = "memory-";

// === impl Held ===

impl Held {
    fn at(&self, now: Timestamp) -> RemotePod {
        let end = self.end.as_ref().filter(|(at, _)| *at <= now);
        let reached = |at: Timestamp| at <= now && end.is_none_or(|(end, _)| at < *end);
        let phase = match end {
            Some(_) => RemotePhase::Stopped,
            None if reached(self.run_at) => RemotePhase::Running,
            None if reached(self.pull_at) => RemotePhase::Pulling,
            None => RemotePhase::Pending,
        };
        RemotePod {
            id: RemoteId::new(format!("{ID_PREFIX}{}", self.request.uid)),
            uid: self.request.uid.clone(),
            namespace: self.request.namespace.clone(),
            name: self.request.name.clone(),
            shape: self.request.shape,
            phase,
            created_at: self.created_at,
            pull_started_at: reached(self.pull_at).then_some(self.pull_at),
            started_at: reached(self.run_at).then_some(self.run_at),
            stopped_at: end.map(|(at, _)| *at),
            exit: end.map(|(_, exit)| exit.clone()),
            address: None,
            containers: Vec::new(),
        }
    }
}
