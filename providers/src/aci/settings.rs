//! What the admin says about a backend, and how its credentials are had.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::HttpClient;
use azure_identity::{
    ClientSecretCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use policy::virtual_node::CapacityType;

use crate::CallLimit;
use crate::{Ownership, Secret};

/// The API version that this release was tested with: the first with Spot priority and security contexts.
pub const API_VERSION: &str = "2023-05-01";

/// One backend: a location of one subscription, with one capacity type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Identifier of the subscription.
    pub subscription_id: String,
    /// Resource group that container groups are made in.
    pub resource_group: String,
    /// Azure location, such as `eastus`.
    pub location: String,
    /// Resource identifier of the subnet that container groups join; `None` gives them no address at all, for a public one
    /// would put every pod on the internet.
    pub subnet_id: Option<String>,
    /// `api-version` of every request; `None` is [`API_VERSION`].
    pub api_version: Option<String>,
    /// Regular or Spot priority.
    pub capacity_type: CapacityType,
    /// Whose groups these are.
    pub ownership: Ownership,
    /// Creates that the subscription allows. See [`CREATES`].
    pub creates: CallLimit,
    /// Reads that this backend may make. See [`READS_PER_HOUR`].
    pub reads_per_hour: u32,
}

/// Azure allows 300 creates an hour and 100 in five minutes, unless support raised it: 80 at once and 220 an hour keep both.
pub const CREATES: CallLimit = CallLimit::per_hour(220, 80);

/// Azure Resource Manager allows 12,000 reads an hour to one principal in one subscription. The rest is for others who share
/// them; several virtual nodes in one subscription must share this number.
pub const READS_PER_HOUR: u32 = 11_000;

/// Who Spillway is to Azure. Chosen by the admin: a chain of guesses would find somebody, but not always the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Workload identity of the pod that Spillway runs in; what is `None` is read from the environment that Azure's webhook
    /// sets (`AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE`).
    WorkloadIdentity {
        /// Directory of the identity.
        tenant_id: Option<String>,
        /// The identity.
        client_id: Option<String>,
        /// File with the service account's token.
        token_file: Option<PathBuf>,
    },
    /// Managed identity of the machine that Spillway runs on.
    ManagedIdentity {
        /// A user-assigned identity; `None` is the system-assigned one.
        client_id: Option<String>,
    },
    /// An application with a password.
    ClientSecret {
        /// Directory of the application.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Its password.
        secret: Secret,
    },
}

/// How Azure is reached.
#[derive(Clone)]
pub struct Access {
    /// Gives out tokens.
    pub credential: Arc<dyn TokenCredential>,
    /// Carries requests to Resource Manager; `None` is the ordinary client. Tests put a double here, because no token is ever
    /// sent to an `http` URL.
    pub transport: Option<Arc<dyn HttpClient>>,
    /// Where prices are published, without credentials.
    pub retail_prices: String,
    /// How soon a followed log is read again.
    pub log_pace: Pace,
}

/// From one read to the next: doubled while nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After something came.
    pub shortest: Duration,
    /// After a long silence.
    pub longest: Duration,
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidSettings {
    /// Name of the setting.
    pub field: &'static str,
    /// What is wrong with it, and what is allowed.
    pub problem: String,
}

// === impl Settings ===

impl Settings {
    /// The ordinary backend of a location: regular priority, no network, limits as Azure gives them to everybody.
    pub fn new(
        subscription_id: impl Into<String>,
        resource_group: impl Into<String>,
        location: impl Into<String>,
        ownership: Ownership,
    ) -> Settings {
        Settings {
            subscription_id: subscription_id.into(),
            resource_group: resource_group.into(),
            location: location.into(),
            subnet_id: None,
            api_version: None,
            capacity_type: CapacityType::OnDemand,
            ownership,
            creates: CREATES,
            reads_per_hour: READS_PER_HOUR,
        }
    }

    /// The `api-version` to ask for.
    pub fn api_version(&self) -> &str {
        self.api_version.as_deref().unwrap_or(API_VERSION)
    }

    /// Refuses what Azure would refuse for every pod, or what would end up in another part of a URL.
    pub(super) fn check(&self) -> Result<(), InvalidSettings> {
        let segment = |field: &'static str, value: &str, extra: &str| {
            let legal = |letter: char| letter.is_ascii_alphanumeric() || extra.contains(letter);
            if !value.is_empty() && value.len() <= 90 && value.chars().all(legal) && value.chars().any(|letter| letter != '.') {
                return Ok(());
            }
            Err(InvalidSettings { field, problem: format!("{value:?} must be 1 to 90 letters, digits or any of {extra:?}") })
        };
        segment("subscriptionId", &self.subscription_id, "-")?;
        segment("resourceGroup", &self.resource_group, "_.()-")?;
        segment("location", &self.location, "-")?;
        segment("apiVersion", self.api_version(), "-")?;
        // Dates compare as texts. Before, Azure ignores `priority` and `securityContext`: a Spot pod would be paid in full.
        if self.api_version() < API_VERSION {
            let problem = format!("{:?} must be {API_VERSION} or later", self.api_version());
            return Err(InvalidSettings { field: "apiVersion", problem });
        }
        if self.capacity_type == CapacityType::Spot && self.subnet_id.is_some() {
            let problem = "must be absent for Spot: Azure has no Spot container groups with a network".to_owned();
            return Err(InvalidSettings { field: "subnetId", problem });
        }
        Ok(())
    }
}

// === impl Access ===

impl Access {
    /// Azure's public cloud, with these credentials. Fails where a part of them is missing; nothing is asked over the network.
    pub fn new(credential: Credential) -> Result<Access, InvalidSettings> {
        Ok(Access {
            credential: credential.open()?,
            transport: None,
            retail_prices: "https://prices.azure.com/api/retail/prices".to_owned(),
            log_pace: Pace { shortest: Duration::from_secs(2), longest: Duration::from_secs(15) },
        })
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Access").field("retail_prices", &self.retail_prices).finish_non_exhaustive()
    }
}

// === impl Credential ===

impl Credential {
    fn open(self) -> Result<Arc<dyn TokenCredential>, InvalidSettings> {
        let missing = |source: azure_core::Error| InvalidSettings { field: "credentials", problem: source.to_string() };
        match self {
            Credential::WorkloadIdentity { tenant_id, client_id, token_file } => {
                let options = WorkloadIdentityCredentialOptions {
                    tenant_id,
                    client_id,
                    token_file_path: token_file,
                    ..WorkloadIdentityCredentialOptions::default()
                };
                Ok(WorkloadIdentityCredential::new(Some(options)).map_err(missing)?)
            }
            Credential::ManagedIdentity { client_id } => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.map(UserAssignedId::ClientId),
                    ..ManagedIdentityCredentialOptions::default()
                };
                Ok(ManagedIdentityCredential::new(Some(options)).map_err(missing)?)
            }
            Credential::ClientSecret { tenant_id, client_id, secret } => {
                let secret = azure_core::credentials::Secret::new(secret.expose().to_owned());
                Ok(ClientSecretCredential::new(&tenant_id, client_id, secret, None).map_err(missing)?)
            }
        }
    }
}
