//! HashiCorp Nomad: a job for each pod, over its HTTP API.
//!
//! A pod becomes a job with one task group, `pod`, and a task of the docker driver for each container. The job's ID follows
//! from who owns the pod and from the pod's UID, and it is registered only if it is new (`EnforceIndex`), so a repeated
//! `create` finds what the first one made. Nothing is polled: one event stream for each provider says which jobs have changed.
//!
//! A finished job stays until its pod is deleted, because a purge takes its output away at once. Deleting a job whose tasks
//! still run only stops it, so that they get their grace period; it is purged when they have ended.

mod capacity;
mod client;
mod deletion;
mod events;
mod exec;
mod logs;
mod service;
mod settings;
mod status;
mod translation;
mod wire;

pub use service::NomadProvider;
pub use settings::{Connection, Settings};
pub use translation::{Translation, translate};
pub use wire::Job;

/// Name of the provider in logs, metrics and errors.
const NAME: &str = "nomad";
