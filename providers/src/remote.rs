//! A pod as it exists in a cloud.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use policy::{Shape, Timestamp};

/// UID of a Kubernetes pod: the key under which every provider creates, so that a repeated call cannot start it twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(Arc<str>);

/// The cloud's own name for what it runs: an ECS task's ARN, a container group's name, a Nomad job's ID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId(Arc<str>);

/// A pod as a cloud reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePod {
    /// The cloud's name for it.
    pub id: RemoteId,
    /// The Kubernetes pod it stands for.
    pub uid: PodUid,
    /// Namespace of that pod, to find it again after a restart.
    pub namespace: Arc<str>,
    /// Name of that pod.
    pub name: Arc<str>,
    /// The billable shape it occupies.
    pub shape: Shape,
    /// How far it has come.
    pub phase: RemotePhase,
    /// When the cloud accepted it.
    pub created_at: Timestamp,
    /// When the image pull began; clouds bill from here.
    pub pull_started_at: Option<Timestamp>,
    /// When the containers ran.
    pub started_at: Option<Timestamp>,
    /// When it came to an end.
    pub stopped_at: Option<Timestamp>,
    /// How it ended; only with `stopped_at`.
    pub exit: Option<Exit>,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Its containers, init containers too, as far as the cloud tells them apart. Clouds' lists are thin: `get` says more.
    pub containers: Vec<RemoteContainer>,
}

/// A container as a cloud reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteContainer {
    /// Name inside the pod.
    pub name: Arc<str>,
    /// What it does.
    pub state: ContainerState,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether its readiness is known to have failed or succeeded.
    pub ready: Option<bool>,
    /// Digest of the image that runs, where the cloud says it.
    pub image_digest: Option<Arc<str>>,
}

/// What a container does; as Kubernetes' `ContainerState`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Not started yet.
    Waiting {
        /// Why, in one word, such as `ImagePullBackOff`; empty if nobody knows.
        reason: String,
    },
    /// Runs.
    Running {
        /// Since when.
        started_at: Option<Timestamp>,
    },
    /// Has ended.
    Terminated {
        /// The exit code.
        code: i32,
        /// Why, in one word, such as `Completed`, `Error` or `OOMKilled`.
        reason: String,
        /// When it began.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Option<Timestamp>,
    },
}

/// How far a remote pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemotePhase {
    /// Accepted, not yet placed.
    Pending,
    /// Pulling its image; paid for from here on.
    Pulling,
    /// Its containers run.
    Running,
    /// Ended, for good or ill.
    Stopped,
}

/// How a remote pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The containers ended by themselves.
    Finished {
        /// The first exit code that is not zero, or zero.
        code: i32,
    },
    /// The cloud never got it to run.
    NotStarted {
        /// What kind of reason it was.
        cause: StartFailure,
        /// Its reason, as it says it.
        reason: String,
    },
    /// The machine under it failed, or nobody knows any more.
    Lost {
        /// What the cloud says.
        reason: String,
    },
    /// The cloud took the machine away (Spot).
    Reclaimed,
    /// We deleted it.
    Deleted,
}

/// Why a pod was accepted and yet never ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartFailure {
    /// The cloud had no room for this shape.
    NoCapacity,
    /// The account's quota was used up.
    QuotaExceeded,
    /// An image could not be pulled.
    Image,
    /// A container could not be started: command, mount, user.
    Container,
    /// Network, secrets, logging or roles are not set up for it.
    Configuration,
    /// The cloud does not say, or says something new.
    Unknown,
}

// === impl StartFailure ===

impl StartFailure {
    /// Constant name for conditions, events and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            StartFailure::NoCapacity => "NoCapacity",
            StartFailure::QuotaExceeded => "QuotaExceeded",
            StartFailure::Image => "Image",
            StartFailure::Container => "Container",
            StartFailure::Configuration => "Configuration",
            StartFailure::Unknown => "Unknown",
        }
    }
}

// === impl PodUid ===

impl PodUid {
    /// A UID as Kubernetes gave it.
    pub fn new(uid: impl Into<Arc<str>>) -> PodUid {
        PodUid(uid.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

// === impl RemoteId ===

impl RemoteId {
    /// A name as the cloud gave it.
    pub fn new(id: impl Into<Arc<str>>) -> RemoteId {
        RemoteId(id.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RemoteId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
