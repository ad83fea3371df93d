//! What must hold for every cloud, and the clouds that it holds for.

mod aci;
mod check;
mod contract;
mod fargate;
mod memory;
mod nomad;
mod observing;
