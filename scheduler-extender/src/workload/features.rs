//! Which features a pod uses: one question per feature, asked once.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSecurityContext, PodSpec, Probe, SecurityContext, Volume};
use policy::Quantity;
use policy::Resources;
use policy::workload::{Feature, FeatureSet};

use super::requests::{Kind, all, quantity};
use crate::api::{Invalid, names};

/// Labels and annotations by which the schedulers that know gangs recognise their members.
const GANG_LABELS: [&str; 4] = [
    "scheduling.x-k8s.io/pod-group",
    "pod-group.scheduling.sigs.k8s.io",
    "pod-group.scheduling.sigs.k8s.io/name",
    "kueue.x-k8s.io/pod-group-name",
];
const GANG_ANNOTATIONS: [&str; 4] = [
    "scheduling.k8s.io/group-name",
    "gang.scheduling.koordinator.sh/name",
    "yunikorn.apache.org/task-group-name",
    "yunikorn.apache.org/task-groups",
];
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The volume with the default token that the API server adds to nearly every pod; every backend has its own way with it.
const DEFAULT_TOKEN_VOLUME: &str = "kube-api-access-";
/// Containers of one pod that every cloud takes.
const CONTAINERS_EVERYWHERE: usize = 10;

/// The features of a pod. [`Feature::LocalTraffic`] is not among them: it is a matter of Services.
pub(super) fn features(pod: &Pod, spec: &PodSpec, requests: &Resources) -> Result<FeatureSet, Invalid> {
    let mut features = FeatureSet::default();
    of_metadata(pod, &mut features);
    of_placement(spec, &mut features);
    of_host(spec, &mut features);
    if let Some(context) = &spec.security_context {
        of_pod_security(context, &mut features);
    }
    for volume in spec.volumes.iter().flatten().filter(|volume| !is_default_token(volume)) {
        features.insert(of_volume(volume));
    }
    for (kind, _, container) in all(spec) {
        of_container(kind, container, &mut features);
    }
    of_resources(spec, requests, &mut features)?;
    Ok(features)
}

/// Linux capabilities that any container adds, sorted.
pub(super) fn added_capabilities(spec: &PodSpec) -> Vec<Arc<str>> {
    let contexts = all(spec).filter_map(|(_, _, container)| container.security_context.as_ref());
    let mut added: Vec<Arc<str>> = contexts
        .filter_map(|context| context.capabilities.as_ref())
        .flat_map(|capabilities| capabilities.add.iter().flatten())
        .map(|capability| Arc::from(capability.as_str()))
        .collect();
    added.sort_unstable();
    added.dedup();
    added
}

fn when(features: &mut FeatureSet, feature: Feature, used: bool) {
    if used {
        features.insert(feature);
    }
}

fn filled<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn of_metadata(pod: &Pod, features: &mut FeatureSet) {
    let metadata = &pod.metadata;
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let annotated = |key: &str| metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(key));
    let controller = metadata.owner_references.iter().flatten().find(|reference| reference.controller == Some(true));
    let made_by = |kind: &str| controller.is_some_and(|controller| controller.kind == kind);
    when(features, Feature::OptedOut, label(names::DO_NOT_BURST_LABEL).is_some_and(|value| value == "true"));
    when(features, Feature::DaemonSet, made_by("DaemonSet"));
    when(features, Feature::MirrorPod, made_by("Node") || annotated(MIRROR_ANNOTATION));
    let in_gang = GANG_LABELS.into_iter().any(|key| label(key).is_some()) || GANG_ANNOTATIONS.into_iter().any(annotated);
    when(features, Feature::Gang, in_gang);
}

fn of_placement(spec: &PodSpec, features: &mut FeatureSet) {
    let foreign = spec.scheduling_gates.iter().flatten().any(|gate| gate.name != names::DECIDE_GATE);
    when(features, Feature::SchedulingGate, foreign);
    for constraint in spec.topology_spread_constraints.iter().flatten() {
        let soft = constraint.when_unsatisfiable == "ScheduleAnyway";
        features.insert(if soft { Feature::Preferences } else { Feature::TopologySpread });
    }
    if let Some(affinity) = &spec.affinity {
        let (nodes, near, far) =
            (affinity.node_affinity.as_ref(), affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let prefers = nodes.is_some_and(|nodes| filled(nodes.preferred_during_scheduling_ignored_during_execution.as_ref()))
            || near.is_some_and(|near| filled(near.preferred_during_scheduling_ignored_during_execution.as_ref()))
            || far.is_some_and(|far| filled(far.preferred_during_scheduling_ignored_during_execution.as_ref()));
        let seeks = near.is_some_and(|near| filled(near.required_during_scheduling_ignored_during_execution.as_ref()));
        let avoids = far.is_some_and(|far| filled(far.required_during_scheduling_ignored_during_execution.as_ref()));
        when(features, Feature::Preferences, prefers);
        when(features, Feature::PodAffinity, seeks);
        when(features, Feature::PodAntiAffinity, avoids);
    }
    when(features, Feature::ResourceClaim, filled(spec.resource_claims.as_ref()));
    when(features, Feature::RuntimeClass, spec.runtime_class_name.as_deref().is_some_and(|name| !name.is_empty()));
    let selected = spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows") || selected.is_some_and(|os| os == "windows");
    when(features, Feature::Windows, windows);
}

fn of_host(spec: &PodSpec, features: &mut FeatureSet) {
    when(features, Feature::HostNetwork, spec.host_network == Some(true));
    when(features, Feature::HostPid, spec.host_pid == Some(true));
    when(features, Feature::HostIpc, spec.host_ipc == Some(true));
    when(features, Feature::HostAliases, filled(spec.host_aliases.as_ref()));
    when(features, Feature::SharedProcessNamespace, spec.share_process_namespace == Some(true));
    when(features, Feature::UserNamespace, spec.host_users == Some(false));
    when(features, Feature::ImagePullSecrets, filled(spec.image_pull_secrets.as_ref()));
    when(features, Feature::ManyContainers, all(spec).count() > CONTAINERS_EVERYWHERE);
    let grace = spec.termination_grace_period_seconds.unwrap_or(0);
    when(features, Feature::LongGracePeriod, grace > i64::from(super::GRACE_SECONDS_DEFAULT));
    match spec.restart_policy.as_deref() {
        None | Some("Always") => features.insert(Feature::RestartAlways),
        Some("OnFailure") => features.insert(Feature::RestartOnFailure),
        Some(_) => {}
    }
    let ends_by_itself = spec.restart_policy.as_deref().is_some_and(|policy| policy != "Always");
    when(features, Feature::SeveralContainers, ends_by_itself && spec.containers.len() > 1);
}

fn of_pod_security(context: &PodSecurityContext, features: &mut FeatureSet) {
    when(features, Feature::RunAsUser, context.run_as_user.is_some() || context.run_as_group.is_some());
    let groups = context.fs_group.is_some() || filled(context.supplemental_groups.as_ref());
    when(features, Feature::FsGroup, groups);
    when(features, Feature::SeLinux, context.se_linux_options.is_some());
    when(features, Feature::Sysctls, filled(context.sysctls.as_ref()));
    let host = context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true));
    when(features, Feature::Privileged, host);
}

fn of_volume(volume: &Volume) -> Feature {
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        return Feature::PersistentVolumeClaim;
    }
    if volume.host_path.is_some() {
        return Feature::HostPath;
    }
    if let Some(directory) = &volume.empty_dir {
        return match directory.medium.as_deref() {
            None | Some("") => Feature::EmptyDir,
            Some("Memory") => Feature::EmptyDirMemory,
            Some(_) => Feature::OtherVolume,
        };
    }
    if volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some() {
        return Feature::ConfigVolume;
    }
    if volume.projected.is_some() {
        return Feature::ProjectedVolume;
    }
    if let Some(csi) = &volume.csi {
        return if csi.driver == "file.csi.azure.com" { Feature::AzureFile } else { Feature::InlineCsi };
    }
    if let Some(nfs) = &volume.nfs {
        // Fargate mounts EFS, which is NFS on a server of AWS, and no other NFS.
        return if nfs.server.contains(".efs.") { Feature::Nfs } else { Feature::OtherVolume };
    }
    if volume.azure_file.is_some() { Feature::AzureFile } else { Feature::OtherVolume }
}

/// The volume that the API server adds for the pod's own account, to be told from a token for somebody else.
fn is_default_token(volume: &Volume) -> bool {
    let tokens = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    volume.name.starts_with(DEFAULT_TOKEN_VOLUME)
        && volume.projected.is_some()
        && tokens.filter_map(|source| source.service_account_token.as_ref()).all(|token| token.audience.is_none())
}

fn of_container(kind: Kind, container: &Container, features: &mut FeatureSet) {
    let ports = filled(container.ports.as_ref());
    let hooks = container.lifecycle.as_ref().is_some_and(|hooks| hooks.pre_stop.is_some() || hooks.post_start.is_some());
    match kind {
        Kind::Init => {
            features.insert(Feature::InitContainers);
            let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
            let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
            let demands =
                ports || hooks || probes.into_iter().any(Option::is_some) || limits.is_some_and(|limits| !limits.is_empty());
            when(features, Feature::DemandingInitContainers, demands);
        }
        Kind::Sidecar => features.insert(Feature::Sidecars),
        Kind::Container => {}
    }
    if kind != Kind::Init {
        of_probes(container, features);
        when(features, Feature::LifecycleHooks, hooks);
    }
    let host_port = container.ports.iter().flatten().any(|port| port.host_port.is_some_and(|port| port > 0));
    when(features, Feature::HostPort, host_port);
    when(features, Feature::ArgsWithoutCommand, filled(container.args.as_ref()) && !filled(container.command.as_ref()));
    when(features, Feature::WorkingDirectory, container.working_dir.as_deref().is_some_and(|path| !path.is_empty()));
    let part = |path: Option<&String>| path.is_some_and(|path| !path.is_empty());
    let parts =
        container.volume_mounts.iter().flatten().any(|mount| part(mount.sub_path.as_ref()) || part(mount.sub_path_expr.as_ref()));
    when(features, Feature::SubPath, parts);
    if let Some(context) = &container.security_context {
        of_security(context, features);
    }
    let from_secrets = container.env_from.iter().flatten().any(|source| source.secret_ref.is_some());
    when(features, Feature::SecretEnvironment, from_secrets);
    for variable in container.env.iter().flatten() {
        of_variable(variable, features);
    }
}

fn of_probes(container: &Container, features: &mut FeatureSet) {
    let by_socket = |probe: &Probe| probe.tcp_socket.is_some() || probe.grpc.is_some();
    when(features, Feature::StartupProbe, container.startup_probe.is_some());
    if let Some(probe) = &container.liveness_probe {
        when(features, Feature::LivenessExec, probe.exec.is_some());
        when(features, Feature::LivenessHttp, probe.http_get.is_some());
        when(features, Feature::SocketProbe, by_socket(probe));
    }
    if let Some(probe) = &container.readiness_probe {
        features.insert(if by_socket(probe) { Feature::SocketProbe } else { Feature::ReadinessProbe });
    }
}

fn of_security(context: &SecurityContext, features: &mut FeatureSet) {
    let host = context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true));
    when(features, Feature::Privileged, context.privileged == Some(true) || host);
    when(features, Feature::RunAsUser, context.run_as_user.is_some() || context.run_as_group.is_some());
    when(features, Feature::ReadOnlyRootFilesystem, context.read_only_root_filesystem == Some(true));
    when(features, Feature::SeLinux, context.se_linux_options.is_some());
    if let Some(capabilities) = &context.capabilities {
        when(features, Feature::AddedCapabilities, filled(capabilities.add.as_ref()));
        when(features, Feature::DroppedCapabilities, filled(capabilities.drop.as_ref()));
    }
}

fn of_variable(variable: &EnvVar, features: &mut FeatureSet) {
    let Some(source) = &variable.value_from else { return };
    when(features, Feature::SecretEnvironment, source.secret_key_ref.is_some());
    when(features, Feature::ResourceFieldRef, source.resource_field_ref.is_some());
    let address = source.field_ref.as_ref().is_some_and(|field| {
        matches!(field.field_path.as_str(), "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs")
    });
    when(features, Feature::AddressFieldRef, address);
}

/// Resources by their names, and limits that are larger than all that the pod asks for.
fn of_resources(spec: &PodSpec, requests: &Resources, features: &mut FeatureSet) -> Result<(), Invalid> {
    for (name, _) in requests.extended.iter().filter(|(name, _)| **name != *names::EXTENDER_MARKER) {
        let gpu = name.starts_with("nvidia.com/") || name.contains("gpu");
        features.insert(if gpu { Feature::Gpu } else { Feature::ExtendedResource });
    }
    let (cpu, memory) = (Quantity::from_millis(requests.cpu_millis), Quantity::from_units(requests.memory_bytes));
    for (kind, place, container) in all(spec) {
        let Some(resources) = &container.resources else { continue };
        let lists = [resources.requests.as_ref(), resources.limits.as_ref()];
        let marked = lists.into_iter().flatten().any(|list| list.contains_key(names::EXTENDER_MARKER));
        when(features, Feature::Marked, marked);
        if kind == Kind::Init {
            continue;
        }
        for (name, asked) in [("cpu", cpu), ("memory", memory)] {
            let Some(limit) = resources.limits.as_ref().and_then(|limits| limits.get(name)) else { continue };
            let within = |invalid: Invalid| invalid.within(&format!("spec.{}[{place}].resources.limits", kind.field()));
            when(features, Feature::LimitAboveRequests, quantity(name, limit).map_err(within)? > asked);
        }
    }
    Ok(())
}
