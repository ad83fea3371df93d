//! Serverless container clouds behind one trait.
//!
//! A [`Provider`] runs pods somewhere outside the cluster. Whoever calls it knows nothing of the cloud but this trait, and a
//! provider knows nothing of Kubernetes' client. [`memory`] is a cloud in memory with virtual time and faults on demand; it is
//! a full peer of the real ones, so what holds for it must hold for all.

#[cfg(feature = "aci")]
pub mod aci;
#[cfg(any(feature = "aci", feature = "fargate", feature = "nomad"))]
mod body;
mod bucket;
pub mod check;
mod error;
#[cfg(feature = "fargate")]
pub mod fargate;
pub mod memory;
#[cfg(feature = "nomad")]
pub mod nomad;
mod observed;
mod pod;
pub mod prices;
mod provider;
mod remote;

pub use bucket::{CallLimit, Limiter, TokenBucket};
pub use error::{Error, ErrorKind, Operation};
pub use observed::{Observed, Observer};
pub use pod::{
    Architecture, Container, ContainerResources, File, HostAlias, Mount, OperatingSystem, Platform, PodRequest, Port, Probe,
    ProbeAction, Protocol, RegistryCredential, RestartPolicy, Secret, Security, Value, Variable, Volume, VolumeSource,
};
pub use provider::{
    Change, ContainerStats, ExecInput, ExecOutput, ExecRequest, ExecSession, Feasibility, Health, LogQuery, LogStream,
    Observation, Ownership, Provider, Stats,
};
pub use remote::{ContainerState, Exit, PodUid, RemoteContainer, RemoteId, RemotePhase, RemotePod, StartFailure};

/// Where a provider reads the time.
pub type Clock = std::sync::Arc<dyn Fn() -> policy::Timestamp + Send + Sync>;
