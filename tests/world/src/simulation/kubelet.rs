//! The life of a bound pod: kubelets of dedicated nodes, and what they share with virtual ones.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, Pod, PodIP};
use policy::Timestamp;

use super::agenda::{Item, KubeletStep};
use super::run_time::exit_code;
use super::scheduling::STOP_TIME;
use super::store::{PodId, set_condition, time};
use super::{Simulation, admission};

impl Simulation {
    /// A Binding was written; the node's kubelet will see it.
    pub(super) fn assigned(&mut self, id: PodId) {
        let latency = self.latencies.duration(&self.settings.controller_latency);
        self.agenda.plan(self.now + latency, Item::Kubelet(id, KubeletStep::Admit));
    }

    pub(super) fn kubelet_step(&mut self, id: PodId, step: KubeletStep) {
        let Some(pod) = self.store.pod(id).cloned() else { return };
        let Some(name) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { return };
        let Some(node) = self.store.node(name).cloned() else { return };
        if has_ended(&pod) {
            return;
        }
        match (admission::is_virtual(&node), step) {
            (true, KubeletStep::Admit | KubeletStep::Start) => self.virtual_create(id, &pod, name),
            (true, KubeletStep::Look) => self.virtual_look(id, &pod, name),
            (true, KubeletStep::Finish) => self.virtual_finish(id, &pod, name),
            (true, KubeletStep::Remove) => self.virtual_remove(id, &pod, name),
            (false, KubeletStep::Admit) => self.pull(id, &pod, name),
            (false, KubeletStep::Start) => self.run(id, self.now),
            (false, KubeletStep::Finish) => self.end_containers(id, exit_code(&pod), None),
            (false, KubeletStep::Remove) => self.store.delete_pod(id, self.now),
            (false, KubeletStep::Look) => {}
        }
    }

    fn pull(&mut self, id: PodId, pod: &Pod, node: &str) {
        let mut start = self.latencies.duration(&self.settings.container_start);
        let node: Arc<str> = Arc::from(node);
        let images = pod.spec.iter().flat_map(|spec| &spec.containers).filter_map(|container| container.image.clone());
        for image in images {
            if self.pulled.insert((node.clone(), image)) {
                start += self.settings.image_pull;
            }
        }
        self.agenda.plan(self.now + start, Item::Kubelet(id, KubeletStep::Start));
    }

    /// The containers run since `since`.
    pub(super) fn run(&mut self, id: PodId, since: Timestamp) {
        let now = self.now;
        self.store.life_mut(id).started_at = Some(since);
        let address = format!("10.{}.{}.{}", 128 + (id.0 >> 16) % 64, (id.0 >> 8) % 256, id.0 % 256);
        self.store.update_pod(id, |pod| {
            for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
                set_condition(pod, kind, true, None, None, now);
            }
            let statuses = container_statuses(
                pod,
                &ContainerState {
                    running: Some(ContainerStateRunning { started_at: Some(time(since)) }),
                    ..ContainerState::default()
                },
            );
            let status = pod.status.get_or_insert_default();
            status.phase = Some("Running".to_owned());
            status.start_time = Some(time(since));
            status.pod_ips = Some(vec![PodIP { ip: address.clone() }]);
            status.pod_ip = Some(address);
            status.container_statuses = Some(statuses);
        });
        if let Some(run_time) = self.store.life(id).run_time {
            self.agenda.plan((since + run_time).max(now), Item::Kubelet(id, KubeletStep::Finish));
        }
    }

    /// The containers have ended with `code`; `reason` is the pod's own reason where it did not end by itself.
    pub(super) fn end_containers(&mut self, id: PodId, code: i32, reason: Option<(&str, &str)>) {
        let now = self.now;
        let started = self.store.life(id).started_at;
        self.store.life_mut(id).ended_at = Some(now);
        self.store.update_pod(id, |pod| {
            let because = if code == 0 { "Completed" } else { "Error" };
            let ready_reason = if code == 0 { "PodCompleted" } else { "PodFailed" };
            for kind in ["ContainersReady", "Ready"] {
                set_condition(pod, kind, false, Some(ready_reason), None, now);
            }
            let statuses = container_statuses(
                pod,
                &ContainerState {
                    terminated: Some(ContainerStateTerminated {
                        exit_code: code,
                        reason: Some(because.to_owned()),
                        started_at: started.map(time),
                        finished_at: Some(time(now)),
                        ..ContainerStateTerminated::default()
                    }),
                    ..ContainerState::default()
                },
            );
            let status = pod.status.get_or_insert_default();
            status.phase = Some(if code == 0 { "Succeeded" } else { "Failed" }.to_owned());
            status.container_statuses = Some(statuses);
            status.reason = reason.map(|(reason, _)| reason.to_owned());
            status.message = reason.map(|(_, message)| message.to_owned());
        });
    }

    /// A pod is asked to go: at once when nothing runs, else after its containers stopped.
    pub(super) fn begin_deletion(&mut self, id: PodId) {
        let Some(pod) = self.store.pod(id) else { return };
        let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if !is_bound || has_ended(pod) {
            self.store.delete_pod(id, self.now);
        } else if pod.metadata.deletion_timestamp.is_none() {
            let now = self.now;
            self.store.update_pod(id, |pod| {
                pod.metadata.deletion_grace_period_seconds = Some(30);
                pod.metadata.deletion_timestamp = Some(time(now));
            });
            self.agenda.plan(now + STOP_TIME, Item::Kubelet(id, KubeletStep::Remove));
        }
    }
}

/// Whether the pod is in a final phase.
pub(super) fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn container_statuses(pod: &Pod, state: &ContainerState) -> Vec<ContainerStatus> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let status = |container: &k8s_openapi::api::core::v1::Container| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ready: state.running.is_some(),
        started: Some(state.running.is_some()),
        state: Some(state.clone()),
        ..ContainerStatus::default()
    };
    containers.map(status).collect()
}
