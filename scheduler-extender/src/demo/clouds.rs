//! The clouds behind the virtual nodes, played from memory with the prices and limits of the manifests.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use policy::Resources;
use policy::virtual_node::{Limits, Prices, Provider};
use providers::Health;
use providers::memory::{Backend, Settings};
use serde_json::{Value, json};
use world::simulation::{ShapeOf, Simulation};

use crate::api::VirtualNode;
use crate::compile;
use crate::record::{ANNOTATION, Record};

/// A virtual node and the Node that stands for it.
pub(super) struct Cloud {
    /// Name of the VirtualNode.
    pub(super) virtual_node: String,
    /// Name of the Node.
    pub(super) node: String,
    /// Provider and region, for people.
    pub(super) detail: String,
}

/// The virtual nodes whose Node is among these, and what they offer. One without a Node takes nothing; the committer says so
/// in its condition.
pub(super) fn find<'a>(
    virtual_nodes: impl Iterator<Item = (&'a String, &'a VirtualNode)>,
    nodes: &[Node],
    currency: &str,
) -> anyhow::Result<Vec<(Cloud, policy::VirtualNode)>> {
    let mut clouds = Vec::new();
    for (name, object) in virtual_nodes {
        let compiled = compile::virtual_node(object, currency).with_context(|| format!("VirtualNode {name}"))?;
        let adopts = |node: &&Node| {
            let labels = node.metadata.labels.clone().unwrap_or_default();
            let selector = object.spec.adopt.as_ref().map(|adopt| &adopt.node_selector);
            selector.is_some_and(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
        };
        if let Some(node) = nodes.iter().find(adopts).and_then(|node| node.metadata.name.clone()) {
            let detail = format!("{} {}", compiled.provider.label(), compiled.region);
            clouds.push((Cloud { virtual_node: name.clone(), node, detail }, compiled));
        }
    }
    Ok(clouds)
}

/// Puts a cloud in memory behind each.
pub(super) fn attach(simulation: &mut Simulation, clouds: Vec<(Cloud, policy::VirtualNode)>) -> anyhow::Result<Vec<Cloud>> {
    let mut attached = Vec::new();
    for (cloud, offer) in clouds {
        let prices = offer.prices.with_context(|| format!("VirtualNode {} has no spec.pricing", cloud.virtual_node))?;
        simulation.attach(&cloud.node, Backend::new(settings(offer.provider, prices, offer.limits)), Some(shape_of()));
        attached.push(cloud);
    }
    Ok(attached)
}

/// What a probe of the cloud puts into `VirtualNode.status`.
pub(super) fn observed(simulation: &mut Simulation, cloud: &Cloud) -> Value {
    let now = simulation.now();
    let (status, reason, message) = match simulation.backend(&cloud.node).observe(now) {
        Ok(observation) => match observation.health {
            Health::Healthy => ("True", "Answers", "the cloud answers".to_owned()),
            Health::Degraded { reason } => ("False", "Degraded", reason),
            Health::Down { reason } => ("False", "Down", reason),
        },
        Err(error) => ("False", "Unreachable", error.to_string()),
    };
    let time = k8s_openapi::jiff::Timestamp::from_millisecond(now.millis()).unwrap_or_default();
    json!({"conditions": [{
        "type": "BackendHealthy", "status": status, "reason": reason, "message": message, "lastTransitionTime": time,
    }]})
}

/// The limits of the manifest are the cloud's quota too: a committer that went beyond them would see its pods fail.
fn settings(provider: Provider, prices: Prices, quota: Limits) -> Settings {
    let settings = match provider {
        Provider::Fargate => Settings::fargate(prices),
        Provider::Aci => Settings::container_instances(prices),
        Provider::Nomad => Settings::nomad(prices),
        Provider::InMemory => Settings { prices, ..Settings::immediate() },
    };
    Settings { quota, ..settings }
}

/// What was bought stands in the decision annotation, as for a real virtual kubelet.
fn shape_of() -> ShapeOf {
    Box::new(|pod: &Pod| {
        let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
        let usage = annotation.and_then(|text| Record::parse(text).ok()).map(|record| record.usage);
        usage.map_or_else(Resources::default, |usage| Resources::new(usage.cpu_millis, usage.memory_bytes))
    })
}
