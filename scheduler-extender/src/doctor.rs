//! What an installation and its workloads have that Spillway cannot work with, and what to do about it.
//!
//! Pure: `examine` looks at objects that somebody else has read (`cli`).

mod installation;
mod workloads;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use policy::snapshot::Namespaces;
use serde::Serialize;

use crate::api::{self, names};
use crate::selection::Policies;
use crate::{compile, workload};

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Our types that the API server does not serve.
    pub missing_types: Vec<String>,
    /// Whether the API server has MutatingAdmissionPolicies.
    pub can_mutate: bool,
    /// Names of the admission policies and of their bindings that are there, each with its text.
    pub admission: Vec<(String, String)>,
    /// Rights of `deploy/rbac.yaml` that Spillway's service account does not have, as `verb resource.group/name`.
    pub missing_rights: Vec<String>,
    /// All BurstPolicies.
    pub policies: Vec<api::BurstPolicy>,
    /// All VirtualNodes.
    pub virtual_nodes: Vec<api::VirtualNode>,
    /// All BurstBudgets.
    pub budgets: Vec<api::BurstBudget>,
    /// All Namespaces.
    pub namespaces: Vec<Namespace>,
    /// All Nodes.
    pub nodes: Vec<Node>,
    /// All Pods.
    pub pods: Vec<Pod>,
    /// All Services.
    pub services: Vec<Service>,
    /// All EndpointSlices.
    pub slices: Vec<EndpointSlice>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing was found.
    Ok,
    /// Worth knowing; may be as it should be.
    Note,
    /// Somebody must do something.
    Todo,
}

/// One thing that was found, or that a check found nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Constant name of the check.
    pub check: &'static str,
    /// Which object, if one: `Service media/thumbnails`.
    pub about: String,
    /// What is the case.
    pub message: String,
    /// What to do next.
    pub next: String,
}

/// A check's name, and what it has to say: level, object, message, what to do next.
type Check = (&'static str, fn(&View<'_>) -> Vec<Said>);
type Said = (Level, String, String, String);

/// Every check, in the order in which people can act on them.
const CHECKS: [Check; 14] = [
    ("types", installation::types),
    ("rights", installation::rights),
    ("guards", installation::guards),
    ("pod-admission", installation::pod_admission),
    ("objects", installation::objects),
    ("conflicts", installation::conflicts),
    ("serverless-first", installation::serverless_first),
    ("gates", installation::gates),
    ("architectures", workloads::architectures),
    ("daemonsets", workloads::daemon_sets),
    ("services", workloads::services),
    ("topology-mode", workloads::topology_mode),
    ("tolerations", workloads::tolerations),
    ("zones", workloads::zones),
];

/// Objects of one check that are listed; the rest is counted.
const LISTED: usize = 20;

/// The cluster, with what several checks need.
struct View<'a> {
    cluster: &'a Cluster,
    compiled: Policies,
    labels: Namespaces,
    /// Names of Nodes that stand for virtual nodes.
    virtual_nodes: BTreeSet<&'a str>,
}

/// Runs every check.
#[must_use]
pub fn examine(cluster: &Cluster) -> Vec<Finding> {
    let view = View::of(cluster);
    let mut findings = Vec::new();
    for (check, look) in CHECKS {
        let mut said = look(&view);
        let more = said.len().saturating_sub(LISTED);
        said.truncate(LISTED);
        if let Some((_, _, message, _)) = said.last_mut()
            && more > 0
        {
            *message = format!("{message} (and {more} more)");
        }
        if said.is_empty() {
            said.push((Level::Ok, String::new(), String::new(), String::new()));
        }
        let finding = |(level, about, message, next)| Finding { level, check, about, message, next };
        findings.extend(said.into_iter().map(finding));
    }
    findings
}

// === impl View ===

impl<'a> View<'a> {
    fn of(cluster: &'a Cluster) -> View<'a> {
        let compiled = cluster.policies.iter().filter_map(|policy| compile::burst_policy(policy).ok()).map(Into::into);
        let labels = cluster.namespaces.iter().filter_map(|namespace| {
            let labels = namespace.metadata.labels.iter().flatten();
            Some((
                namespace.metadata.name.as_deref()?.into(),
                labels.map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            ))
        });
        let virtual_nodes = cluster.nodes.iter().filter(|node| is_virtual(node)).filter_map(|node| node.metadata.name.as_deref());
        let named = cluster.virtual_nodes.iter().filter_map(|node| node.status.as_ref()?.node_name.as_deref());
        View {
            cluster,
            compiled: Policies::new(compiled.collect()),
            labels: labels.collect(),
            virtual_nodes: virtual_nodes.chain(named).collect(),
        }
    }

    /// Name of the policy that selects a pod.
    fn selecting(&self, pod: &Pod) -> Option<std::sync::Arc<crate::selection::CompiledPolicy>> {
        self.compiled.select(&self.labels, pod, &workload::labels(pod)).policy
    }
}

fn is_virtual(node: &Node) -> bool {
    let labelled = node
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(names::NODE_TYPE_LABEL))
        .is_some_and(|kind| kind == names::VIRTUAL_NODE_TYPE);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    labelled || taints.iter().any(|taint| taint.key == names::VIRTUAL_NODE_TAINT)
}

/// `Service media/thumbnails`.
fn named(kind: &str, metadata: &kube::core::ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    match metadata.namespace.as_deref() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// The pod's controller, as far as its owner reference goes, or the pod itself: many pods, one line.
fn workload_of(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match workload::owner(pod) {
        Some(owner) => format!("{} {namespace}/{}", owner.kind, owner.name),
        None => named("Pod", &pod.metadata),
    }
}

#[cfg(test)]
mod tests;
