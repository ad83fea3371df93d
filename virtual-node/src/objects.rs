//! What a pod refers to: what must be read before it can be started.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, ProjectedVolumeSource, Secret};

use crate::resolution::containers;

/// What a pod refers to, by name in the pod's namespace. What is missing here does not exist.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets.
    pub secrets: BTreeMap<String, Secret>,
    /// Tokens of the pod's service account, by volume and path in it.
    pub tokens: BTreeMap<(String, String), providers::Secret>,
}

/// An object in the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// What it is.
    pub kind: ReferenceKind,
    /// Its name.
    pub name: String,
}

/// A kind of object that pods refer to by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReferenceKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// A token that must be asked for, by TokenRequest, with the pod as its bound object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenReference {
    /// Name of the volume.
    pub volume: String,
    /// Path in the volume.
    pub path: String,
    /// Whom it is for; `None` is the API server.
    pub audience: Option<String>,
    /// How long it is valid, in seconds.
    pub expiration_seconds: i64,
}

/// An hour, Kubernetes' default.
const TOKEN_SECONDS: i64 = 3600;

/// All that a pod refers to, each once.
pub fn references(pod: &Pod) -> (BTreeSet<Reference>, BTreeSet<TokenReference>) {
    let mut found = BTreeSet::new();
    let mut tokens = BTreeSet::new();
    if let Some(spec) = &pod.spec {
        of_environment(spec, &mut found);
        of_volumes(spec, &mut found, &mut tokens);
        found.extend(spec.image_pull_secrets.iter().flatten().map(|secret| reference(ReferenceKind::Secret, &secret.name)));
    }
    found.retain(|reference| !reference.name.is_empty());
    (found, tokens)
}

fn reference(kind: ReferenceKind, name: &str) -> Reference {
    Reference { kind, name: name.to_owned() }
}

fn of_environment(spec: &PodSpec, found: &mut BTreeSet<Reference>) {
    for (_, _, container, _) in containers(spec) {
        for source in container.env_from.iter().flatten() {
            found.extend(source.config_map_ref.iter().map(|map| reference(ReferenceKind::ConfigMap, &map.name)));
            found.extend(source.secret_ref.iter().map(|secret| reference(ReferenceKind::Secret, &secret.name)));
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            found.extend(source.config_map_key_ref.iter().map(|key| reference(ReferenceKind::ConfigMap, &key.name)));
            found.extend(source.secret_key_ref.iter().map(|key| reference(ReferenceKind::Secret, &key.name)));
        }
    }
}

fn of_volumes(spec: &PodSpec, found: &mut BTreeSet<Reference>, tokens: &mut BTreeSet<TokenReference>) {
    for volume in spec.volumes.iter().flatten() {
        found.extend(volume.config_map.iter().map(|map| reference(ReferenceKind::ConfigMap, &map.name)));
        let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref());
        let azure = volume.azure_file.as_ref().map(|share| share.secret_name.as_str());
        let csi = volume.csi.as_ref().and_then(|csi| csi.volume_attributes.as_ref()?.get("secretName")).map(String::as_str);
        found.extend([secret, azure, csi].into_iter().flatten().map(|name| reference(ReferenceKind::Secret, name)));
        if let Some(projected) = &volume.projected {
            of_projected(&volume.name, projected, found, tokens);
        }
    }
}

fn of_projected(
    volume: &str,
    projected: &ProjectedVolumeSource,
    found: &mut BTreeSet<Reference>,
    tokens: &mut BTreeSet<TokenReference>,
) {
    for source in projected.sources.iter().flatten() {
        found.extend(source.config_map.iter().map(|map| reference(ReferenceKind::ConfigMap, &map.name)));
        found.extend(source.secret.iter().map(|secret| reference(ReferenceKind::Secret, &secret.name)));
        tokens.extend(source.service_account_token.iter().map(|token| TokenReference {
            volume: volume.to_owned(),
            path: token.path.clone(),
            audience: token.audience.clone(),
            expiration_seconds: token.expiration_seconds.unwrap_or(TOKEN_SECONDS),
        }));
    }
}
