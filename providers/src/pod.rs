//! A pod to start, with nothing of Kubernetes' indirections left in it.
//!
//! Variables have their values, volumes their files, defaults are filled in. A cloud's translation is a pure function of this.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use policy::Shape;

use crate::PodUid;

/// A pod to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRequest {
    /// The pod's UID; the key of the call.
    pub uid: PodUid,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub name: Arc<str>,
    /// The billable shape that was priced when the pod was committed.
    pub shape: Shape,
    /// What the images are built for.
    pub platform: Platform,
    /// What happens to a container that ends.
    pub restart: RestartPolicy,
    /// From the polite signal to the kill.
    pub grace_period: Duration,
    /// `activeDeadlineSeconds`. No cloud knows it: whoever watches the pod ends it.
    pub run_limit: Option<Duration>,
    /// Whether the containers see each other's processes.
    pub share_processes: bool,
    /// Entries for `/etc/hosts`.
    pub host_aliases: Vec<HostAlias>,
    /// Kernel parameters, name and value.
    pub sysctls: Vec<(String, String)>,
    /// Containers that start before the others, in order; those that are sidecars go on running.
    pub init_containers: Vec<Container>,
    /// The containers.
    pub containers: Vec<Container>,
    /// What the containers mount.
    pub volumes: Vec<Volume>,
    /// Who may pull the images.
    pub registries: Vec<RegistryCredential>,
    /// Compressed size of the images, where known; pull time grows with it.
    pub image_bytes: Option<u64>,
}

/// Operating system and processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Platform {
    /// The containers' operating system.
    pub os: OperatingSystem,
    /// The containers' processor.
    pub architecture: Architecture,
}

/// An operating system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OperatingSystem {
    /// Linux.
    #[default]
    Linux,
    /// Windows.
    Windows,
}

/// A processor architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// x86-64.
    #[default]
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RestartPolicy {
    /// Whatever the exit code was.
    Always,
    /// After an exit code that is not zero.
    OnFailure,
    /// Not at all.
    #[default]
    Never,
}

/// Names for an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostAlias {
    /// The address.
    pub address: String,
    /// Its names.
    pub names: Vec<String>,
}

/// One container to run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// Name inside the pod.
    pub name: Arc<str>,
    /// Image reference.
    pub image: Arc<str>,
    /// Replaces the image's entry point, unless empty. References to variables, `$(NAME)`, are expanded.
    pub command: Vec<String>,
    /// Replaces the image's arguments, unless empty. References to variables are expanded.
    pub arguments: Vec<String>,
    /// Replaces the image's working directory.
    pub working_directory: Option<String>,
    /// Environment variables, each name once.
    pub environment: Vec<Variable>,
    /// What it asks for; zero where it asks for nothing.
    pub requests: ContainerResources,
    /// What it may use at most; zero where it says nothing.
    pub limits: ContainerResources,
    /// Ports that it listens on.
    pub ports: Vec<Port>,
    /// Volumes in its file system.
    pub mounts: Vec<Mount>,
    /// Restarts the container when it fails.
    pub liveness: Option<Probe>,
    /// Takes the pod out of Services when it fails.
    pub readiness: Option<Probe>,
    /// Holds the other probes back until it succeeds.
    pub startup: Option<Probe>,
    /// Users, capabilities, file system.
    pub security: Security,
    /// An init container that goes on running beside the others.
    pub sidecar: bool,
}

/// Amounts for one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContainerResources {
    /// Thousandths of a CPU.
    pub cpu_millis: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Whole GPUs.
    pub gpus: u32,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// What a variable is set to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Known and not secret.
    Plain(String),
    /// From a Secret: goes to the cloud's secret store or a secure field.
    Secret(Secret),
    /// The pod's address, which the cloud decides on.
    PodAddress,
    /// The address of what it runs on, which the cloud decides on.
    HostAddress,
}

/// A text that no log, no error and no debug print shows.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

/// A port that a container listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its number.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A volume in the file system of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mount {
    /// Name of the volume.
    pub volume: Arc<str>,
    /// Where.
    pub path: String,
    /// Only this part of the volume; references to variables are expanded.
    pub sub_path: Option<String>,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// A question to a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// How it is asked.
    pub action: ProbeAction,
    /// From the start of the container to the first one.
    pub initial_delay: Duration,
    /// From one to the next.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row that count.
    pub failure_threshold: u32,
    /// Successes in a row that count.
    pub success_threshold: u32,
}

/// How a container is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeAction {
    /// A command in the container that must end with zero.
    Exec(Vec<String>),
    /// A GET that must be answered with 200 to 399.
    Http {
        /// Path and query.
        path: String,
        /// Port; names are resolved.
        port: u16,
        /// Whether over TLS, whose certificate nobody checks.
        tls: bool,
        /// Headers, name and value.
        headers: Vec<(String, String)>,
    },
    /// A connection that must be accepted.
    Tcp {
        /// Port; names are resolved.
        port: u16,
    },
    /// gRPC's health service.
    Grpc {
        /// Port.
        port: u16,
        /// Name of the service.
        service: String,
    },
}

/// Security settings of a container, those of its pod filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Security {
    /// User number; `None` is the image's.
    pub user: Option<i64>,
    /// Group number; `None` is the image's.
    pub group: Option<i64>,
    /// Whether the image's file system cannot be written.
    pub read_only_root: bool,
    /// Whether a process may gain more rights than its parent; `None` is the runtime's default.
    pub allow_privilege_escalation: Option<bool>,
    /// Linux capabilities beyond the runtime's default.
    pub added_capabilities: Vec<String>,
    /// Linux capabilities of the runtime's default to go without.
    pub dropped_capabilities: Vec<String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Name inside the pod.
    pub name: Arc<str>,
    /// What is in it.
    pub source: VolumeSource,
}

/// What is in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VolumeSource {
    /// Nothing at the start; shared by the containers, gone with the pod.
    Empty {
        /// Whether it lives in memory.
        memory: bool,
        /// How much may be in it, in bytes.
        size_limit: Option<i64>,
    },
    /// Files as they were when the pod was made: ConfigMap, Secret, downward API and projected volumes.
    Files(Vec<File>),
    /// A share of Azure Files.
    AzureFile {
        /// Name of the share.
        share: String,
        /// Name of the storage account.
        account: String,
        /// Key of the storage account.
        key: Secret,
        /// Whether nobody may write to it.
        read_only: bool,
    },
    /// A directory of an NFS server; on AWS, EFS.
    Nfs {
        /// Host name of the server.
        server: String,
        /// The directory.
        path: String,
        /// Whether nobody may write to it.
        read_only: bool,
    },
}

/// A file in a volume.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct File {
    /// Path below the mount.
    pub path: String,
    /// Its bytes.
    pub content: Vec<u8>,
    /// Whether they come from a Secret or are a token.
    pub secret: bool,
    /// Permission bits, such as `0o644`.
    pub mode: u16,
}

/// A login at a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistryCredential {
    /// Host name of the registry, with the port where there is one.
    pub server: String,
    /// Who.
    pub username: String,
    /// The password or token.
    pub password: Secret,
}

// === impl PodRequest ===

impl PodRequest {
    /// A pod of Linux containers that are never restarted; the caller fills in the rest.
    pub fn new(uid: PodUid, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>, shape: Shape) -> PodRequest {
        PodRequest {
            uid,
            namespace: namespace.into(),
            name: name.into(),
            shape,
            platform: Platform::default(),
            restart: RestartPolicy::default(),
            grace_period: Duration::from_secs(30),
            run_limit: None,
            share_processes: false,
            host_aliases: Vec::new(),
            sysctls: Vec::new(),
            init_containers: Vec::new(),
            containers: Vec::new(),
            volumes: Vec::new(),
            registries: Vec::new(),
            image_bytes: None,
        }
    }
}

// === impl Container ===

impl Container {
    /// A container that runs what its image says.
    pub fn new(name: impl Into<Arc<str>>, image: impl Into<Arc<str>>) -> Container {
        Container {
            name: name.into(),
            image: image.into(),
            command: Vec::new(),
            arguments: Vec::new(),
            working_directory: None,
            environment: Vec::new(),
            requests: ContainerResources::default(),
            limits: ContainerResources::default(),
            ports: Vec::new(),
            mounts: Vec::new(),
            liveness: None,
            readiness: None,
            startup: None,
            security: Security::default(),
            sidecar: false,
        }
    }
}

// === impl Secret ===

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: impl Into<Arc<str>>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

// === impl File ===

impl fmt::Debug for File {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = out.debug_struct("File");
        shown.field("path", &self.path).field("secret", &self.secret).field("mode", &self.mode);
        if self.secret {
            return shown.finish_non_exhaustive();
        }
        shown.field("content", &String::from_utf8_lossy(&self.content)).finish()
    }
}
