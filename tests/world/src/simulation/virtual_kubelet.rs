//! Virtual kubelets: pods of virtual nodes run in a cloud in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use policy::{Money, Resources, Shape, Timestamp};
use providers::memory::{Backend, FaultWindow, Settings};
use providers::{Container, ErrorKind, Exit, PodRequest, PodUid, RemotePhase};

use super::Simulation;
use super::agenda::{Item, KubeletStep};
use super::run_time::exit_code;
use super::scheduler::effective_request;
use super::store::PodId;

/// The billable shape of a pod on a backend.
pub type ShapeOf = Box<dyn Fn(&Pod) -> Resources + Send>;

/// The clouds behind the virtual nodes, by node name.
#[derive(Default)]
pub(super) struct Backends {
    clouds: BTreeMap<String, Cloud>,
}

struct Cloud {
    backend: Backend,
    shape_of: ShapeOf,
}

// === impl Backends ===

impl Backends {
    /// The cloud of a node; a node without one gets a neutral one.
    fn of(&mut self, node: &str) -> &mut Cloud {
        self.clouds
            .entry(node.to_owned())
            .or_insert_with(|| Cloud { backend: Backend::new(Settings::immediate()), shape_of: Box::new(effective_request) })
    }

    pub(super) fn inject(&mut self, node: &str, window: FaultWindow) {
        self.of(node).backend.inject(window);
    }
}

// === impl Simulation ===

impl Simulation {
    /// Puts a cloud behind a virtual node. `shape_of` says what a pod occupies there; without it, what it requests.
    pub fn attach(&mut self, node: &str, backend: Backend, shape_of: Option<ShapeOf>) {
        let shape_of = shape_of.unwrap_or_else(|| Box::new(effective_request));
        self.backends.clouds.insert(node.to_owned(), Cloud { backend, shape_of });
    }

    /// The cloud behind a virtual node, for observation and for changes by its operator.
    pub fn backend(&mut self, node: &str) -> &mut Backend {
        &mut self.backends.of(node).backend
    }

    /// What the clouds have charged for a pod until now.
    pub fn charged(&self, pod: &Pod) -> Money {
        let uid = PodUid::new(pod.metadata.uid.as_deref().unwrap_or_default());
        self.backends.clouds.values().map(|cloud| cloud.backend.charged(&uid, self.now)).sum()
    }

    /// What every cloud has charged until now.
    pub fn bill(&self) -> Money {
        self.backends.clouds.values().map(|cloud| cloud.backend.bill(self.now)).sum()
    }

    pub(super) fn virtual_create(&mut self, id: PodId, pod: &Pod, node: &str) {
        if pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let now = self.now;
        let deadline = self.start_deadline(id);
        let cloud = self.backends.of(node);
        let request = request(pod, &(cloud.shape_of)(pod));
        match cloud.backend.create(&request, now) {
            Ok(_) => self.plan_look(id, &request.uid, node),
            Err(error) => {
                let wait = match error.kind {
                    ErrorKind::Throttled { retry_after } => retry_after.unwrap_or(self.settings.backend_retry),
                    ErrorKind::Unavailable | ErrorKind::NoCapacity | ErrorKind::Conflict | ErrorKind::NotFound => {
                        self.settings.backend_retry
                    }
                    ErrorKind::QuotaExceeded | ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::Unsupported => {
                        return self.end_containers(id, 1, Some(("ProviderFailed", &error.to_string())));
                    }
                };
                if now + wait > deadline {
                    let message = format!("not started within its deadline; last answer: {error}");
                    return self.end_containers(id, 1, Some(("ProviderFailed", &message)));
                }
                self.agenda.plan(now + wait, Item::Kubelet(id, KubeletStep::Admit));
            }
        }
    }

    /// Looks at the cloud's view of a pod and brings the pod's status up to it.
    pub(super) fn virtual_look(&mut self, id: PodId, pod: &Pod, node: &str) {
        let now = self.now;
        let uid = uid(pod);
        let remote = match self.backends.of(node).backend.get(&uid, now) {
            Ok(remote) => remote,
            Err(error) if error.kind == ErrorKind::NotFound => {
                return self.end_containers(id, 1, Some(("ProviderFailed", "the cloud does not know it any more")));
            }
            Err(_) => return self.agenda.plan(now + self.settings.backend_retry, Item::Kubelet(id, KubeletStep::Look)),
        };
        match (remote.phase, &remote.exit) {
            (RemotePhase::Pending | RemotePhase::Pulling, _) if now >= self.start_deadline(id) => {
                // The answer does not matter: what is left behind would be found by its UID.
                self.backends.of(node).backend.delete(&remote.id, now).ok();
                self.end_containers(id, 1, Some(("ProviderFailed", "not started within its deadline")));
            }
            (RemotePhase::Running, _) => {
                if self.store.life(id).started_at.is_none() {
                    self.run(id, remote.started_at.unwrap_or(now));
                }
            }
            (RemotePhase::Stopped, Some(Exit::Finished { code })) => self.end_containers(id, *code, None),
            (RemotePhase::Stopped, Some(Exit::NotStarted { reason, .. })) => {
                self.end_containers(id, 1, Some(("ProviderFailed", reason)));
            }
            (RemotePhase::Stopped, Some(Exit::Lost { reason })) => self.end_containers(id, 137, Some(("NodeLost", reason))),
            (RemotePhase::Stopped, Some(Exit::Reclaimed)) => {
                self.end_containers(id, 137, Some(("SpotReclaimed", "the cloud took the machine back")));
            }
            (RemotePhase::Stopped, Some(Exit::Deleted) | None) => {
                self.end_containers(id, 137, Some(("Deleted", "deleted in the cloud")));
            }
            (RemotePhase::Pending | RemotePhase::Pulling, _) => self.plan_look(id, &uid, node),
        }
    }

    pub(super) fn virtual_finish(&mut self, id: PodId, pod: &Pod, node: &str) {
        let now = self.now;
        self.backends.of(node).backend.finish(&uid(pod), exit_code(pod), now);
        self.virtual_look(id, pod, node);
    }

    pub(super) fn virtual_remove(&mut self, id: PodId, pod: &Pod, node: &str) {
        let now = self.now;
        let backend = &mut self.backends.of(node).backend;
        let remote = backend.peek(&uid(pod), now);
        match remote.map_or(Ok(()), |remote| backend.delete(&remote.id, now)) {
            Ok(()) => self.store.delete_pod(id, now),
            Err(_) => self.agenda.plan(now + self.settings.backend_retry, Item::Kubelet(id, KubeletStep::Remove)),
        }
    }

    fn plan_look(&mut self, id: PodId, uid: &PodUid, node: &str) {
        let now = self.now;
        let deadline = self.start_deadline(id).max(now);
        let next = self.backends.of(node).backend.next_change_at(uid, now);
        // Something that changes right now (an immediate cloud) is looked at right now.
        self.agenda.plan(next.unwrap_or(now).min(deadline), Item::Kubelet(id, KubeletStep::Look));
    }

    fn start_deadline(&self, id: PodId) -> Timestamp {
        self.store.life(id).bound_at.map_or(Timestamp::MAX, |bound| bound + self.settings.start_deadline)
    }
}

fn uid(pod: &Pod) -> PodUid {
    PodUid::new(pod.metadata.uid.as_deref().unwrap_or_default())
}

fn request(pod: &Pod, shape: &Resources) -> PodRequest {
    let text = |text: &Option<String>| Arc::<str>::from(text.as_deref().unwrap_or_default());
    let shape = Shape { cpu_millis: shape.cpu_millis, memory_bytes: shape.memory_bytes, ephemeral_bytes: shape.ephemeral_bytes };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    PodRequest {
        containers: containers
            .map(|container| Container {
                command: container.command.clone().unwrap_or_default(),
                arguments: container.args.clone().unwrap_or_default(),
                ..Container::new(container.name.as_str(), text(&container.image))
            })
            .collect(),
        ..PodRequest::new(uid(pod), text(&pod.metadata.namespace), text(&pod.metadata.name), shape)
    }
}
