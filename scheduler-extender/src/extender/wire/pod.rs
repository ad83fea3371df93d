//! The part of a Pod that an answer needs.

use serde::Deserialize;

use super::LIST_MAX;
use super::text::{Entries, Text, count, hints, list};

/// A Pod as kube-scheduler sends it, reduced to what decides about nodes.
///
/// The snapshot usually knows the pod already; this view is for what only the request knows (the nominated node) and
/// for pods that the watch has not delivered yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView<'a> {
    /// Namespace.
    pub namespace: Text<'a>,
    /// Name within the namespace.
    pub name: Text<'a>,
    /// Tells a pod from a later one of the same name.
    pub uid: Text<'a>,
    /// Labels, for selectors and for the opt-out `spillway.dev/do-not-burst`.
    pub labels: Entries<'a>,
    /// Annotations under `spillway.dev/` only: the users' hints.
    pub hints: Entries<'a>,
    /// Owners; the controller among them tells which pods are siblings.
    pub owners: Vec<OwnerReference<'a>>,
    /// Which scheduler asks.
    pub scheduler_name: Text<'a>,
    /// Priority as admission resolved it.
    pub priority: i32,
    /// `Never` or `PreemptLowerPriority`; empty means the latter.
    pub preemption_policy: Text<'a>,
    /// Labels that a node must have.
    pub node_selector: Entries<'a>,
    /// Taints that the pod accepts.
    pub tolerations: Vec<Toleration<'a>>,
    /// Node and pod affinity.
    pub affinity: Affinity<'a>,
    /// Topology spread constraints, hard and soft.
    pub spread: Vec<Spread<'a>>,
    /// Ordinary containers.
    pub containers: Vec<Container<'a>>,
    /// Init containers; those that restart always are sidecars.
    pub init_containers: Vec<Container<'a>>,
    /// Pod-level resources, which override the containers' sum.
    pub resources: Resources<'a>,
    /// What the runtime class adds to the requests.
    pub overhead: Entries<'a>,
    /// Where kube-scheduler has made or is making room for this pod; empty when nowhere.
    pub nominated_node_name: Text<'a>,
}

impl PodView<'_> {
    /// Whether the pod itself prefers some nodes to others. Then kube-scheduler's scoring has something to say and an
    /// answer of one node would overrule its owner.
    pub fn has_soft_preferences(&self) -> bool {
        let Affinity { node, pod, pod_anti } = &self.affinity;
        node.preferred > 0 || pod.preferred > 0 || pod_anti.preferred > 0 || self.spread.iter().any(Spread::is_soft)
    }

    /// Whether the pod may evict others: the policy `Never` forbids it.
    pub fn may_preempt(&self) -> bool {
        self.preemption_policy != "Never"
    }
}

/// Who made the pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference<'a> {
    /// Group and version of the owner's kind.
    #[serde(borrow)]
    pub api_version: Text<'a>,
    /// Kind, such as `Job`.
    #[serde(borrow)]
    pub kind: Text<'a>,
    /// Name in the pod's namespace.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// UID of the owner.
    #[serde(borrow)]
    pub uid: Text<'a>,
    /// Whether this owner replaces the pod when it is gone.
    pub controller: Option<bool>,
}

/// One toleration; empty texts mean "any", as in the API.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Toleration<'a> {
    /// Key of the taint; empty with `Exists` tolerates all keys.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// `Equal` (also when empty) or `Exists`.
    #[serde(borrow)]
    pub operator: Text<'a>,
    /// Value to equal.
    #[serde(borrow)]
    pub value: Text<'a>,
    /// Effect of the taint; empty matches all effects.
    #[serde(borrow)]
    pub effect: Text<'a>,
}

/// Affinity of the pod to nodes and to other pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity<'a> {
    /// To nodes, by their labels and names.
    #[serde(rename = "nodeAffinity", borrow, deserialize_with = "or_default")]
    pub node: NodeAffinity<'a>,
    /// To be near other pods.
    #[serde(rename = "podAffinity", deserialize_with = "or_default")]
    pub pod: PodAffinity,
    /// To be away from other pods.
    #[serde(rename = "podAntiAffinity", deserialize_with = "or_default")]
    pub pod_anti: PodAffinity,
}

/// Node affinity: the required terms in full, of the preferred ones only how many.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeAffinity<'a> {
    /// Terms of which a node must match one; `None` when nothing is required, while an empty list matches no node.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", borrow, deserialize_with = "terms")]
    pub required: Option<Vec<NodeTerm<'a>>>,
    /// How many preferred terms there are.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution", deserialize_with = "count")]
    pub preferred: usize,
}

/// One term: all of its requirements must hold. A term without requirements matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTerm<'a> {
    /// Over labels.
    #[serde(borrow, deserialize_with = "list::<_, _, LIST_MAX>")]
    pub match_expressions: Vec<NodeRequirement<'a>>,
    /// Over fields; Kubernetes knows `metadata.name` only.
    #[serde(borrow, deserialize_with = "list::<_, _, LIST_MAX>")]
    pub match_fields: Vec<NodeRequirement<'a>>,
}

/// One requirement of a term.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeRequirement<'a> {
    /// Label key, or field.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`.
    #[serde(borrow)]
    pub operator: Text<'a>,
    /// Values to compare with.
    #[serde(borrow, deserialize_with = "list::<_, _, LIST_MAX>")]
    pub values: Vec<Text<'a>>,
}

/// Pod (anti-)affinity. kube-scheduler has checked the hard terms; what matters here is whether there are any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodAffinity {
    /// How many required terms there are.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "count")]
    pub required: usize,
    /// How many preferred terms there are.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution", deserialize_with = "count")]
    pub preferred: usize,
}

/// One topology spread constraint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spread<'a> {
    /// Largest allowed difference between domains.
    pub max_skew: i32,
    /// Node label whose values are the domains.
    #[serde(borrow)]
    pub topology_key: Text<'a>,
    /// `DoNotSchedule` (hard) or `ScheduleAnyway` (soft).
    #[serde(borrow)]
    pub when_unsatisfiable: Text<'a>,
}

impl Spread<'_> {
    /// Whether this is a wish rather than a condition.
    pub fn is_soft(&self) -> bool {
        self.when_unsatisfiable == "ScheduleAnyway"
    }
}

/// One container's part in the pod's size.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container<'a> {
    /// Name within the pod.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Requests and limits.
    #[serde(borrow, deserialize_with = "or_default")]
    pub resources: Resources<'a>,
    /// `Always` makes an init container a sidecar.
    #[serde(borrow)]
    pub restart_policy: Text<'a>,
}

/// Requests and limits: quantities as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resources<'a> {
    /// What is set aside.
    #[serde(borrow)]
    pub requests: Entries<'a>,
    /// What may be used at most.
    #[serde(borrow)]
    pub limits: Entries<'a>,
}

// === the Pod's own nesting ===

/// The shape of the JSON; [`PodView`] is the flat view of it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WirePod<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
    #[serde(borrow)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata<'a> {
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    labels: Entries<'a>,
    #[serde(borrow, deserialize_with = "hints")]
    annotations: Entries<'a>,
    #[serde(borrow, deserialize_with = "list::<_, _, LIST_MAX>")]
    owner_references: Vec<OwnerReference<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec<'a> {
    #[serde(borrow)]
    scheduler_name: Text<'a>,
    priority: Option<i32>,
    #[serde(borrow)]
    preemption_policy: Option<Text<'a>>,
    #[serde(borrow)]
    node_selector: Entries<'a>,
    #[serde(borrow, deserialize_with = "list::<_, _, LIST_MAX>")]
    tolerations: Vec<Toleration<'a>>,
    #[serde(borrow, deserialize_with = "or_default")]
    affinity: Affinity<'a>,
    #[serde(borrow, deserialize_with = "list::<_, _, LIST_MAX>")]
    topology_spread_constraints: Vec<Spread<'a>>,
    #[serde(borrow, deserialize_with = "list::<_, _, LIST_MAX>")]
    containers: Vec<Container<'a>>,
    #[serde(borrow, deserialize_with = "list::<_, _, LIST_MAX>")]
    init_containers: Vec<Container<'a>>,
    #[serde(borrow, deserialize_with = "or_default")]
    resources: Resources<'a>,
    #[serde(borrow)]
    overhead: Entries<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    #[serde(borrow)]
    nominated_node_name: Text<'a>,
}

impl<'a> From<WirePod<'a>> for PodView<'a> {
    fn from(pod: WirePod<'a>) -> PodView<'a> {
        let WirePod { metadata, spec, status } = pod;
        PodView {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            labels: metadata.labels,
            hints: metadata.annotations,
            owners: metadata.owner_references,
            scheduler_name: spec.scheduler_name,
            priority: spec.priority.unwrap_or(0),
            preemption_policy: spec.preemption_policy.unwrap_or_default(),
            node_selector: spec.node_selector,
            tolerations: spec.tolerations,
            affinity: spec.affinity,
            spread: spec.topology_spread_constraints,
            containers: spec.containers,
            init_containers: spec.init_containers,
            resources: spec.resources,
            overhead: spec.overhead,
            nominated_node_name: status.nominated_node_name,
        }
    }
}

/// Go writes a nil pointer as `null`; for these fields that is the same as the empty value.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// The required part of node affinity is an object around the list of terms.
fn terms<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<NodeTerm<'de>>>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Selector<'a> {
        #[serde(borrow, deserialize_with = "list::<_, _, LIST_MAX>")]
        node_selector_terms: Vec<NodeTerm<'a>>,
    }
    Ok(Option::<Selector<'de>>::deserialize(deserializer)?.map(|selector| selector.node_selector_terms))
}
