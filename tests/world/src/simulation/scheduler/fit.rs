//! kube-scheduler's filters and its score, for one pod and one node.

use std::borrow::Cow;
use std::collections::BTreeMap;

use policy::Resources;
use policy::taint::tolerated;

use super::view::{NodeView, PodView};

/// Why a node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The texts of the plugins, as kube-scheduler words them.
    pub(crate) texts: Vec<Cow<'static, str>>,
    /// Whether ending other pods could help.
    pub(crate) is_resolvable: bool,
}

/// The filters in kube-scheduler's order. `reserved` is held for nominated pods.
pub(crate) fn refusal(pod: &PodView, node: &NodeView, reserved: Option<&(Resources, i64)>) -> Option<Refusal> {
    let lasting = |text: &'static str| Some(Refusal { texts: vec![Cow::Borrowed(text)], is_resolvable: false });
    if node.is_cordoned {
        return lasting("node(s) were unschedulable");
    }
    if !tolerated(&node.taints, &pod.tolerations) {
        return lasting("node(s) had untolerated taint(s)");
    }
    let by_affinity = |terms: &Vec<policy::selector::NodeTerm>| terms.iter().any(|term| term.matches(&node.name, &node.labels));
    if !pod.selector.iter().all(|requirement| requirement.holds(node.labels.get(&requirement.key)))
        || !pod.affinity.as_ref().is_none_or(by_affinity)
    {
        return lasting("node(s) didn't match Pod's node affinity/selector");
    }
    let none = (Resources::default(), 0);
    let (held, held_pods) = reserved.unwrap_or(&none);
    let mut texts = Vec::new();
    let mut fits_empty = true;
    if node.pods + held_pods + 1 > node.pods_max {
        texts.push(Cow::Borrowed("Too many pods"));
        fits_empty &= node.pods_max > 0;
    }
    let mut check = |name: &str, asked: i64, all: i64, used: i64| {
        if asked > 0 && used.saturating_add(asked) > all {
            texts.push(match name {
                "cpu" => Cow::Borrowed("Insufficient cpu"),
                "memory" => Cow::Borrowed("Insufficient memory"),
                _ => Cow::Owned(format!("Insufficient {name}")),
            });
            fits_empty &= asked <= all;
        }
    };
    check("cpu", pod.request.cpu_millis, node.allocatable.cpu_millis, node.used.cpu_millis + held.cpu_millis);
    check("memory", pod.request.memory_bytes, node.allocatable.memory_bytes, node.used.memory_bytes + held.memory_bytes);
    check(
        "ephemeral-storage",
        pod.request.ephemeral_bytes,
        node.allocatable.ephemeral_bytes,
        node.used.ephemeral_bytes + held.ephemeral_bytes,
    );
    for (name, asked) in &pod.request.extended {
        check(name, *asked, node.allocatable.extended(name), node.used.extended(name) + held.extended(name));
    }
    (!texts.is_empty()).then_some(Refusal { texts, is_resolvable: fits_empty })
}

/// LeastAllocated over CPU and memory: 0 full, 100 empty, after placing the pod.
pub(crate) fn score(pod: &PodView, node: &NodeView) -> i64 {
    let free = |all: i64, used: i64| if all > 0 { (all - used).max(0).saturating_mul(100) / all } else { 0 };
    let cpu = free(node.allocatable.cpu_millis, node.used.cpu_millis + pod.request.cpu_millis);
    let memory = free(node.allocatable.memory_bytes, node.used.memory_bytes + pod.request.memory_bytes);
    i64::midpoint(cpu, memory)
}

/// `0/13 nodes are available: 10 Insufficient cpu, 3 node(s) had untolerated taint(s).`
pub(crate) fn message<'a>(nodes: usize, texts: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    if counts.is_empty() {
        return format!("0/{nodes} nodes are available.");
    }
    let reasons: Vec<String> = counts.iter().map(|(text, count)| format!("{count} {text}")).collect();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

/// How many feasible nodes kube-scheduler looks for before it stops.
pub(crate) fn feasible_wanted(nodes: usize) -> usize {
    const ALL_BELOW: usize = 100;
    if nodes < ALL_BELOW {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ALL_BELOW)
}
