//! The requests of `filter`, `prioritize` and `preempt`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::pod::{PodView, WirePod};
use super::text::{Text, list};
use super::{NODES_MAX, POD_BYTES_MAX, VICTIMS_MAX};

/// How kube-scheduler was told to name nodes, and so how it reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `nodeCacheCapable: true`: names only.
    Cache,
    /// `nodeCacheCapable: false`: whole Node objects both ways. It works, but costs three hundred times as much per
    /// node and makes kube-scheduler score nodes as if they were empty, so it is counted as a misconfiguration.
    NoCache,
}

impl Mode {
    /// Stable label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Mode::Cache => "cache",
            Mode::NoCache => "nocache",
        }
    }
}

/// Why a request could not be read. The text goes to kube-scheduler in the answer's `Error`.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Nothing was sent.
    #[error("the body is empty")]
    Empty,
    /// Not JSON, or not of the expected shape.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The pod is missing or null.
    #[error("no Pod")]
    NoPod,
    /// The pod is a list or a scalar.
    #[error("Pod is not an object")]
    PodNotAnObject,
    /// The pod is larger than any the API server stores.
    #[error("the Pod has {0} bytes, more than {POD_BYTES_MAX}")]
    PodTooLarge(usize),
    /// Neither names nor nodes.
    #[error("neither NodeNames nor Nodes")]
    NoNodes,
    /// Names and nodes: it would be a guess which of them the answer is read from.
    #[error("both NodeNames and Nodes")]
    TwoKindsOfNodes,
    /// A Node object without a name, which no answer could refer to.
    #[error("Nodes.items[{0}] has no metadata.name")]
    NamelessNode(usize),
    /// A node twice, so that its victims are not certain.
    #[error("victims of a node given twice")]
    NodeTwice,
    /// Neither victims nor meta victims, or both.
    #[error("not exactly one of NodeNameToVictims and NodeNameToMetaVictims")]
    Victims,
}

/// A `filter` or `prioritize` request; both have the same shape.
#[derive(Debug)]
pub struct FilterRequest<'a> {
    /// The pod to place.
    pub pod: PodView<'a>,
    /// The nodes that passed so far.
    pub offered: Offered<'a>,
}

/// The nodes of a request, in its order.
#[derive(Debug)]
pub struct Offered<'a> {
    /// Their names.
    pub names: Vec<Text<'a>>,
    /// Their bodies, one for each name, if the scheduler wants whole Node objects back.
    pub(crate) bodies: Option<Vec<&'a RawValue>>,
}

impl Offered<'_> {
    /// How the scheduler names nodes.
    pub fn mode(&self) -> Mode {
        if self.bodies.is_some() { Mode::NoCache } else { Mode::Cache }
    }
}

/// A `preempt` request.
#[derive(Debug)]
pub struct PreemptRequest<'a> {
    /// The pod that wants room.
    pub pod: PodView<'a>,
    /// Who would have to go, by node, in the order of the request. Nodes with null victims are left out.
    pub nodes: Vec<NodeVictims<'a>>,
    /// How the scheduler sent the victims; the answer has one form only.
    pub mode: Mode,
}

/// The pods that would have to go from one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeVictims<'a> {
    /// The node.
    pub node: Text<'a>,
    /// UIDs of the pods.
    pub uids: Vec<Text<'a>>,
    /// How many PodDisruptionBudgets that would break.
    pub pdb_violations: i64,
}

// === decoding ===

/// The one place where bytes become values.
fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Invalid> {
    if bytes.is_empty() {
        return Err(Invalid::Empty);
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// Reads a `filter` or `prioritize` request.
pub fn decode_filter(body: &[u8]) -> Result<FilterRequest<'_>, Invalid> {
    let Args { pod, nodes, node_names } = parse(body)?;
    let offered = match (node_names, nodes) {
        (Some(Names(names)), None) => Offered { names, bodies: None },
        (None, Some(list)) => with_bodies(list.items)?,
        (None, None) => return Err(Invalid::NoNodes),
        (Some(_), Some(_)) => return Err(Invalid::TwoKindsOfNodes),
    };
    Ok(FilterRequest { pod: decode_pod(pod)?, offered })
}

/// Reads a `preempt` request.
pub fn decode_preempt(body: &[u8]) -> Result<PreemptRequest<'_>, Invalid> {
    let PreemptArgs { pod, victims, meta_victims } = parse(body)?;
    let (nodes, mode): (Vec<NodeVictims<'_>>, Mode) = match (meta_victims, victims) {
        (Some(ByNode(nodes)), None) => (nodes.into_iter().filter_map(MetaVictims::on).collect(), Mode::Cache),
        (None, Some(ByNode(nodes))) => (nodes.into_iter().filter_map(FullVictims::on).collect(), Mode::NoCache),
        (None, None) | (Some(_), Some(_)) => return Err(Invalid::Victims),
    };
    let mut seen = foldhash::HashSet::default();
    if !nodes.iter().all(|victims| seen.insert(victims.node.as_str())) {
        return Err(Invalid::NodeTwice);
    }
    Ok(PreemptRequest { pod: decode_pod(pod)?, nodes, mode })
}

/// The pod is cut out first and read second, so that its size is known before its lists are built.
fn decode_pod(raw: Option<&RawValue>) -> Result<PodView<'_>, Invalid> {
    let text = raw.ok_or(Invalid::NoPod)?.get();
    if text.len() > POD_BYTES_MAX {
        return Err(Invalid::PodTooLarge(text.len()));
    }
    if !text.starts_with('{') {
        return Err(Invalid::PodNotAnObject);
    }
    Ok(parse::<WirePod<'_>>(text.as_bytes())?.view(text))
}

fn with_bodies(items: Vec<&RawValue>) -> Result<Offered<'_>, Invalid> {
    let mut names = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Node { metadata: Named { name } } = parse(item.get().as_bytes())?;
        if name.is_empty() {
            return Err(Invalid::NamelessNode(index));
        }
        names.push(name);
    }
    Ok(Offered { names, bodies: Some(items) })
}

#[derive(Deserialize)]
struct Args<'a> {
    #[serde(rename = "Pod", borrow, default)]
    pod: Option<&'a RawValue>,
    #[serde(rename = "Nodes", borrow, default)]
    nodes: Option<NodeList<'a>>,
    #[serde(rename = "NodeNames", borrow, default)]
    node_names: Option<Names<'a>>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Names<'a>(#[serde(borrow, deserialize_with = "list::<_, _, NODES_MAX>")] Vec<Text<'a>>);

#[derive(Deserialize)]
struct NodeList<'a> {
    #[serde(borrow, default, deserialize_with = "list::<_, _, NODES_MAX>")]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Node<'a> {
    #[serde(borrow, default)]
    metadata: Named<'a>,
}

#[derive(Default, Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
}

#[derive(Deserialize)]
struct PreemptArgs<'a> {
    #[serde(rename = "Pod", borrow, default)]
    pod: Option<&'a RawValue>,
    #[serde(rename = "NodeNameToVictims", borrow, default)]
    victims: Option<ByNode<'a, FullVictims<'a>>>,
    #[serde(rename = "NodeNameToMetaVictims", borrow, default)]
    meta_victims: Option<ByNode<'a, MetaVictims<'a>>>,
}

#[derive(Deserialize)]
struct MetaVictims<'a> {
    #[serde(rename = "Pods", borrow, default, deserialize_with = "list::<_, _, VICTIMS_MAX>")]
    pods: Vec<Uid<'a>>,
    #[serde(rename = "NumPDBViolations", default)]
    pdb_violations: i64,
}

#[derive(Deserialize)]
struct Uid<'a> {
    #[serde(rename = "UID", borrow)]
    uid: Text<'a>,
}

impl<'a> MetaVictims<'a> {
    fn on((node, victims): (Text<'a>, Option<MetaVictims<'a>>)) -> Option<NodeVictims<'a>> {
        let MetaVictims { pods, pdb_violations } = victims?;
        Some(NodeVictims { node, uids: pods.into_iter().map(|pod| pod.uid).collect(), pdb_violations })
    }
}

#[derive(Deserialize)]
struct FullVictims<'a> {
    #[serde(rename = "Pods", borrow, default, deserialize_with = "list::<_, _, VICTIMS_MAX>")]
    pods: Vec<VictimPod<'a>>,
    #[serde(rename = "NumPDBViolations", default)]
    pdb_violations: i64,
}

#[derive(Deserialize)]
struct VictimPod<'a> {
    #[serde(borrow)]
    metadata: VictimMetadata<'a>,
}

#[derive(Deserialize)]
struct VictimMetadata<'a> {
    #[serde(borrow)]
    uid: Text<'a>,
}

impl<'a> FullVictims<'a> {
    fn on((node, victims): (Text<'a>, Option<FullVictims<'a>>)) -> Option<NodeVictims<'a>> {
        let FullVictims { pods, pdb_violations } = victims?;
        Some(NodeVictims { node, uids: pods.into_iter().map(|pod| pod.metadata.uid).collect(), pdb_violations })
    }
}

/// An object by node name, in the order of the request.
struct ByNode<'a, T>(Vec<(Text<'a>, Option<T>)>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for ByNode<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByNode<'a, T>, D::Error> {
        struct ByNodeVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ByNodeVisitor<T> {
            type Value = ByNode<'de, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("victims by node name")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ByNode<'de, T>, M::Error> {
                let mut nodes = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if nodes.len() == NODES_MAX {
                        return Err(Error::custom(format_args!("victims on more than {NODES_MAX} nodes")));
                    }
                    nodes.push(entry);
                }
                Ok(ByNode(nodes))
            }
        }

        deserializer.deserialize_map(ByNodeVisitor(std::marker::PhantomData))
    }
}
