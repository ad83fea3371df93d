//! Serverless container clouds behind one trait.
//!
//! A [`Provider`] runs pods somewhere outside the cluster. Whoever calls it knows nothing of the cloud but this trait, and a
//! provider knows nothing of Kubernetes' client. [`memory`] is a cloud in memory with virtual time and faults on demand; it is
//! a full peer of the real ones, so what holds for it must hold for all.

mod error;
pub mod memory;
mod provider;
mod remote;

pub use error::{Error, ErrorKind, Operation};
pub use provider::{Health, LogQuery, Observation, PodRequest, Provider};
pub use remote::{ContainerRequest, Exit, PodUid, RemoteId, RemotePhase, RemotePod};
