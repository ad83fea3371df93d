//! What a Pod is to the engine: the one place where a Pod becomes a [`policy::Workload`].
//!
//! Nothing in here decides. Everything that a decision may need is read once; the Pod is forgotten afterwards.

mod features;
mod requests;
mod selectors;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use policy::Workload;
use policy::selector::{Labels, NodeTerm};
use policy::taint::Toleration;
use policy::workload::{Held, Owner};

pub use requests::{quantity, requests, resources};
pub use selectors::{match_labels, node_selector, taint, taints, toleration};

use crate::api::{Invalid, names};
use crate::duration;

/// Labels that tell the pods of one owner apart and say nothing about where they may run.
const NUMBERING_LABELS: [&str; 3] =
    ["batch.kubernetes.io/job-completion-index", "apps.kubernetes.io/pod-index", "statefulset.kubernetes.io/pod-name"];
/// Kubernetes' own default of `terminationGracePeriodSeconds`.
const GRACE_SECONDS_DEFAULT: u32 = 30;

/// The scheduling view of a pod. A pod that the API server took always has one, but for operators newer than this program; a
/// pod from a manifest may not, and the error names the field.
///
/// A hint that cannot be read is left out here; [`expected_run`] says what is wrong with it.
pub fn workload(pod: &Pod) -> Result<Workload, Invalid> {
    let spec = pod.spec.as_ref().ok_or_else(|| Invalid::new("spec", "", "must be there"))?;
    let requests = requests::effective(pod, spec)?;
    let limits = requests::limits(spec)?;
    let features = features::features(pod, spec, &requests)?;
    let containers = requests::containers(spec);
    let text = |text: Option<&str>, default: &str| Arc::from(text.unwrap_or(default));
    Ok(Workload {
        namespace: text(pod.metadata.namespace.as_deref(), "default"),
        labels: labels_without(pod, &NUMBERING_LABELS),
        owner: owner(pod),
        scheduler_name: text(spec.scheduler_name.as_deref(), "default-scheduler"),
        requests,
        limits,
        node_selector: spec.node_selector.as_ref().map(match_labels).unwrap_or_default(),
        node_affinity: node_affinity(spec)?,
        tolerations: tolerations(spec)?,
        priority: spec.priority.unwrap_or(0),
        may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
        features,
        containers: containers.running,
        init_containers: containers.initialising,
        containers_without_cpu: containers.without_cpu,
        containers_without_memory: containers.without_memory,
        grace_seconds: grace_seconds(spec),
        added_capabilities: features::added_capabilities(spec),
        expected_run: expected_run(pod).unwrap_or_default(),
        run_limit: spec.active_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
        held: held(pod),
    })
}

/// Whether Spillway keeps a pod from every scheduler. One with gates of others, too, is their business until those are gone.
pub fn held(pod: &Pod) -> Held {
    let spec = pod.spec.as_ref();
    let gates = spec.and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default();
    let selected = spec.and_then(|spec| spec.node_selector.as_ref()).and_then(|labels| labels.get(names::DECIDED_LABEL));
    match gates {
        [only] if only.name == names::DECIDE_GATE => Held::ByGate,
        [] if selected.is_some_and(|value| value == names::DECIDED_BURST) => Held::BySelector,
        _ => Held::No,
    }
}

/// All labels of a pod, for the selectors of policies, Services and budgets.
pub fn labels(pod: &Pod) -> Labels {
    labels_without(pod, &[])
}

fn labels_without(pod: &Pod, left_out: &[&str]) -> Labels {
    let labels = pod.metadata.labels.iter().flatten().filter(|(key, _)| !left_out.contains(&key.as_str()));
    Labels::new(labels.map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))))
}

/// The pod's controller: its Job, its ReplicaSet, …
pub fn owner(pod: &Pod) -> Option<Owner> {
    let reference = pod.metadata.owner_references.iter().flatten().find(|reference| reference.controller == Some(true))?;
    Some(Owner { kind: Arc::from(reference.kind.as_str()), name: Arc::from(reference.name.as_str()) })
}

/// How long the pod's author says that it will run; the complaint about a hint that says nothing usable.
pub fn expected_run(pod: &Pod) -> Result<Option<Duration>, Invalid> {
    let annotation =
        |annotations: &std::collections::BTreeMap<String, String>| annotations.get(names::EXPECTED_DURATION_ANNOTATION).cloned();
    let Some(text) = pod.metadata.annotations.as_ref().and_then(annotation) else { return Ok(None) };
    match duration::parse(&text) {
        Some(run) if !run.is_zero() => Ok(Some(run)),
        Some(_) | None => {
            let field = format!("metadata.annotations[{}]", names::EXPECTED_DURATION_ANNOTATION);
            Err(Invalid::new(field, text, "must be a duration above zero, such as 90s or 1h30m; the hint is ignored"))
        }
    }
}

fn node_affinity(spec: &PodSpec) -> Result<Option<Vec<NodeTerm>>, Invalid> {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let field = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    required.map(node_selector).transpose().map_err(|invalid| invalid.within(field))
}

fn tolerations(spec: &PodSpec) -> Result<Vec<Toleration>, Invalid> {
    let place = |(place, wire)| toleration(wire).map_err(|invalid| invalid.within(&format!("spec.tolerations[{place}]")));
    spec.tolerations.iter().flatten().enumerate().map(place).collect()
}

fn grace_seconds(spec: &PodSpec) -> u32 {
    spec.termination_grace_period_seconds
        .map_or(GRACE_SECONDS_DEFAULT, |seconds| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
