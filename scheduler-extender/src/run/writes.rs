//! Carrying out intents against an API server. One attempt each: the committer decides what happens next.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Request};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::api::{self, names};
use crate::committer::{Binding, BindingAnswer, Event, EvictionAnswer, Intent, Note, PodKey, START_FAILED, StatusKind};
use crate::hygiene::Repair;

/// An answer later than this is as good as lost: the pod is read instead.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kubernetes Events that wait to be written, at most; more than that are dropped, the annotation and the explanation remain.
const NOTES_WAITING: usize = 5_000;
/// Events are written one at a time and no faster than this: people read them, and a fan-out is not to wait for them.
const NOTE_EVERY: Duration = Duration::from_millis(20);
/// Pending pods listed per page.
const PAGE: u32 = 500;
/// How Kubernetes merges everything but lists.
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Field manager and reporting controller.
const NAME: &str = "spillway.dev/committer";

/// Carries out intents, each in a task of its own. What is under way is given up when this is dropped.
pub struct Writer {
    requests: Requests,
    tasks: JoinSet<()>,
}

/// What every task needs.
#[derive(Clone)]
struct Requests {
    client: Client,
    events: mpsc::Sender<Event>,
    notes: mpsc::Sender<Announcement>,
}

/// A Kubernetes Event and what it is about.
struct Announcement {
    regarding: ObjectReference,
    event: KubeEvent,
}

impl Writer {
    /// A writer whose answers go to `events`.
    pub fn new(client: Client, events: mpsc::Sender<Event>) -> Writer {
        let recorder = Recorder::new(client.clone(), Reporter { controller: NAME.to_owned(), instance: None });
        let (notes, waiting) = mpsc::channel(NOTES_WAITING);
        let mut tasks = JoinSet::new();
        tasks.spawn(announce(recorder, waiting));
        Writer { requests: Requests { client, events, notes }, tasks }
    }

    /// Carries out one intent and sends back the answer, if it has one. How many run at a time is the committer's choice.
    pub fn carry_out(&mut self, intent: Intent) {
        // Those that are done are forgotten.
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(self.requests.clone().carry_out(intent));
    }
}

impl Requests {
    async fn carry_out(self, intent: Intent) {
        match intent {
            Intent::Bind(binding) => {
                let answer = self.bind(&binding).await;
                self.tell(Event::BindingAnswered { uid: binding.pod.uid, answer }).await;
            }
            Intent::FitTolerations { pod, tolerations } => {
                let patch = json!([
                    {"op": "test", "path": "/metadata/uid", "value": &*pod.uid},
                    {"op": "add", "path": "/spec/tolerations", "value": tolerations},
                ]);
                let done = self.patch(&pod, "", "application/json-patch+json", &patch).await;
                self.tell(Event::Patched { uid: pod.uid, done }).await;
            }
            Intent::RepairCondition { pod } => {
                let condition = json!({"type": "PodScheduled", "status": "True", "reason": null, "message": null, "lastTransitionTime": jiff::Timestamp::now()});
                let patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}});
                let done = self.patch(&pod, "/status", "application/strategic-merge-patch+json", &patch).await;
                self.tell(Event::Patched { uid: pod.uid, done }).await;
            }
            Intent::Read { pod } => self.read(pod).await,
            Intent::ListPending => self.list_pending().await,
            Intent::WriteBudget { name, resource_version, status } => {
                let patch = json!({"metadata": {"resourceVersion": resource_version}, "status": status});
                let budgets: Api<api::BurstBudget> = Api::all(self.client.clone());
                let written =
                    tokio::time::timeout(PATIENCE, budgets.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)))
                        .await;
                let resource_version = match written {
                    Ok(Ok(budget)) => budget.metadata.resource_version,
                    Ok(Err(error)) => {
                        tracing::debug!(budget = &*name, %error, "budget status not written");
                        None
                    }
                    Err(_) => None,
                };
                self.tell(Event::BudgetWritten { name, resource_version }).await;
            }
            Intent::WriteStatus { kind, name, status } => self.write_status(kind, name, &status).await,
            Intent::RepairNode { node, uid, repair } => self.repair_node(&node, &uid, repair).await,
            Intent::Note(note) => self.note(note),
            Intent::LiftGate { pod } => {
                let patch = json!({"metadata": {"uid": &*pod.uid}, "spec": {"schedulingGates": null}});
                self.patch(&pod, "", MERGE_PATCH, &patch).await;
                self.tell(Event::GateLifted { uid: pod.uid }).await;
            }
            Intent::Evict { pod } => {
                let answer = self.evict(&pod).await;
                self.tell(Event::EvictionAnswered { uid: pod.uid, answer }).await;
            }
            Intent::Fail { pod } => self.fail(&pod).await,
            Intent::Delete { pod } => self.delete(&pod).await,
            Intent::Wake { node } => self.wake(&node).await,
        }
    }

    async fn tell(&self, event: Event) {
        // A closed queue means that the committer is gone, and with it everybody who wants to know.
        let _ = self.events.send(event).await;
    }

    async fn bind(&self, binding: &Binding) -> BindingAnswer {
        let PodKey { namespace, name, uid } = &binding.pod;
        let resource_version = if binding.lift_gate {
            match self.lift_for_burst(binding).await {
                Ok(version) => version,
                Err(answer) => return answer,
            }
        } else {
            binding.resource_version.clone()
        };
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": &**name,
                "namespace": &**namespace,
                "uid": &**uid,
                "resourceVersion": resource_version,
                "annotations": {crate::record::ANNOTATION: binding.decision},
            },
            "target": {"apiVersion": "v1", "kind": "Node", "name": &*binding.node},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        match self.send(Method::POST, &path, "application/json", &body).await {
            Answer::Done(_) => BindingAnswer::Created,
            answer => refusal(&answer, binding),
        }
    }

    /// Lifts the gate of a pod that is about to be bound, and keeps it from every dedicated node in the same write: without the
    /// selector kube-scheduler would be faster now and then. Returns the pod's new version.
    async fn lift_for_burst(&self, binding: &Binding) -> Result<String, BindingAnswer> {
        let PodKey { namespace, name, uid } = &binding.pod;
        let patch = json!({
            "metadata": {"uid": &**uid, "resourceVersion": binding.resource_version},
            "spec": {"schedulingGates": null, "nodeSelector": {names::DECIDED_LABEL: names::DECIDED_BURST}},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}?fieldManager={NAME}");
        match self.send(Method::PATCH, &path, MERGE_PATCH, &patch).await {
            Answer::Done(pod) => {
                let pod: serde_json::Value = serde_json::from_str(&pod).map_err(|_| BindingAnswer::Unknown)?;
                pod["metadata"]["resourceVersion"].as_str().map(str::to_owned).ok_or(BindingAnswer::Unknown)
            }
            answer => Err(refusal(&answer, binding)),
        }
    }

    /// Through the Eviction API, so that PodDisruptionBudgets are kept.
    async fn evict(&self, pod: &PodKey) -> EvictionAnswer {
        let PodKey { namespace, name, uid } = pod;
        let body = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": &**name, "namespace": &**namespace},
            "deleteOptions": {"preconditions": {"uid": &**uid}},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
        match self.send(Method::POST, &path, "application/json", &body).await {
            Answer::Done(_) => EvictionAnswer::Evicted,
            // 409: the name is another pod's by now.
            Answer::Status(Refused { code: 404 | 409, .. }) => EvictionAnswer::Gone,
            Answer::Status(Refused { code: 429, retry_after, .. }) => EvictionAnswer::Blocked { retry_after },
            Answer::Status(Refused { code, message, .. }) => {
                tracing::warn!(%namespace, %name, code, message, "eviction refused");
                EvictionAnswer::Failed
            }
            Answer::Lost => EvictionAnswer::Failed,
        }
    }

    /// As the pod garbage collector fails pods whose node is gone: a Job can tell it from the pod's own failures.
    async fn fail(&self, pod: &PodKey) {
        let message = "the virtual node did not start the pod in time";
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": START_FAILED, "message": message,
            "lastTransitionTime": jiff::Timestamp::now()});
        let status = json!({"phase": "Failed", "reason": START_FAILED, "message": message, "conditions": [condition]});
        let patch = json!({"metadata": {"uid": &*pod.uid}, "status": status});
        self.patch(pod, "/status", "application/strategic-merge-patch+json", &patch).await;
    }

    async fn delete(&self, pod: &PodKey) {
        let PodKey { namespace, name, uid } = pod;
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": &**uid}});
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        if let Answer::Status(Refused { code, message, .. }) =
            self.send(Method::DELETE, &path, "application/json", &options).await
            && code != 404
        {
            tracing::warn!(%namespace, %name, code, message, "pod not deleted; it is tried again");
        }
    }

    /// Whether the patch is done or can never be.
    async fn patch(&self, pod: &PodKey, subresource: &str, content: &'static str, patch: &serde_json::Value) -> bool {
        let path = format!("/api/v1/namespaces/{}/pods/{}{subresource}?fieldManager={NAME}", pod.namespace, pod.name);
        match self.send(Method::PATCH, &path, content, patch).await {
            Answer::Done(_) | Answer::Status(Refused { code: 404, .. }) => true,
            Answer::Status(Refused { code, message, .. }) => {
                tracing::debug!(namespace = &*pod.namespace, name = &*pod.name, code, message, "patch refused");
                false
            }
            Answer::Lost => false,
        }
    }

    async fn send(&self, method: Method, path: &str, content: &'static str, body: &serde_json::Value) -> Answer {
        let Ok(body) = serde_json::to_vec(body) else { return Answer::Lost };
        let request = Request::builder().method(method).uri(path).header("content-type", content).body(body);
        let Ok(request) = request else { return Answer::Lost };
        match tokio::time::timeout(PATIENCE, self.client.request_text(request)).await {
            Ok(Ok(body)) => Answer::Done(body),
            Ok(Err(kube::Error::Api(status))) => {
                let seconds = status.details.as_ref().map(|details| u64::from(details.retry_after_seconds));
                let retry_after = seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
                Answer::Status(Refused { code: status.code, message: status.message.clone(), retry_after })
            }
            Ok(Err(error)) => {
                tracing::warn!(path, error = format!("{:#}", anyhow::Error::from(error)), "no answer from the API server");
                Answer::Lost
            }
            Err(_) => Answer::Lost,
        }
    }

    async fn read(&self, key: PodKey) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match tokio::time::timeout(PATIENCE, pods.get_opt(&key.name)).await {
            Ok(Ok(Some(pod))) if pod.metadata.uid.as_deref() == Some(&*key.uid) => self.tell(Event::PodRead(Box::new(pod))).await,
            Ok(Ok(_)) => self.tell(Event::PodGone { uid: key.uid }).await,
            // The committer asks again.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    async fn list_pending(&self) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut params = ListParams::default().fields("spec.nodeName=").limit(PAGE);
        loop {
            let page = match pods.list(&params).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "pending pods could not be listed; it is tried again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    params.continue_token = None;
                    continue;
                }
            };
            for pod in page.items {
                self.tell(Event::Pod(Box::new(pod))).await;
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return self.tell(Event::PendingListed).await,
            }
        }
    }

    async fn write_status(&self, kind: StatusKind, name: Arc<str>, status: &serde_json::Value) {
        let params = PatchParams::apply(NAME).force();
        let written = match kind {
            StatusKind::Policy => {
                let patch = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "BurstPolicy", "status": status});
                Api::<api::BurstPolicy>::all(self.client.clone())
                    .patch_status(&name, &params, &Patch::Apply(&patch))
                    .await
                    .map(drop)
            }
            StatusKind::VirtualNode => {
                let patch = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "VirtualNode", "status": status});
                Api::<api::VirtualNode>::all(self.client.clone())
                    .patch_status(&name, &params, &Patch::Apply(&patch))
                    .await
                    .map(drop)
            }
        };
        match written {
            Ok(()) => {}
            // Nobody is left to read it.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                tracing::warn!(?kind, name = &*name, %error, "status not written; it is tried again");
                self.tell(Event::StatusNotWritten { kind, name }).await;
            }
        }
    }

    /// Any change of a Node wakes kube-scheduler.
    async fn wake(&self, node: &str) {
        let patch = json!({"metadata": {"annotations": {names::WOKEN_AT_ANNOTATION: jiff::Timestamp::now().to_string()}}});
        let path = format!("/api/v1/nodes/{node}?fieldManager={NAME}");
        if let Answer::Status(Refused { code, message, .. }) =
            self.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await
        {
            tracing::warn!(node, code, message, "kube-scheduler could not be woken; it is tried again");
        }
    }

    async fn repair_node(&self, name: &str, uid: &str, repair: Repair) {
        for (subresource, patch) in [("", repair.of_node()), ("/status", repair.of_status())] {
            let Some(mut patch) = patch else { continue };
            patch["metadata"]["uid"] = json!(uid);
            let path = format!("/api/v1/nodes/{name}{subresource}?fieldManager={NAME}");
            match self.send(Method::PATCH, &path, "application/strategic-merge-patch+json", &patch).await {
                Answer::Done(_) => {}
                // Gone, or made anew: then it is looked at anew.
                Answer::Status(Refused { code: 404 | 409, .. }) => return,
                Answer::Status(Refused { code, message, .. }) => {
                    tracing::warn!(node = name, code, message, "the Node of a virtual kubelet has drifted and is not repaired");
                    return;
                }
                Answer::Lost => return,
            }
        }
        let rules: Vec<&str> = repair.checks.iter().map(|check| check.rule()).collect();
        tracing::info!(node = name, checks = rules.join(", "), "the Node of a virtual kubelet had drifted and was repaired");
        let text = format!("the Node of a virtual kubelet breaks nobody else with: {}", rules.join(", "));
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.tell(Event::NodeRepaired(repair.checks)).await;
        self.publish(reference, "HygieneRepaired", false, "Repair", &text);
    }

    fn note(&self, note: Note) {
        let Note { pod, reason, warning, action, text } = note;
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.to_string()),
            namespace: Some(pod.namespace.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        };
        self.publish(reference, reason, warning, action, &text);
    }

    fn publish(&self, regarding: ObjectReference, reason: &str, warning: bool, action: &str, text: &str) {
        let event = KubeEvent {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(text.chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.notes.try_send(Announcement { regarding, event }) {
            tracing::debug!(reason, %error, "event not written");
        }
    }
}

/// Writes Events, one after another.
async fn announce(recorder: Recorder, mut waiting: mpsc::Receiver<Announcement>) {
    let mut pace = tokio::time::interval(NOTE_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(Announcement { regarding, event }) = waiting.recv().await {
        pace.tick().await;
        let error = match tokio::time::timeout(PATIENCE, recorder.publish(&event, &regarding)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        tracing::debug!(object = regarding.name, reason = event.reason, error, "event not written");
    }
}

/// What came back for a request.
enum Answer {
    /// The body.
    Done(String),
    Status(Refused),
    Lost,
}

/// What the API server says where it does not do what is asked.
struct Refused {
    code: u16,
    message: String,
    /// When it is worth trying again.
    retry_after: Option<Duration>,
}

/// What a failed write means for the Binding that it was part of.
fn refusal(answer: &Answer, binding: &Binding) -> BindingAnswer {
    let PodKey { namespace, name, .. } = &binding.pod;
    let Answer::Status(Refused { code, message, .. }) = answer else { return BindingAnswer::Unknown };
    match code {
        404 => BindingAnswer::NotFound,
        409 => {
            tracing::debug!(%namespace, %name, message, "lost the race for a pod");
            BindingAnswer::Conflict
        }
        429 => BindingAnswer::Throttled,
        400..500 => {
            tracing::warn!(%namespace, %name, node = &*binding.node, code, message, "Binding refused");
            BindingAnswer::Refused
        }
        _ => BindingAnswer::Unknown,
    }
}
