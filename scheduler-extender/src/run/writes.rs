//! Carrying out intents against an API server. One attempt each: the committer decides what happens next.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Request};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use crate::api::{self, names};
use crate::committer::{Binding, BindingAnswer, Event, Intent, Note, PodKey, StatusKind};
use crate::hygiene::Repair;

/// An answer later than this is as good as lost: the pod is read instead.
const PATIENCE: Duration = Duration::from_secs(10);
/// Notes under way at most; more than that are dropped, the annotation and the explanation remain.
const NOTES_AT_A_TIME: usize = 8;
/// Pending pods listed per page.
const PAGE: u32 = 500;
/// Field manager and reporting controller.
const NAME: &str = "spillway.dev/committer";

/// Carries out intents, each in a task of its own.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    events: mpsc::Sender<Event>,
    recorder: Recorder,
    notes: Arc<Semaphore>,
}

impl Writer {
    /// A writer whose answers go to `events`.
    pub fn new(client: Client, events: mpsc::Sender<Event>) -> Writer {
        let recorder = Recorder::new(client.clone(), Reporter { controller: NAME.to_owned(), instance: None });
        Writer { client, events, recorder, notes: Arc::new(Semaphore::new(NOTES_AT_A_TIME)) }
    }

    /// Carries out one intent and sends back the answer, if it has one. How many run at a time is the committer's choice.
    pub fn carry_out(&self, intent: Intent) {
        let writer = self.clone();
        tokio::spawn(async move {
            match intent {
                Intent::Bind(binding) => {
                    let answer = writer.bind(&binding).await;
                    writer.tell(Event::BindingAnswered { uid: binding.pod.uid, answer }).await;
                }
                Intent::FitTolerations { pod, tolerations } => {
                    let patch = json!([
                        {"op": "test", "path": "/metadata/uid", "value": &*pod.uid},
                        {"op": "add", "path": "/spec/tolerations", "value": tolerations},
                    ]);
                    let done = writer.patch(&pod, "", "application/json-patch+json", &patch).await;
                    writer.tell(Event::Patched { uid: pod.uid, done }).await;
                }
                Intent::RepairCondition { pod } => {
                    let condition = json!({"type": "PodScheduled", "status": "True", "reason": null, "message": null, "lastTransitionTime": jiff::Timestamp::now()});
                    let patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}});
                    let done = writer.patch(&pod, "/status", "application/strategic-merge-patch+json", &patch).await;
                    writer.tell(Event::Patched { uid: pod.uid, done }).await;
                }
                Intent::Read { pod } => writer.read(pod).await,
                Intent::ListPending => writer.list_pending().await,
                Intent::WriteBudget { name, resource_version, status } => {
                    let patch = json!({"metadata": {"resourceVersion": resource_version}, "status": status});
                    let budgets: Api<api::BurstBudget> = Api::all(writer.client.clone());
                    let written = tokio::time::timeout(
                        PATIENCE,
                        budgets.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)),
                    )
                    .await;
                    let resource_version = match written {
                        Ok(Ok(budget)) => budget.metadata.resource_version,
                        Ok(Err(error)) => {
                            tracing::debug!(budget = &*name, %error, "budget status not written");
                            None
                        }
                        Err(_) => None,
                    };
                    writer.tell(Event::BudgetWritten { name, resource_version }).await;
                }
                Intent::WriteStatus { kind, name, status } => writer.write_status(kind, name, &status).await,
                Intent::RepairNode { node, uid, repair } => writer.repair_node(&node, &uid, repair).await,
                Intent::Note(note) => writer.note(note).await,
                Intent::Wake { node } => writer.wake(&node).await,
            }
        });
    }

    async fn tell(&self, event: Event) {
        // A closed queue means that the committer is gone, and with it everybody who wants to know.
        let _ = self.events.send(event).await;
    }

    async fn bind(&self, binding: &Binding) -> BindingAnswer {
        let PodKey { namespace, name, uid } = &binding.pod;
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": &**name,
                "namespace": &**namespace,
                "uid": &**uid,
                "resourceVersion": binding.resource_version,
                "annotations": {crate::record::ANNOTATION: binding.decision},
            },
            "target": {"apiVersion": "v1", "kind": "Node", "name": &*binding.node},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        match self.send(Method::POST, &path, "application/json", &body).await {
            Answer::Done => BindingAnswer::Created,
            Answer::Status(404, _) => BindingAnswer::NotFound,
            Answer::Status(409, message) => {
                tracing::debug!(%namespace, %name, message, "lost the race for a pod");
                BindingAnswer::Conflict
            }
            Answer::Status(429, _) => BindingAnswer::Throttled,
            Answer::Status(code @ 400..500, message) => {
                tracing::warn!(%namespace, %name, node = &*binding.node, code, message, "Binding refused");
                BindingAnswer::Refused
            }
            Answer::Status(..) | Answer::Lost => BindingAnswer::Unknown,
        }
    }

    /// Whether the patch is done or can never be.
    async fn patch(&self, pod: &PodKey, subresource: &str, content: &'static str, patch: &serde_json::Value) -> bool {
        let path = format!("/api/v1/namespaces/{}/pods/{}{subresource}?fieldManager={NAME}", pod.namespace, pod.name);
        match self.send(Method::PATCH, &path, content, patch).await {
            Answer::Done | Answer::Status(404, _) => true,
            Answer::Status(code, message) => {
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
            Ok(Ok(_)) => Answer::Done,
            Ok(Err(kube::Error::Api(status))) => Answer::Status(status.code, status.message.clone()),
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
        if let Answer::Status(code, message) = self.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await {
            tracing::warn!(node, code, message, "kube-scheduler could not be woken; it is tried again");
        }
    }

    async fn repair_node(&self, name: &str, uid: &str, repair: Repair) {
        for (subresource, patch) in [("", repair.of_node()), ("/status", repair.of_status())] {
            let Some(mut patch) = patch else { continue };
            patch["metadata"]["uid"] = json!(uid);
            let path = format!("/api/v1/nodes/{name}{subresource}?fieldManager={NAME}");
            match self.send(Method::PATCH, &path, "application/strategic-merge-patch+json", &patch).await {
                Answer::Done => {}
                // Gone, or made anew: then it is looked at anew.
                Answer::Status(404 | 409, _) => return,
                Answer::Status(code, message) => {
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
        self.publish(&reference, "HygieneRepaired", false, "Repair", &text).await;
    }

    async fn note(&self, note: Note) {
        let Ok(_permit) = self.notes.try_acquire() else { return };
        let Note { pod, reason, warning, action, text } = note;
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.to_string()),
            namespace: Some(pod.namespace.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        };
        self.publish(&reference, reason, warning, action, &text).await;
    }

    async fn publish(&self, regarding: &ObjectReference, reason: &str, warning: bool, action: &str, text: &str) {
        let event = KubeEvent {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(text.chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, regarding).await {
            tracing::debug!(object = regarding.name, reason, %error, "event not written");
        }
    }
}

/// What came back for a request.
enum Answer {
    Done,
    Status(u16, String),
    Lost,
}
