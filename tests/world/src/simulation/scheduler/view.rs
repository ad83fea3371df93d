//! What kube-scheduler remembers of pods and nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use policy::selector::{Labels, NodeTerm, Operator, Requirement};
use policy::taint::{Effect, Taint, Toleration};
use policy::{Quantity, Resources};

/// A pod that waits, or runs.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    /// The object as last seen; the extender is sent this.
    pub(crate) pod: Arc<Pod>,
    pub(crate) priority: i32,
    pub(crate) request: Resources,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) selector: Vec<Requirement>,
    /// Terms of the required node affinity, any of which will do.
    pub(crate) affinity: Option<Vec<NodeTerm>>,
    pub(crate) may_preempt: bool,
    /// It carries the limit that the extender manages.
    pub(crate) is_managed: bool,
}

/// A node with what is left on it.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    pub(crate) name: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) taints: Vec<Taint>,
    pub(crate) is_cordoned: bool,
    pub(crate) allocatable: Resources,
    pub(crate) pods_max: i64,
    pub(crate) used: Resources,
    pub(crate) pods: i64,
}

// === impl PodView ===

impl PodView {
    pub(crate) fn new(pod: &Arc<Pod>, managed_resource: Option<&str>) -> PodView {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let is_managed = managed_resource.is_some_and(|name| spec.containers.iter().any(|container| limits(container, name)));
        let required = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = required.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        let mut request = effective_request(pod);
        if let Some(name) = managed_resource {
            request.set_extended(name, 0);
        }
        PodView {
            priority: spec.priority.unwrap_or(0),
            request,
            tolerations: spec.tolerations.iter().flatten().map(toleration).collect(),
            selector: spec.node_selector.iter().flatten().map(|(key, value)| Requirement::equals(key, value)).collect(),
            affinity: required.map(|selector| selector.node_selector_terms.iter().map(term).collect()),
            may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
            is_managed,
            pod: pod.clone(),
        }
    }
}

// === impl NodeView ===

impl NodeView {
    pub(crate) fn new(node: &Node) -> NodeView {
        let name: Arc<str> = Arc::from(node.metadata.name.as_deref().unwrap_or_default());
        let pairs =
            node.metadata.labels.iter().flatten().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str())));
        let spec = node.spec.clone().unwrap_or_default();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
        let taints = spec.taints.iter().flatten().filter_map(|taint| {
            let effect = effect(&taint.effect)?;
            Some(Taint {
                key: Arc::from(taint.key.as_str()),
                value: Arc::from(taint.value.as_deref().unwrap_or_default()),
                effect,
            })
        });
        NodeView {
            name,
            labels: Labels::new(pairs),
            taints: taints.collect(),
            is_cordoned: spec.unschedulable.unwrap_or(false),
            pods_max: amount(&allocatable, "pods").units_up(),
            allocatable: resources(&allocatable),
            used: Resources::default(),
            pods: 0,
        }
    }

    pub(crate) fn take(&mut self, request: &Resources) {
        self.used.add(request);
        self.pods += 1;
    }

    pub(crate) fn give_back(&mut self, request: &Resources) {
        self.used.subtract(request);
        self.pods -= 1;
    }
}

/// Thousandths of a CPU that a pod asks for.
pub fn cpu_millis(pod: &Pod) -> i64 {
    effective_request(pod).cpu_millis
}

/// What a pod asks for: containers and sidecars together, or its biggest init step, and its overhead.
pub(crate) fn effective_request(pod: &Pod) -> Resources {
    let Some(spec) = pod.spec.as_ref() else { return Resources::default() };
    let requests =
        |container: &Container| container.resources.as_ref().and_then(|r| r.requests.as_ref()).map(resources).unwrap_or_default();
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&requests(container));
    }
    let mut sidecars = Resources::default();
    let mut start = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut step = requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&step);
            step = Resources::default();
        }
        step.add(&sidecars);
        start.raise_to(&step);
    }
    total.add(&sidecars);
    total.raise_to(&start);
    if let Some(overhead) = &spec.overhead {
        total.add(&resources(overhead));
    }
    total
}

fn limits(container: &Container, resource: &str) -> bool {
    let resources = container.resources.as_ref();
    resources.is_some_and(|resources| {
        [&resources.limits, &resources.requests].into_iter().flatten().any(|map| map.contains_key(resource))
    })
}

fn amount(map: &BTreeMap<String, Text>, name: &str) -> Quantity {
    map.get(name).and_then(|text| text.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

/// A map of Kubernetes quantities as resources; text that is no quantity counts as zero, the API server would not have taken it.
pub(crate) fn resources(map: &BTreeMap<String, Text>) -> Resources {
    let mut sum = Resources::new(amount(map, "cpu").millis_up(), amount(map, "memory").units_up());
    sum.ephemeral_bytes = amount(map, "ephemeral-storage").units_up();
    for name in map.keys().filter(|name| !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pods")) {
        sum.set_extended(name, amount(map, name).units_up());
    }
    sum
}

fn toleration(toleration: &k8s_openapi::api::core::v1::Toleration) -> Toleration {
    let text = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Arc::from);
    let exists = toleration.operator.as_deref() == Some("Exists");
    Toleration {
        key: text(&toleration.key),
        value: (!exists).then(|| Arc::from(toleration.value.as_deref().unwrap_or_default())),
        effect: toleration.effect.as_deref().and_then(effect),
    }
}

fn effect(text: &str) -> Option<Effect> {
    match text {
        "NoSchedule" => Some(Effect::NoSchedule),
        "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
        "NoExecute" => Some(Effect::NoExecute),
        _ => None,
    }
}

fn term(term: &NodeSelectorTerm) -> NodeTerm {
    NodeTerm {
        labels: term.match_expressions.iter().flatten().map(requirement).collect(),
        fields: term.match_fields.iter().flatten().map(requirement).collect(),
    }
}

fn requirement(requirement: &NodeSelectorRequirement) -> Requirement {
    let values = || requirement.values.iter().flatten().map(|value| Arc::from(value.as_str())).collect();
    let bound = || requirement.values.iter().flatten().next().and_then(|value| value.parse().ok());
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In(values()),
        "NotIn" => Operator::NotIn(values()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => bound().map_or(Operator::In(vec![]), Operator::Gt),
        "Lt" => bound().map_or(Operator::In(vec![]), Operator::Lt),
        _ => Operator::In(vec![]), // Nothing matches; the API server would not have taken it.
    };
    Requirement { key: Arc::from(requirement.key.as_str()), operator }
}
