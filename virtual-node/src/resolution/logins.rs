//! Logins at registries, from the Secrets in `imagePullSecrets`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{PodSpec, Secret as Wire};
use providers::{RegistryCredential, Secret};
use serde::Deserialize;

use super::Notice;
use crate::Objects;

/// `.dockerconfigjson`; the older `.dockercfg` is its inner map.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
}

#[derive(Deserialize)]
struct Login {
    username: Option<String>,
    password: Option<String>,
    /// `username:password` in base64; wins, as with docker.
    auth: Option<String>,
}

/// One login per registry, the first that is named. As a kubelet does, goes on without those that cannot be read: the image
/// may be public.
pub(super) fn registries(spec: &PodSpec, objects: &Objects, notices: &mut Vec<Notice>) -> Vec<RegistryCredential> {
    let mut found: Vec<RegistryCredential> = Vec::new();
    for name in spec.image_pull_secrets.iter().flatten().map(|reference| &reference.name) {
        let Some(logins) = objects.secrets.get(name).and_then(logins) else {
            let message = format!("imagePullSecrets: Secret {name:?} does not exist or holds no registry login that can be read");
            notices.push(Notice { reason: "FailedToRetrieveImagePullSecret", message });
            continue;
        };
        for (server, login) in logins {
            let server = host(&server).to_owned();
            if let Some((username, password)) = login.read()
                && found.iter().all(|one| one.server != server)
            {
                found.push(RegistryCredential { server, username, password: Secret::new(password) });
            }
        }
    }
    found
}

fn logins(secret: &Wire) -> Option<BTreeMap<String, Login>> {
    let data = secret.data.as_ref()?;
    if let Some(config) = data.get(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(&config.0).ok().map(|config| config.auths);
    }
    serde_json::from_slice(&data.get(".dockercfg")?.0).ok()
}

/// `https://index.docker.io/v1/` is how docker writes its own registry.
fn host(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

// === impl Login ===

impl Login {
    fn read(self) -> Option<(String, String)> {
        let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) else { return self.username.zip(self.password) };
        let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        Some((username.to_owned(), password.to_owned()))
    }
}
