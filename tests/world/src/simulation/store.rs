//! The API server's memory: objects, resource versions, and what the watches will say.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use policy::Timestamp;

use super::random::Random;
use super::{Change, Life};

/// Number of a pod in order of creation; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PodId(pub(super) usize);

/// Objects by name. Every write gets a resource version and is told to the watches.
#[derive(Debug)]
pub(super) struct Store {
    version: u64,
    pods: Vec<Slot>,
    live: BTreeMap<(String, String), PodId>,
    nodes: BTreeMap<String, Arc<Node>>,
    outbox: Vec<(Option<PodId>, Change)>,
    uids: Random,
}

#[derive(Debug)]
struct Slot {
    /// `None` once deleted.
    pod: Option<Arc<Pod>>,
    life: Life,
}

impl Store {
    pub(super) fn new(seed: u64) -> Store {
        Store {
            version: 1000,
            pods: Vec::new(),
            live: BTreeMap::new(),
            nodes: BTreeMap::new(),
            outbox: Vec::new(),
            uids: Random::new(seed, "uids"),
        }
    }

    /// Adds a pod whose defaults are filled in; `None` when the name is taken.
    pub(super) fn create_pod(&mut self, mut pod: Pod, now: Timestamp) -> Option<PodId> {
        if let Some(prefix) = pod.metadata.generate_name.as_ref().filter(|_| pod.metadata.name.is_none()) {
            pod.metadata.name = Some(format!("{prefix}{}", self.uids.name_suffix()));
        }
        let key = key(&pod);
        if self.live.contains_key(&key) {
            return None;
        }
        self.stamp_new(&mut pod.metadata, now);
        let id = PodId(self.pods.len());
        let pod = Arc::new(pod);
        let life = Life { created_at: now, bound_at: None, node: None, started_at: None, ended_at: None, run_time: None };
        self.pods.push(Slot { pod: Some(pod.clone()), life });
        self.live.insert(key, id);
        self.outbox.push((Some(id), Change::PodApplied(pod)));
        Some(id)
    }

    pub(super) fn pod(&self, id: PodId) -> Option<&Arc<Pod>> {
        self.pods[id.0].pod.as_ref()
    }

    pub(super) fn find_pod(&self, namespace: &str, name: &str) -> Option<PodId> {
        // A borrowed pair cannot look up an owned one; names are short.
        self.live.get(&(namespace.to_owned(), name.to_owned())).copied()
    }

    pub(super) fn life(&self, id: PodId) -> &Life {
        &self.pods[id.0].life
    }

    pub(super) fn life_mut(&mut self, id: PodId) -> &mut Life {
        &mut self.pods[id.0].life
    }

    /// Every pod that is there, oldest first.
    pub(super) fn pods(&self) -> impl Iterator<Item = (PodId, &Arc<Pod>, &Life)> {
        self.pods.iter().enumerate().filter_map(|(place, slot)| slot.pod.as_ref().map(|pod| (PodId(place), pod, &slot.life)))
    }

    /// Writes a pod. Nothing happens to one that is gone.
    pub(super) fn update_pod(&mut self, id: PodId, write: impl FnOnce(&mut Pod)) {
        let Some(pod) = self.pods[id.0].pod.as_mut() else { return };
        let changed = Arc::make_mut(pod);
        write(changed);
        self.version += 1;
        changed.metadata.resource_version = Some(self.version.to_string());
        let pod = pod.clone();
        self.outbox.push((Some(id), Change::PodApplied(pod)));
    }

    pub(super) fn delete_pod(&mut self, id: PodId, now: Timestamp) {
        let Some(mut pod) = self.pods[id.0].pod.take() else { return };
        self.live.remove(&key(&pod));
        self.pods[id.0].life.ended_at.get_or_insert(now);
        self.version += 1;
        Arc::make_mut(&mut pod).metadata.resource_version = Some(self.version.to_string());
        self.outbox.push((Some(id), Change::PodDeleted(pod)));
    }

    pub(super) fn apply_node(&mut self, mut node: Node, now: Timestamp) {
        let name = node.metadata.name.clone().unwrap_or_default();
        match self.nodes.get(&name) {
            Some(known) => {
                node.metadata.uid.clone_from(&known.metadata.uid);
                node.metadata.creation_timestamp.clone_from(&known.metadata.creation_timestamp);
                self.version += 1;
                node.metadata.resource_version = Some(self.version.to_string());
            }
            None => self.stamp_new(&mut node.metadata, now),
        }
        let node = Arc::new(node);
        self.nodes.insert(name, node.clone());
        self.outbox.push((None, Change::NodeApplied(node)));
    }

    pub(super) fn delete_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            self.version += 1;
            self.outbox.push((None, Change::NodeDeleted(node)));
        }
    }

    pub(super) fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// What the watches have not been told yet.
    pub(super) fn take_outbox(&mut self) -> Vec<(Option<PodId>, Change)> {
        std::mem::take(&mut self.outbox)
    }

    fn stamp_new(&mut self, metadata: &mut ObjectMeta, now: Timestamp) {
        self.version += 1;
        metadata.uid = Some(self.uids.uid());
        metadata.resource_version = Some(self.version.to_string());
        metadata.creation_timestamp = Some(time(now));
        metadata.managed_fields = None;
    }
}

fn key(pod: &Pod) -> (String, String) {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// A time as Kubernetes writes it: whole seconds.
pub(super) fn time(at: Timestamp) -> Time {
    Time(
        k8s_openapi::jiff::Timestamp::from_second(at.millis().div_euclid(1000))
            .unwrap_or(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
    )
}

/// Sets a condition of a pod. The transition time moves only with the status, as the API's conventions want it.
pub(super) fn set_condition(
    pod: &mut Pod,
    kind: &str,
    status: bool,
    reason: Option<&str>,
    message: Option<&str>,
    now: Timestamp,
) {
    let conditions = pod.status.get_or_insert_with(PodStatus::default).conditions.get_or_insert_with(Vec::new);
    let place = conditions.iter().position(|condition| condition.type_ == kind).unwrap_or_else(|| {
        conditions.push(PodCondition { type_: kind.to_owned(), ..PodCondition::default() });
        conditions.len() - 1
    });
    let condition = &mut conditions[place];
    let status = if status { "True" } else { "False" };
    if condition.status != status {
        status.clone_into(&mut condition.status);
        condition.last_transition_time = Some(time(now));
    }
    condition.reason = reason.map(str::to_owned);
    condition.message = message.map(str::to_owned);
}

/// The `Ready` condition that a node without kubelet needs.
pub(super) fn ready_condition(now: Timestamp) -> NodeCondition {
    NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: Some("KubeletReady".to_owned()),
        message: Some("kubelet is posting ready status".to_owned()),
        last_heartbeat_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}
