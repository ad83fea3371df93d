//! What every cloud must be able to do.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use policy::Timestamp;
use policy::virtual_node::{Limits, Prices, Usage};
use tokio::sync::mpsc;

use crate::{Error, ErrorKind, Operation, PodRequest, PodUid, RemoteId, RemotePod, StartFailure};

/// A cloud that runs pods.
///
/// Idempotent by pod UID: `create` of a pod that is there answers with what is there, `delete` of one that is gone is `Ok`.
/// So every call may be repeated after [`ErrorKind::Unavailable`]. Success of `create` only means "accepted": clouds refuse
/// later, too, which `get` and `list` show as [`Exit::NotStarted`](crate::Exit::NotStarted).
///
/// A call is tried once, or as often as the cloud's own library tries it: what a failure means is decided by whoever asked.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Kind of provider, such as `fargate`; for logs and metrics.
    fn name(&self) -> &'static str;

    /// Quota, usage, health and, where the cloud publishes them, prices.
    async fn observe(&self) -> Result<Observation, Error>;

    /// Starts a pod, or finds that it was started already.
    async fn create(&self, request: &PodRequest) -> Result<RemotePod, Error>;

    /// One pod, also one that has stopped, as long as the cloud remembers it.
    async fn get(&self, uid: &PodUid) -> Result<RemotePod, Error>;

    /// Every pod that this virtual node of this cluster made here, at most `limit`, those that have not stopped first; how a
    /// restart finds what it left running.
    async fn list(&self, limit: usize) -> Result<Vec<RemotePod>, Error>;

    /// Whether a pod would be placed now, without starting it, where the cloud can tell.
    async fn feasible(&self, request: &PodRequest) -> Result<Feasibility, Error> {
        let _ = request;
        Ok(Feasibility::Unknown)
    }

    /// What changes from now on, where the cloud says it by itself: no need to ask for more than was named. Elsewhere nothing
    /// ever comes, and whoever wants to know asks.
    fn changes(&self) -> BoxStream<'static, Change> {
        stream::pending().boxed()
    }

    /// Ends a pod and what it costs.
    async fn delete(&self, id: &RemoteId) -> Result<(), Error>;

    /// The output of a container, as it comes.
    async fn logs(&self, id: &RemoteId, query: &LogQuery) -> Result<LogStream, Error> {
        let _ = (id, query);
        Err(Error::new(ErrorKind::Unsupported, self.name(), Operation::Logs))
    }

    /// Runs a command in a container.
    async fn exec(&self, id: &RemoteId, request: &ExecRequest) -> Result<ExecSession, Error> {
        let _ = (id, request);
        Err(Error::new(ErrorKind::Unsupported, self.name(), Operation::Exec))
    }

    /// What the containers use at the moment.
    async fn stats(&self, id: &RemoteId) -> Result<Stats, Error> {
        let _ = id;
        Err(Error::new(ErrorKind::Unsupported, self.name(), Operation::Stats))
    }
}

/// What a cloud's dry run says of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feasibility {
    /// This cloud has no dry run.
    Unknown,
    /// It would be placed.
    Fits,
    /// It would not.
    DoesNotFit {
        /// What kind of reason it is.
        cause: StartFailure,
        /// The reason, as the cloud says it.
        reason: String,
    },
}

/// Something that a cloud has said without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This pod is not as it was.
    Pod(PodUid),
    /// Changes may have been missed: every pod may be different.
    Everything,
}

/// Whose pods a provider makes and finds: two clusters, or two virtual nodes, may share an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ownership {
    /// UID of the cluster (of its `kube-system` namespace).
    pub cluster: Arc<str>,
    /// Name of the virtual node.
    pub virtual_node: Arc<str>,
}

/// A provider's state as it sees it itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When this was true.
    pub at: Timestamp,
    /// How much may run at once.
    pub quota: Limits,
    /// How much does run, of all who share the quota.
    pub usage: Usage,
    /// The largest pod that can be had, where the cloud says so; its pod count means nothing.
    pub largest_pod: Limits,
    /// Whether new pods have a chance.
    pub health: Health,
    /// Published prices, where there are any.
    pub prices: Option<Prices>,
}

/// Whether a backend can take pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Calls work.
    Healthy,
    /// Some calls fail.
    Degraded {
        /// Why we think so.
        reason: String,
    },
    /// Nothing works.
    Down {
        /// Why we think so.
        reason: String,
    },
}

/// Which part of a container's output is wanted; as Kubernetes' `PodLogOptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// The container's name.
    pub container: Arc<str>,
    /// Whether to wait for more until the container ends.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail_lines: Option<u32>,
    /// Only what was written from then on, where the cloud knows.
    pub since: Option<Timestamp>,
    /// Whether each line begins with its time, where the cloud knows.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Output as it comes; ends with the container, with the limit, or with an error.
pub type LogStream = BoxStream<'static, Result<Vec<u8>, Error>>;

/// A command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container's name.
    pub container: Arc<str>,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether it can be written to.
    pub stdin: bool,
}

/// A command that runs. Dropping the input closes its standard input; dropping the session ends it where the cloud can.
#[derive(Debug)]
pub struct ExecSession {
    /// What is sent to it.
    pub input: mpsc::Sender<ExecInput>,
    /// What comes from it; the last is [`ExecOutput::Exited`] or an error.
    pub output: mpsc::Receiver<Result<ExecOutput, Error>>,
}

/// Something sent to a running command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for its standard input.
    Stdin(Vec<u8>),
    /// The terminal has changed its size.
    Resize {
        /// Columns.
        width: u16,
        /// Lines.
        height: u16,
    },
}

/// Something that came from a running command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of its standard output, or of its terminal.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// It has ended; some clouds do not say with which code.
    Exited {
        /// The exit code.
        code: Option<i32>,
    },
}

/// What the containers of a pod use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// When.
    pub at: Timestamp,
    /// One entry for each container that runs.
    pub containers: Vec<ContainerStats>,
}

/// What one container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    /// Its name.
    pub name: Arc<str>,
    /// CPU time since it started, in nanoseconds, where the cloud counts it.
    pub cpu_nanoseconds: Option<u64>,
    /// Thousandths of a CPU in use at the moment, where the cloud measures it.
    pub cpu_millis: Option<i64>,
    /// Working set in bytes.
    pub memory_bytes: i64,
}

// === impl LogQuery ===

impl LogQuery {
    /// Everything that a container has written until now.
    pub fn all(container: impl Into<Arc<str>>) -> LogQuery {
        LogQuery {
            container: container.into(),
            follow: false,
            tail_lines: None,
            since: None,
            timestamps: false,
            limit_bytes: None,
        }
    }
}
