//! The cluster's own workloads and nodes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, Service};
use policy::burst_policy::Tier;
use policy::taint::Effect;

use super::{Level, Said, View, is_virtual, named, workload_of};
use crate::api::names::VIRTUAL_NODE_TAINT;
use crate::workload;

const ARCHITECTURE: &str = "kubernetes.io/arch";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Pods that say nothing of their architecture and may be sent to another than the cluster's own.
pub(super) fn architectures(view: &View<'_>) -> Vec<Said> {
    let compiled = view.cluster.virtual_nodes.iter().filter_map(|node| {
        let currency = node.spec.pricing.as_ref().map_or("USD", |pricing| pricing.currency.as_str());
        crate::compile::virtual_node(node, currency).ok()
    });
    let foreign: BTreeSet<String> =
        compiled.filter(|node| node.labels.get(ARCHITECTURE) == Some("arm64")).map(|node| node.name.to_string()).collect();
    if foreign.is_empty() {
        return Vec::new();
    }
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for pod in view.cluster.pods.iter().filter(|pod| !says_architecture(pod)) {
        let Some(policy) = view.selecting(pod) else { continue };
        let mut nodes = policy.policy.tiers.iter().flat_map(|tier| match tier {
            Tier::Serverless(tier) => tier.virtual_nodes.as_slice(),
            Tier::Dedicated(_) => &[],
        });
        if let Some(node) = nodes.find(|node| foreign.contains(&***node)) {
            found.entry(workload_of(pod)).or_insert_with(|| node.to_string());
        }
    }
    let said = found.into_iter().map(|(about, node)| {
        let message = format!("may be sent to {node}, which is arm64, and does not say which architecture its image is for");
        (Level::Todo, about, message, format!("in the pod template: nodeSelector: {{{ARCHITECTURE}: amd64}} (or arm64)"))
    });
    said.collect()
}

fn says_architecture(pod: &Pod) -> bool {
    let Ok(workload) = workload::workload(pod) else { return true };
    let selected = workload.node_selector.iter().any(|requirement| *requirement.key == *ARCHITECTURE);
    let terms = workload.node_affinity.as_deref().unwrap_or_default();
    let every = !terms.is_empty() && terms.iter().all(|term| term.labels.iter().any(|one| *one.key == *ARCHITECTURE));
    selected || every
}

/// DaemonSets that make a pod for a virtual node: it stays pending, and holds up every rolling update.
pub(super) fn daemon_sets(view: &View<'_>) -> Vec<Said> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for pod in &view.cluster.pods {
        if workload::owner(pod).is_none_or(|owner| *owner.kind != *"DaemonSet") {
            continue;
        }
        if let Some(node) = daemon_node(pod).filter(|node| view.virtual_nodes.contains(node)) {
            found.entry(workload_of(pod)).or_insert_with(|| node.to_owned());
        }
    }
    let said = found.into_iter().map(|(about, node)| {
        let message = format!("makes a pod for the virtual node {node}, which takes none: its rolling updates stand still");
        let next = "in its template, required node affinity: {key: type, operator: NotIn, values: [virtual-kubelet]}".to_owned();
        (Level::Todo, about, message, next)
    });
    said.collect()
}

/// The Node that the DaemonSet controller made a pod for.
fn daemon_node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let required =
        spec.affinity.as_ref()?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields.find(|field| field.key == "metadata.name")?.values.as_ref()?.first().map(String::as_str)
}

/// Services that load balancers serve, and whose endpoints are all on nodes that load balancers leave out.
pub(super) fn services(view: &View<'_>) -> Vec<Said> {
    let mut said = Vec::new();
    for service in view.cluster.services.iter().filter(|service| is_load_balanced(service)) {
        let slices = view.cluster.slices.iter().filter(|slice| {
            let of = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
            slice.metadata.namespace == service.metadata.namespace && of == service.metadata.name.as_ref()
        });
        let nodes: Vec<Option<&str>> =
            slices.flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.node_name.as_deref()).collect();
        if !nodes.is_empty() && nodes.iter().all(|node| node.is_some_and(|node| view.virtual_nodes.contains(node))) {
            let message = "all its endpoints are on virtual nodes, which no load balancer sends to".to_owned();
            let next = "keep a replica on dedicated nodes: label it spillway.dev/do-not-burst: \"true\"".to_owned();
            said.push((Level::Todo, named("Service", &service.metadata), message, next));
        }
    }
    said
}

fn is_load_balanced(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    matches!(kind, Some("LoadBalancer" | "NodePort"))
}

/// Hints that one Ready node without a zone switches off in the whole cluster.
pub(super) fn topology_mode(view: &View<'_>) -> Vec<Said> {
    if view.virtual_nodes.is_empty() {
        return Vec::new();
    }
    let auto = |service: &&Service| {
        let annotations = service.metadata.annotations.iter().flatten();
        let mut modes = annotations.filter(|(key, _)| {
            ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"].contains(&key.as_str())
        });
        modes.any(|(_, value)| value.eq_ignore_ascii_case("auto"))
    };
    let said = view.cluster.services.iter().filter(auto).map(|service| {
        let message =
            "topology-mode Auto gives no hints while a node without a zone is Ready, as every virtual node is".to_owned();
        let next = "spec.trafficDistribution: PreferSameZone instead; its pods do not burst then".to_owned();
        (Level::Note, named("Service", &service.metadata), message, next)
    });
    said.collect()
}

/// Workloads that used to reach an adopted virtual node by tolerating its taint, and do not any more.
pub(super) fn tolerations(view: &View<'_>) -> Vec<Said> {
    let adopted = view.cluster.nodes.iter().filter(|node| is_virtual(node));
    let taints: Vec<_> = adopted
        .filter_map(|node| Some((node.metadata.name.as_deref()?, workload::taints(node.spec.as_ref()?).ok()?)))
        .map(|(name, taints)| {
            let own = taints.into_iter().filter(|taint| {
                *taint.key != *VIRTUAL_NODE_TAINT
                    && !taint.key.starts_with("node.kubernetes.io/")
                    && taint.effect != Effect::PreferNoSchedule
            });
            (name, own.collect::<Vec<_>>())
        })
        .filter(|(_, taints)| !taints.is_empty())
        .collect();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for pod in &view.cluster.pods {
        let Ok(workload) = workload::workload(pod) else { continue };
        let by_name = |taint: &policy::taint::Taint| {
            workload.tolerations.iter().any(|toleration| toleration.key.is_some() && toleration.covers(taint))
        };
        let reaches = taints.iter().find(|(_, taints)| taints.iter().all(by_name));
        if let Some((node, _)) = reaches
            && view.selecting(pod).is_none()
        {
            found.entry(workload_of(pod)).or_insert_with(|| (*node).to_owned());
        }
    }
    let said = found.into_iter().map(|(about, node)| {
        let message =
            format!("tolerates the taint of {node}, which takes pods from Spillway alone, and no BurstPolicy selects it");
        (Level::Note, about, message, "select it by a BurstPolicy, if it is to run there".to_owned())
    });
    said.collect()
}

/// Without zones, virtual and dedicated nodes are one zone to the node-lifecycle controller.
pub(super) fn zones(view: &View<'_>) -> Vec<Said> {
    let mut dedicated = view.cluster.nodes.iter().filter(|node| !is_virtual(node)).peekable();
    if view.virtual_nodes.is_empty() || dedicated.peek().is_none() {
        return Vec::new();
    }
    if dedicated.any(|node| node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(ZONE))) {
        return Vec::new();
    }
    let message =
        "no dedicated node has a zone label: many virtual nodes that are down at once slow the eviction from dead dedicated ones";
    let next = format!("label the dedicated nodes with {ZONE}");
    vec![(Level::Note, "Nodes".to_owned(), message.to_owned(), next)]
}
