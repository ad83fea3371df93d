//! Worlds for Spillway to live in: a simulated cluster in virtual time, and a launcher of a real control plane.

pub mod control_plane;
pub mod simulation;
