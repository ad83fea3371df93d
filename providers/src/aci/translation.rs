//! From a pod to a container group. Pure: what cannot be said in a container group is refused, by the rule of the capability
//! table that should have refused it before.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use policy::capability::{Refusal, untranslatable};
use policy::virtual_node::{CapacityType, Provider};
use policy::workload::Feature;

use super::shares::{self, Share};
use super::wire::{
    AzureFile, Capabilities, Container, ContainerProperties, EmptyDir, Group, GroupProperties, Header, HttpGet, InitContainer,
    InitContainerProperties, IpAddress, Port, Probe, ProbeCommand, RegistryCredential, Secure, SecurityContext, SubnetId,
    Variable, Volume, VolumeMount,
};
use super::{Settings, tags};
use crate::{
    Architecture, OperatingSystem, PodRequest, ProbeAction, Protocol, RestartPolicy, Secret, Security, Value, VolumeSource,
};

/// Azure takes no more containers in a group, init containers included.
const CONTAINERS: usize = 60;
/// Azure kills a group at once, in about half a minute at most: what Kubernetes gives by default.
const GRACE: Duration = Duration::from_secs(30);
/// Ports of one address. In a subnet they are information only: the network's rules decide what can be reached.
const PORTS: usize = 5;

/// The container group for a pod.
pub fn translate(request: &PodRequest, settings: &Settings) -> Result<Group, Refusal> {
    refuse_pod(request)?;
    request.containers.iter().try_for_each(refuse_container)?;
    request.init_containers.iter().try_for_each(refuse_init_container)?;
    let windows = request.platform.os == OperatingSystem::Windows;
    let volumes = request.volumes.iter().map(volume).collect::<Result<Vec<_>, _>>()?;
    if windows && (request.containers.len() > 1 || volumes.iter().any(|volume| volume.azure_file.is_none())) {
        return Err(cannot(Feature::Windows));
    }
    let shares = shares::of(request).ok_or_else(|| cannot(Feature::ManyContainers))?;
    let ports = listened_on(&request.containers);
    let properties = GroupProperties {
        sku: "Standard",
        priority: match settings.capacity_type {
            CapacityType::OnDemand => "Regular",
            CapacityType::Spot => "Spot",
        },
        os_type: if windows { "Windows" } else { "Linux" },
        restart_policy: match request.restart {
            RestartPolicy::Always => "Always",
            RestartPolicy::OnFailure => "OnFailure",
            RestartPolicy::Never => "Never",
        },
        containers: request.containers.iter().zip(shares).map(container).collect(),
        init_containers: request.init_containers.iter().map(init_container).collect(),
        image_registry_credentials: request.registries.iter().map(registry_credential).collect(),
        ip_address: settings.subnet_id.as_ref().map(|_| address(&ports)),
        volumes,
        subnet_ids: settings.subnet_id.iter().map(|id| SubnetId { id: id.clone() }).collect(),
    };
    Ok(Group { location: settings.location.clone(), tags: tags::of(request, &settings.ownership), properties })
}

fn cannot(feature: Feature) -> Refusal {
    untranslatable(feature, Provider::Aci)
}

fn refuse(feature: Feature, used: bool) -> Result<(), Refusal> {
    if used { Err(cannot(feature)) } else { Ok(()) }
}

fn refuse_pod(request: &PodRequest) -> Result<(), Refusal> {
    if request.platform.architecture != Architecture::Amd64 {
        // A matter of node selectors, which have no feature.
        return Err(Refusal { rule: "nodeSelector", sentence: Cow::Borrowed("ACI has machines of the architecture amd64 only") });
    }
    refuse(Feature::HostAliases, !request.host_aliases.is_empty())?;
    refuse(Feature::ManyContainers, request.containers.len() + request.init_containers.len() > CONTAINERS)?;
    refuse(Feature::LongGracePeriod, request.grace_period > GRACE)?;
    refuse(Feature::SharedProcessNamespace, request.share_processes)?;
    refuse(Feature::Sysctls, !request.sysctls.is_empty())
}

fn refuse_container(container: &crate::Container) -> Result<(), Refusal> {
    refuse_any_container(container)?;
    refuse(Feature::Gpu, container.requests.gpus > 0 || container.limits.gpus > 0)?;
    refuse(Feature::StartupProbe, container.startup.is_some())?;
    let by_socket = |probe: &crate::Probe| matches!(probe.action, ProbeAction::Tcp { .. } | ProbeAction::Grpc { .. });
    refuse(Feature::SocketProbe, [&container.liveness, &container.readiness].into_iter().flatten().any(by_socket))
}

fn refuse_init_container(container: &crate::Container) -> Result<(), Refusal> {
    refuse(Feature::Sidecars, container.sidecar)?;
    refuse_any_container(container)?;
    let probes = [&container.liveness, &container.readiness, &container.startup];
    let limits = &container.limits;
    let limited = limits.cpu_millis > 0 || limits.memory_bytes > 0 || limits.gpus > 0;
    refuse(Feature::DemandingInitContainers, limited || !container.ports.is_empty() || probes.into_iter().any(Option::is_some))
}

fn refuse_any_container(container: &crate::Container) -> Result<(), Refusal> {
    let crate::Container { command, arguments, working_directory, environment, mounts, security, .. } = container;
    refuse(Feature::ArgsWithoutCommand, command.is_empty() && !arguments.is_empty())?;
    refuse(Feature::WorkingDirectory, working_directory.is_some())?;
    let by_address = |variable: &crate::Variable| matches!(variable.value, Value::PodAddress | Value::HostAddress);
    refuse(Feature::AddressFieldRef, environment.iter().any(by_address))?;
    refuse(Feature::SubPath, mounts.iter().any(|mount| mount.sub_path.is_some()))?;
    refuse(Feature::ReadOnlyRootFilesystem, security.read_only_root)?;
    refuse(Feature::AddedCapabilities, !security.added_capabilities.is_empty())?;
    let too_large = |number: Option<i64>| number.is_some_and(|number| i32::try_from(number).is_err());
    refuse(Feature::RunAsUser, too_large(security.user) || too_large(security.group))
}

fn container((container, share): (&crate::Container, Share)) -> Container {
    Container {
        name: container.name.to_string(),
        properties: ContainerProperties {
            image: container.image.to_string(),
            command: command(container),
            ports: listened_on(std::slice::from_ref(container)),
            environment_variables: container.environment.iter().filter_map(variable).collect(),
            resources: share.resources(),
            volume_mounts: container.mounts.iter().map(mount).collect(),
            liveness_probe: container.liveness.as_ref().and_then(probe),
            readiness_probe: container.readiness.as_ref().and_then(probe),
            security_context: security(&container.security),
        },
    }
}

fn init_container(container: &crate::Container) -> InitContainer {
    InitContainer {
        name: container.name.to_string(),
        properties: InitContainerProperties {
            image: container.image.to_string(),
            command: command(container),
            environment_variables: container.environment.iter().filter_map(variable).collect(),
            volume_mounts: container.mounts.iter().map(mount).collect(),
            security_context: security(&container.security),
        },
    }
}

/// Azure has one list for what replaces the image's entry point and its arguments.
fn command(container: &crate::Container) -> Vec<String> {
    container.command.iter().chain(&container.arguments).cloned().collect()
}

/// Addresses were refused before.
fn variable(variable: &crate::Variable) -> Option<Variable> {
    let (value, secure_value) = match &variable.value {
        Value::Plain(text) => (Some(text.clone()), None),
        Value::Secret(secret) => (None, Some(Secure(secret.clone()))),
        Value::PodAddress | Value::HostAddress => return None,
    };
    Some(Variable { name: variable.name.clone(), value, secure_value })
}

fn mount(mount: &crate::Mount) -> VolumeMount {
    VolumeMount { name: mount.volume.to_string(), mount_path: mount.path.clone(), read_only: mount.read_only }
}

/// Distinct ports of the protocols that Azure knows, in order.
fn listened_on(containers: &[crate::Container]) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for port in containers.iter().flat_map(|container| &container.ports) {
        let protocol = match port.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            // Nobody is kept from listening on it; Azure only has no word for it.
            Protocol::Sctp => continue,
        };
        let port = Port { port: port.number, protocol };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

/// Azure wants at least one port named before it tells the address.
fn address(ports: &[Port]) -> IpAddress {
    let mut ports = ports[..ports.len().min(PORTS)].to_vec();
    if ports.is_empty() {
        ports.push(Port { port: 80, protocol: "TCP" });
    }
    IpAddress { kind: "Private", ports }
}

/// Probes by socket were refused before.
fn probe(probe: &crate::Probe) -> Option<Probe> {
    let (exec, http_get) = match &probe.action {
        ProbeAction::Exec(command) => (Some(ProbeCommand { command: command.clone() }), None),
        ProbeAction::Http { path, port, tls, headers } => {
            let http_headers = headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone() }).collect();
            let scheme = if *tls { "https" } else { "http" };
            (None, Some(HttpGet { path: path.clone(), port: *port, scheme, http_headers }))
        }
        ProbeAction::Tcp { .. } | ProbeAction::Grpc { .. } => return None,
    };
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs());
    Some(Probe {
        exec,
        http_get,
        initial_delay_seconds: seconds(probe.initial_delay),
        period_seconds: seconds(probe.period),
        failure_threshold: probe.failure_threshold,
        success_threshold: probe.success_threshold,
        timeout_seconds: seconds(probe.timeout),
    })
}

fn security(security: &Security) -> Option<SecurityContext> {
    let number = |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok());
    let dropped = &security.dropped_capabilities;
    let context = SecurityContext {
        allow_privilege_escalation: security.allow_privilege_escalation,
        capabilities: (!dropped.is_empty()).then(|| Capabilities { drop: dropped.clone() }),
        run_as_group: number(security.group),
        run_as_user: number(security.user),
    };
    (context != SecurityContext::default()).then_some(context)
}

fn registry_credential(credential: &crate::RegistryCredential) -> RegistryCredential {
    RegistryCredential {
        server: credential.server.clone(),
        username: credential.username.clone(),
        password: Secure(credential.password.clone()),
    }
}

fn volume(volume: &crate::Volume) -> Result<Volume, Refusal> {
    let mut translated = Volume { name: volume.name.to_string(), empty_dir: None, secret: None, azure_file: None };
    match &volume.source {
        VolumeSource::Empty { memory: true, .. } => return Err(cannot(Feature::EmptyDirMemory)),
        // Azure knows no bounds but that of the group's disk.
        VolumeSource::Empty { memory: false, size_limit: _ } => translated.empty_dir = Some(EmptyDir {}),
        VolumeSource::Files(files) if files.is_empty() => translated.empty_dir = Some(EmptyDir {}),
        VolumeSource::Files(files) => {
            // Keys are names of files in one directory.
            if files.iter().any(|file| file.path.contains('/')) {
                return Err(cannot(Feature::ConfigVolume));
            }
            let files = files.iter().map(|file| (file.path.clone(), Secure(Secret::new(base64(&file.content)))));
            translated.secret = Some(files.collect::<BTreeMap<_, _>>());
        }
        VolumeSource::AzureFile { share, account, key, read_only } => {
            translated.azure_file = Some(AzureFile {
                share_name: share.clone(),
                storage_account_name: account.clone(),
                storage_account_key: Secure(key.clone()),
                read_only: *read_only,
            });
        }
        VolumeSource::Nfs { .. } => return Err(cannot(Feature::Nfs)),
    }
    Ok(translated)
}

fn base64(bytes: &[u8]) -> String {
    azure_core::base64::encode(bytes)
}

#[cfg(test)]
mod tests;
