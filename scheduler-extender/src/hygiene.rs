//! What a virtual node's Node must carry so that it breaks nobody else: it is no target of load balancers, no host and no
//! zone in anybody's spread or anti-affinity, no machine that a DaemonSet would look for, and it has room for no pod that
//! Spillway has not bound there.
//!
//! Admission sees to it in every write ([`crate::guards`]); what is here finds and repairs drift, and does the whole where the
//! API server has no MutatingAdmissionPolicies.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};

use crate::api::names::{NODE_TYPE_LABEL, VIRTUAL_NODE_TAINT, VIRTUAL_NODE_TYPE};

/// Kubernetes' service controller gives no load balancer a node with it. Since 1.34 the value counts, too.
const NO_LOAD_BALANCER: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Azure's cloud provider looks for no machine behind a node with it.
const AZURE_UNMANAGED: &str = "kubernetes.azure.com/managed";

/// Labels that every virtual node carries, with their values.
pub const LABELS: [(&str, &str); 3] =
    [(NO_LOAD_BALANCER, "true"), (AZURE_UNMANAGED, "false"), (NODE_TYPE_LABEL, VIRTUAL_NODE_TYPE)];

/// Labels that make a node a failure domain. A true zone would do harm as well: its pods would be counted in it.
pub const DOMAINS: [&str; 5] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// Labels that say what machine a node is. Most DaemonSets select one of them, and make no pod for a node without.
pub const PLATFORM: [&str; 4] = ["kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch"];

/// Labels that a virtual node must not have.
pub fn unwanted() -> impl Iterator<Item = &'static str> {
    DOMAINS.into_iter().chain(PLATFORM)
}

/// The resource that kube-scheduler counts pods by.
const PODS: &str = "pods";

/// What is looked at on a virtual node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The label that keeps it out of load balancers.
    LoadBalancers,
    /// Azure's label.
    AzureUnmanaged,
    /// `type: virtual-kubelet`.
    Type,
    /// No hostname, zone or region.
    NoDomain,
    /// No operating system, no architecture.
    NoPlatform,
    /// Spillway's taint; on managed and adopted nodes only.
    Taint,
    /// `pods: "0"` in capacity and allocatable; on managed and adopted nodes only.
    NoRoom,
}

// === impl Check ===

impl Check {
    /// All of them.
    pub const ALL: [Check; 7] = [
        Check::LoadBalancers,
        Check::AzureUnmanaged,
        Check::Type,
        Check::NoDomain,
        Check::NoPlatform,
        Check::Taint,
        Check::NoRoom,
    ];

    /// Label of metrics; never reworded.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Check::LoadBalancers => "load_balancers",
            Check::AzureUnmanaged => "azure_unmanaged",
            Check::Type => "type",
            Check::NoDomain => "no_domain",
            Check::NoPlatform => "no_platform",
            Check::Taint => "taint",
            Check::NoRoom => "no_room",
        }
    }

    /// What must hold, for people.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Check::LoadBalancers => "label node.kubernetes.io/exclude-from-external-load-balancers: \"true\"",
            Check::AzureUnmanaged => "label kubernetes.azure.com/managed: \"false\"",
            Check::Type => "label type: virtual-kubelet",
            Check::NoDomain => "no hostname, zone or region label",
            Check::NoPlatform => "no os or arch label",
            Check::Taint => "taint spillway.dev/virtual-node:NoSchedule",
            Check::NoRoom => "pods: \"0\" in capacity and allocatable",
        }
    }

    /// Whether it is about managed and adopted nodes only. A virtual kubelet that nobody adopted goes on taking pods.
    fn is_for_ours(self) -> bool {
        match self {
            Check::Taint | Check::NoRoom => true,
            Check::LoadBalancers | Check::AzureUnmanaged | Check::Type | Check::NoDomain | Check::NoPlatform => false,
        }
    }
}

/// What is wrong with a Node, if it is a virtual node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hygiene {
    failed: Vec<Check>,
    /// Labels that are to go.
    unwanted: Vec<String>,
    /// Where `pods` is to be set: `capacity`, `allocatable`.
    roomy: Vec<&'static str>,
}

/// What makes a Node compliant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// What it repairs.
    pub checks: Vec<Check>,
    /// Labels that are set, or removed where there is no value.
    labels: BTreeMap<String, Option<&'static str>>,
    roomy: Vec<&'static str>,
}

// === impl Hygiene ===

impl Hygiene {
    /// Looks at a Node.
    #[must_use]
    pub fn of(node: &Node) -> Hygiene {
        let labels = node.metadata.labels.as_ref();
        let value = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        let present =
            |keys: &[&str]| -> Vec<String> { keys.iter().filter(|key| value(key).is_some()).map(ToString::to_string).collect() };
        let (domains, platform) = (present(&DOMAINS), present(&PLATFORM));
        let roomy = roomy(node);
        let failed = Check::ALL.into_iter().filter(|check| match check {
            Check::LoadBalancers => value(NO_LOAD_BALANCER) != Some("true"),
            Check::AzureUnmanaged => value(AZURE_UNMANAGED) != Some("false"),
            Check::Type => value(NODE_TYPE_LABEL) != Some(VIRTUAL_NODE_TYPE),
            Check::NoDomain => !domains.is_empty(),
            Check::NoPlatform => !platform.is_empty(),
            Check::Taint => !is_closed(node),
            Check::NoRoom => !roomy.is_empty(),
        });
        Hygiene { failed: failed.collect(), unwanted: [domains, platform].concat(), roomy }
    }

    /// What does not hold. `ours`: a VirtualNode stands for the Node.
    pub fn failed(&self, ours: bool) -> impl Iterator<Item = Check> + '_ {
        self.failed.iter().copied().filter(move |check| ours || !check.is_for_ours())
    }

    /// What sets it right; `None` if nothing is wrong.
    #[must_use]
    pub fn repair(&self, ours: bool) -> Option<Repair> {
        let checks: Vec<Check> = self.failed(ours).collect();
        if checks.is_empty() {
            return None;
        }
        let mut labels: BTreeMap<String, Option<&str>> = self.unwanted.iter().map(|key| (key.clone(), None)).collect();
        for (check, (key, value)) in [Check::LoadBalancers, Check::AzureUnmanaged, Check::Type].into_iter().zip(LABELS) {
            if checks.contains(&check) {
                labels.insert(key.to_owned(), Some(value));
            }
        }
        let roomy = if checks.contains(&Check::NoRoom) { self.roomy.clone() } else { Vec::new() };
        Some(Repair { checks, labels, roomy })
    }
}

// === impl Repair ===

impl Repair {
    /// Strategic merge patch of the Node, if it needs one.
    #[must_use]
    pub fn of_node(&self) -> Option<Value> {
        let mut patch = json!({});
        if !self.labels.is_empty() {
            patch["metadata"] = json!({"labels": self.labels});
        }
        if self.taints() {
            // Taints are merged by their keys: those of others stay.
            patch["spec"] = json!({"taints": [taint()]});
        }
        patch.as_object().is_some_and(|fields| !fields.is_empty()).then_some(patch)
    }

    /// Strategic merge patch of its status, if it needs one.
    #[must_use]
    pub fn of_status(&self) -> Option<Value> {
        let lists: Map<String, Value> = self.roomy.iter().map(|list| ((*list).to_owned(), json!({PODS: "0"}))).collect();
        (!lists.is_empty()).then(|| json!({"status": lists}))
    }

    /// Both, as the API server would do it.
    pub fn apply(&self, node: &mut Node) {
        let labels = node.metadata.labels.get_or_insert_default();
        for (key, value) in &self.labels {
            match value {
                Some(value) => labels.insert(key.clone(), (*value).to_owned()),
                None => labels.remove(key),
            };
        }
        if self.taints() {
            let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
            taints.retain(|other| other.key != VIRTUAL_NODE_TAINT);
            taints.push(taint());
        }
        let status = node.status.get_or_insert_default();
        for (name, list) in [("capacity", &mut status.capacity), ("allocatable", &mut status.allocatable)] {
            if self.roomy.contains(&name) {
                list.get_or_insert_default().insert(PODS.to_owned(), Quantity("0".to_owned()));
            }
        }
    }

    fn taints(&self) -> bool {
        self.checks.contains(&Check::Taint)
    }
}

fn taint() -> Taint {
    Taint { key: VIRTUAL_NODE_TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

/// The lists of a Node's status that have room for pods. One without the resource has none.
fn roomy(node: &Node) -> Vec<&'static str> {
    let Some(status) = &node.status else { return Vec::new() };
    let has_room =
        |list: Option<&BTreeMap<String, Quantity>>| list.and_then(|list| list.get(PODS)).is_some_and(|pods| pods.0 != "0");
    let lists = [("capacity", status.capacity.as_ref()), ("allocatable", status.allocatable.as_ref())];
    lists.into_iter().filter(|(_, list)| has_room(*list)).map(|(name, _)| name).collect()
}

/// It carries Spillway's taint in the form that keeps schedulers away.
fn is_closed(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == VIRTUAL_NODE_TAINT && taint.effect == "NoSchedule")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: Value) -> Node {
        serde_json::from_value(value).expect("a Node")
    }

    fn stock() -> Node {
        node(json!({
            "metadata": {"name": "vk", "labels": {
                "type": "virtual-kubelet", "kubernetes.io/hostname": "vk", "beta.kubernetes.io/os": "linux",
                "topology.kubernetes.io/zone": "a", "node.kubernetes.io/exclude-from-external-load-balancers": "false", "team": "x",
            }},
            "spec": {"taints": [{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}]},
            "status": {"capacity": {"cpu": "10", "pods": "100"}, "allocatable": {"cpu": "10", "pods": "0"}},
        }))
    }

    #[test]
    fn an_adopted_node_is_closed_and_one_that_nobody_adopted_only_labelled() {
        let hygiene = Hygiene::of(&stock());
        let labels = json!({
            "kubernetes.io/hostname": null, "topology.kubernetes.io/zone": null, "beta.kubernetes.io/os": null,
            "node.kubernetes.io/exclude-from-external-load-balancers": "true", "kubernetes.azure.com/managed": "false",
        });
        let foreign = hygiene.repair(false).expect("drift");
        assert_eq!(foreign.of_node(), Some(json!({"metadata": {"labels": labels}})));
        assert_eq!(foreign.of_status(), None);
        let ours = hygiene.repair(true).expect("drift");
        let taints = json!([{"key": "spillway.dev/virtual-node", "effect": "NoSchedule"}]);
        assert_eq!(ours.of_node(), Some(json!({"metadata": {"labels": labels}, "spec": {"taints": taints}})));
        assert_eq!(ours.of_status(), Some(json!({"status": {"capacity": {"pods": "0"}}})));
        for (repair, for_ours) in [(&foreign, false), (&ours, true)] {
            let mut repaired = stock();
            repair.apply(&mut repaired);
            assert_eq!(Hygiene::of(&repaired).repair(for_ours), None);
            assert_eq!(repaired.metadata.labels.expect("labels")["team"], "x");
            assert_eq!(repaired.spec.expect("a spec").taints.expect("taints").len(), if for_ours { 2 } else { 1 });
        }
        let failed: Vec<&str> = ours.checks.iter().map(|check| check.label()).collect();
        assert_eq!(failed, ["load_balancers", "azure_unmanaged", "no_domain", "no_platform", "taint", "no_room"]);
    }

    #[test]
    fn nothing_is_written_on_a_compliant_node() {
        let compliant = node(json!({
            "metadata": {"name": "vk", "labels": {
                "type": "virtual-kubelet", "kubernetes.azure.com/managed": "false",
                "node.kubernetes.io/exclude-from-external-load-balancers": "true",
            }},
            "spec": {"taints": [{"key": "spillway.dev/virtual-node", "effect": "NoSchedule"}]},
            "status": {"capacity": {"pods": "0"}, "allocatable": {"pods": "0"}},
        }));
        assert_eq!(Hygiene::of(&compliant).repair(true), None);
        assert_eq!(Hygiene::of(&compliant).repair(false), None);
    }

    #[test]
    fn a_taint_that_only_asks_nicely_closes_nothing() {
        let mut node = stock();
        node.spec =
            serde_json::from_value(json!({"taints": [{"key": "spillway.dev/virtual-node", "effect": "PreferNoSchedule"}]})).ok();
        assert!(Hygiene::of(&node).failed(true).any(|check| check == Check::Taint));
    }
}
