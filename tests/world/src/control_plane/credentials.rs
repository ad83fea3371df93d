//! Who may talk to the API server, and how it proves who it is.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

/// A user whom the API server knows from its static token file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// Everything is allowed (`system:masters`): the test itself, and KWOK.
    Admin,
    /// The service account `spillway` in `spillway-system`; may do what the test's or the chart's RBAC objects say.
    Spillway,
    /// A person without any rights but those that a test gives her by RBAC objects.
    Alice,
    /// kube-scheduler with exactly the rights of a real one.
    Scheduler,
    /// kube-controller-manager with exactly the rights of a real one.
    ControllerManager,
}

/// Certificates, keys, tokens and kubeconfig files of one control plane, all in its folder.
#[derive(Debug)]
pub(super) struct Credentials {
    folder: PathBuf,
    authority_der: Vec<u8>,
    tokens: Vec<(User, String)>,
}

// === impl User ===

impl User {
    const ALL: [User; 5] = [User::Admin, User::Spillway, User::Alice, User::Scheduler, User::ControllerManager];

    /// The name that the API server sees and that RBAC subjects use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            User::Admin => "admin",
            User::Spillway => "system:serviceaccount:spillway-system:spillway",
            User::Alice => "alice",
            User::Scheduler => "system:kube-scheduler",
            User::ControllerManager => "system:kube-controller-manager",
        }
    }

    fn groups(self) -> &'static str {
        match self {
            User::Admin => "system:masters",
            User::Spillway => "system:serviceaccounts,system:serviceaccounts:spillway-system",
            User::Alice | User::Scheduler | User::ControllerManager => "",
        }
    }

    fn file_stem(self) -> &'static str {
        match self {
            User::Admin => "admin",
            User::Spillway => "spillway",
            User::Alice => "alice",
            User::Scheduler => "scheduler",
            User::ControllerManager => "controller-manager",
        }
    }
}

// === impl Credentials ===

impl Credentials {
    /// Makes everything anew and writes it into `folder`.
    pub(super) fn create(folder: &Path, api_server_url: &str) -> Result<Credentials> {
        let authority_der = write_certificates(folder)?;
        // Any key will do for signing service account tokens; it must only be there.
        let service_accounts = KeyPair::generate()?;
        fs::write(folder.join("service-account.key"), service_accounts.serialize_pem())?;
        // kube-apiserver reads private keys of elliptic curves for signing only, not for checking.
        fs::write(folder.join("service-account.pub"), service_accounts.public_key_pem())?;
        let tokens: Vec<(User, String)> = User::ALL.into_iter().map(|user| (user, random_token())).collect();
        let credentials = Credentials { folder: folder.to_path_buf(), authority_der, tokens };
        credentials.write_token_file()?;
        for user in User::ALL {
            credentials.write_kubeconfig(user, api_server_url)?;
        }
        Ok(credentials)
    }

    pub(super) fn kubeconfig_path(&self, user: User) -> PathBuf {
        self.folder.join(format!("{}.kubeconfig", user.file_stem()))
    }

    pub(super) fn token(&self, user: User) -> &str {
        let found = self.tokens.iter().find(|(owner, _)| *owner == user);
        found.map(|(_, token)| token.as_str()).expect("create() made a token for each of User::ALL")
    }

    /// The authority that signed every server's certificate.
    pub(super) fn authority_der(&self) -> Vec<u8> {
        self.authority_der.clone()
    }

    fn write_token_file(&self) -> Result<()> {
        let lines: Vec<String> = self
            .tokens
            .iter()
            .map(|(user, token)| format!("{token},{},{},\"{}\"\n", user.name(), user.file_stem(), user.groups()))
            .collect();
        Ok(fs::write(self.folder.join("tokens.csv"), lines.concat())?)
    }

    fn write_kubeconfig(&self, user: User, api_server_url: &str) -> Result<()> {
        // JSON is YAML, so no YAML writer is needed for the files that are made here.
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": api_server_url,
                "certificate-authority": self.folder.join("ca.crt"),
            }}],
            "users": [{"name": user.name(), "user": {"token": self.token(user)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user.name(), "namespace": "default"}}],
        });
        Ok(fs::write(self.kubeconfig_path(user), serde_json::to_vec_pretty(&kubeconfig)?)?)
    }
}

/// One authority, and one server certificate that all components share: making keys is most of what they would
/// otherwise do in their first second.
fn write_certificates(folder: &Path) -> Result<Vec<u8>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority of a test's control plane");
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);

    let server_key = KeyPair::generate()?;
    let mut server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, "a test's control plane");
    let server = server.signed_by(&server_key, &issuer)?;

    fs::write(folder.join("ca.crt"), authority.pem())?;
    fs::write(folder.join("server.crt"), server.pem())?;
    fs::write(folder.join("server.key"), server_key.serialize_pem())?;
    Ok(authority.der().to_vec())
}

/// Unguessable enough to keep other users of the machine out of a server that lives for seconds.
fn random_token() -> String {
    format!("{:016x}{:016x}", RandomState::new().hash_one("token"), RandomState::new().hash_one("token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_an_own_token_in_the_file_and_in_the_kubeconfig() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = Credentials::create(folder.path(), "https://127.0.0.1:1").unwrap();
        let file = fs::read_to_string(folder.path().join("tokens.csv")).unwrap();
        for user in User::ALL {
            let token = credentials.token(user);
            assert_eq!(file.matches(token).count(), 1, "{user:?}");
            assert!(file.contains(&format!("{token},{},", user.name())), "{user:?}");
            assert!(fs::read_to_string(credentials.kubeconfig_path(user)).unwrap().contains(token), "{user:?}");
        }
    }
}
