//! Spillway.

pub mod admin;
pub mod api;
pub mod crds;
pub mod expression;
pub mod extender;
pub mod metrics;
