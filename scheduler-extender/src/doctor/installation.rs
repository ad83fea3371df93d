//! Spillway's own objects and rights.

use policy::burst_policy::{Mode, StopPolicy};

use super::{Level, Said, View, named};
use crate::api::names::{DECIDE_GATE, EXTENDER_MARKER};
use crate::guards::{BIND_GUARD, RECORD_GUARD};
use crate::pod_admission::{self, pod_admission as wanted_admission};
use crate::{admission, workload};

pub(super) fn types(view: &View<'_>) -> Vec<Said> {
    let said = |kind: &String| {
        (
            Level::Todo,
            format!("CustomResourceDefinition {kind}"),
            "the API server does not serve it".to_owned(),
            "spillway crds | kubectl apply -f -".to_owned(),
        )
    };
    view.cluster.missing_types.iter().map(said).collect()
}

pub(super) fn rights(view: &View<'_>) -> Vec<Said> {
    let said = |right: &String| {
        let message = format!("Spillway's service account may not {right}");
        (Level::Todo, "ClusterRole spillway".to_owned(), message, "kubectl apply -f deploy/rbac.yaml".to_owned())
    };
    view.cluster.missing_rights.iter().map(said).collect()
}

/// The guards, and in their text the name of every Node that they should guard.
pub(super) fn guards(view: &View<'_>) -> Vec<Said> {
    let next = || "let `spillway run` keep them (--guards=apply), or: spillway guards | kubectl apply -f -".to_owned();
    let mut said = Vec::new();
    for name in [BIND_GUARD, RECORD_GUARD] {
        for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
            let about = format!("{kind} {name}");
            let Some((_, text)) = view.cluster.admission.iter().find(|(present, _)| *present == about) else {
                let message = "is not there: others can bind pods to virtual nodes, and write records".to_owned();
                said.push((Level::Todo, about, message, next()));
                continue;
            };
            let open = view.virtual_nodes.iter().filter(|node| is_ours(view, node) && !text.contains(&admission::quoted(node)));
            if kind == "ValidatingAdmissionPolicy" {
                said.extend(open.map(|node| (Level::Todo, about.clone(), format!("does not name the Node {node}"), next())));
            }
        }
    }
    said
}

/// Virtual kubelets that nobody adopted are nobody's business.
fn is_ours(view: &View<'_>, node: &str) -> bool {
    view.cluster
        .virtual_nodes
        .iter()
        .any(|object| object.status.as_ref().and_then(|status| status.node_name.as_deref()) == Some(node))
}

/// What policies ask for at admission, and whether it is there; without the API, what to write by hand.
pub(super) fn pod_admission(view: &View<'_>) -> Vec<Said> {
    // Those that are left out say so themselves.
    let left_out = view.cluster.policies.iter().filter_map(|policy| {
        let conditions = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let refused = conditions.iter().any(|one| {
            one.type_ == pod_admission::IN_FORCE && one.status == "False" && ["Refused", "TooLarge"].contains(&&*one.reason)
        });
        let name = policy.metadata.name.as_deref().filter(|_| refused)?;
        Some((name.into(), pod_admission::Obstacle::TooLarge))
    });
    let wanted = wanted_admission(&view.compiled, &left_out.collect());
    let mut said = Vec::new();
    for object in wanted.iter().filter(|object| object["kind"] == "MutatingAdmissionPolicy") {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let about = format!("MutatingAdmissionPolicy {name}");
        if view.cluster.admission.iter().any(|(present, _)| *present == about) {
            continue;
        }
        let by_hand = if name == pod_admission::MARKER {
            format!("in the pod templates: spec.containers[0].resources.limits: {{{EXTENDER_MARKER}: \"0\"}}")
        } else {
            format!("in the pod templates: spec.schedulingGates: [{{name: {DECIDE_GATE}}}]")
        };
        said.push(if view.cluster.can_mutate {
            let message = "policies ask for it, and it is not there".to_owned();
            (Level::Todo, about, message, "is `spillway run` up, with --guards=apply?".to_owned())
        } else {
            let message =
                "policies ask for it, and this API server has no MutatingAdmissionPolicies (Kubernetes 1.36)".to_owned();
            (Level::Todo, about, message, by_hand)
        });
    }
    said
}

/// Objects that say themselves that something is wrong with them.
pub(super) fn objects(view: &View<'_>) -> Vec<Said> {
    let cluster = view.cluster;
    let policies = cluster
        .policies
        .iter()
        .map(|one| (named("BurstPolicy", &one.metadata), one.status.as_ref().map(|status| &status.conditions)));
    let nodes = cluster
        .virtual_nodes
        .iter()
        .map(|one| (named("VirtualNode", &one.metadata), one.status.as_ref().map(|status| &status.conditions)));
    let budgets = cluster
        .budgets
        .iter()
        .map(|one| (named("BurstBudget", &one.metadata), one.status.as_ref().map(|status| &status.conditions)));
    let mut said = Vec::new();
    for (about, conditions) in policies.chain(nodes).chain(budgets) {
        let Some(conditions) = conditions.filter(|conditions| !conditions.is_empty()) else {
            let next = "is `spillway run` up? its /readyz and its log say what it waits for".to_owned();
            said.push((Level::Todo, about, "has no status: nobody has looked at it".to_owned(), next));
            continue;
        };
        let good = ["Ready", "TiersResolved", "HygieneCompliant", "BackendHealthy", pod_admission::IN_FORCE];
        let bad = conditions.iter().filter(|one| good.contains(&one.type_.as_str()) && one.status == "False");
        said.extend(bad.map(|one| {
            let message = format!("{}=False, {}: {}", one.type_, one.reason, one.message);
            (Level::Todo, about.clone(), message, "correct what the message names".to_owned())
        }));
    }
    said
}

pub(super) fn conflicts(view: &View<'_>) -> Vec<Said> {
    let mut said = Vec::new();
    for policy in &view.cluster.policies {
        let conditions = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let conflict = conditions.iter().find(|one| one.type_ == "Conflicting" && one.status == "True");
        said.extend(conflict.map(|one| {
            let next = "give one of the two another spec.weight".to_owned();
            (Level::Note, named("BurstPolicy", &policy.metadata), one.message.clone(), next)
        }));
    }
    said
}

/// Serverless first needs somebody who keeps kube-scheduler from being faster.
pub(super) fn serverless_first(view: &View<'_>) -> Vec<Said> {
    let lame = view.compiled.iter().filter(|compiled| {
        let policy = &compiled.policy;
        policy.serverless_first() && !policy.extender && !policy.gate && policy.mode == Mode::Enforce
    });
    let said = lame.map(|compiled| {
        let message =
            "puts serverless first and uses neither extender nor gate: unmarked pods go to dedicated nodes while these have room";
        let next = "spec.extender: Use where kube-scheduler asks the extender, else spec.gate: Use";
        (Level::Todo, format!("BurstPolicy {}", compiled.policy.name), message.to_owned(), next.to_owned())
    });
    said.collect()
}

/// What gates cost while Spillway is down.
pub(super) fn gates(view: &View<'_>) -> Vec<Said> {
    let gating = view.compiled.iter().filter(|compiled| compiled.policy.gate && compiled.policy.stop == StopPolicy::None);
    let held = view.cluster.pods.iter().filter(|pod| workload::held(pod) == policy::workload::Held::ByGate).count();
    let said = gating.map(|compiled| {
        let message = format!(
            "its new pods wait while Spillway is down, also for dedicated nodes ({held} pods of the cluster are gated now)"
        );
        let next = "run two replicas; to let go of them for good: spec.gate: Ignore while Spillway runs".to_owned();
        (Level::Note, format!("BurstPolicy {}", compiled.policy.name), message, next)
    });
    said.collect()
}
