//! What matters of a pod for placement and price.
//!
//! Pods that are equal in all of this are one [`Workload`], shared by reference: a fan-out of 10,000 pods costs one.

use std::sync::Arc;
use std::time::Duration;

use crate::Resources;
use crate::selector::{Labels, NodeTerm, Requirement};
use crate::taint::Toleration;

/// The scheduling view of a pod. Two pods with equal workloads are "equal in all that matters" (design, section 3):
/// what one of them is refused for, the other would be, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// Its labels, without those that number the pods of one owner.
    pub labels: Labels,
    /// Who made the pod; costs are attributed to it.
    pub owner: Option<Owner>,
    /// Which scheduler is responsible for it.
    pub scheduler_name: Arc<str>,
    /// Effective requests: containers, init containers, sidecars, pod-level resources and overhead combined.
    pub requests: Resources,
    /// Sum of the containers' limits; zero where a container has none.
    pub limits: Resources,
    /// `spec.nodeSelector`.
    pub node_selector: Vec<Requirement>,
    /// Required node affinity: one of the terms must match. `None` = no required affinity.
    pub node_affinity: Option<Vec<NodeTerm>>,
    /// Tolerations as the pod has them before it is bound.
    pub tolerations: Vec<Toleration>,
    /// Scheduling priority; higher goes first.
    pub priority: i32,
    /// Whether its scheduler may evict others for it.
    pub may_preempt: bool,
    /// Features that a backend may not have, or that forbid bursting anywhere.
    pub features: FeatureSet,
    /// Containers that run to the pod's end, sidecars included.
    pub containers: u16,
    /// Init containers that end before the others start.
    pub init_containers: u16,
    /// Of `containers`, those that ask for no CPU, where the pod as a whole asks for none either.
    pub containers_without_cpu: u16,
    /// Of `containers`, those that ask for no memory, where the pod as a whole asks for none either.
    pub containers_without_memory: u16,
    /// `terminationGracePeriodSeconds`.
    pub grace_seconds: u32,
    /// Linux capabilities that containers add, sorted.
    pub added_capabilities: Vec<Arc<str>>,
    /// Run time that the pod or its history names: hint `spillway.dev/expected-duration`.
    pub expected_run: Option<Duration>,
    /// `activeDeadlineSeconds`: the pod never runs longer.
    pub run_limit: Option<Duration>,
    /// Whether Spillway keeps the pod from every scheduler.
    pub held: Held,
}

/// How Spillway keeps a pod from every scheduler, so that it alone can place it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Held {
    /// Not at all: an ordinary pod.
    #[default]
    No,
    /// By Spillway's own scheduling gate; the pod is not decided on yet.
    ByGate,
    /// By a selector that fits no dedicated node: the pod was decided to burst.
    BySelector,
}

/// The controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its kind, such as `Job`.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// One thing that a pod's specification uses and that not every place can give.
///
/// The label of a feature names the capability rule in verdicts, events, metrics and `VirtualNode.spec.capabilities`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Feature {
    /// Opted out by the label `spillway.dev/do-not-burst`.
    OptedOut,
    /// Made by a DaemonSet: it belongs to its node.
    DaemonSet,
    /// A static pod's mirror.
    MirrorPod,
    /// Has a scheduling gate other than Spillway's own.
    SchedulingGate,
    /// Hard topology spread constraint.
    TopologySpread,
    /// Soft topology spread, preferred node or pod affinity: preferences of its own among dedicated nodes.
    Preferences,
    /// Required pod affinity.
    PodAffinity,
    /// Required pod anti-affinity.
    PodAntiAffinity,
    /// Part of a gang: scheduling group, workload reference or a known group label.
    Gang,
    /// Dynamic resource claims.
    ResourceClaim,
    /// A persistent volume claim or a generic ephemeral volume.
    PersistentVolumeClaim,
    /// Carries the extender's marker limit.
    Marked,
    /// Selected by a Service with `externalTrafficPolicy: Local`, `internalTrafficPolicy: Local` or `trafficDistribution`.
    LocalTraffic,
    /// `hostNetwork`.
    HostNetwork,
    /// `hostPID`.
    HostPid,
    /// `hostIPC`.
    HostIpc,
    /// A `hostPath` volume.
    HostPath,
    /// A container port with `hostPort`.
    HostPort,
    /// `hostAliases`.
    HostAliases,
    /// More containers than the smallest of the clouds' limits, ten.
    ManyContainers,
    /// A `terminationGracePeriodSeconds` above Kubernetes' default of 30.
    LongGracePeriod,
    /// `shareProcessNamespace`.
    SharedProcessNamespace,
    /// A privileged container.
    Privileged,
    /// Capabilities added to a container.
    AddedCapabilities,
    /// Capabilities dropped from a container.
    DroppedCapabilities,
    /// `runAsUser` or `runAsGroup`.
    RunAsUser,
    /// `readOnlyRootFilesystem`.
    ReadOnlyRootFilesystem,
    /// `fsGroup` or `supplementalGroups`.
    FsGroup,
    /// SELinux options.
    SeLinux,
    /// `sysctls`.
    Sysctls,
    /// Init containers that end before the pod starts.
    InitContainers,
    /// Init containers with ports, probes, hooks or resource limits.
    DemandingInitContainers,
    /// Restartable init containers.
    Sidecars,
    /// `restartPolicy: Always`.
    RestartAlways,
    /// `restartPolicy: OnFailure`.
    RestartOnFailure,
    /// An `emptyDir` volume.
    EmptyDir,
    /// An `emptyDir` with `medium: Memory`.
    EmptyDirMemory,
    /// A configMap, secret or downward API volume.
    ConfigVolume,
    /// A projected volume other than the default service account token.
    ProjectedVolume,
    /// An inline Azure Files volume.
    AzureFile,
    /// An NFS volume (EFS).
    Nfs,
    /// An inline CSI volume.
    InlineCsi,
    /// Any other volume type.
    OtherVolume,
    /// Liveness probe by exec.
    LivenessExec,
    /// Liveness probe by HTTP.
    LivenessHttp,
    /// Liveness or readiness probe by TCP or gRPC.
    SocketProbe,
    /// Readiness probe by exec or HTTP.
    ReadinessProbe,
    /// Startup probe.
    StartupProbe,
    /// Lifecycle hooks.
    LifecycleHooks,
    /// `args` without `command`.
    ArgsWithoutCommand,
    /// An environment variable from the pod's or host's address.
    AddressFieldRef,
    /// An environment variable from a container's own requests or limits.
    ResourceFieldRef,
    /// Secrets in the environment.
    SecretEnvironment,
    /// `imagePullSecrets`.
    ImagePullSecrets,
    /// A limit above the sum of the pod's requests.
    LimitAboveRequests,
    /// A GPU or another extended resource.
    Gpu,
    /// An extended resource that is no GPU.
    ExtendedResource,
    /// Windows containers.
    Windows,
    /// A runtime class.
    RuntimeClass,
    /// A user namespace (`hostUsers: false`).
    UserNamespace,
    /// A container with `workingDir`.
    WorkingDirectory,
    /// A volume mount with `subPath` or `subPathExpr`.
    SubPath,
    /// More than one container that ends by itself: the pod ends with the last of them.
    SeveralContainers,
}

/// The features of one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FeatureSet(u64);

// === impl Feature ===

impl Feature {
    /// Every feature, in order of declaration.
    pub const ALL: [Feature; 63] = [
        Feature::OptedOut,
        Feature::DaemonSet,
        Feature::MirrorPod,
        Feature::SchedulingGate,
        Feature::TopologySpread,
        Feature::Preferences,
        Feature::PodAffinity,
        Feature::PodAntiAffinity,
        Feature::Gang,
        Feature::ResourceClaim,
        Feature::PersistentVolumeClaim,
        Feature::Marked,
        Feature::LocalTraffic,
        Feature::HostNetwork,
        Feature::HostPid,
        Feature::HostIpc,
        Feature::HostPath,
        Feature::HostPort,
        Feature::HostAliases,
        Feature::ManyContainers,
        Feature::LongGracePeriod,
        Feature::SharedProcessNamespace,
        Feature::Privileged,
        Feature::AddedCapabilities,
        Feature::DroppedCapabilities,
        Feature::RunAsUser,
        Feature::ReadOnlyRootFilesystem,
        Feature::FsGroup,
        Feature::SeLinux,
        Feature::Sysctls,
        Feature::InitContainers,
        Feature::DemandingInitContainers,
        Feature::Sidecars,
        Feature::RestartAlways,
        Feature::RestartOnFailure,
        Feature::EmptyDir,
        Feature::EmptyDirMemory,
        Feature::ConfigVolume,
        Feature::ProjectedVolume,
        Feature::AzureFile,
        Feature::Nfs,
        Feature::InlineCsi,
        Feature::OtherVolume,
        Feature::LivenessExec,
        Feature::LivenessHttp,
        Feature::SocketProbe,
        Feature::ReadinessProbe,
        Feature::StartupProbe,
        Feature::LifecycleHooks,
        Feature::ArgsWithoutCommand,
        Feature::AddressFieldRef,
        Feature::ResourceFieldRef,
        Feature::SecretEnvironment,
        Feature::ImagePullSecrets,
        Feature::LimitAboveRequests,
        Feature::Gpu,
        Feature::ExtendedResource,
        Feature::Windows,
        Feature::RuntimeClass,
        Feature::UserNamespace,
        Feature::WorkingDirectory,
        Feature::SubPath,
        Feature::SeveralContainers,
    ];

    /// The constant name of the rule, as in `VirtualNode.spec.capabilities[].rule`; never reworded.
    pub const fn label(self) -> &'static str {
        match self {
            Feature::OptedOut => "optedOut",
            Feature::DaemonSet => "daemonSet",
            Feature::MirrorPod => "mirrorPod",
            Feature::SchedulingGate => "schedulingGate",
            Feature::TopologySpread => "topologySpread",
            Feature::Preferences => "preferences",
            Feature::PodAffinity => "podAffinity",
            Feature::PodAntiAffinity => "podAntiAffinity",
            Feature::Gang => "gang",
            Feature::ResourceClaim => "resourceClaim",
            Feature::PersistentVolumeClaim => "persistentVolumeClaim",
            Feature::Marked => "marked",
            Feature::LocalTraffic => "localTraffic",
            Feature::HostNetwork => "hostNetwork",
            Feature::HostPid => "hostPid",
            Feature::HostIpc => "hostIpc",
            Feature::HostPath => "hostPath",
            Feature::HostPort => "hostPort",
            Feature::HostAliases => "hostAliases",
            Feature::ManyContainers => "manyContainers",
            Feature::LongGracePeriod => "longGracePeriod",
            Feature::SharedProcessNamespace => "sharedProcessNamespace",
            Feature::Privileged => "privileged",
            Feature::AddedCapabilities => "addedCapabilities",
            Feature::DroppedCapabilities => "droppedCapabilities",
            Feature::RunAsUser => "runAsUser",
            Feature::ReadOnlyRootFilesystem => "readOnlyRootFilesystem",
            Feature::FsGroup => "fsGroup",
            Feature::SeLinux => "seLinux",
            Feature::Sysctls => "sysctls",
            Feature::InitContainers => "initContainers",
            Feature::DemandingInitContainers => "demandingInitContainers",
            Feature::Sidecars => "sidecars",
            Feature::RestartAlways => "restartAlways",
            Feature::RestartOnFailure => "restartOnFailure",
            Feature::EmptyDir => "emptyDir",
            Feature::EmptyDirMemory => "emptyDirMemory",
            Feature::ConfigVolume => "configVolume",
            Feature::ProjectedVolume => "projectedVolume",
            Feature::AzureFile => "azureFile",
            Feature::Nfs => "nfs",
            Feature::InlineCsi => "inlineCsi",
            Feature::OtherVolume => "otherVolume",
            Feature::LivenessExec => "livenessExec",
            Feature::LivenessHttp => "livenessHttp",
            Feature::SocketProbe => "socketProbe",
            Feature::ReadinessProbe => "readinessProbe",
            Feature::StartupProbe => "startupProbe",
            Feature::LifecycleHooks => "lifecycleHooks",
            Feature::ArgsWithoutCommand => "argsWithoutCommand",
            Feature::AddressFieldRef => "addressFieldRef",
            Feature::ResourceFieldRef => "resourceFieldRef",
            Feature::SecretEnvironment => "secretEnvironment",
            Feature::ImagePullSecrets => "imagePullSecrets",
            Feature::LimitAboveRequests => "limitAboveRequests",
            Feature::Gpu => "gpu",
            Feature::ExtendedResource => "extendedResource",
            Feature::Windows => "windows",
            Feature::RuntimeClass => "runtimeClass",
            Feature::UserNamespace => "userNamespace",
            Feature::WorkingDirectory => "workingDirectory",
            Feature::SubPath => "subPath",
            Feature::SeveralContainers => "severalContainers",
        }
    }
}

// === impl FeatureSet ===

impl FeatureSet {
    /// Adds a feature.
    pub fn insert(&mut self, feature: Feature) {
        self.0 |= 1 << feature as u8;
    }

    /// Whether the pod uses the feature.
    pub fn contains(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u8) != 0
    }

    /// The features used, in order of declaration.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let place = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            Feature::ALL.get(place).copied()
        })
    }
}

impl FromIterator<Feature> for FeatureSet {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> FeatureSet {
        let mut set = FeatureSet::default();
        for feature in features {
            set.insert(feature);
        }
        set
    }
}

// === impl Workload ===

impl Workload {
    /// Whether a verdict on an equal pod says nothing about this one: what it may use depends on where its siblings are,
    /// or on things outside the pod.
    pub fn stands_alone(&self) -> bool {
        use Feature::{Gang, HostPort, PersistentVolumeClaim, PodAffinity, PodAntiAffinity, ResourceClaim, TopologySpread};
        [TopologySpread, PodAffinity, PodAntiAffinity, PersistentVolumeClaim, Gang, ResourceClaim, HostPort]
            .into_iter()
            .any(|feature| self.features.contains(feature))
    }

    /// Whether the pod's node selector and required node affinity accept a node.
    pub fn accepts(&self, node_name: &str, labels: &Labels) -> bool {
        self.node_selector.iter().all(|requirement| requirement.holds(labels.get(&requirement.key)))
            && self.node_affinity.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node_name, labels)))
    }
}
