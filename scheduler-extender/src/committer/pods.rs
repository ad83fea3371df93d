//! What is known of each pod: no whole pods are kept.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use policy::line::Arrival;
use policy::workload::{Feature, Owner};
use policy::{Money, Reason, Resources, Timestamp};

use super::lines::ClassId;
use super::{BindingAnswer, Committer, PodKey};
use crate::record::Record;
use crate::workload;

/// One pod.
pub(super) struct PodRecord {
    pub(super) key: PodKey,
    pub(super) phase: Phase,
}

/// How far a pod is.
pub(super) enum Phase {
    /// Pending, and a policy selects it.
    Waiting(Box<Waiting>),
    /// Its Binding has been sent and not answered.
    Binding(Box<InFlight>),
    /// On a dedicated node.
    Dedicated(OnDedicated),
    /// On a virtual node, by our decision.
    Burst(Box<Burst>),
}

/// A pending pod that a policy selects.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) class: ClassId,
    pub(super) arrival: Arrival,
    pub(super) resource_version: String,
    pub(super) since: Timestamp,
    /// When its scheduler's verdict Unschedulable was first seen.
    pub(super) refused: Option<Timestamp>,
    /// After a failed attempt: not before this moment.
    pub(super) not_before: Option<Timestamp>,
    pub(super) failures: u32,
    /// Reserved and waiting for its turn.
    pub(super) planned: Option<Planned>,
    /// Decided in audit mode, at this price: recorded once, never sent.
    pub(super) audited: Option<Money>,
    /// Counted as held by a budget: once, however often it is looked at.
    pub(super) held_by_budget: bool,
}

/// A commitment that has been reserved.
#[derive(Clone)]
pub(super) struct Planned {
    pub(super) record: Record,
    pub(super) node: Arc<str>,
    /// What the next best offer would have cost more; for the counters, so it is not in the record.
    pub(super) avoided: Money,
}

impl Planned {
    /// Whether it bursts because it prefers to, not for want of room on dedicated nodes. Its own reservation may have used up
    /// what made bursting possible; that is no reason to reconsider, and room on a dedicated node is none either.
    pub(super) fn by_choice(&self) -> bool {
        *self.record.reason != *Reason::NoRoom.label()
    }
}

/// A Binding under way.
pub(super) struct InFlight {
    pub(super) waiting: Waiting,
    pub(super) planned: Planned,
    pub(super) decision: String,
    /// Since when nobody knows whether the Binding exists: the pod must be read before anything else is done with it.
    pub(super) unclear: Option<Timestamp>,
    /// What came back for the Binding, if anything has.
    pub(super) answer: Option<BindingAnswer>,
    /// The pod has gone before the answer.
    pub(super) gone: bool,
}

/// A pod on a dedicated node.
pub(super) struct OnDedicated {
    pub(super) node: Arc<str>,
    pub(super) requests: Arc<Resources>,
    pub(super) priority: i32,
    /// Whether the node was known and the pod is counted there.
    pub(super) placed: bool,
}

/// A pod on a virtual node.
pub(super) struct Burst {
    pub(super) record: Record,
    pub(super) owner: Option<Owner>,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Option<Timestamp>,
    /// What has been told to the cost counter.
    pub(super) told: Money,
    /// What is still to be written on it.
    pub(super) tolerations: Option<serde_json::Value>,
    pub(super) misreported: bool,
    pub(super) patching: bool,
    /// Patches that have failed in a row.
    pub(super) failures: u32,
    /// Some container has run, or an init container.
    pub(super) begun: bool,
    /// It ended without one, and that is taken into account.
    pub(super) start_failed: bool,
    /// When it was last asked to be failed for want of a start.
    pub(super) failing: Option<Timestamp>,
    /// It is on its way out.
    pub(super) deleting: bool,
}

impl Committer {
    pub(super) fn observe_pod(&mut self, pod: &Pod, read: bool, now: Timestamp) {
        let Some(key) = key(pod) else { return };
        // An answer that comes after the news that the pod is gone must not bring it back.
        if read && !self.pods.contains_key(&key.uid) {
            return;
        }
        let spec = pod.spec.as_ref();
        match spec.and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty()) {
            Some(node) => self.observe_bound(&key, pod, node, now),
            None if ended(pod) || pod.metadata.deletion_timestamp.is_some() => self.pod_gone(&key.uid, now),
            None if read => self.observe_read(&key, pod, now),
            None => self.observe_pending(&key, pod, now),
        }
    }

    /// A pod without a node.
    pub(super) fn observe_pending(&mut self, key: &PodKey, pod: &Pod, now: Timestamp) {
        match self.pods.get(&key.uid).map(|record| &record.phase) {
            // An event from before the Binding; what came of that, its answer says.
            Some(Phase::Binding(_)) => return,
            // A list that is older than the watch: no pod loses its node again.
            Some(Phase::Dedicated(_) | Phase::Burst(_)) => return,
            Some(Phase::Waiting(waiting)) if is_older(pod, &waiting.resource_version) => return,
            Some(Phase::Waiting(_)) => {}
            None if self.gone_meanwhile.contains(&key.uid) => return,
            None => {}
        }
        let Some((class, version)) = self.classify(key, pod) else {
            self.leave_waiting(&key.uid);
            self.release_unselected(key, pod, now);
            return;
        };
        self.forget_unselected(&key.uid);
        let before = match self.pods.get(&key.uid) {
            Some(PodRecord { phase: Phase::Waiting(waiting), .. }) if waiting.class == class => Some((**waiting).clone()),
            Some(PodRecord { phase: Phase::Waiting(_), .. }) => {
                // Changed into another line: it keeps its place in the order of arrival.
                let arrival = self.forget_waiting(&key.uid);
                Some(self.new_waiting(class, arrival, version.clone(), pod, now))
            }
            _ => None,
        };
        let mut waiting = before.unwrap_or_else(|| self.new_waiting(class, None, version.clone(), pod, now));
        waiting.resource_version = version;
        let date = if self.pods.contains_key(&key.uid) { now } else { verdict_date(pod, now) };
        waiting.refused = refused(pod).then(|| waiting.refused.unwrap_or(date));
        self.lines.set(class, waiting.arrival, key.uid.clone(), waiting.refused, nominated(pod));
        if let Some(planned) = &waiting.planned
            && nominated(pod)
        {
            // Its scheduler has made room for it meanwhile.
            let planned = planned.clone();
            waiting.planned = None;
            self.unreserve(&key.uid, &planned);
            self.wave.unplan(waiting.arrival);
        }
        self.pods.insert(key.uid.clone(), PodRecord { key: key.clone(), phase: Phase::Waiting(Box::new(waiting)) });
    }

    /// The line that a pending pod belongs to, and the version it was seen in; `None` if no policy selects it.
    fn classify(&mut self, key: &PodKey, pod: &Pod) -> Option<(ClassId, String)> {
        let labels = workload::labels(pod);
        let selection = self.compiled.select(&self.namespaces, pod, &labels);
        for policy in &selection.failed {
            self.metrics.match_condition_error(policy);
        }
        let compiled = selection.policy?;
        if let Some(rival) = self.compiled.rival(&self.namespaces, pod, &labels, &compiled) {
            self.conflicts.insert((compiled.policy.name.clone(), rival));
        }
        let mut view = match workload::workload(pod) {
            Ok(view) => view,
            Err(invalid) => {
                self.notes.once(key, "InvalidPod", true, "Decide", invalid.to_string(), &mut self.intents);
                return None;
            }
        };
        let local = self
            .services
            .get(&key.namespace)
            .is_some_and(|services| services.iter().any(|(_, selector)| selector.matches(&labels)));
        if local {
            view.features.insert(Feature::LocalTraffic);
        }
        let class = self.lines.class(compiled.policy.clone(), view, &mut self.dedicated);
        Some((class, pod.metadata.resource_version.clone().unwrap_or_default()))
    }

    fn new_waiting(
        &mut self,
        class: ClassId,
        arrival: Option<Arrival>,
        resource_version: String,
        pod: &Pod,
        now: Timestamp,
    ) -> Waiting {
        let since = pod.metadata.creation_timestamp.as_ref().map_or(now, |time| Timestamp::from_millis(time.0.as_millisecond()));
        Waiting {
            class,
            arrival: arrival
                .or_else(|| self.early_arrivals.remove(pod.metadata.uid.as_deref()?))
                .unwrap_or_else(|| self.arrival()),
            resource_version,
            // Creation times have whole seconds: a pod that comes while we watch has just been created.
            since: if now.since(since) < Duration::from_secs(2) { now } else { since.min(now) },
            refused: None,
            not_before: None,
            failures: 0,
            planned: None,
            audited: None,
            held_by_budget: false,
        }
    }

    /// A pod with a node.
    fn observe_bound(&mut self, key: &PodKey, pod: &Pod, node: &str, now: Timestamp) {
        let decision = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(crate::record::ANNOTATION));
        let known = matches!(self.pods.get(&key.uid), Some(PodRecord { phase: Phase::Burst(_), .. }));
        if known {
            self.observe_burst(key, pod, now);
            return;
        }
        match decision.map(|text| Record::parse(text)) {
            Some(Ok(record)) if self.may_be_at(&record, node) => self.enter_burst(key, pod, record, now),
            Some(Ok(_)) => {
                let text = "the decision annotation names another node than the pod's; it is not counted".to_owned();
                self.notes.once(key, "InvalidDecision", true, "Account", text, &mut self.intents);
                self.enter_dedicated(key, pod, node, now);
            }
            Some(Err(invalid)) => {
                self.leave_waiting(&key.uid);
                self.notes.once(key, "InvalidDecision", true, "Account", invalid.to_string(), &mut self.intents);
                self.enter_dedicated(key, pod, node, now);
            }
            None => self.enter_dedicated(key, pod, node, now),
        }
    }

    /// Whether a record can be true of a pod on this node. A virtual node that is gone cannot be asked; its records stand.
    fn may_be_at(&self, record: &Record, node: &str) -> bool {
        !self.dedicated.contains(node)
            && self
                .backends
                .get(&record.virtual_node)
                .and_then(|backend| backend.node.node_name.as_deref())
                .is_none_or(|name| name == node)
    }

    fn enter_dedicated(&mut self, key: &PodKey, pod: &Pod, node: &str, now: Timestamp) {
        let waiting = self.leave_waiting(&key.uid);
        if ended(pod) || removed_at_once(pod) {
            self.pod_gone(&key.uid, now);
            return;
        }
        if let Some(PodRecord { phase: Phase::Dedicated(place), .. }) = self.pods.get(&key.uid)
            && *place.node == *node
        {
            return;
        }
        if let Some(waiting) = waiting
            && let Some(policy) = self.lines.policy(waiting.class)
            && let Some(tier) = policy.dedicated()
        {
            self.metrics.bound_dedicated(&tier.name, now.since(waiting.since));
            self.count_dedicated(key, &policy);
        }
        let requests = self.lines.share(workload::requests(pod));
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let node: Arc<str> = Arc::from(node);
        let placed = self.dedicated.place(&node, &requests, priority);
        if !placed {
            self.unplaced.entry(node.clone()).or_default().push(key.uid.clone());
        }
        self.lines.disturbed(&key.namespace, now);
        let phase = Phase::Dedicated(OnDedicated { node, requests, priority, placed });
        self.pods.insert(key.uid.clone(), PodRecord { key: key.clone(), phase });
    }

    pub(super) fn pod_gone(&mut self, uid: &Arc<str>, now: Timestamp) {
        if self.listing > 0 {
            self.gone_meanwhile.insert(uid.clone());
        }
        self.forget_gate(uid);
        match self.pods.get_mut(uid).map(|record| &mut record.phase) {
            Some(Phase::Waiting(_)) => {
                self.leave_waiting(uid);
            }
            Some(Phase::Binding(flight)) => match flight.answer {
                // It says whether the pod ever had a node.
                None => flight.gone = true,
                Some(BindingAnswer::Created | BindingAnswer::Unknown) => self.retire_unseen(uid, now),
                Some(_) => {
                    self.leave_waiting(uid);
                }
            },
            Some(Phase::Dedicated(_)) => {
                let namespace = self.pods.get(uid).map(|record| record.key.namespace.clone());
                self.remove_dedicated(uid);
                if let Some(namespace) = namespace {
                    self.lines.disturbed(&namespace, now);
                }
            }
            Some(Phase::Burst(_)) => self.retire_burst(uid, now),
            None => {}
        }
    }

    fn remove_dedicated(&mut self, uid: &Arc<str>) {
        let Some(PodRecord { phase: Phase::Dedicated(_), .. }) = self.pods.get(uid) else { return };
        if let Some(PodRecord { phase: Phase::Dedicated(place), .. }) = self.pods.remove(uid)
            && place.placed
        {
            self.dedicated.unplace(&place.node, &place.requests, place.priority);
        }
    }

    /// Takes a pod out of its line and gives back what was reserved for it. Returns what it was waiting as.
    pub(super) fn leave_waiting(&mut self, uid: &Arc<str>) -> Option<Waiting> {
        self.wave.unrefuse(uid);
        match self.pods.get(uid)?.phase {
            Phase::Waiting(_) => {
                let waiting = self.waiting(uid).cloned();
                self.forget_waiting(uid);
                self.pods.remove(uid);
                waiting
            }
            Phase::Binding(_) => {
                let Some(PodRecord { phase: Phase::Binding(flight), .. }) = self.pods.remove(uid) else { return None };
                self.wave.landed(flight.answer.is_some());
                self.wave.unclear.remove(uid);
                self.unreserve(uid, &flight.planned);
                self.lines.leave(flight.waiting.class, &mut self.dedicated);
                Some(flight.waiting)
            }
            Phase::Dedicated(_) | Phase::Burst(_) => None,
        }
    }

    /// Takes a waiting pod out of its line; its record stays for the caller to replace.
    fn forget_waiting(&mut self, uid: &Arc<str>) -> Option<Arrival> {
        let waiting = self.waiting(uid)?.clone();
        if let Some(planned) = &waiting.planned {
            self.unreserve(uid, planned);
            self.wave.unplan(waiting.arrival);
        }
        self.lines.remove(waiting.class, waiting.arrival);
        self.lines.leave(waiting.class, &mut self.dedicated);
        Some(waiting.arrival)
    }

    pub(super) fn waiting(&self, uid: &Arc<str>) -> Option<&Waiting> {
        match &self.pods.get(uid)?.phase {
            Phase::Waiting(waiting) => Some(waiting),
            Phase::Binding(_) | Phase::Dedicated(_) | Phase::Burst(_) => None,
        }
    }

    pub(super) fn waiting_mut(&mut self, uid: &Arc<str>) -> Option<&mut Waiting> {
        match &mut self.pods.get_mut(uid)?.phase {
            Phase::Waiting(waiting) => Some(waiting),
            Phase::Binding(_) | Phase::Dedicated(_) | Phase::Burst(_) => None,
        }
    }

    /// Gives back what was set aside for a pod.
    pub(super) fn unreserve(&mut self, uid: &Arc<str>, planned: &Planned) {
        let record = &planned.record;
        self.ledger.release(uid);
        self.wave.unpromise(uid);
        self.backends.vacate(&record.virtual_node, &record.policy, &record.tier, &record.usage);
        self.reconsider();
    }
}

/// Whether a pod waits for a node.
pub(super) fn is_pending(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_none_or(str::is_empty)
}

/// What the order of arrival is guessed from where the watch did not show it: creation time, then version, then UID.
pub(super) fn place_in_time(pod: &Pod) -> Option<(i64, Option<u64>, Arc<str>)> {
    let meta = &pod.metadata;
    let created = meta.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_millisecond());
    let version = meta.resource_version.as_deref().and_then(|version| version.parse().ok());
    Some((created, version, Arc::from(meta.uid.as_deref()?)))
}

/// Whether a pod is told in a version before this one. Versions of one kind of object are ordered integers.
fn is_older(pod: &Pod, version: &str) -> bool {
    let told = pod.metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok());
    told.zip(version.parse::<u64>().ok()).is_some_and(|(told, known)| told < known)
}

/// How a pod is addressed; `None` for an object that no API server would hand out.
pub(super) fn key(pod: &Pod) -> Option<PodKey> {
    let meta = &pod.metadata;
    Some(PodKey {
        namespace: Arc::from(meta.namespace.as_deref()?),
        name: Arc::from(meta.name.as_deref()?),
        uid: Arc::from(meta.uid.as_deref()?),
    })
}

/// Whether all containers have ended for good.
pub(super) fn ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether the pod is being removed without any grace. The API server writes that first and removes the pod a moment later; its
/// owner may make the next one in between, which is to find the place.
fn removed_at_once(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// The condition PodScheduled, if it is False.
pub(super) fn not_scheduled(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
}

/// Whether its scheduler calls it Unschedulable.
fn refused(pod: &Pod) -> bool {
    not_scheduled(pod).is_some_and(|condition| condition.reason.as_deref() == Some("Unschedulable"))
}

/// When the verdict was given, for a pod that had it before we looked.
fn verdict_date(pod: &Pod, now: Timestamp) -> Timestamp {
    let date = not_scheduled(pod).and_then(|condition| condition.last_transition_time.as_ref());
    date.map_or(now, |time| Timestamp::from_millis(time.0.as_millisecond()).min(now))
}

/// Whether its scheduler has cleared a node for it.
fn nominated(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref()).is_some_and(|name| !name.is_empty())
}
