//! Tests of the whole.
#![recursion_limit = "256"] // the largest of Nomad's objects are written with `json!`
mod architecture;
mod audit;
mod autoscaler;
mod clouds;
mod control_plane;
mod crds;
mod dashboards;
mod demo;
mod differential;
mod doctor;
mod expressions;
mod extender;
mod extender_protocol;
mod failure;
mod failure_domains;
mod guard;
mod metrics;
mod placement;
mod relay;
mod scenario;
mod verdicts;
