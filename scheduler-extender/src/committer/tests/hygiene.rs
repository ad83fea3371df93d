//! Nodes of virtual kubelets that have drifted, and which Nodes count as virtual.

use super::*;
use crate::hygiene::Check;

impl Cluster {
    /// What is to be repaired a second later.
    fn repairs(&mut self) -> Vec<(String, Vec<Check>)> {
        self.now = self.now + Duration::from_secs(1);
        let intents = self.committer.step(self.now).into_iter();
        let repairs = intents.filter_map(|intent| match intent {
            Intent::RepairNode { node, repair, .. } => Some((node.to_string(), repair.checks)),
            _ => None,
        });
        repairs.collect()
    }

    fn any_node(&mut self, name: &str, labels: Value) {
        let node = json!({"metadata": {"name": name, "labels": labels}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        self.tell(Event::Node(Box::new(from::<Node>(node))));
    }

    fn closed(&self) -> Vec<String> {
        self.committer.published().to_guard.closed.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn drift_is_repaired_at_once_and_not_more_often_than_every_five_seconds() {
    let mut cluster = synced(0, dedicated_first());
    let checks = vec![Check::LoadBalancers, Check::AzureUnmanaged, Check::Taint];
    assert_eq!(cluster.repairs(), [("virtual-0".to_owned(), checks.clone())]);
    for _ in 0..4 {
        assert_eq!(cluster.repairs(), [], "whoever undoes it at once does not keep the API server busy");
    }
    assert_eq!(cluster.repairs(), [("virtual-0".to_owned(), checks)]);
    let compliant = json!({"metadata": {"name": "virtual-0", "labels": {"type": "virtual-kubelet", "cloud": "yes",
            "node.kubernetes.io/exclude-from-external-load-balancers": "true", "kubernetes.azure.com/managed": "false"}},
        "spec": {"taints": [{"key": "spillway.dev/virtual-node", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "0"}}});
    cluster.tell(Event::Node(Box::new(from::<Node>(compliant))));
    for _ in 0..7 {
        assert_eq!(cluster.repairs(), []);
    }
    // Who adopts nothing closes nothing, and leaves it tidy.
    cluster.tell(Event::VirtualNodeGone("cloud".to_owned()));
    cluster.any_node("virtual-0", json!({"type": "virtual-kubelet", "kubernetes.io/hostname": "virtual-0"}));
    let checks = vec![Check::LoadBalancers, Check::AzureUnmanaged, Check::NoDomain];
    assert_eq!(cluster.repairs(), [("virtual-0".to_owned(), checks)]);
}

#[test]
fn a_selector_that_takes_in_machines_closes_none_of_them() {
    let mut cluster = synced(0, dedicated_first());
    assert_eq!(cluster.closed(), ["virtual-0"]);
    cluster.any_node("machine-0", json!({"cloud": "yes"}));
    assert_eq!(cluster.closed(), ["virtual-0"], "it does not say that it is virtual, and it is not the only one");
    cluster.any_node("virtual-1", json!({"cloud": "yes", "type": "virtual-kubelet"}));
    assert_eq!(cluster.closed(), ["virtual-0", "virtual-1"]);
}

#[test]
fn a_managed_virtual_node_is_guarded_before_its_node_is_made_and_never_takes_a_machines_name() {
    let mut cluster = synced(0, dedicated_first());
    for name in ["managed", "dedicated-0"] {
        let object = json!({"metadata": {"name": name, "generation": 1}, "spec": {"inMemory": {"region": "here"}}});
        cluster.tell(Event::VirtualNode(Box::new(from(object))));
    }
    assert_eq!(cluster.closed(), ["managed", "virtual-0"]);
    let bound = cluster.committer.published().to_guard.bound.clone();
    assert!(bound.contains("managed") && !bound.contains("dedicated-0"), "{bound:?}");
}
