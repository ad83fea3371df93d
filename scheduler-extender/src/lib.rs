//! Spillway: the extender, the committer and the program around them.

pub mod admin;
pub mod admission;
pub mod api;
pub mod cli;
pub mod clouds;
pub mod committer;
pub mod compile;
pub mod crds;
pub mod daemon_sets;
pub mod demo;
pub mod doctor;
pub mod duration;
pub mod expression;
pub mod extender;
pub mod guards;
pub mod hygiene;
pub mod metrics;
pub mod observation;
pub mod pod_admission;
pub mod record;
pub mod run;
pub mod selection;
pub mod workload;
