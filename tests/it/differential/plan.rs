//! What one seed stands for: nodes, and pods in the order in which they come.

use serde_json::{Value, json};
use world::control_plane::DedicatedNodes;

use crate::scenario::dedicated_first;

/// Name, price of a vCPU-hour, and labels that selectors of pods are matched with.
type Virtual = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The virtual nodes.
pub(super) const VIRTUAL: [Virtual; 2] =
    [("virtual-a", "0.04", &[("pool", "a"), ("disk", "ssd")]), ("virtual-b", "0.05", &[("pool", "b")])];

/// Priority classes; none of them preempts, and no pod is below the pods that have none.
pub(super) const PRIORITIES: [(&str, i32); 2] = [("low", 10), ("high", 1000)];

/// The policies, all dedicated first; each selects the pods with its name as label `app`.
pub(super) fn policies() -> Vec<(&'static str, Value)> {
    let mut later = dedicated_first(&["virtual-b"]);
    later[1]["after"] = json!("1s");
    vec![("either", dedicated_first(&["virtual-a", "virtual-b"])), ("only-a", dedicated_first(&["virtual-a"])), ("later", later)]
}

/// A cluster and its pods.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) nodes: Vec<DedicatedNodes>,
    pub(super) groups: Vec<Group>,
    /// Every pod as the index of its group.
    order: Vec<usize>,
    /// All pods ask for the same and may go to any node that has no taint.
    pub(super) one_size: bool,
}

/// Equal pods.
#[derive(Debug)]
pub(super) struct Group {
    /// Label `app`: the name of a policy, or no policy's.
    pub(super) app: &'static str,
    count: usize,
    milli_cpu: u64,
    mebibytes: u64,
    selector: Option<(&'static str, &'static str)>,
    affinity: Option<Value>,
    tolerations: Vec<Value>,
    priority: Option<&'static str>,
}

/// SplitMix64: the whole state is one number.
struct Chance(u64);

// === impl Plan ===

impl Plan {
    pub(super) fn new(seed: u64) -> Plan {
        let mut chance = Chance(seed);
        let one_size = seed.is_multiple_of(3);
        let nodes = (0..1 + chance.below(4)).map(|group| nodes(&mut chance, seed, group)).collect();
        let (milli_cpu, mebibytes) = size(&mut chance);
        let mut groups: Vec<Group> = (0..3 + chance.below(6)).map(|_| group(&mut chance)).collect();
        if one_size {
            for group in &mut groups {
                *group = group.plain(milli_cpu, mebibytes);
            }
        }
        let mut order: Vec<usize> =
            groups.iter().enumerate().flat_map(|(index, group)| std::iter::repeat_n(index, group.count)).collect();
        // Half of the seeds mix the groups, the others bring one after the other, as controllers do.
        if chance.one_in(2) {
            for place in (1..order.len()).rev() {
                order.swap(place, chance.index(place + 1));
            }
        }
        Plan { nodes, groups, order, one_size }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The pods in order; all with this label `app` instead of their own, if it is given.
    pub(super) fn manifests(&self, app: Option<&str>) -> Vec<Value> {
        let pod = |(place, index): (usize, &usize)| {
            let group = &self.groups[*index];
            group.manifest(&format!("{}-{index}-{place}", app.unwrap_or("pod")), app.unwrap_or(group.app))
        };
        self.order.iter().enumerate().map(pod).collect()
    }

    /// The group of a pod or a twin.
    pub(super) fn group_of(&self, pod: &str) -> &Group {
        let index = pod.split('-').nth(1).and_then(|index| index.parse::<usize>().ok());
        &self.groups[index.unwrap_or_else(|| panic!("{pod} is no pod of ours"))]
    }

    /// The same pod once more, selected by no policy.
    pub(super) fn twin(&self, pod: &str) -> Value {
        self.group_of(pod).manifest(&pod.replacen("pod", "twin", 1), "twin")
    }
}

fn nodes(chance: &mut Chance, seed: u64, group: u64) -> DedicatedNodes {
    let count = 1 + chance.index(4);
    let mut nodes = DedicatedNodes::new(&format!("dedicated-{seed}-{group}"), count)
        .cpu(chance.pick(&["1", "2", "4", "7500m"]))
        .memory(chance.pick(&["2Gi", "4Gi", "16Gi"]))
        .pods(if chance.one_in(4) { 5 } else { 110 });
    if chance.one_in(2) {
        nodes = nodes.label("pool", chance.pick(&["a", "b"]));
    }
    if chance.one_in(3) {
        nodes = nodes.label("disk", "ssd");
    }
    if chance.one_in(4) {
        nodes = nodes.taint("team", "x", "NoSchedule");
    }
    if chance.one_in(6) {
        nodes = nodes.taint("slow", "", "PreferNoSchedule");
    }
    nodes
}

fn size(chance: &mut Chance) -> (u64, u64) {
    (chance.pick(&[100, 250, 500, 900, 1000, 1500, 3000]), chance.pick(&[64, 256, 700, 1024]))
}

fn group(chance: &mut Chance) -> Group {
    let (milli_cpu, mebibytes) = size(chance);
    // Now and then larger than any node.
    let milli_cpu = if chance.one_in(8) { 9000 } else { milli_cpu };
    Group {
        app: chance.pick(&["either", "either", "only-a", "later", "unselected"]),
        count: 1 + chance.index(25),
        milli_cpu,
        mebibytes,
        selector: chance.pick(&[None, None, None, Some(("pool", "a")), Some(("pool", "b")), Some(("disk", "ssd")), NOWHERE]),
        affinity: chance.one_in(5).then(|| {
            let operator = chance.pick(&["In", "NotIn"]);
            json!([{"key": "pool", "operator": operator, "values": [chance.pick(&["a", "b"])]}])
        }),
        tolerations: match chance.below(6) {
            0 => vec![json!({"key": "team", "operator": "Equal", "value": "x", "effect": "NoSchedule"})],
            1 => vec![json!({"operator": "Exists"})],
            2 => vec![json!({"key": "team", "operator": "Equal", "value": "y"})],
            _ => vec![],
        },
        priority: chance.pick(&[None, None, Some("low"), Some("high")]),
    }
}

/// A selector that nothing satisfies, dedicated or virtual.
const NOWHERE: Option<(&str, &str)> = Some(("pool", "nowhere"));

// === impl Group ===

impl Group {
    /// Whether a policy selects the pods and one of its virtual nodes can run them.
    pub(super) fn may_burst(&self) -> bool {
        let policies = policies();
        let Some((_, tiers)) = policies.iter().find(|(name, _)| *name == self.app) else { return false };
        let names = tiers[1]["virtualNodes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.into_iter().any(|name| {
            let (_, _, labels) =
                VIRTUAL.iter().find(|(virtual_node, _, _)| *virtual_node == name).expect("a virtual node of ours");
            self.selector.is_none_or(|wanted| labels.contains(&wanted)) && self.affinity_allows(labels)
        })
    }

    fn affinity_allows(&self, labels: &[(&str, &str)]) -> bool {
        let Some(affinity) = &self.affinity else { return true };
        let wanted = affinity[0]["values"][0].as_str().unwrap_or_default();
        let has = labels.contains(&("pool", wanted));
        if affinity[0]["operator"] == "In" { has } else { !has }
    }

    fn manifest(&self, name: &str, app: &str) -> Value {
        let requests = json!({"cpu": format!("{}m", self.milli_cpu), "memory": format!("{}Mi", self.mebibytes)});
        let mut spec = json!({
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "registry.example/work:1", "resources": {"requests": requests}}],
            "tolerations": self.tolerations,
        });
        if let Some((key, value)) = self.selector {
            spec["nodeSelector"] = json!({key: value});
        }
        if let Some(expressions) = &self.affinity {
            let terms = json!([{"matchExpressions": expressions}]);
            spec["affinity"] =
                json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        }
        if let Some(priority) = self.priority {
            spec["priorityClassName"] = json!(priority);
        }
        json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": spec})
    }

    /// The same pods in this size, without what tells nodes apart.
    fn plain(&self, milli_cpu: u64, mebibytes: u64) -> Group {
        let Group { app, count, priority, .. } = *self;
        Group { app, count, milli_cpu, mebibytes, selector: None, affinity: None, tolerations: vec![], priority }
    }
}

// === impl Chance ===

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }
}
