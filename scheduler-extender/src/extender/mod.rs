//! The scheduler extender: kube-scheduler asks, this module answers.
//!
//! Bytes come in through [`server`], are read by [`wire`] without copying, answered by an implementation of
//! [`verbs::Answers`], and written back by [`protocol`], which also holds every rule that kube-scheduler relies on:
//! whatever an implementation of `Answers` does, an answer names only nodes that were in the request, gives a reason
//! for each refused one, never refuses a pod's nominated node and never holds a null victim.
//!
//! kube-scheduler calls from its serial scheduling loop, so a slow answer delays every pod of the cluster and a
//! hanging one stops it: see [`watchdog`].

pub mod answers;
pub mod certificates;
mod connection;
#[cfg(test)]
mod fixtures;
pub mod observer;
pub mod protocol;
pub mod server;
pub mod verbs;
pub mod watchdog;
pub mod wire;
