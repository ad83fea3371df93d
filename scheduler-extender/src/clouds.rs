//! From a VirtualNode to the provider behind it.

#[cfg(feature = "aci")]
mod aci;
#[cfg(feature = "fargate")]
mod fargate;
#[cfg(feature = "nomad")]
mod nomad;

use std::collections::BTreeMap;
use std::sync::Arc;

use providers::memory::{self, MemoryProvider};
use providers::prices::{CURRENCY, ListPrices, Offer, embedded};
use providers::{Architecture, Clock, OperatingSystem, Ownership, Platform, Provider, Secret};

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
    #[cfg(feature = "fargate")]
    pub aws: Option<providers::fargate::Access>,
    /// Azure and who gives out its tokens.
    #[cfg(feature = "aci")]
    pub azure: Option<providers::aci::Access>,
}

/// The provider of a virtual node. Nothing is asked of the cloud yet.
///
/// # Errors
/// A specification that does not compile, credentials that are not complete, or a cloud that this program was built without:
/// the field and what is allowed.
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
    let spec = &object.spec;
    match (&spec.fargate, &spec.aci, &spec.nomad) {
        #[cfg(feature = "fargate")]
        (Some(settings), _, _) => fargate::connect(settings, compiled, credentials, ownership, clock, endpoints).await,
        #[cfg(feature = "aci")]
        (_, Some(settings), _) => aci::connect(settings, &compiled, credentials, ownership, clock, endpoints),
        #[cfg(feature = "nomad")]
        (_, _, Some(settings)) => nomad::connect(settings, &compiled, credentials, ownership, clock),
        (None, None, None) => Ok(in_memory(&compiled, ownership, clock)),
        #[cfg(not(all(feature = "aci", feature = "fargate", feature = "nomad")))]
        _ => Err(not_built(compiled.provider, credentials, endpoints)),
    }
}

fn in_memory(compiled: &policy::VirtualNode, ownership: Ownership, clock: Clock) -> Arc<dyn Provider> {
    let prices = compiled.prices.unwrap_or(memory::Settings::immediate().prices);
    let settings = memory::Settings { prices, quota: compiled.limits, ..memory::Settings::immediate() };
    Arc::new(MemoryProvider::new(memory::Backend::new(settings), clock).of(ownership))
}

#[cfg(not(all(feature = "aci", feature = "fargate", feature = "nomad")))]
fn not_built(cloud: policy::virtual_node::Provider, _: &Credentials, _: &Endpoints) -> Invalid {
    let allowed = format!("is not in this program: build it with --features {}", cloud.label());
    Invalid::new(format!("spec.{}", cloud.label()), "", allowed)
}

/// Prices that are built in, for a backend that publishes none; Nomad and the in-memory provider have none.
pub fn built_in_prices(object: &api::VirtualNode, currency: &str) -> Option<ListPrices> {
    let compiled = compile::virtual_node(object, currency).ok()?;
    (currency == CURRENCY).then(|| embedded(&offer(&compiled)).ok()).flatten()
}

/// Why nobody knows what a virtual node costs, and what to set.
pub fn no_prices(node: &policy::VirtualNode, currency: &str) -> String {
    if currency != CURRENCY {
        return format!("spec.pricing: no price in {currency} is known, only in {CURRENCY}; set vcpuHour, gbHour and currency");
    }
    match embedded(&offer(node)) {
        Err(unknown) => format!("spec.pricing: {unknown}"),
        Ok(_) => "spec.pricing is not set, and no price was observed yet".to_owned(),
    }
}

/// What a virtual node buys.
pub(crate) fn offer(node: &policy::VirtualNode) -> Offer<'_> {
    let label = |key| node.labels.get(key);
    let windows = label("kubernetes.io/os") == Some("windows");
    let arm = label("kubernetes.io/arch") == Some("arm64");
    Offer {
        provider: node.provider,
        region: &node.region,
        capacity_type: node.capacity_type,
        platform: Platform {
            os: if windows { OperatingSystem::Windows } else { OperatingSystem::Linux },
            architecture: if arm { Architecture::Arm64 } else { Architecture::Amd64 },
        },
    }
}

/// An entry that the Secret must have.
#[cfg(any(feature = "aci", feature = "fargate", feature = "nomad"))]
fn entry(entries: &BTreeMap<String, Secret>, key: &str) -> Result<Secret, Invalid> {
    let found = entries.get(key).cloned();
    found.ok_or_else(|| Invalid::new("spec.credentialsSecretRef", "", format!("the Secret must have the entry {key}")))
}

/// A provider that could not be set up.
#[cfg(any(feature = "fargate", feature = "nomad"))]
fn refused(field: &str, error: &providers::Error) -> Invalid {
    let words = error.source.as_ref().map_or_else(|| error.to_string(), ToString::to_string);
    Invalid::new(format!("spec.{field}"), "", words)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(spec: &Value) -> api::VirtualNode {
        serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).expect("the test's own VirtualNode")
    }

    fn fargate(region: &str) -> api::VirtualNode {
        object(&json!({"fargate": {"region": region, "cluster": "burst", "subnets": ["subnet-0a1b2c3d"]}}))
    }

    #[test]
    fn a_virtual_node_without_prices_is_told_what_to_set() {
        let told = |object: &api::VirtualNode, currency: &str| {
            no_prices(&compile::virtual_node(object, currency).expect("it compiles"), currency)
        };
        let nowhere = told(&fargate("af-south-1"), "USD");
        let known = "spec.pricing: no price of on-demand linux/amd64 of fargate in af-south-1 is known; set spec.pricing of the \
             virtual node (vcpuHour, gbHour, currency). Built in are those of us-east-1";
        assert!(nowhere.starts_with(known), "{nowhere}");
        let euros = told(&fargate("us-east-1"), "EUR");
        assert_eq!(euros, "spec.pricing: no price in EUR is known, only in USD; set vcpuHour, gbHour and currency");
        assert_eq!(told(&fargate("us-east-1"), "USD"), "spec.pricing is not set, and no price was observed yet");
        let memory = told(&object(&json!({"inMemory": {"region": "here"}})), "USD");
        assert!(memory.ends_with("None of its kind is built in."), "{memory}");
    }

    #[test]
    fn built_in_prices_are_those_of_the_architecture_and_the_capacity_type() {
        let vcpu = |spec: &Value| built_in_prices(&object(spec), "USD").map(|list| list.prices.vcpu.hourly().to_string());
        let spec = |architecture: &str, capacity_type: &str| {
            let fargate =
                json!({"region": "us-east-1", "cluster": "c", "subnets": ["subnet-0a1b2c3d"], "architecture": architecture});
            json!({"fargate": fargate, "capacityType": capacity_type})
        };
        assert_eq!(vcpu(&spec("amd64", "OnDemand")).as_deref(), Some("0.04048"));
        assert_eq!(vcpu(&spec("arm64", "OnDemand")).as_deref(), Some("0.03238"));
        assert_eq!(vcpu(&spec("amd64", "Spot")).as_deref(), Some("0.0124419"));
        assert!(built_in_prices(&fargate("us-east-1"), "EUR").is_none(), "they are in dollars");
    }

    /// Of those that this build goes without; all are in by default.
    #[tokio::test]
    async fn a_cloud_that_is_not_built_in_names_its_feature() {
        let nomad = json!({"address": "https://nomad.example:4646", "mhzPerCore": 1000});
        let aci = json!({"subscriptionId": "s", "resourceGroup": "g", "location": "eastus"});
        let clouds = [
            ("fargate", cfg!(feature = "fargate"), fargate("us-east-1")),
            ("aci", cfg!(feature = "aci"), object(&json!({"aci": aci}))),
            ("nomad", cfg!(feature = "nomad"), object(&json!({"nomad": nomad}))),
        ];
        for (feature, _, object) in clouds.into_iter().filter(|(_, built_in, _)| !built_in) {
            let credentials = Credentials::default();
            let clock: Clock = Arc::new(|| policy::Timestamp::EPOCH);
            let endpoints = Endpoints::default();
            let answer = connect(&object, &credentials, &Arc::from("c"), "USD", clock, &endpoints).await;
            let refused = answer.err().expect("refused").to_string();
            assert!(refused.contains(&format!("spec.{feature}")), "{refused}");
            assert!(refused.ends_with(&format!("build it with --features {feature}")), "{refused}");
        }
    }
}
