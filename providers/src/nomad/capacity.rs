//! What a cluster has and what is left, and what its scheduler says of one pod.

use std::collections::BTreeMap;

use policy::virtual_node::{Limits, Usage};

use super::Settings;
use super::wire::{Allocation, Node, PlacementFailure};
use crate::StartFailure;

/// Sums over the clients that pods may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) quota: Limits,
    pub(super) usage: Usage,
    /// The most that is free on any client, of each resource for itself: one that has the most CPU need not have the most
    /// memory. A bound from above; whether a pod really fits is what a dry run is for.
    pub(super) largest_pod: Limits,
    /// Clients that may take pods at the moment.
    pub(super) clients: usize,
}

/// What the clients have and what is in use.
pub(super) fn capacity(nodes: &[Node], allocations: &[Allocation], settings: &Settings) -> Capacity {
    let mut free: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let (mut mhz_all, mut mb_all) = (0_i64, 0_i64);
    for node in nodes.iter().filter(|node| takes_pods(node, settings)) {
        let mhz = (node.node_resources.cpu.cpu_shares - node.reserved_resources.cpu.cpu_shares).max(0);
        let mb = (node.node_resources.memory.mb - node.reserved_resources.memory.mb).max(0);
        mhz_all = mhz_all.saturating_add(mhz);
        mb_all = mb_all.saturating_add(mb);
        free.insert(&node.id, (mhz, mb));
    }
    let (mut pods, mut mhz_used, mut mb_used) = (0_i64, 0_i64, 0_i64);
    for allocation in allocations.iter().filter(|allocation| occupies(allocation)) {
        let Some((mhz_free, mb_free)) = free.get_mut(allocation.node_id.as_str()) else { continue };
        let (mhz, mb) = taken(allocation);
        pods += 1;
        mhz_used = mhz_used.saturating_add(mhz);
        mb_used = mb_used.saturating_add(mb);
        *mhz_free -= mhz;
        *mb_free -= mb;
    }
    let most = |of: fn(&(i64, i64)) -> i64| free.values().map(of).max().unwrap_or(0).max(0);
    Capacity {
        quota: limits(settings.cpu_millis(mhz_all), bytes(mb_all)),
        usage: Usage { pods, cpu_millis: settings.cpu_millis(mhz_used), memory_bytes: bytes(mb_used) },
        largest_pod: limits(settings.cpu_millis(most(|free| free.0)), bytes(most(|free| free.1))),
        clients: free.len(),
    }
}

fn limits(cpu_millis: i64, memory_bytes: i64) -> Limits {
    Limits { pods: None, cpu_millis: Some(cpu_millis), memory_bytes: Some(memory_bytes) }
}

fn bytes(mb: i64) -> i64 {
    mb.saturating_mul(1 << 20)
}

fn takes_pods(node: &Node, settings: &Settings) -> bool {
    let docker = node.drivers.get("docker").is_some_and(|driver| driver.detected && driver.healthy);
    docker
        && node.status == "ready"
        && node.scheduling_eligibility == "eligible"
        && !node.drain
        && (settings.node_pool == "all" || node.node_pool == settings.node_pool)
        && settings.datacenters.iter().any(|pattern| matches(pattern, &node.datacenter))
}

/// Whether an allocation holds resources: until its client has said that it ended.
fn occupies(allocation: &Allocation) -> bool {
    matches!(allocation.client_status.as_str(), "pending" | "running" | "unknown")
}

/// MHz and MB of an allocation. Init tasks have ended when the others start, so the larger of both counts.
fn taken(allocation: &Allocation) -> (i64, i64) {
    let resources = &allocation.allocated_resources;
    let (mut before, mut always) = ((0, 0), (0, 0));
    let mut main = (0, 0);
    for (name, task) in &resources.tasks {
        let sum = match resources.task_lifecycles.get(name).and_then(Option::as_ref) {
            Some(lifecycle) if lifecycle.hook == "prestart" && lifecycle.sidecar => &mut always,
            Some(lifecycle) if lifecycle.hook == "prestart" => &mut before,
            Some(_) | None => &mut main,
        };
        sum.0 += task.cpu.cpu_shares;
        sum.1 += task.memory.mb;
    }
    (before.0.max(main.0) + always.0, before.1.max(main.1) + always.1)
}

/// Nomad's patterns for datacenters: `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(place) = rest.find(part) else { return false };
        rest = &rest[place + part.len()..];
    }
    true
}

/// Why the scheduler would not place a pod, in a sentence.
pub(super) fn refusal(failure: &PlacementFailure) -> (StartFailure, String) {
    if let Some(quota) = failure.quota_exhausted.first() {
        return (StartFailure::QuotaExceeded, format!("quota exhausted: {quota}"));
    }
    let counts = |counts: &BTreeMap<String, u32>| {
        counts.iter().map(|(what, count)| format!("{what} on {count}")).collect::<Vec<_>>().join(", ")
    };
    let reason = if failure.nodes_available.is_empty() && failure.nodes_in_pool == 0 {
        "no client is in the node pool and the datacenters".to_owned()
    } else if !failure.dimension_exhausted.is_empty() {
        format!("of {} clients evaluated, exhausted: {}", failure.nodes_evaluated, counts(&failure.dimension_exhausted))
    } else if !failure.constraint_filtered.is_empty() {
        format!("of {} clients evaluated, unsuitable: {}", failure.nodes_evaluated, counts(&failure.constraint_filtered))
    } else {
        format!("none of {} clients evaluated has room", failure.nodes_evaluated)
    };
    (StartFailure::NoCapacity, reason)
}

#[cfg(test)]
mod tests;
