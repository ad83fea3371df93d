//! Tests of the whole.
mod architecture;
mod control_plane;
mod dashboards;
mod metrics;
