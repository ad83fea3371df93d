//! What the driver asks of the API server, with the API server's preconditions and answers.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Binding, Node, Pod, Toleration};

use super::admission::is_gated;
use super::agenda::Item;
use super::store::{PodId, set_condition};
use super::{Answer, Recorded, Simulation};

/// Number of a request, to match its answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A write to the API server.
#[derive(Clone, Debug)]
pub enum Request {
    /// `POST pods/binding`. `metadata` carries namespace, name, UID, resource version (both optional preconditions) and annotations.
    Bind(Box<Binding>),
    /// Replaces the tolerations of a pod.
    SetTolerations {
        /// Which pod.
        pod: PodRef,
        /// The whole new list.
        tolerations: Vec<Toleration>,
    },
    /// Writes `PodScheduled=True` on a bound pod.
    RepairScheduled {
        /// Which pod.
        pod: PodRef,
    },
    /// Lifts all scheduling gates of a pod, and adds a node selector in the same write.
    LiftGate {
        /// Which pod.
        pod: PodRef,
        /// Key and value.
        selector: Option<(String, String)>,
    },
    /// Deletes a pod with its grace period.
    DeletePod {
        /// Which pod.
        pod: PodRef,
    },
    /// Reads a pod. It comes with the answer.
    Read {
        /// Which pod.
        pod: PodRef,
    },
    /// Takes the time of a write and does nothing: for objects that the driver keeps itself.
    RoundTrip,
    /// Creates a pod.
    CreatePod(Box<Pod>),
    /// Creates or replaces a node.
    ApplyNode(Box<Node>),
    /// Records an Event.
    Record(Recorded),
}

/// A pod by name, and by UID where the request must hit that pod and no successor of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Option<String>,
}

/// An answer that is not success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status; `None` when no answer came back.
    pub code: Option<u16>,
    /// Machine-readable reason, as in `metav1.Status`.
    pub reason: &'static str,
    /// What the API server says.
    pub message: String,
}

// === impl ApiError ===

impl ApiError {
    fn not_found(what: &str) -> ApiError {
        ApiError { code: Some(404), reason: "NotFound", message: format!("{what} not found") }
    }

    pub(super) fn already_exists(name: &str) -> ApiError {
        ApiError { code: Some(409), reason: "AlreadyExists", message: format!("pods \"{name}\" already exists") }
    }

    fn conflict(message: String) -> ApiError {
        ApiError { code: Some(409), reason: "Conflict", message }
    }

    fn lost() -> ApiError {
        ApiError { code: None, reason: "Timeout", message: "no answer".to_owned() }
    }
}

// === impl Simulation ===

impl Simulation {
    /// Sends a request. It reaches the API server and is answered in the simulation's future.
    pub fn submit(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let latency = self.latencies.duration(&self.settings.write_latency);
        self.agenda.plan(self.now + latency, Item::Arrives(ticket, Box::new(request)));
        ticket
    }

    pub(super) fn arrives(&mut self, ticket: Ticket, request: Request) {
        let is_binding = matches!(request, Request::Bind(_));
        let mut outcome = self.execute(request).map(|id| id.and_then(|id| self.store.pod(id).cloned()));
        if is_binding && self.latencies.one_in(self.settings.lost_binding_answers_one_in) {
            outcome = Err(ApiError::lost());
        }
        let latency = self.latencies.duration(&self.settings.answer_latency);
        self.agenda.plan(self.now + latency, Item::Answered(Answer { ticket, outcome }));
    }

    /// Does what is asked; the pod that it was about comes back.
    fn execute(&mut self, request: Request) -> Result<Option<PodId>, ApiError> {
        let now = self.now;
        match request {
            Request::Bind(binding) => self.bind(&binding).map(Some),
            Request::SetTolerations { pod, tolerations } => {
                let id = self.resolve(&pod)?;
                self.store.update_pod(id, |pod| pod.spec.get_or_insert_default().tolerations = Some(tolerations));
                Ok(Some(id))
            }
            Request::RepairScheduled { pod } => {
                let id = self.resolve(&pod)?;
                self.store.update_pod(id, |pod| set_condition(pod, "PodScheduled", true, None, None, now));
                Ok(Some(id))
            }
            Request::LiftGate { pod, selector } => {
                let id = self.resolve(&pod)?;
                self.store.update_pod(id, |pod| {
                    let spec = pod.spec.get_or_insert_default();
                    spec.scheduling_gates = None;
                    spec.node_selector.get_or_insert_default().extend(selector);
                });
                Ok(Some(id))
            }
            Request::DeletePod { pod } => {
                let id = self.resolve(&pod)?;
                self.begin_deletion(id);
                Ok(None)
            }
            Request::Read { pod } => self.resolve(&pod).map(Some),
            Request::CreatePod(pod) => self.create_pod(*pod).map(Some),
            Request::ApplyNode(node) => {
                self.apply_node(*node);
                Ok(None)
            }
            Request::Record(recorded) => {
                self.record(recorded);
                Ok(None)
            }
            Request::RoundTrip => Ok(None),
        }
    }

    /// The Binding subresource: one write that assigns the pod, sets `PodScheduled=True` and copies the annotations.
    pub(super) fn bind(&mut self, binding: &Binding) -> Result<PodId, ApiError> {
        let metadata = &binding.metadata;
        let (namespace, name) = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let id = self.resolve(&PodRef { namespace, name: name.clone(), uid: metadata.uid.clone() })?;
        let pod = self.store.pod(id).ok_or_else(|| ApiError::not_found(&name))?;
        if metadata.resource_version.is_some() && metadata.resource_version != pod.metadata.resource_version {
            let text = format!("Operation cannot be fulfilled on pods/binding \"{name}\": the object has been modified");
            return Err(ApiError::conflict(text));
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return Err(ApiError::conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) {
            return Err(ApiError::conflict(format!("pod {name} is already assigned to node \"{node}\"")));
        }
        if is_gated(pod) {
            return Err(ApiError::conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        let node = binding.target.name.clone().unwrap_or_default();
        let now = self.now;
        self.store.update_pod(id, |pod| {
            pod.spec.get_or_insert_default().node_name = Some(node.clone());
            if let Some(annotations) = &metadata.annotations {
                pod.metadata.annotations.get_or_insert_default().extend(annotations.clone());
            }
            set_condition(pod, "PodScheduled", true, None, None, now);
        });
        let life = self.store.life_mut(id);
        assert!(life.bound_at.is_none(), "a pod is bound at most once");
        life.bound_at = Some(now);
        life.node = Some(Arc::from(node.as_str()));
        self.assigned(id);
        Ok(id)
    }

    fn resolve(&self, pod: &PodRef) -> Result<PodId, ApiError> {
        let missing = || ApiError::not_found(&format!("pods \"{}\"", pod.name));
        let id = self.store.find_pod(&pod.namespace, &pod.name).ok_or_else(missing)?;
        let known = self.store.pod(id).and_then(|pod| pod.metadata.uid.as_ref());
        match &pod.uid {
            Some(uid) if known != Some(uid) => Err(ApiError::conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                known.map_or("", |uid| uid)
            ))),
            Some(_) | None => Ok(id),
        }
    }
}
