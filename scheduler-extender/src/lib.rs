//! Spillway.

pub mod admin;
pub mod api;
pub mod crds;
pub mod extender;
pub mod metrics;
