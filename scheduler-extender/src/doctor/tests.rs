use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the test's own object")
}

/// A cluster with a virtual node, a dedicated one in a zone, and guards in force.
fn healthy() -> Cluster {
    let guard = |kind: &str, name: &str| (format!("{kind} {name}"), "object.target.name in ['virtual-0']".to_owned());
    let ready = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Open", "message": "",
        "lastTransitionTime": "2026-11-01T00:00:00Z"}], "nodeName": "virtual-0"});
    let tiers = json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": ["cloud"]}]);
    Cluster {
        can_mutate: true,
        admission: [crate::guards::BIND_GUARD, crate::guards::RECORD_GUARD]
            .into_iter()
            .flat_map(|name| [guard("ValidatingAdmissionPolicy", name), guard("ValidatingAdmissionPolicyBinding", name)])
            .collect(),
        namespaces: vec![from(json!({"metadata": {"name": "media"}}))],
        nodes: vec![
            from(json!({"metadata": {"name": "dedicated-0", "labels": {"topology.kubernetes.io/zone": "a"}}})),
            from(json!({"metadata": {"name": "virtual-0", "labels": {"type": "virtual-kubelet"}},
                "spec": {"taints": [{"key": "virtual-kubelet.io/provider", "value": "azure", "effect": "NoSchedule"}]}})),
        ],
        virtual_nodes: vec![from(json!({"metadata": {"name": "cloud"}, "status": ready,
            "spec": {"inMemory": {"region": "here"}, "pricing": {"currency": "USD", "vcpuHour": "1", "gbHour": "0"}}}))],
        policies: vec![from(json!({"metadata": {"name": "p"}, "status": ready,
            "spec": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "burst"}}, "tiers": tiers}}))],
        ..Cluster::default()
    }
}

/// Level and object of what one check says.
fn said(cluster: &Cluster, check: &str) -> Vec<(Level, String)> {
    let findings = examine(cluster).into_iter().filter(|finding| finding.check == check);
    findings.map(|finding| (finding.level, finding.about)).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "a JSON literal reads better without a reference")]
fn pod(name: &str, owner: &str, spec: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": name, "namespace": "media", "labels": {"app": "burst"},
        "ownerReferences": [{"apiVersion": "v1", "kind": owner, "name": "o", "uid": "o", "controller": true}]},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    from(pod)
}

#[test]
fn a_healthy_cluster_needs_nothing() {
    for finding in examine(&healthy()) {
        assert_eq!((finding.level, &*finding.message), (Level::Ok, ""), "{finding:?}");
    }
}

#[test]
fn every_check_finds_what_it_is_for() {
    type Change = fn(&mut Cluster);
    let table: [(&str, Level, &str, Change); 14] = [
        ("types", Level::Todo, "CustomResourceDefinition x", |cluster| cluster.missing_types.push("x".to_owned())),
        ("rights", Level::Todo, "ClusterRole spillway", |cluster| cluster.missing_rights.push("create pods/binding".to_owned())),
        ("guards", Level::Todo, "ValidatingAdmissionPolicy spillway-bind-guard", |cluster| {
            cluster.admission[0].1 = "object.target.name in ['other']".to_owned();
        }),
        ("guards", Level::Todo, "ValidatingAdmissionPolicyBinding spillway-record-guard", |cluster| {
            cluster.admission.pop();
        }),
        ("pod-admission", Level::Todo, "MutatingAdmissionPolicy spillway-pod-marker", |cluster| {
            cluster.policies[0].spec.extender = api::ExtenderUse::Use;
        }),
        ("objects", Level::Todo, "BurstBudget b", |cluster| {
            let spec = json!({"amount": "1", "currency": "USD", "period": "Day"});
            cluster.budgets.push(from(json!({"metadata": {"name": "b"}, "spec": spec})));
        }),
        ("serverless-first", Level::Todo, "BurstPolicy p", |cluster| cluster.policies[0].spec.tiers.reverse()),
        ("gates", Level::Note, "BurstPolicy p", |cluster| {
            cluster.policies[0].spec.tiers.reverse();
            cluster.policies[0].spec.gate = api::GateUse::Use;
        }),
        ("architectures", Level::Todo, "Job media/o", |cluster| {
            cluster.virtual_nodes[0].spec.labels.insert("kubernetes.io/arch".to_owned(), "arm64".to_owned());
            cluster.pods.push(pod("a", "Job", json!({})));
            cluster.pods.push(pod("b", "ReplicaSet", json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}})));
        }),
        ("daemonsets", Level::Todo, "DaemonSet media/o", |cluster| {
            let field = json!({"key": "metadata.name", "operator": "In", "values": ["virtual-0"]});
            let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
            let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
            cluster.pods.push(pod("a", "DaemonSet", json!({"affinity": affinity})));
            cluster.pods.push(pod("b", "DaemonSet", json!({"nodeName": "dedicated-0"})));
        }),
        ("services", Level::Todo, "Service media/web", |cluster| {
            for (name, node) in [("web", "virtual-0"), ("fine", "dedicated-0")] {
                let service = json!({"metadata": {"name": name, "namespace": "media"}, "spec": {"type": "LoadBalancer"}});
                cluster.services.push(from(service));
                cluster.slices.push(from(json!({"metadata": {"name": name, "namespace": "media",
                    "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
                    "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": node}]})));
            }
        }),
        ("topology-mode", Level::Note, "Service media/web", |cluster| {
            cluster.services.push(from(json!({"metadata": {"name": "web", "namespace": "media",
                "annotations": {"service.kubernetes.io/topology-mode": "Auto"}}})));
        }),
        ("tolerations", Level::Note, "Job media/o", |cluster| {
            let tolerations = json!([{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]);
            let mut stranger = pod("a", "Job", json!({"tolerations": tolerations}));
            stranger.metadata.labels = None;
            cluster.pods.push(stranger);
            cluster.pods.push(pod("b", "ReplicaSet", json!({"tolerations": tolerations})));
            cluster.pods.push(pod("c", "StatefulSet", json!({"tolerations": [{"operator": "Exists"}]})));
        }),
        ("zones", Level::Note, "Nodes", |cluster| cluster.nodes[0].metadata.labels = None),
    ];
    for (check, level, about, change) in table {
        let mut cluster = healthy();
        change(&mut cluster);
        assert_eq!(said(&cluster, check), [(level, about.to_owned())], "{check}");
    }
}

#[test]
fn without_the_api_it_says_what_to_write_by_hand() {
    let mut cluster = healthy();
    cluster.can_mutate = false;
    cluster.policies[0].spec.extender = api::ExtenderUse::Use;
    let next = |cluster: &Cluster| {
        examine(cluster).into_iter().find(|finding| finding.check == "pod-admission").expect("the check").next
    };
    assert_eq!(next(&cluster), "in the pod templates: spec.containers[0].resources.limits: {spillway.dev/burst: \"0\"}");
    cluster.policies[0].spec.extender = api::ExtenderUse::Ignore;
    cluster.policies[0].spec.gate = api::GateUse::Use;
    cluster.policies[0].spec.tiers.reverse();
    assert_eq!(next(&cluster), "in the pod templates: spec.schedulingGates: [{name: spillway.dev/decide}]");
}

#[test]
fn a_thousand_of_the_same_are_counted() {
    let mut cluster = healthy();
    cluster.missing_rights = (0..1000).map(|number| number.to_string()).collect();
    let findings = examine(&cluster);
    let rights: Vec<_> = findings.iter().filter(|finding| finding.check == "rights").collect();
    assert_eq!(rights.len(), LISTED);
    assert!(rights[LISTED - 1].message.ends_with("(and 980 more)"), "{}", rights[LISTED - 1].message);
}
