//! What the API server fills in: defaults that every real object carries and that conversion code must therefore meet.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, Node, NodeStatus, Pod, PodStatus, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Toleration, Volume, VolumeMount, VolumeProjection,
};
use policy::Timestamp;

use super::store::{ready_condition, set_condition};

/// Label that marks the node of a virtual kubelet.
const VIRTUAL_LABEL: (&str, &str) = ("type", "virtual-kubelet");

/// Defaults of a new pod: scheduler, priority, requests from limits, tolerations, token volume.
pub(super) fn admit_pod(pod: &mut Pod, now: Timestamp) {
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let Some(spec) = pod.spec.as_mut() else { return };
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".to_owned());
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.service_account_name.get_or_insert_with(|| "default".to_owned());
    spec.priority.get_or_insert(0);
    spec.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    spec.enable_service_links.get_or_insert(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.image_pull_policy.get_or_insert_with(|| "IfNotPresent".to_owned());
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
        let Some(resources) = container.resources.as_mut() else { continue };
        for (name, limit) in resources.limits.iter().flatten() {
            resources.requests.get_or_insert_default().entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerations = spec.tolerations.get_or_insert_default();
        let covered = |toleration: &Toleration| {
            toleration.key.as_deref().is_none_or(|named| named == key)
                && toleration.effect.as_deref().is_none_or(|effect| effect == "NoExecute")
        };
        if !tolerations.iter().any(covered) {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(300),
                value: None,
            });
        }
    }
    if spec.automount_service_account_token != Some(false) {
        mount_token(pod);
    }
    let gated = is_gated(pod);
    let status = pod.status.get_or_insert_with(PodStatus::default);
    status.phase = Some("Pending".to_owned());
    status.qos_class.get_or_insert_with(|| "Burstable".to_owned());
    if gated {
        let message = "Scheduling is blocked due to non-empty scheduling gates";
        set_condition(pod, "PodScheduled", false, Some("SchedulingGated"), Some(message), now);
    }
}

/// Whether scheduling gates hold the pod back.
pub(super) fn is_gated(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
}

/// Whether a virtual kubelet stands behind the node.
pub(super) fn is_virtual(node: &Node) -> bool {
    node.metadata.labels.as_ref().and_then(|labels| labels.get(VIRTUAL_LABEL.0)).is_some_and(|value| value == VIRTUAL_LABEL.1)
}

/// What a kubelet writes about its node when it starts.
pub(super) fn admit_node(node: &mut Node, now: Timestamp) {
    if !is_virtual(node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let labels = node.metadata.labels.get_or_insert_default();
        for (key, value) in
            [("kubernetes.io/hostname", name.as_str()), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")]
        {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    let status = node.status.get_or_insert_with(NodeStatus::default);
    if status.capacity.is_none() {
        status.capacity = status.allocatable.clone();
    }
    if status.allocatable.is_none() {
        status.allocatable = status.capacity.clone();
    }
    let conditions = status.conditions.get_or_insert_default();
    if !conditions.iter().any(|condition| condition.type_ == "Ready") {
        conditions.push(ready_condition(now));
    }
}

/// The projected volume with the service account's token, as the ServiceAccount admission plugin adds it.
fn mount_token(pod: &mut Pod) {
    const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let Some(spec) = pod.spec.as_mut() else { return };
    let name = "kube-api-access-token".to_owned();
    let volumes = spec.volumes.get_or_insert_default();
    if volumes.iter().any(|volume| volume.name.starts_with("kube-api-access-")) {
        return;
    }
    let projection = VolumeProjection::default;
    let sources = vec![
        VolumeProjection {
            service_account_token: Some(ServiceAccountTokenProjection {
                expiration_seconds: Some(3607),
                path: "token".to_owned(),
                audience: None,
            }),
            ..projection()
        },
        VolumeProjection {
            config_map: Some(ConfigMapProjection { name: "kube-root-ca.crt".to_owned(), ..ConfigMapProjection::default() }),
            ..projection()
        },
        VolumeProjection { downward_api: Some(DownwardAPIProjection::default()), ..projection() },
    ];
    volumes.push(Volume {
        name: name.clone(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(420), sources: Some(sources) }),
        ..Volume::default()
    });
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: name.clone(),
            mount_path: MOUNT.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}
