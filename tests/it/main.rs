//! Tests of the whole.
mod architecture;
mod clouds;
mod control_plane;
mod crds;
mod dashboards;
mod demo;
mod differential;
mod expressions;
mod extender;
mod extender_protocol;
mod failure;
mod guard;
mod metrics;
mod placement;
mod scenario;
mod verdicts;
