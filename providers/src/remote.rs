//! A pod as it exists in a cloud.

use std::fmt;
use std::sync::Arc;

use policy::{Resources, Timestamp};

/// UID of a Kubernetes pod: the key under which every provider creates, so that a repeated call cannot start it twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(Arc<str>);

/// The cloud's own name for what it runs: an ECS task's ARN, a container group's name, a Nomad job's ID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId(Arc<str>);

/// One container to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRequest {
    /// Name inside the pod.
    pub name: Arc<str>,
    /// Image reference.
    pub image: Arc<str>,
    /// Replaces the image's entry point, unless empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments, unless empty.
    pub arguments: Vec<String>,
    /// Environment variables without secrets.
    pub environment: Vec<(String, String)>,
}

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
    pub shape: Resources,
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
        /// Its reason, as it says it.
        reason: String,
    },
    /// The cloud took the machine away (Spot).
    Reclaimed,
    /// We deleted it.
    Deleted,
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
