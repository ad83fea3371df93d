//! A Pod and all that it refers to become a request to a cloud: a pure function.
//!
//! Kubernetes' kubelet is the model: order and precedence of variables, expansion of `$(NAME)`, paths and modes of files,
//! defaults of probes. Where it would only warn, a [`Notice`] says so; where it would not start the pod, [`Unresolved`] does.

mod environment;
mod expansion;
mod fields;
mod logins;
mod probes;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Wire, ContainerPort, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use policy::{Quantity, Shape};
use providers::{
    Container, ContainerResources, HostAlias, Platform, PodRequest, PodUid, Port, Protocol, RestartPolicy, Security,
};

use crate::Objects;
use environment::Environment;

/// Where a pod is started: what the pod itself does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the virtual node's Node.
    pub node_name: Arc<str>,
    /// What was bought for the pod.
    pub shape: Shape,
    /// What the virtual node's containers are built for.
    pub platform: Platform,
}

/// A pod that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What to ask of the cloud.
    pub request: PodRequest,
    /// What its author should hear of all the same, as Events.
    pub notices: Vec<Notice>,
}

/// Something that is missing and may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Constant reason for the Event.
    pub reason: &'static str,
    /// What is missing, for a human.
    pub message: String,
}

/// A pod that cannot be started as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Unresolved {
    /// Path of the field from the top of the pod.
    pub field: String,
    /// Constant reason for the Event.
    pub reason: &'static str,
    /// What is wrong with it and what would be allowed; never a secret.
    pub message: String,
}

/// A field that says something that cannot be.
const INVALID: &str = "InvalidPodSpec";
/// Kubernetes' own default of `terminationGracePeriodSeconds`.
const GRACE_SECONDS: i64 = 30;
/// Files in the volumes of one pod, and their bytes; an etcd object holds 1.5 MiB, and a pod refers to a handful.
const FILES_BYTES_MAX: usize = 16 << 20;

/// What a cloud must be asked for to run `pod` at `place`, given all that [`references`](crate::references) named.
///
/// # Errors
/// The first field that cannot be resolved: an object or key that must exist and does not, a value that cannot be read, a
/// secret that would have to be written where everybody sees it.
pub fn resolve(pod: &Pod, place: &Place, objects: &Objects) -> Result<Resolved, Unresolved> {
    let spec = pod.spec.as_ref().ok_or_else(|| invalid("spec", "must be there"))?;
    let uid = pod.metadata.uid.as_deref().ok_or_else(|| invalid("metadata.uid", "must be there"))?;
    let text = |text: &Option<String>| Arc::<str>::from(text.as_deref().unwrap_or_default());
    let mut notices = Vec::new();
    let (volumes, dropped) = volumes::volumes(pod, spec, place, objects, &mut notices)?;
    let mut request = PodRequest::new(PodUid::new(uid), text(&pod.metadata.namespace), text(&pod.metadata.name), place.shape);
    request.platform = place.platform;
    request.restart = match spec.restart_policy.as_deref() {
        None | Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        Some(other) => return Err(invalid("spec.restartPolicy", format!("{other:?}: Always, OnFailure or Never"))),
    };
    request.grace_period = seconds(spec.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS));
    request.run_limit = spec.active_deadline_seconds.map(seconds);
    request.share_processes = spec.share_process_namespace == Some(true);
    request.host_aliases = spec
        .host_aliases
        .iter()
        .flatten()
        .map(|alias| HostAlias { address: alias.ip.clone(), names: alias.hostnames.clone().unwrap_or_default() })
        .collect();
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.as_ref());
    request.sysctls = sysctls.into_iter().flatten().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect();
    request.volumes = volumes;
    request.registries = logins::registries(spec, objects, &mut notices);
    for (list, index, wire, init) in containers(spec) {
        let field = format!("spec.{list}[{index}]");
        let environment = environment::environment(pod, wire, place, objects, &field, &mut notices)?;
        let resolved = container(spec, wire, &environment, &dropped, &field)?;
        if init { request.init_containers.push(resolved) } else { request.containers.push(resolved) }
    }
    Ok(Resolved { request, notices })
}

/// All containers with the list that they stand in, their place there and whether it is the list of init containers.
pub(crate) fn containers(spec: &PodSpec) -> impl Iterator<Item = (&'static str, usize, &Wire, bool)> {
    let init = spec.init_containers.iter().flatten().enumerate().map(|(index, one)| ("initContainers", index, one, true));
    let main = spec.containers.iter().enumerate().map(|(index, one)| ("containers", index, one, false));
    init.chain(main)
}

fn container(
    spec: &PodSpec,
    wire: &Wire,
    environment: &Environment,
    dropped: &[&str],
    field: &str,
) -> Result<Container, Unresolved> {
    let image = wire.image.as_deref().filter(|image| !image.is_empty());
    let image = image.ok_or_else(|| invalid(format!("{field}.image"), "must be there"))?;
    let words = |name: &str, words: &Option<Vec<String>>| {
        let words = words.iter().flatten().enumerate();
        words
            .map(|(index, word)| environment.expand_plain(word, &format!("{field}.{name}[{index}]")))
            .collect::<Result<Vec<String>, Unresolved>>()
    };
    let ports = wire.ports.iter().flatten().map(port).collect::<Vec<_>>();
    let probe = |name: &str, probe: &Option<_>| {
        probe.as_ref().map(|probe| probes::probe(probe, &ports, &format!("{field}.{name}"))).transpose()
    };
    let (requests, limits) = amounts(wire.resources.as_ref(), &format!("{field}.resources"))?;
    Ok(Container {
        command: words("command", &wire.command)?,
        arguments: words("args", &wire.args)?,
        working_directory: wire.working_dir.clone().filter(|directory| !directory.is_empty()),
        environment: environment.variables(),
        requests,
        limits,
        mounts: volumes::mounts(wire, environment, dropped, field)?,
        liveness: probe("livenessProbe", &wire.liveness_probe)?,
        readiness: probe("readinessProbe", &wire.readiness_probe)?,
        startup: probe("startupProbe", &wire.startup_probe)?,
        security: security(spec, wire, field)?,
        sidecar: wire.restart_policy.as_deref() == Some("Always"),
        ports,
        ..Container::new(wire.name.as_str(), image)
    })
}

fn port(wire: &ContainerPort) -> Port {
    Port {
        name: wire.name.clone(),
        number: u16::try_from(wire.container_port).unwrap_or_default(),
        protocol: match wire.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
    }
}

/// Requests and limits; a request that is missing is the limit.
fn amounts(wire: Option<&ResourceRequirements>, field: &str) -> Result<(ContainerResources, ContainerResources), Unresolved> {
    let list = |name: &str, list: Option<&std::collections::BTreeMap<String, WireQuantity>>| {
        let mut amounts = ContainerResources::default();
        for (resource, wire) in list.into_iter().flatten() {
            let amount = quantity(wire, || format!("{field}.{name}[{resource}]"))?;
            match resource.as_str() {
                "cpu" => amounts.cpu_millis = amount.millis_up(),
                "memory" => amounts.memory_bytes = amount.units_up(),
                gpu if gpu.starts_with("nvidia.com/") => amounts.gpus = u32::try_from(amount.units_up()).unwrap_or(u32::MAX),
                _ => {}
            }
        }
        Ok::<_, Unresolved>(amounts)
    };
    let limits = list("limits", wire.and_then(|wire| wire.limits.as_ref()))?;
    let mut requests = list("requests", wire.and_then(|wire| wire.requests.as_ref()))?;
    let or = |amount: i64, limit: i64| if amount == 0 { limit } else { amount };
    requests.cpu_millis = or(requests.cpu_millis, limits.cpu_millis);
    requests.memory_bytes = or(requests.memory_bytes, limits.memory_bytes);
    requests.gpus = requests.gpus.max(limits.gpus);
    Ok((requests, limits))
}

fn quantity(wire: &WireQuantity, field: impl Fn() -> String) -> Result<Quantity, Unresolved> {
    match wire.0.parse::<Quantity>() {
        Ok(quantity) if quantity >= Quantity::ZERO => Ok(quantity),
        Ok(_) => Err(invalid(field(), format!("{}: must not be negative", wire.0))),
        Err(error) => Err(invalid(field(), error.to_string())),
    }
}

/// What the container says, else what its pod says.
fn security(spec: &PodSpec, wire: &Wire, field: &str) -> Result<Security, Unresolved> {
    let (pod, own) = (spec.security_context.as_ref(), wire.security_context.as_ref());
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let security = Security {
        user: own.and_then(|own| own.run_as_user).or(pod.and_then(|pod| pod.run_as_user)),
        group: own.and_then(|own| own.run_as_group).or(pod.and_then(|pod| pod.run_as_group)),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem) == Some(true),
        allow_privilege_escalation: own.and_then(|own| own.allow_privilege_escalation),
        added_capabilities: capabilities.and_then(|list| list.add.clone()).unwrap_or_default(),
        dropped_capabilities: capabilities.and_then(|list| list.drop.clone()).unwrap_or_default(),
    };
    let no_root = own.and_then(|own| own.run_as_non_root).or(pod.and_then(|pod| pod.run_as_non_root)) == Some(true);
    if no_root && security.user.is_none_or(|user| user == 0) {
        // A kubelet looks into the image for its user; no cloud lets anybody look.
        let message = "runAsNonRoot needs a runAsUser other than 0, because nobody can check the image's user";
        return Err(invalid(format!("{field}.securityContext.runAsNonRoot"), message));
    }
    Ok(security)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Unresolved {
    Unresolved { field: field.into(), reason: INVALID, message: message.into() }
}

#[cfg(test)]
mod tests;
