//! The virtual kubelet: pods of a virtual node, in a cloud.
//!
//! Nothing of scheduling is in here. [`resolve`] turns a Pod with all that it refers to into a
//! [`PodRequest`](providers::PodRequest), of which every cloud's translation is a pure function.

mod objects;
mod resolution;

pub use objects::{Objects, Reference, ReferenceKind, TokenReference, references};
pub use resolution::{Notice, Place, Resolved, Unresolved, resolve};
