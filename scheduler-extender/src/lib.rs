//! Spillway.
pub mod admin;
pub mod metrics;
