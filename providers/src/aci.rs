//! Azure Container Instances, through Azure Resource Manager.
//!
//! A pod is a container group whose name is a hash of the pod's UID and whose tags say whose it is. Two things of Azure shape
//! all of this: lists are thin and reads are counted ([`reads`]), and a group is accepted long before anybody knows whether it
//! will run ([`status`]).

mod arm;
mod exec;
mod failure;
mod logs;
mod prices;
mod reads;
mod settings;
mod shares;
mod status;
mod tags;
mod translation;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use policy::Timestamp;
use policy::virtual_node::{CapacityType, Limits, Prices, Usage};
use sha2::{Digest, Sha256};

use crate::TokenBucket;
use crate::{
    Clock, Error, ErrorKind, ExecRequest, ExecSession, Exit, Health, LogQuery, LogStream, Observation, Operation, Platform,
    PodRequest, PodUid, Provider, RemoteId, RemotePhase, RemotePod,
};

use arm::Arm;
use logs::Follower;
use reads::ReadPlan;
use wire::{CapabilityEntry, GroupView, UsageEntry};

pub use failure::{ArmError, QuotaReached};
pub use settings::{API_VERSION, Access, CREATES, Credential, InvalidSettings, Pace, READS_PER_HOUR, Settings};
pub use translation::translate;

/// Azure as a provider.
#[derive(Clone)]
pub struct Aci {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    arm: Arm,
    access: Access,
    prices: reqwest::Client,
    clock: Clock,
    state: Mutex<State>,
}

/// What is remembered between calls. All of it can be had again from Azure.
struct State {
    plan: ReadPlan,
    creates: TokenBucket,
    /// By name of the group, as last read.
    pods: BTreeMap<String, Seen>,
    /// Names of groups that are being made at this moment.
    making: BTreeSet<String>,
    largest: Option<(Timestamp, Limits)>,
    prices: Option<(Timestamp, Option<Prices>)>,
}

struct Seen {
    pod: RemotePod,
    /// When we made it; a list or a read may not show it yet.
    made_at: Option<Timestamp>,
    /// When Azure accepted its end; a list may still show it alive.
    deleted_at: Option<Timestamp>,
}

/// Azure is eventually consistent: for so long after a PUT "not found" says nothing.
const SETTLING: Duration = Duration::from_secs(60);
/// Groups read at the same time.
const READS_AT_ONCE: usize = 8;
/// Capabilities of a location change with Azure's releases.
const LARGEST_AGE: Duration = Duration::from_secs(6 * 3600);
/// Prices change on the first of a month, mostly.
const PRICES_AGE: Duration = Duration::from_secs(12 * 3600);
/// After prices could not be read.
const PRICES_PAUSE: Duration = Duration::from_secs(600);
const NAME: &str = "aci";

// === impl Aci ===

impl Aci {
    /// A backend with these settings, reached in this way. Calls nobody yet.
    pub fn new(settings: Settings, access: Access, clock: Clock) -> Result<Aci, InvalidSettings> {
        settings.check()?;
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let prices = client.map_err(|error| InvalidSettings { field: "retailPrices", problem: error.to_string() })?;
        let state = State {
            plan: ReadPlan::new(settings.reads_per_hour),
            creates: TokenBucket::new(settings.creates),
            pods: BTreeMap::new(),
            making: BTreeSet::new(),
            largest: None,
            prices: None,
        };
        let arm = Arm::new(&settings, &access);
        Ok(Aci { shared: Arc::new(Shared { settings, arm, access, prices, clock, state: Mutex::new(state) }) })
    }

    /// Name of the group of a pod. Its UID is in it, so a pod made again under its name gets another group; the virtual node
    /// is in it, so that two of them in one resource group never meet.
    fn name_of(&self, uid: &PodUid) -> String {
        let mut hash = Sha256::new();
        for part in [&*self.shared.settings.ownership.cluster, &*self.shared.settings.ownership.virtual_node, uid.as_str()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        digest.iter().take(20).fold(String::from("spillway-"), |name, byte| name + &format!("{byte:02x}"))
    }

    fn now(&self) -> Timestamp {
        (self.shared.clock)()
    }

    /// Not to be held across a call.
    fn state(&self) -> MutexGuard<'_, State> {
        // What is remembered is right as far as it goes, also after a panic between two lines.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pays for a read that somebody waits for.
    fn ask(&self, operation: Operation) -> Result<(), Error> {
        let now = self.now();
        self.state().plan.ask(now).map_err(|wait| error(ErrorKind::Throttled { retry_after: Some(wait) }, operation))
    }

    /// Looks at one group; `None` if Azure has none of that name.
    async fn look(&self, operation: Operation, name: &str) -> Result<Option<GroupView>, Error> {
        match self.shared.arm.get(operation, name).await {
            Ok(group) => Ok(Some(group)),
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Remembers what was just read of a group of ours.
    fn saw(&self, group: &GroupView) -> Option<RemotePod> {
        let now = self.now();
        let pod = status::remote_pod(group, now)?;
        let mut state = self.state();
        let before = state.pods.get(&group.name);
        let changed = before.is_none_or(|before| before.pod != pod);
        let over = pod.phase == RemotePhase::Stopped;
        let deleted_at = before.and_then(|before| before.deleted_at);
        let made_at = before.and_then(|before| before.made_at);
        state.plan.read(&group.name, changed, over, now);
        let seen = Seen { pod, made_at, deleted_at };
        let shown = seen.shown();
        state.pods.insert(group.name.clone(), seen);
        Some(shown)
    }

    /// A read of this group found nothing. Something that was made a moment ago may only not be visible yet.
    fn missed(&self, name: &str) -> Option<RemotePod> {
        let now = self.now();
        let mut state = self.state();
        let seen = state.pods.get(name)?;
        if seen.settling(now) {
            return Some(seen.pod.clone());
        }
        state.pods.remove(name);
        None
    }

    /// Reads the list if it is time to, and the groups that need it. What is not read is shown as it was read last.
    async fn refresh(&self) -> Result<(), Error> {
        let now = self.now();
        let due = self.state().plan.list(now);
        if due {
            let (groups, pages) = self.shared.arm.list().await?;
            self.listed(&groups, pages);
        } else if self.state().plan.never_listed() {
            return Err(error(ErrorKind::Throttled { retry_after: None }, Operation::List));
        }
        let names = self.state().plan.due(now);
        let reads = stream::iter(names).map(|name| async move {
            let answer = self.look(Operation::List, &name).await;
            (name, answer)
        });
        let answers: Vec<_> = reads.buffer_unordered(READS_AT_ONCE).collect().await;
        for (name, answer) in answers {
            match answer {
                Ok(Some(group)) => {
                    self.saw(&group);
                }
                Ok(None) => {
                    self.missed(&name);
                }
                // What keeps every read from working is told; one group that cannot be read must not hide the others, and is read
                // again next time.
                Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Throttled { .. }) => return Err(error),
                Err(error) => {
                    let source = error.source.map(|source| source.to_string()).unwrap_or_default();
                    tracing::debug!(group = &*name, source, "cannot be read");
                }
            }
        }
        Ok(())
    }

    fn listed(&self, groups: &[GroupView], pages: u32) {
        let now = self.now();
        let own = || groups.iter().filter(|group| tags::owned(group, &self.shared.settings.ownership));
        let mut state = self.state();
        state.plan.listed(own().map(|group| (group.name.as_str(), status::provisioning(group))), pages, now);
        let names: BTreeSet<&str> = own().map(|group| group.name.as_str()).collect();
        state.pods.retain(|name, seen| names.contains(name.as_str()) || seen.settling(now));
        for group in own() {
            // A thin view at least says that it is there, whose it is and how large, should there be no read left for it.
            if !state.pods.contains_key(&group.name)
                && let Some(pod) = status::remote_pod(group, now)
            {
                state.pods.insert(group.name.clone(), Seen { pod, made_at: None, deleted_at: None });
            }
        }
    }

    /// Whether an existing group is this pod's.
    fn adopt(&self, group: &GroupView, uid: &PodUid) -> Result<RemotePod, Error> {
        let own = tags::owned(group, &self.shared.settings.ownership) && tags::uid(group).as_ref() == Some(uid);
        let conflict =
            || error(ErrorKind::Conflict, Operation::Create).because("a container group of that name is not this pod's");
        if own { self.saw(group).ok_or_else(conflict) } else { Err(conflict()) }
    }

    async fn make(&self, name: &str, request: &PodRequest) -> Result<RemotePod, Error> {
        let refused = |refusal: policy::capability::Refusal| {
            error(ErrorKind::Invalid, Operation::Create).because(format!("{}: {}", refusal.rule, refusal.sentence))
        };
        let mut group = translate(request, &self.shared.settings).map_err(refused)?;
        self.ask(Operation::Create)?;
        if let Some(group) = self.look(Operation::Create, name).await? {
            return self.adopt(&group, &request.uid);
        }
        if let Some(pod) = self.missed(name) {
            return Ok(pod);
        }
        let now = self.now();
        let admitted = self.state().creates.take(now);
        admitted.map_err(|wait| error(ErrorKind::Throttled { retry_after: Some(wait) }, Operation::Create))?;
        tags::date(&mut group.tags, now);
        let made = self.shared.arm.put(name, &group).await?;
        let pod = self.adopt(&made, &request.uid)?;
        if let Some(seen) = self.state().pods.get_mut(name) {
            seen.made_at = Some(now);
        }
        Ok(pod)
    }

    async fn largest(&self) -> Result<Limits, Error> {
        let now = self.now();
        if let Some((at, largest)) = self.state().largest
            && now.since(at) < LARGEST_AGE
        {
            return Ok(largest);
        }
        self.ask(Operation::Observe)?;
        let largest = largest_pod(&self.shared.arm.capabilities().await?, self.shared.settings.subnet_id.is_some());
        self.state().largest = Some((now, largest));
        Ok(largest)
    }

    /// Prices are good to have: that they cannot be read now is no reason to know nothing else.
    async fn prices(&self) -> Option<Prices> {
        let now = self.now();
        if let Some((at, prices)) = self.state().prices
            && now.since(at) < if prices.is_some() { PRICES_AGE } else { PRICES_PAUSE }
        {
            return prices;
        }
        let Shared { prices: client, access, settings, .. } = &*self.shared;
        let read = prices::read(client, &access.retail_prices, settings, now).await;
        let read = read.unwrap_or_else(|error| {
            let source = error.source.map(|source| source.to_string()).unwrap_or_default();
            tracing::warn!(location = settings.location, source, "prices cannot be read");
            None
        });
        let mut state = self.state();
        // Old prices say their age; none say nothing.
        let kept = read.or_else(|| state.prices.and_then(|(_, before)| before)).or_else(|| built_in(settings));
        state.prices = Some((if read.is_some() { now } else { retry_at(now, kept.is_some()) }, kept));
        kept
    }

    /// Waits for more of a container's output; `None` is its end.
    async fn more(&self, id: &RemoteId, follower: &mut Follower) -> Result<Option<Vec<u8>>, Error> {
        let container = follower.container();
        loop {
            tokio::time::sleep(follower.pause()).await;
            let bytes = follower.take(self.output(id, &container).await?);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
            if self.ended(id, &container).await? {
                follower.finish();
                // What was written between the two.
                let rest = follower.take(self.output(id, &container).await?);
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
        }
    }

    /// All output of a container that is followed.
    async fn output(&self, id: &RemoteId, container: &str) -> Result<String, Error> {
        self.turn().await;
        self.shared.arm.logs(id.as_str(), container, None).await
    }

    /// Pays for a read that nobody minds to wait for.
    async fn turn(&self) {
        loop {
            let now = self.now();
            let Err(wait) = self.state().plan.ask(now) else { return };
            tokio::time::sleep(wait).await;
        }
    }

    async fn ended(&self, id: &RemoteId, container: &str) -> Result<bool, Error> {
        self.turn().await;
        let Some(group) = self.look(Operation::Logs, id.as_str()).await? else { return Ok(true) };
        let pod = self.saw(&group);
        Ok(pod.is_none_or(|pod| {
            let terminated = |found: &crate::RemoteContainer| matches!(found.state, crate::ContainerState::Terminated { .. });
            let restarts = group.properties.restart_policy.as_deref() != Some("Never");
            let found = pod.containers.iter().find(|found| *found.name == *container);
            pod.phase == RemotePhase::Stopped || (!restarts && found.is_some_and(terminated))
        }))
    }
}

/// What Spillway was built with, for a location whose prices were never read.
fn built_in(settings: &Settings) -> Option<Prices> {
    let Settings { location, capacity_type, .. } = settings;
    let provider = policy::virtual_node::Provider::Aci;
    let offer = crate::prices::Offer { provider, region: location, capacity_type: *capacity_type, platform: Platform::default() };
    let found = crate::prices::embedded(&offer);
    found.inspect_err(|error| tracing::warn!(%error, "no prices")).ok().map(|found| found.prices)
}

/// The moment from which the age of prices is counted, so that the next try comes after the pause.
fn retry_at(now: Timestamp, kept: bool) -> Timestamp {
    if kept { now - (PRICES_AGE - PRICES_PAUSE) } else { now }
}

#[async_trait]
impl Provider for Aci {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn observe(&self) -> Result<Observation, Error> {
        self.ask(Operation::Observe)?;
        let usages = self.shared.arm.usages().await?;
        let largest_pod = self.largest().await?;
        let (quota, usage) = quota(&usages, self.shared.settings.capacity_type);
        let prices = self.prices().await;
        Ok(Observation { at: self.now(), quota, usage, largest_pod, health: Health::Healthy, prices })
    }

    async fn create(&self, request: &PodRequest) -> Result<RemotePod, Error> {
        let name = self.name_of(&request.uid);
        if !self.state().making.insert(name.clone()) {
            return Err(error(ErrorKind::Conflict, Operation::Create).because("this pod is being made at this moment"));
        }
        let _making = Making { provider: self, name: &name };
        self.make(&name, request).await
    }

    async fn get(&self, uid: &PodUid) -> Result<RemotePod, Error> {
        let name = self.name_of(uid);
        self.ask(Operation::Get)?;
        let found = match self.look(Operation::Get, &name).await? {
            Some(group) if tags::owned(&group, &self.shared.settings.ownership) => self.saw(&group),
            Some(_) => None,
            None => self.missed(&name),
        };
        found.filter(|pod| pod.uid == *uid).ok_or_else(|| error(ErrorKind::NotFound, Operation::Get))
    }

    async fn list(&self, limit: usize) -> Result<Vec<RemotePod>, Error> {
        self.refresh().await?;
        let mut pods: Vec<RemotePod> = self.state().pods.values().map(Seen::shown).collect();
        pods.sort_by_key(|pod| pod.phase == RemotePhase::Stopped);
        pods.truncate(limit);
        Ok(pods)
    }

    async fn delete(&self, id: &RemoteId) -> Result<(), Error> {
        self.shared.arm.delete(id.as_str()).await?;
        let now = self.now();
        if let Some(seen) = self.state().pods.get_mut(id.as_str()) {
            seen.deleted_at.get_or_insert(now);
        }
        Ok(())
    }

    async fn logs(&self, id: &RemoteId, query: &LogQuery) -> Result<LogStream, Error> {
        self.ask(Operation::Logs)?;
        // A tail of what is followed is counted here: the whole text is needed to find the overlap.
        let tail = query.tail_lines.filter(|_| !query.follow && query.since.is_none());
        let text = self.shared.arm.logs(id.as_str(), &query.container, tail).await?;
        let mut follower = Follower::new(query.clone(), self.shared.access.log_pace);
        let first = follower.take(text);
        let begin = stream::iter((!first.is_empty()).then_some(Ok(first)));
        if !query.follow {
            return Ok(begin.boxed());
        }
        let rest = stream::unfold(Some((self.clone(), id.clone(), follower)), |left| async move {
            let (provider, id, mut follower) = left?;
            if follower.over() {
                return None;
            }
            match provider.more(&id, &mut follower).await {
                Ok(bytes) => Some((Ok(bytes?), Some((provider, id, follower)))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(begin.chain(rest).boxed())
    }

    async fn exec(&self, id: &RemoteId, request: &ExecRequest) -> Result<ExecSession, Error> {
        let command = exec::command_line(request)?;
        let terminal_size = wire::TerminalSize { rows: 24, cols: 80 };
        let command = wire::ExecRequest { command, terminal_size };
        let answer = self.shared.arm.exec(id.as_str(), &request.container, &command).await?;
        exec::attach(answer, request.stdin).await
    }
}

impl fmt::Debug for Aci {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Aci").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

/// A group that is being made; whatever comes of it, it ends.
struct Making<'a> {
    provider: &'a Aci,
    name: &'a str,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.provider.state().making.remove(self.name);
    }
}

// === impl Seen ===

impl Seen {
    fn settling(&self, now: Timestamp) -> bool {
        self.deleted_at.is_none() && self.made_at.is_some_and(|made_at| now.since(made_at) < SETTLING)
    }

    /// As it is known to be: a group whose end was accepted is over for its pod, whatever a read shows.
    fn shown(&self) -> RemotePod {
        let mut pod = self.pod.clone();
        if self.deleted_at.is_some() && pod.exit.is_none() {
            pod.phase = RemotePhase::Stopped;
            pod.exit = Some(Exit::Deleted);
            pod.stopped_at = self.deleted_at;
        }
        pod
    }
}

/// An error of this provider.
fn error(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, NAME, operation)
}

/// Whether Azure says that the very thing asked for is not there; a missing resource group is another matter.
fn missing(error: &Error) -> bool {
    let told = error.source.as_ref().and_then(|source| source.downcast_ref::<ArmError>());
    told.is_some_and(|told| told.status == 404 && matches!(told.code.as_str(), "ResourceNotFound" | "NotFound" | ""))
}

/// Quota and usage of one capacity type. Azure counts whole vCPUs and no memory.
fn quota(usages: &[UsageEntry], capacity_type: CapacityType) -> (Limits, Usage) {
    let cores = match capacity_type {
        CapacityType::OnDemand => "StandardCores",
        CapacityType::Spot => "StandardSpotCores",
    };
    let find = |name: &str| usages.iter().find(|entry| entry.name.value == name);
    let (groups, cores) = (find("ContainerGroups"), find(cores));
    let quota = Limits {
        pods: groups.map(|entry| entry.limit),
        cpu_millis: cores.map(|entry| entry.limit.saturating_mul(1000)),
        memory_bytes: None,
    };
    let usage = Usage {
        pods: groups.map_or(0, |entry| entry.current_value),
        cpu_millis: cores.map_or(0, |entry| entry.current_value.saturating_mul(1000)),
        memory_bytes: 0,
    };
    (quota, usage)
}

/// The largest group of Linux containers without a GPU, with the kind of address that pods get here.
fn largest_pod(capabilities: &[CapabilityEntry], private: bool) -> Limits {
    const GB: f64 = 1e9;
    let kind = if private { "Private" } else { "Public" };
    let plain = || capabilities.iter().filter(|entry| entry.os_type == "Linux" && matches!(entry.gpu.as_str(), "None" | ""));
    let chosen = plain().find(|entry| entry.ip_address_type == kind).or_else(|| plain().next());
    chosen.map_or(Limits::default(), |entry| Limits {
        pods: None,
        cpu_millis: Some(status::whole(entry.capabilities.max_cpu, 1000.0)),
        memory_bytes: Some(status::whole(entry.capabilities.max_memory_gb, GB)),
    })
}

#[cfg(test)]
mod tests;
