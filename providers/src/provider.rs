//! What every cloud must be able to do.

use std::sync::Arc;

use async_trait::async_trait;
use policy::virtual_node::{Limits, Prices, Usage};
use policy::{Resources, Timestamp};

use crate::{ContainerRequest, Error, ErrorKind, Operation, PodUid, RemoteId, RemotePod};

/// A cloud that runs pods.
///
/// Idempotent by pod UID: `create` of a pod that is there answers with what is there, `delete` of one that is gone is `Ok`.
/// So every call may be repeated after [`ErrorKind::Unavailable`]. Success of `create` only means "accepted": clouds refuse
/// later, too, which `get` and `list` show as [`Exit::NotStarted`](crate::Exit::NotStarted).
#[async_trait]
pub trait Provider: Send + Sync {
    /// Kind of provider, such as `aws-fargate`; for logs and metrics.
    fn name(&self) -> &'static str;

    /// Quota, usage, health and, where the cloud publishes them, prices.
    async fn observe(&self) -> Result<Observation, Error>;

    /// Starts a pod, or finds that it was started already.
    async fn create(&self, request: &PodRequest) -> Result<RemotePod, Error>;

    /// One pod, also one that has stopped, as long as the cloud remembers it.
    async fn get(&self, uid: &PodUid) -> Result<RemotePod, Error>;

    /// Every pod that Spillway made here, at most `limit`; how a restart finds what it left running.
    async fn list(&self, limit: usize) -> Result<Vec<RemotePod>, Error>;

    /// Ends a pod and what it costs.
    async fn delete(&self, id: &RemoteId) -> Result<(), Error>;

    /// The last output of a container.
    async fn logs(&self, id: &RemoteId, query: &LogQuery) -> Result<Vec<u8>, Error> {
        let _ = (id, query);
        Err(Error::new(ErrorKind::Unsupported, self.name(), Operation::Logs))
    }

    /// Runs a command in a container and answers with its output.
    async fn exec(&self, id: &RemoteId, container: &str, command: &[String]) -> Result<Vec<u8>, Error> {
        let _ = (id, container, command);
        Err(Error::new(ErrorKind::Unsupported, self.name(), Operation::Exec))
    }
}

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
    pub shape: Resources,
    /// What to run, in the pod's order.
    pub containers: Vec<ContainerRequest>,
    /// Compressed size of the images, where known; pull time grows with it.
    pub image_bytes: Option<u64>,
}

/// A provider's state as it sees it itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When this was true.
    pub at: Timestamp,
    /// How much may run at once.
    pub quota: Limits,
    /// How much does run.
    pub usage: Usage,
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

/// Which part of a container's output is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// The container's name.
    pub container: Arc<str>,
    /// At most so many of the last bytes.
    pub bytes_max: usize,
}
