//! A cloud in memory, in virtual time, with faults on demand.
//!
//! [`Backend`] is the cloud itself: synchronous, every call carries the time, the state at any moment follows from what was
//! accepted and when, so nothing has to tick. [`MemoryProvider`] puts the [`Provider`](crate::Provider) trait over it.

mod backend;
mod billing;
mod fault;
mod service;
mod settings;

pub use backend::Backend;
pub use fault::{Fault, FaultWindow};
pub use service::MemoryProvider;
pub use settings::{Settings, StartLatency};

#[cfg(test)]
mod tests;
