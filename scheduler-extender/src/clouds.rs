//! From a VirtualNode to the provider behind it.

#[cfg(feature = "clouds")]
mod real;

use std::collections::BTreeMap;
use std::sync::Arc;

use providers::memory::{self, MemoryProvider};
use providers::{Clock, Ownership, Provider, Secret};

use crate::api::{self, Invalid};
use crate::compile;

/// What the VirtualNode's references to Secrets lead to.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The entries of `spec.credentialsSecretRef`; `None` if there is no such reference.
    pub entries: Option<BTreeMap<String, Secret>>,
    /// The certificate authority that `spec.nomad.caSecretRef` names, as PEM.
    pub authority: Option<String>,
}

/// Where clouds are, if not where everybody finds them: tests put doubles there. Nomad's address is in the VirtualNode.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// AWS, but for the credential, which is the VirtualNode's.
    #[cfg(feature = "clouds")]
    pub aws: Option<providers::fargate::Access>,
    /// Azure and who gives out its tokens.
    #[cfg(feature = "clouds")]
    pub azure: Option<providers::aci::Access>,
}

/// The provider of a virtual node. Nothing is asked of the cloud yet.
///
/// # Errors
/// A specification that does not compile, or credentials that are not complete: the field and what is allowed.
pub async fn connect(
    object: &api::VirtualNode,
    credentials: &Credentials,
    cluster: &Arc<str>,
    currency: &str,
    clock: Clock,
    endpoints: &Endpoints,
) -> Result<Arc<dyn Provider>, Invalid> {
    let compiled = compile::virtual_node(object, currency)?;
    let ownership = Ownership { cluster: cluster.clone(), virtual_node: compiled.name.clone() };
    if object.spec.in_memory.is_none() {
        #[cfg(feature = "clouds")]
        return real::connect(object, compiled, credentials, ownership, clock, endpoints).await;
        #[cfg(not(feature = "clouds"))]
        return Err(not_built(compiled.provider, credentials, endpoints));
    }
    let prices = compiled.prices.unwrap_or(memory::Settings::immediate().prices);
    let settings = memory::Settings { prices, quota: compiled.limits, ..memory::Settings::immediate() };
    Ok(Arc::new(MemoryProvider::new(memory::Backend::new(settings), clock).of(ownership)))
}

#[cfg(not(feature = "clouds"))]
fn not_built(provider: policy::virtual_node::Provider, _: &Credentials, _: &Endpoints) -> Invalid {
    let allowed = "is not in this program: build it with --features clouds";
    Invalid::new(format!("spec.{}", provider.label()), "", allowed)
}

/// Prices that are built in, for a backend that publishes none; Nomad and the in-memory provider have none.
pub fn built_in_prices(object: &api::VirtualNode, currency: &str) -> Option<providers::prices::ListPrices> {
    let compiled = compile::virtual_node(object, currency).ok()?;
    let arm = compiled.labels.get("kubernetes.io/arch") == Some("arm64");
    let windows = compiled.labels.get("kubernetes.io/os") == Some("windows");
    let offer = providers::prices::Offer {
        provider: compiled.provider,
        region: &compiled.region,
        capacity_type: compiled.capacity_type,
        platform: providers::Platform {
            os: if windows { providers::OperatingSystem::Windows } else { providers::OperatingSystem::Linux },
            architecture: if arm { providers::Architecture::Arm64 } else { providers::Architecture::Amd64 },
        },
    };
    (currency == providers::prices::CURRENCY).then(|| providers::prices::embedded(&offer).ok()).flatten()
}
