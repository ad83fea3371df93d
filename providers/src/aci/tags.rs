//! Tags say whose group it is. Lists show them, so that a restart finds its own.

use std::collections::BTreeMap;

use policy::Timestamp;

use super::wire::GroupView;
use crate::{Ownership, PodRequest, PodUid};

const CLUSTER: &str = "spillway-cluster";
const VIRTUAL_NODE: &str = "spillway-virtual-node";
const NAMESPACE: &str = "spillway-namespace";
const NAME: &str = "spillway-pod";
const UID: &str = "spillway-uid";
const CREATED: &str = "spillway-created";

/// The tags of a pod's group.
pub(super) fn of(request: &PodRequest, ownership: &Ownership) -> BTreeMap<String, String> {
    [
        (CLUSTER, &*ownership.cluster),
        (VIRTUAL_NODE, &*ownership.virtual_node),
        (NAMESPACE, &*request.namespace),
        (NAME, &*request.name),
        (UID, request.uid.as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Adds when the group was asked for: older versions of the API do not tell.
pub(super) fn date(tags: &mut BTreeMap<String, String>, created: Timestamp) {
    tags.insert(CREATED.to_owned(), created.millis().to_string());
}

/// When a group was asked for.
pub(super) fn created(group: &GroupView) -> Option<Timestamp> {
    group.tags.get(CREATED)?.parse().ok().map(Timestamp::from_millis)
}

/// Whether a group belongs to this virtual node of this cluster.
pub(super) fn owned(group: &GroupView, ownership: &Ownership) -> bool {
    let says = |key: &str, value: &str| group.tags.get(key).is_some_and(|tag| tag == value);
    says(CLUSTER, &ownership.cluster) && says(VIRTUAL_NODE, &ownership.virtual_node)
}

/// The pod of a group.
pub(super) fn uid(group: &GroupView) -> Option<PodUid> {
    group.tags.get(UID).map(|uid| PodUid::new(uid.as_str()))
}

/// Namespace and name of the pod of a group.
pub(super) fn pod(group: &GroupView) -> Option<(&str, &str)> {
    Some((group.tags.get(NAMESPACE)?, group.tags.get(NAME)?))
}
