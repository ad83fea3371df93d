//! Drift on the Nodes of virtual kubelets: found, repaired, shown.

use std::sync::Arc;
use std::time::Duration;

use policy::Timestamp;

use super::{Committer, Intent};
use crate::hygiene::Check;
use crate::metrics::HygieneState;

/// A Node is repaired at most so often: whoever undoes it at once must not keep the API server busy.
const REPAIR_EVERY: Duration = Duration::from_secs(5);

impl Committer {
    /// Repairs Nodes that have drifted. Where admission policies see to it, only those that are older than the policies.
    pub(super) fn repair_nodes(&mut self, now: Timestamp) {
        let ours = &self.virtual_nodes.to_guard.closed;
        for (name, node) in &mut self.virtual_nodes.nodes {
            let early = node.repaired.is_some_and(|last| last <= now && now.since(last) < REPAIR_EVERY);
            let repair = if early { None } else { node.hygiene.repair(ours.contains(name)) };
            if let Some(repair) = repair {
                node.repaired = Some(now);
                self.intents.push(Intent::RepairNode { node: name.clone(), uid: node.uid.clone(), repair });
            }
        }
    }

    /// What does not hold on the Node of a VirtualNode; `None` while it has none.
    pub(super) fn hygiene_of(&self, node: Option<&Arc<str>>) -> Option<Vec<Check>> {
        let node = self.virtual_nodes.nodes.get(node?)?;
        Some(node.hygiene.failed(true).collect())
    }

    pub(super) fn hygiene_gauges(&self) -> Vec<HygieneState> {
        let ours = &self.virtual_nodes.to_guard.closed;
        let nodes = self.virtual_nodes.nodes.iter();
        let states = nodes
            .map(|(name, node)| HygieneState { node: name.clone(), failed: node.hygiene.failed(ours.contains(name)).collect() });
        states.collect()
    }
}
