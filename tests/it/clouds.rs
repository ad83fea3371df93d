//! What must hold for every cloud, and the clouds that it holds for.

mod contract;
mod fargate;
mod memory;
