//! What a pod uses and a place cannot give.
//!
//! A Binding skips everything that kube-scheduler would have checked, and a cloud refuses only after it has been asked, so
//! both are checked here, before anything is bound. Two levels: what cannot leave the cluster at all ([`not_burstable`]) and
//! what one backend cannot run ([`refusal`]). Required pod anti-affinity and topology spread forbid nothing: a virtual node
//! is no failure domain, so they stay exact among dedicated nodes whatever runs on it.

use std::borrow::Cow;
use std::fmt::Write;

use crate::selector::{NodeTerm, Operator, Requirement};
use crate::virtual_node::{CapacityType, Provider};
use crate::workload::Feature;
use crate::{VirtualNode, Workload};

/// Why a backend cannot run a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Constant name of the rule: a feature's label, `nodeSelector`, `nodeAffinity` or `operatingSystem`; never reworded.
    pub rule: &'static str,
    /// The rule for a human, the same for the same pod and backend every time.
    pub sentence: Cow<'static, str>,
}

/// What a provider makes of a feature.
#[derive(Clone, Copy)]
enum Cell {
    /// The cloud has it, or the virtual kubelet gives all of it.
    Y,
    /// The cloud has nothing of the kind.
    N,
    /// It depends on how the backend was set up, which only its admin knows.
    C,
    /// It could be imitated, but not so that the pod cannot tell.
    E,
    /// It depends on the pod.
    If(fn(&Workload, &VirtualNode) -> bool),
}

struct Row {
    feature: Feature,
    /// ACI, Fargate, Nomad, in-memory.
    cells: [Cell; 4],
    /// Completes "pods with …".
    what: &'static str,
}

const fn row(feature: Feature, cells: [Cell; 4], what: &'static str) -> Row {
    Row { feature, cells, what }
}

use Cell::{C, E, If, N, Y};

/// Features that bind a pod to its cluster, whatever a backend can do; no override opens them.
const NOWHERE: [Feature; 14] = [
    Feature::OptedOut,
    Feature::DaemonSet,
    Feature::MirrorPod,
    Feature::SchedulingGate,
    Feature::PodAffinity,
    Feature::Gang,
    Feature::ResourceClaim,
    Feature::PersistentVolumeClaim,
    Feature::LocalTraffic,
    Feature::HostNetwork,
    Feature::HostPath,
    Feature::HostPort,
    Feature::Privileged,
    Feature::InlineCsi,
];

/// The capability table. Only `Y` and a true condition are accepted; the others say why not. `VirtualNode.spec.capabilities`
/// overrides any cell, in both directions, by the feature's label: the admin of a kubelet that somebody else wrote knows.
/// Features without a row (spread, anti-affinity, preferences, the extender's mark) are kube-scheduler's or our own business.
/// Sizes are the shape's business, architectures that of labels and selectors.
///
/// What the clouds lack and Spillway's virtual kubelet adds is `Y` where the pod gets all it asked for (variables from secrets
/// resolved at creation, `activeDeadlineSeconds`, files templated by Nomad) and `E` where it would notice: a sidecar started
/// in no particular order never ends with its Job, a projected token that is not renewed expires under the pod, a probe over
/// the network works only where the network is routed. The in-memory provider imitates nothing and refuses nothing.
#[rustfmt::skip]
const TABLE: [Row; 45] = [
    //                                     ACI                   Fargate              Nomad  in-memory
    row(Feature::HostPid,                [N,                   N,                   N,     Y], "hostPID"),
    row(Feature::HostIpc,                [N,                   N,                   N,     Y], "hostIPC"),
    row(Feature::HostAliases,            [N,                   N,                   Y,     Y], "hostAliases"),
    // ACI: 60 in a group. ECS: 10 in a task definition. Init containers count in both.
    row(Feature::ManyContainers,         [If(at_most_sixty),   N,                   Y,     Y], "more than ten containers"),
    // ACI kills at once, in about 30 s at most. ECS: stopTimeout up to 120 s. Nomad: the client's max_kill_timeout.
    row(Feature::LongGracePeriod,        [N,                   If(two_minutes),     C,     Y], "a termination grace period above 30 s"),
    row(Feature::SharedProcessNamespace, [N,                   Y,                   N,     Y], "a shared process namespace"),
    // ACI: in effect only for the Confidential SKU. ECS: SYS_PTRACE alone. Nomad: the docker plugin's allow_caps.
    row(Feature::AddedCapabilities,      [C,                   If(only_ptrace),     C,     Y], "added Linux capabilities"),
    // ACI: securityContext, in every API version that Spillway speaks (2023-05-01 and later).
    row(Feature::DroppedCapabilities,    [Y,                   Y,                   Y,     Y], "dropped Linux capabilities"),
    row(Feature::RunAsUser,              [Y,                   Y,                   Y,     Y], "runAsUser or runAsGroup"),
    row(Feature::ReadOnlyRootFilesystem, [N,                   Y,                   Y,     Y], "a read-only root file system"),
    row(Feature::FsGroup,                [N,                   N,                   N,     Y], "fsGroup or supplementalGroups"),
    row(Feature::SeLinux,                [N,                   N,                   N,     Y], "SELinux options"),
    // ECS: systemControls take some and refuse the others.
    row(Feature::Sysctls,                [N,                   C,                   Y,     Y], "sysctls"),
    row(Feature::InitContainers,         [Y,                   Y,                   Y,     Y], "init containers"),
    row(Feature::DemandingInitContainers,[N,                   Y,                   Y,     Y], "init containers that have ports, probes, hooks or limits"),
    // ACI knows init containers and containers only; an ordinary container has no order and keeps a Job from ending.
    row(Feature::Sidecars,               [E,                   Y,                   Y,     Y], "restartable init containers"),
    row(Feature::RestartAlways,          [Y,                   Y,                   Y,     Y], "restartPolicy Always"),
    // ECS: all containers restart always, or never.
    row(Feature::RestartOnFailure,       [Y,                   C,                   Y,     Y], "restartPolicy OnFailure"),
    row(Feature::EmptyDir,               [Y,                   Y,                   Y,     Y], "emptyDir volumes"),
    // Nomad: a container's own; its shared directory is on disk.
    row(Feature::EmptyDirMemory,         [N,                   N,           If(alone),     Y], "emptyDir volumes in memory"),
    // Fargate: only an additional container could write the files.
    row(Feature::ConfigVolume,           [Y,                   E,                   Y,     Y], "configMap, secret or downwardAPI volumes"),
    // ACI and Fargate: tokens in it cannot be renewed. Nomad renders the file again.
    row(Feature::ProjectedVolume,        [E,                   E,                   Y,     Y], "projected volumes of their own"),
    row(Feature::AzureFile,              [Y,                   N,                   C,     Y], "Azure Files volumes"),
    row(Feature::Nfs,                    [N,                   Y,                   N,     Y], "EFS volumes"),
    row(Feature::OtherVolume,            [N,                   N,                   N,     Y], "volumes of a type that no backend has"),
    // ECS only reports the health of a task that belongs to no service, and does nothing about it.
    row(Feature::LivenessExec,           [Y,                   E,                   C,     Y], "a liveness probe by command"),
    row(Feature::LivenessHttp,           [Y,                   N,                   C,     Y], "a liveness probe by HTTP"),
    row(Feature::SocketProbe,            [N,                   E,                   C,     Y], "a liveness or readiness probe by TCP or gRPC"),
    // Fargate: from the virtual kubelet, where it can reach the pod's address.
    row(Feature::ReadinessProbe,         [Y,                   E,                   C,     Y], "a readiness probe"),
    row(Feature::StartupProbe,           [N,                   N,                   N,     Y], "a startup probe"),
    row(Feature::LifecycleHooks,         [N,                   N,                   N,     Y], "lifecycle hooks"),
    // ACI's command replaces the image's entry point, which nobody has read.
    row(Feature::ArgsWithoutCommand,     [N,                   Y,                   Y,     Y], "args without command"),
    // Nomad interpolates its addresses. The others have none before the start.
    row(Feature::AddressFieldRef,        [N,                   N,                   Y,     Y], "the pod's or host's address in the environment"),
    // The virtual kubelet knows them.
    row(Feature::ResourceFieldRef,       [Y,                   Y,                   Y,     Y], "requests or limits in the environment"),
    // Resolved by the virtual kubelet into the cloud's secret store.
    row(Feature::SecretEnvironment,      [Y,                   Y,                   Y,     Y], "secrets in the environment"),
    // Fargate: put into Secrets Manager for the pod's time.
    row(Feature::ImagePullSecrets,       [Y,                   Y,                   Y,     Y], "imagePullSecrets"),
    // The bought size is the limit everywhere; a pod that asked for less than its limit gets what it asked for.
    row(Feature::LimitAboveRequests,     [Y,                   Y,                   Y,     Y], "limits above requests"),
    // ACI: best effort with no quota by default. Nomad: a device plugin.
    row(Feature::Gpu,                    [C,                   N,                   C,     Y], "GPUs"),
    row(Feature::ExtendedResource,       [N,                   N,                   N,     Y], "extended resources"),
    // That the node's system is Windows is a rule of its own. ACI: one container, no secret or emptyDir volumes.
    row(Feature::Windows,                [If(bare_windows),    If(on_demand),       Y,     Y], "Windows containers of this kind"),
    row(Feature::RuntimeClass,           [N,                   N,                   N,     Y], "a runtime class"),
    row(Feature::UserNamespace,          [N,                   N,                   N,     Y], "a user namespace"),
    // ACI: a container has no such field.
    row(Feature::WorkingDirectory,       [N,                   Y,                   Y,     Y], "a working directory of their own"),
    // ACI and ECS mount whole volumes.
    row(Feature::SubPath,                [N,                   N,                   Y,     Y], "a subPath in a volume mount"),
    // ECS ends a task with the first of its essential containers and kills the others.
    row(Feature::SeveralContainers,      [Y,                   N,                   Y,     Y], "several containers that end by themselves"),
];

/// Place of each feature's row, so that a verdict costs no search.
const PLACES: [Option<u8>; Feature::ALL.len()] = {
    let mut places = [None; Feature::ALL.len()];
    let mut place = 0;
    while place < TABLE.len() {
        #[expect(clippy::cast_possible_truncation, reason = "fewer rows than features, fewer than 64 of these")]
        let narrow = place as u8;
        places[TABLE[place].feature as usize] = Some(narrow);
        place += 1;
    }
    places
};

/// The first feature that keeps a pod from bursting anywhere.
pub fn not_burstable(workload: &Workload) -> Option<Feature> {
    NOWHERE.into_iter().find(|feature| workload.features.contains(*feature))
}

/// Whether a feature binds pods to their cluster: no backend runs them, whatever its admin says of it.
pub fn binds_to_cluster(feature: Feature) -> bool {
    NOWHERE.contains(&feature)
}

/// The first rule that keeps a pod off one virtual node: what it selects, its operating system, what it uses.
///
/// Size and price are not looked at; see [`crate::quote::quote`].
pub fn refusal(workload: &Workload, node: &VirtualNode) -> Option<Refusal> {
    selection(workload, node)
        .or_else(|| operating_system(workload, node))
        .or_else(|| workload.features.iter().find_map(|feature| unable(feature, workload, node)))
}

/// Node selector and required node affinity, against the labels of the VirtualNode: its Node has hardly any, on purpose.
fn selection(workload: &Workload, node: &VirtualNode) -> Option<Refusal> {
    let failing = |requirements: &[Requirement]| {
        requirements.iter().find(|requirement| !requirement.holds(node.labels.get(&requirement.key))).cloned()
    };
    if let Some(requirement) = failing(&workload.node_selector) {
        return Some(Refusal { rule: "nodeSelector", sentence: Cow::Owned(mismatch(&requirement, node)) });
    }
    let terms = workload.node_affinity.as_deref()?;
    let name = node.node_name.as_deref().unwrap_or_default();
    if terms.iter().any(|term: &NodeTerm| term.matches(name, &node.labels)) {
        return None;
    }
    // With several terms no single condition is to blame.
    let sentence = match terms {
        [term] => failing(&term.labels).map(|requirement| Cow::Owned(mismatch(&requirement, node))),
        _ => None,
    };
    let sentence = sentence.unwrap_or(Cow::Borrowed("no term of the pod's required node affinity matches the virtual node"));
    Some(Refusal { rule: "nodeAffinity", sentence })
}

fn operating_system(workload: &Workload, node: &VirtualNode) -> Option<Refusal> {
    let wanted = workload.features.contains(Feature::Windows);
    let offered = node.labels.get("kubernetes.io/os") == Some("windows");
    let sentence = match (wanted, offered) {
        (true, false) => "the pod has Windows containers and the virtual node runs Linux",
        (false, true) => "the pod has Linux containers and the virtual node runs Windows",
        (true, true) | (false, false) => return None,
    };
    Some(Refusal { rule: "operatingSystem", sentence: Cow::Borrowed(sentence) })
}

/// The verdict on one feature: the admin's word, else the table's.
fn unable(feature: Feature, workload: &Workload, node: &VirtualNode) -> Option<Refusal> {
    let told = node.capabilities.binary_search_by_key(&feature, |(feature, _)| *feature).ok();
    let told = told.map(|place| node.capabilities[place].1);
    let row = PLACES[feature as usize].map(|place| &TABLE[usize::from(place)]);
    let what = row.map_or(feature.label(), |row| row.what);
    let provider = name(node.provider);
    let sentence = match (told, row.map(|row| row.cells[column(node.provider)])) {
        (Some(true), _) | (None, None | Some(Y)) => return None,
        (None, Some(If(holds))) if holds(workload, node) => return None,
        (Some(false), _) => format!("this virtual node is configured not to run pods with {what}"),
        (None, Some(N | If(_))) => format!("{provider} does not run pods with {what}"),
        (None, Some(C)) => format!("{provider} runs pods with {what} only where the virtual node's capabilities say so"),
        (None, Some(E)) => format!("{provider} runs pods with {what} only imperfectly"),
    };
    Some(Refusal { rule: feature.label(), sentence: Cow::Owned(sentence) })
}

/// The table's refusal of a feature, for a translation that finds it in a pod: it looks at no override, because an admin's
/// word gives a cloud no new fields.
pub fn untranslatable(feature: Feature, provider: Provider) -> Refusal {
    let what = PLACES[feature as usize].map_or(feature.label(), |place| TABLE[usize::from(place)].what);
    Refusal { rule: feature.label(), sentence: Cow::Owned(format!("Spillway runs no pods with {what} on {}", name(provider))) }
}

const fn column(provider: Provider) -> usize {
    match provider {
        Provider::Aci => 0,
        Provider::Fargate => 1,
        Provider::Nomad => 2,
        Provider::InMemory => 3,
    }
}

const fn name(provider: Provider) -> &'static str {
    match provider {
        Provider::Aci => "ACI",
        Provider::Fargate => "Fargate",
        Provider::Nomad => "Nomad",
        Provider::InMemory => "the in-memory provider",
    }
}

fn at_most_sixty(workload: &Workload, _: &VirtualNode) -> bool {
    workload.containers.saturating_add(workload.init_containers) <= 60
}

fn alone(workload: &Workload, _: &VirtualNode) -> bool {
    workload.containers.saturating_add(workload.init_containers) == 1
}

fn two_minutes(workload: &Workload, _: &VirtualNode) -> bool {
    workload.grace_seconds <= 120
}

fn only_ptrace(workload: &Workload, _: &VirtualNode) -> bool {
    workload.added_capabilities.iter().all(|capability| **capability == *"SYS_PTRACE")
}

fn bare_windows(workload: &Workload, _: &VirtualNode) -> bool {
    let volumes = [Feature::EmptyDir, Feature::ConfigVolume, Feature::ProjectedVolume];
    workload.containers == 1 && !volumes.into_iter().any(|feature| workload.features.contains(feature))
}

fn on_demand(_: &Workload, node: &VirtualNode) -> bool {
    node.capacity_type == CapacityType::OnDemand
}

/// Which condition on which label fails, and what the virtual node has instead.
fn mismatch(requirement: &Requirement, node: &VirtualNode) -> String {
    /// A selector may list hundreds of values; a sentence cannot.
    const VALUES_SHOWN: usize = 3;
    let key = &requirement.key;
    let mut text = String::from("the pod wants a node ");
    // Writing to a String cannot fail.
    let _ = match &requirement.operator {
        Operator::In(values) => write!(text, "whose label {key} is {}", list(values, VALUES_SHOWN)),
        Operator::NotIn(values) => write!(text, "whose label {key} is not {}", list(values, VALUES_SHOWN)),
        Operator::Exists => write!(text, "with the label {key}"),
        Operator::DoesNotExist => write!(text, "without the label {key}"),
        Operator::Gt(bound) => write!(text, "whose label {key} is above {bound}"),
        Operator::Lt(bound) => write!(text, "whose label {key} is below {bound}"),
    };
    let _ = match node.labels.get(key) {
        Some(value) => write!(text, "; the virtual node has {value:?}"),
        None => write!(text, "; the virtual node has none"),
    };
    text
}

fn list(values: &[std::sync::Arc<str>], shown: usize) -> String {
    let mut text = values.iter().take(shown).map(|value| &**value).collect::<Vec<_>>().join(" or ");
    if values.len() > shown {
        let _ = write!(text, " or one of {} more", values.len() - shown);
    }
    text
}

#[cfg(test)]
mod tests;
