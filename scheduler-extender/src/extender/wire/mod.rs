//! What kube-scheduler puts on the wire, read without copying.
//!
//! Everything borrows from the request's bytes; only what an answer needs is looked at. Bodies come from the network,
//! so lists, pods and texts have limits, and nothing here panics or recurses with the input.

mod pod;
mod request;
mod text;

pub use pod::PodView;
pub use request::{FilterRequest, Invalid, Mode, NodeVictims, Offered, PreemptRequest, decode_filter, decode_preempt};
pub use text::Text;

pub(super) use text::write_escaped;

/// The largest Pod that is read. The API server stores at most about 1.5 MiB of it in a denser encoding.
pub const POD_BYTES_MAX: usize = 4 << 20;

/// Most nodes in one request. Kubernetes supports 5,000 nodes; some run 15,000.
pub const NODES_MAX: usize = 50_000;

/// Most victims on one node in a `preempt` request; a node runs 110 pods by default.
pub const VICTIMS_MAX: usize = 10_000;

#[cfg(test)]
mod tests;
