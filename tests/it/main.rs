//! Tests of the whole.
mod architecture;
mod control_plane;
mod dashboards;
mod extender_protocol;
mod metrics;
