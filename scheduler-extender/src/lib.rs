//! Spillway.

pub mod admin;
pub mod api;
pub mod compile;
pub mod crds;
pub mod duration;
pub mod expression;
pub mod extender;
pub mod metrics;
pub mod selection;
pub mod workload;
