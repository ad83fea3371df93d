//! The part of a Pod that the protocol itself needs.

use serde::Deserialize;

use super::text::Text;

/// A Pod as kube-scheduler sends it: its name for logs, the nominated node for the rule that protects it, and the whole
/// text for whoever decides. That one reads it as every other pod of the cluster is read, so that the extender and the
/// committer cannot see two different pods in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView<'a> {
    /// Namespace.
    pub namespace: Text<'a>,
    /// Name within the namespace.
    pub name: Text<'a>,
    /// Tells a pod from a later one of the same name.
    pub uid: Text<'a>,
    /// Where kube-scheduler has made or is making room for this pod; empty when nowhere.
    pub nominated_node_name: Text<'a>,
    /// The JSON object.
    pub json: &'a str,
}

/// The shape of the JSON; [`PodView`] is the flat view of it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WirePod<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    #[serde(borrow)]
    nominated_node_name: Text<'a>,
}

impl<'a> WirePod<'a> {
    pub(super) fn view(self, json: &'a str) -> PodView<'a> {
        let WirePod { metadata: Metadata { namespace, name, uid }, status: Status { nominated_node_name } } = self;
        PodView { namespace, name, uid, nominated_node_name, json }
    }
}
