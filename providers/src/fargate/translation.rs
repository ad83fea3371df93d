//! From a pod to a task.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use policy::capability::{Refusal, untranslatable};
use policy::virtual_node::{CapacityType, Provider};
use policy::workload::Feature;

use super::Settings;
use super::definition::{
    ContainerDefinition, ContainerOverride, Definition, Dependency, EfsVolume, EphemeralStorage, HealthCheck, KeyValue,
    MountPoint, Overrides, PortMapping, Restart, RuntimePlatform, SecretVariable, SystemControl, Volume as TaskVolume,
};
use crate::{
    Architecture, Container, OperatingSystem, PodRequest, Probe, ProbeAction, Protocol, RegistryCredential, RestartPolicy,
    Secret, Value, Volume, VolumeSource,
};

/// A pod as ECS runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What pods of one owner have in common. Secrets stand in it as `{name}`, the name of a [`PodSecret`].
    pub definition: Definition,
    /// What is this pod's own.
    pub overrides: Overrides,
    /// What must be in the secret store before it is registered.
    pub secrets: Vec<PodSecret>,
}

/// A secret of one pod, to be put into the secret store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSecret {
    /// Last part of its name.
    pub name: String,
    /// A JSON object.
    pub content: Secret,
}

/// What ECS takes as overrides, in characters of their JSON.
pub(super) const OVERRIDE_CHARACTERS: usize = 8192;
/// What Secrets Manager takes as one secret.
const SECRET_BYTES: usize = 65_536;
/// Containers of a task definition.
const CONTAINERS: usize = 10;
const LONGEST_GRACE: Duration = Duration::from_secs(120);
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
/// Less than this ECS does not take for a container.
const CONTAINER_MIB: i64 = 6;

/// What `request` is on Fargate, or the rule of the capability table that forbids it.
///
/// Arguments and variables go into the overrides, so that pods that differ in nothing else share a definition: those of an
/// indexed Job, for example. Where they do not fit, the largest move into the definition; what is large is seldom one pod's own.
pub fn translate(request: &PodRequest, settings: &Settings) -> Result<Task, Refusal> {
    refuse_pod(request, settings)?;
    let mut vault = Vault::default();
    let mut definitions = Vec::with_capacity(request.init_containers.len() + request.containers.len());
    let mut before: Vec<Dependency> = Vec::new();
    let mut ports = BTreeSet::new();
    for container in &request.init_containers {
        let mut definition = define(container, request, settings, &mut vault, &mut ports)?;
        definition.depends_on.clone_from(&before);
        definition.essential = false;
        // One after the other: who waits for the last has waited for all.
        let condition = if container.sidecar { "START" } else { "SUCCESS" };
        before.push(Dependency { container_name: definition.name.clone(), condition });
        definitions.push(definition);
    }
    for container in &request.containers {
        let mut definition = define(container, request, settings, &mut vault, &mut ports)?;
        definition.depends_on.clone_from(&before);
        definitions.push(definition);
    }
    let secrets = vault.into_secrets(settings)?;
    let overrides = split_off_overrides(&mut definitions);
    let definition = Definition {
        cpu: (request.shape.cpu_millis.saturating_mul(1024) / 1000).to_string(),
        memory: (request.shape.memory_bytes / MIB).to_string(),
        ephemeral_storage: ephemeral_storage(request.shape.ephemeral_bytes),
        runtime_platform: runtime_platform(request),
        execution_role_arn: settings.execution_role_arn.clone(),
        task_role_arn: settings.task_role_arn.clone(),
        pid_mode: request.share_processes.then_some("task"),
        volumes: request.volumes.iter().map(volume).collect::<Result<_, _>>()?,
        container_definitions: definitions,
    };
    Ok(Task { definition, overrides, secrets })
}

fn refuse(feature: Feature) -> Refusal {
    untranslatable(feature, Provider::Fargate)
}

fn refuse_because(feature: Feature, sentence: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal { rule: feature.label(), sentence: sentence.into() }
}

fn refuse_pod(request: &PodRequest, settings: &Settings) -> Result<(), Refusal> {
    let windows = request.platform.os == OperatingSystem::Windows;
    // ECS ends a task with the first essential container that ends, and kills the others.
    let ends_by_itself = request.restart != RestartPolicy::Always;
    let used = [
        (Feature::HostAliases, !request.host_aliases.is_empty()),
        (Feature::ManyContainers, request.init_containers.len() + request.containers.len() > CONTAINERS),
        (Feature::LongGracePeriod, request.grace_period > LONGEST_GRACE),
        (Feature::Sysctls, !request.sysctls.is_empty() && !settings.opens(Feature::Sysctls)),
        (Feature::RestartOnFailure, request.restart == RestartPolicy::OnFailure && !settings.opens(Feature::RestartOnFailure)),
        (Feature::SeveralContainers, ends_by_itself && request.containers.len() > 1),
        (Feature::Windows, windows && settings.capacity_type == CapacityType::Spot),
    ];
    match used.into_iter().find(|(_, used)| *used) {
        Some((feature, _)) => Err(refuse(feature)),
        None => Ok(()),
    }
}

fn refuse_container(container: &Container, settings: &Settings) -> Result<(), Refusal> {
    let socket =
        |probe: &Option<Probe>| matches!(probe, Some(Probe { action: ProbeAction::Tcp { .. } | ProbeAction::Grpc { .. }, .. }));
    let liveness = container.liveness.as_ref().map(|probe| &probe.action);
    let address = |value: &Value| matches!(value, Value::PodAddress | Value::HostAddress);
    let used = [
        (Feature::AddedCapabilities, container.security.added_capabilities.iter().any(|name| kernel_name(name) != "SYS_PTRACE")),
        (Feature::LivenessExec, matches!(liveness, Some(ProbeAction::Exec(_))) && !settings.opens(Feature::LivenessExec)),
        (Feature::LivenessHttp, matches!(liveness, Some(ProbeAction::Http { .. }))),
        (Feature::SocketProbe, socket(&container.liveness) || socket(&container.readiness)),
        (Feature::ReadinessProbe, container.readiness.is_some()),
        (Feature::StartupProbe, container.startup.is_some()),
        (Feature::AddressFieldRef, container.environment.iter().any(|variable| address(&variable.value))),
        (Feature::SubPath, container.mounts.iter().any(|mount| mount.sub_path.is_some())),
        (Feature::Gpu, container.requests.gpus > 0 || container.limits.gpus > 0),
    ];
    match used.into_iter().find(|(_, used)| *used) {
        Some((feature, _)) => Err(refuse(feature)),
        None if container.security.group.is_some() && container.security.user.is_none() => {
            Err(refuse_because(Feature::RunAsUser, "Spillway runs no pods with runAsGroup without runAsUser on Fargate"))
        }
        None => Ok(()),
    }
}

fn define(
    container: &Container,
    request: &PodRequest,
    settings: &Settings,
    vault: &mut Vault,
    ports: &mut BTreeSet<(u16, &'static str)>,
) -> Result<ContainerDefinition, Refusal> {
    refuse_container(container, settings)?;
    let restarts = container.sidecar || request.restart != RestartPolicy::Never;
    let runs_to_the_end = container.sidecar || request.containers.iter().any(|other| std::ptr::eq(other, container));
    let (memory, memory_reservation) = if runs_to_the_end { memory(container, request) } else { (None, None) };
    let user = container.security.user.map(|user| match container.security.group {
        Some(group) => format!("{user}:{group}"),
        None => user.to_string(),
    });
    Ok(ContainerDefinition {
        name: container.name.to_string(),
        image: container.image.to_string(),
        repository_credentials: vault.login(&container.image, &request.registries),
        // An init container runs when the others do not; its share would count against theirs.
        cpu: if runs_to_the_end { narrow(container.requests.cpu_millis.saturating_mul(1024) / 1000) } else { 0 },
        memory,
        memory_reservation,
        essential: true,
        restart_policy: (restarts && runs_to_the_end).then(|| Restart {
            ignored_exit_codes: if request.restart == RestartPolicy::OnFailure && !container.sidecar { vec![0] } else { vec![] },
            restart_attempt_period: 60,
        }),
        entry_point: container.command.clone(),
        command: container.arguments.clone(),
        working_directory: container.working_directory.clone(),
        environment: plain(container),
        secrets: vault.variables(container),
        port_mappings: port_mappings(container, ports),
        mount_points: mount_points(container),
        depends_on: Vec::new(),
        stop_timeout: narrow(i64::try_from(request.grace_period.as_secs()).unwrap_or(120)).clamp(2, 120),
        user,
        readonly_root_filesystem: container.security.read_only_root,
        added_capabilities: container.security.added_capabilities.iter().map(|name| kernel_name(name)).collect(),
        dropped_capabilities: container.security.dropped_capabilities.iter().map(|name| kernel_name(name)).collect(),
        system_controls: request
            .sysctls
            .iter()
            .map(|(name, value)| SystemControl { namespace: name.clone(), value: value.clone() })
            .collect(),
        health_check: container.liveness.as_ref().and_then(health_check),
        awslogs: awslogs(settings),
    })
}

/// Hard and soft limit in MiB. What is reserved counts against the task's size, so that limits above requests would not fit;
/// without a request the task is the limit. ECS wants the hard one to be larger than the soft one.
fn memory(container: &Container, request: &PodRequest) -> (Option<i32>, Option<i32>) {
    let task = request.shape.memory_bytes / MIB;
    let reserved = container.requests.memory_bytes / MIB;
    if reserved < CONTAINER_MIB {
        return (None, None);
    }
    let limit = container.limits.memory_bytes / MIB;
    let limit = if limit == 0 { task } else { limit.min(task) };
    if limit > reserved { (Some(narrow(limit)), Some(narrow(reserved))) } else { (Some(narrow(reserved)), None) }
}

fn plain(container: &Container) -> Vec<KeyValue> {
    let plain = container.environment.iter().filter_map(|variable| match &variable.value {
        Value::Plain(value) => Some(KeyValue { name: variable.name.clone(), value: value.clone() }),
        Value::Secret(_) | Value::PodAddress | Value::HostAddress => None,
    });
    plain.collect()
}

/// Containers of a task share its address, so that ECS takes a port once. SCTP it does not know; a mapping opens nothing.
fn port_mappings(container: &Container, taken: &mut BTreeSet<(u16, &'static str)>) -> Vec<PortMapping> {
    let known = container.ports.iter().filter_map(|port| match port.protocol {
        Protocol::Tcp => Some((port.number, "tcp")),
        Protocol::Udp => Some((port.number, "udp")),
        Protocol::Sctp => None,
    });
    let new = known.filter(|port| taken.insert(*port));
    new.map(|(number, protocol)| PortMapping { container_port: i32::from(number), protocol }).collect()
}

fn mount_points(container: &Container) -> Vec<MountPoint> {
    let mount = |mount: &crate::Mount| MountPoint {
        source_volume: mount.volume.to_string(),
        container_path: mount.path.clone(),
        read_only: mount.read_only,
    };
    container.mounts.iter().map(mount).collect()
}

/// Kubernetes' numbers, where ECS takes them.
fn health_check(probe: &Probe) -> Option<HealthCheck> {
    let ProbeAction::Exec(command) = &probe.action else { return None };
    let seconds =
        |duration: Duration, least: i32, most: i32| i32::try_from(duration.as_secs()).unwrap_or(most).clamp(least, most);
    Some(HealthCheck {
        command: std::iter::once("CMD".to_owned()).chain(command.iter().cloned()).collect(),
        interval: seconds(probe.period, 5, 300),
        timeout: seconds(probe.timeout, 2, 60),
        retries: i32::try_from(probe.failure_threshold).unwrap_or(10).clamp(1, 10),
        start_period: seconds(probe.initial_delay, 0, 300),
    })
}

fn awslogs(settings: &Settings) -> BTreeMap<&'static str, String> {
    let Some(group) = &settings.log_group else { return BTreeMap::new() };
    BTreeMap::from([
        ("awslogs-group", group.clone()),
        ("awslogs-region", settings.region.clone()),
        ("awslogs-stream-prefix", super::logs::STREAM_PREFIX.to_owned()),
    ])
}

fn ephemeral_storage(bytes: i64) -> Option<EphemeralStorage> {
    let gib = bytes / GIB + i64::from(bytes % GIB != 0);
    (gib > 20).then(|| EphemeralStorage { size_in_gib: narrow(gib) })
}

fn runtime_platform(request: &PodRequest) -> RuntimePlatform {
    RuntimePlatform {
        cpu_architecture: match request.platform.architecture {
            Architecture::Amd64 => "X86_64",
            Architecture::Arm64 => "ARM64",
        },
        operating_system_family: match request.platform.os {
            OperatingSystem::Linux => "LINUX",
            OperatingSystem::Windows => "WINDOWS_SERVER_2022_CORE",
        },
    }
}

fn volume(volume: &Volume) -> Result<TaskVolume, Refusal> {
    let efs_volume_configuration = match &volume.source {
        VolumeSource::Empty { memory: false, .. } => None,
        VolumeSource::Empty { memory: true, .. } => return Err(refuse(Feature::EmptyDirMemory)),
        VolumeSource::Files(_) => return Err(refuse(Feature::ConfigVolume)),
        VolumeSource::AzureFile { .. } => return Err(refuse(Feature::AzureFile)),
        VolumeSource::Nfs { server, path, .. } => {
            let file_system = server.split('.').next().filter(|_| server.contains(".efs."));
            let Some(id) = file_system.filter(|id| id.starts_with("fs-")) else {
                let sentence =
                    format!("Fargate mounts only EFS file systems, named like fs-….efs.<region>.amazonaws.com, not {server:?}");
                return Err(refuse_because(Feature::Nfs, sentence));
            };
            Some(EfsVolume { file_system_id: id.to_owned(), root_directory: path.clone() })
        }
    };
    Ok(TaskVolume { name: volume.name.to_string(), efs_volume_configuration })
}

/// ECS names capabilities without Linux' prefix.
fn kernel_name(capability: &str) -> String {
    let upper = capability.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
}

fn narrow(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Moves arguments and variables out of the definitions, as far as ECS takes them.
fn split_off_overrides(definitions: &mut [ContainerDefinition]) -> Overrides {
    let mut overrides = Overrides::default();
    for definition in definitions.iter_mut() {
        overrides.container_overrides.push(ContainerOverride {
            name: definition.name.clone(),
            command: std::mem::take(&mut definition.command),
            environment: std::mem::take(&mut definition.environment),
        });
    }
    let mut characters = characters(&overrides);
    while characters > OVERRIDE_CHARACTERS {
        let Some((place, size)) = largest(&overrides) else { break };
        characters -= size;
        let (container, variable) = place;
        let from = &mut overrides.container_overrides[container];
        match variable {
            Some(variable) => definitions[container].environment.push(from.environment.remove(variable)),
            None => definitions[container].command = std::mem::take(&mut from.command),
        }
    }
    for definition in definitions.iter_mut() {
        // The order in which they were too large says nothing.
        definition.environment.sort_by(|one, other| one.name.cmp(&other.name));
    }
    overrides.container_overrides.retain(|container| !container.command.is_empty() || !container.environment.is_empty());
    overrides
}

/// The largest movable thing: a container and its variable, or its arguments.
fn largest(overrides: &Overrides) -> Option<((usize, Option<usize>), usize)> {
    let things = overrides.container_overrides.iter().enumerate().flat_map(|(place, container)| {
        let variables = container.environment.iter().enumerate();
        let variables = variables.map(move |(variable, value)| ((place, Some(variable)), characters(value)));
        let arguments = (!container.command.is_empty()).then(|| ((place, None), characters(&container.command)));
        variables.chain(arguments)
    });
    things.max_by_key(|(_, size)| *size)
}

fn characters(value: &impl serde::Serialize) -> usize {
    serde_json::to_string(value).map_or(usize::MAX, |text| text.chars().count())
}

/// What is to be kept secret of one pod: its variables in one secret, each login in one.
#[derive(Default)]
struct Vault {
    variables: BTreeMap<String, Secret>,
    logins: Vec<RegistryCredential>,
}

const ENVIRONMENT: &str = "environment";

impl Vault {
    fn variables(&mut self, container: &Container) -> Vec<SecretVariable> {
        let mut references = Vec::new();
        for variable in &container.environment {
            if let Value::Secret(value) = &variable.value {
                // A number, because ECS cuts the reference at colons and variables may be named nearly anything.
                let key = format!("v{}", self.variables.len());
                references.push(SecretVariable { name: variable.name.clone(), value_from: format!("{{{ENVIRONMENT}}}:{key}::") });
                self.variables.insert(key, value.clone());
            }
        }
        references
    }

    fn login(&mut self, image: &str, registries: &[RegistryCredential]) -> Option<String> {
        let registry = registry(image);
        let login = registries.iter().find(|login| host(&login.server) == registry)?;
        let place = self.logins.iter().position(|known| known == login).unwrap_or_else(|| {
            self.logins.push(login.clone());
            self.logins.len() - 1
        });
        Some(format!("{{registry-{place}}}"))
    }

    fn into_secrets(self, settings: &Settings) -> Result<Vec<PodSecret>, Refusal> {
        let feature = if self.variables.is_empty() { Feature::ImagePullSecrets } else { Feature::SecretEnvironment };
        let mut secrets = Vec::new();
        if !self.variables.is_empty() {
            let content: BTreeMap<&str, &str> =
                self.variables.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
            secrets.push(secret(ENVIRONMENT.to_owned(), &content));
        }
        for (place, login) in self.logins.iter().enumerate() {
            let content = BTreeMap::from([("username", login.username.as_str()), ("password", login.password.expose())]);
            secrets.push(secret(format!("registry-{place}"), &content));
        }
        if secrets.iter().any(|secret| secret.content.expose().len() > SECRET_BYTES) {
            let sentence = format!("AWS Secrets Manager takes at most {SECRET_BYTES} bytes of secret variables for one pod");
            return Err(refuse_because(feature, sentence));
        }
        if !secrets.is_empty() && settings.execution_role_arn.is_none() {
            let sentence =
                "Fargate reads secrets with the role that spec.fargate.executionRoleArn of the virtual node names; it names none";
            return Err(refuse_because(feature, sentence));
        }
        Ok(secrets)
    }
}

fn secret(name: String, content: &BTreeMap<&str, &str>) -> PodSecret {
    let json = serde_json::to_string(content).expect("strings are JSON");
    PodSecret { name, content: Secret::new(Arc::<str>::from(json)) }
}

/// The registry of an image reference: what stands before the first slash, if it looks like a host, else Docker Hub.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DOCKER_HUB,
    }
}

const DOCKER_HUB: &str = "docker.io";

/// The host of a registry as logins name it: with or without scheme and path, Docker Hub under its old name.
fn host(server: &str) -> &str {
    let server = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let host = server.split('/').next().unwrap_or(server);
    if matches!(host, "index.docker.io" | "registry-1.docker.io") { DOCKER_HUB } else { host }
}

#[cfg(test)]
mod tests;
