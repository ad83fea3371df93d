//! Bounds and names.

use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use super::Event;

/// Bounds and names that the installation sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bindings per second, in the long run.
    pub bindings_per_second: u32,
    /// Bindings whose answer is awaited, at most.
    pub bindings_in_flight: usize,
    /// Currency of the installation, for statuses.
    pub currency: Arc<str>,
    /// How often unfinished business (accruals, statuses, retries) is looked at.
    pub tick: Duration,
    /// A virtual node takes pods only when [`Event::Guarded`] has named its Node. Without this somebody else keeps the guards.
    pub await_guards: bool,
    /// Whether DaemonSets are kept off virtual nodes.
    pub keep_off_daemon_sets: bool,
    /// Whether the backends of virtual nodes are asked how they are. Without this somebody else writes it into their status.
    pub observe_backends: bool,
    /// Who keeps the books; no two committers may ever have the same name. It is written beside every authorization.
    pub keeper: Arc<str>,
}

impl Settings {
    /// What suits an API server of ordinary size. Sixteen Bindings at a time already saturate one on two cores
    /// (docs/benchmarks.md); twice as many hide its hiccups.
    pub fn standard(currency: &str) -> Settings {
        Settings {
            bindings_per_second: 1000,
            bindings_in_flight: 32,
            currency: Arc::from(currency),
            tick: Duration::from_secs(1),
            await_guards: false,
            keep_off_daemon_sets: false,
            observe_backends: false,
            keeper: Arc::from("spillway"),
        }
    }
}
