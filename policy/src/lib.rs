//! Spillway's decisions as functions of values.
//!
//! Time, state and prices come in as arguments and the answer goes out whole; nothing in this crate reads a clock, does IO,
//! waits, serialises or knows the Kubernetes client. What cannot be decided is data ([`Reason`]), never an error; errors
//! exist only where text is parsed.
//!
//! From the bottom up: [`Money`], [`Quantity`], [`Resources`], [`Timestamp`] · selectors and taints · a [`Workload`] (what
//! matters of a pod), [`VirtualNode`] (what a backend offers), [`BurstPolicy`] (what the admin wants) · [`shape`],
//! [`capability`] and [`quote`] (what a pod would become and cost there) · [`Ledger`] (what may still be spent) ·
//! [`Snapshot`] and [`decide`].

pub mod burst_policy;
pub mod capability;
pub mod decision;
pub mod dedicated;
pub mod ledger;
pub mod line;
mod money;
mod quantity;
pub mod quote;
pub mod reason;
mod resources;
#[cfg(test)]
mod sample;
pub mod selector;
pub mod shape;
pub mod snapshot;
pub mod taint;
mod time;
pub mod virtual_node;
pub mod workload;

pub use burst_policy::BurstPolicy;
pub use decision::{Decision, Explanation, Outcome, Placement, Room, decide};
pub use ledger::Ledger;
pub use money::{Money, Rate};
pub use quantity::Quantity;
pub use quote::{Quote, QuoteRefusal};
pub use reason::Reason;
pub use resources::Resources;
pub use shape::Shape;
pub use snapshot::Snapshot;
pub use time::{Timestamp, millis};
pub use virtual_node::VirtualNode;
pub use workload::Workload;

/// A text that does not say what it should: what was expected, what was found, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    what: &'static str,
    found: String,
    allowed: &'static str,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, found: &str, allowed: &'static str) -> ParseError {
        // The text may come from anybody: it is quoted, and cut to what a message can carry.
        ParseError { what, found: found.chars().take(64).collect(), allowed }
    }

    /// What would have been allowed.
    pub fn allowed(&self) -> &'static str {
        self.allowed
    }
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?} is not a valid {}: expected {}", self.found, self.what, self.allowed)
    }
}

impl std::error::Error for ParseError {}
