//! Azure Container Instances, played by a double that is itself checked.
//!
//! Spillway's calls go through Azure's own client library to an injected transport, from there to prism, which holds every
//! request and every answer against Azure's description of the service, and from prism to the double ([`cloud`]).

mod bench;
mod cloud;
mod probes;
mod server;
mod transport;

use std::sync::Arc;

use async_trait::async_trait;
use policy::Shape;
use policy::virtual_node::CapacityType;
use providers::aci::{Access, Aci, Settings};
use providers::{Container, Ownership, PodRequest, PodUid, Provider};
use serde_json::{Value, json};

use super::contract::{self, HELLO, Stage, Trouble};
use bench::Subscription;

const GB: i64 = 1_000_000_000;

/// One subscription of the double, and the virtual nodes that use it.
pub(super) struct Azure {
    subscription: Subscription,
    provider: Arc<Aci>,
}

impl Azure {
    /// `name` is a part of the subscription's identifier: each test has its own.
    pub(super) fn new(name: u32) -> Azure {
        Azure::with(name, |settings| settings)
    }

    fn with(name: u32, change: impl FnOnce(Settings) -> Settings) -> Azure {
        let subscription = Subscription::new(name);
        let provider = subscription.provider(change(subscription.settings("aci-eastus")));
        Azure { subscription, provider: Arc::new(provider) }
    }

    fn spot(name: u32) -> Azure {
        Azure::with(name, |settings| Settings { capacity_type: CapacityType::Spot, ..settings })
    }

    /// How other providers reach it, and what a VirtualNode says of it.
    pub(super) fn elsewhere(&self) -> (Access, Value) {
        let Settings { subscription_id, resource_group, location, .. } = self.subscription.settings("");
        let spec = json!({"subscriptionId": subscription_id, "resourceGroup": resource_group, "location": location});
        (self.subscription.access(), spec)
    }

    /// Whether every request and every answer was as Azure's description of the service says.
    pub(super) fn nothing_was_violated(&self) {
        self.subscription.nothing_was_violated();
    }
}

fn request(uid: &PodUid) -> PodRequest {
    let shape = Shape { cpu_millis: 1000, memory_bytes: 3 * GB / 2, ephemeral_bytes: 0 };
    let main = Container { command: vec!["echo".to_owned(), HELLO.to_owned()], ..Container::new("main", "hello") };
    PodRequest { containers: vec![main], ..PodRequest::new(uid.clone(), "media", format!("pod-{uid}"), shape) }
}

#[async_trait]
impl Stage for Azure {
    fn provider(&self) -> Arc<dyn Provider> {
        self.provider.clone()
    }

    fn restarted(&self) -> Arc<dyn Provider> {
        // A restart takes its time.
        self.subscription.pass(6_000);
        Arc::new(self.subscription.provider(self.subscription.settings("aci-eastus")))
    }

    fn stranger(&self) -> Arc<dyn Provider> {
        let settings = self.subscription.settings("aci-eastus");
        let ownership = Ownership { virtual_node: "aci-other".into(), ..settings.ownership.clone() };
        Arc::new(self.subscription.provider(Settings { ownership, ..settings }))
    }

    fn request(&self, uid: &PodUid) -> PodRequest {
        request(uid)
    }

    async fn begin(&self, trouble: Trouble) {
        // What was read a moment ago is not read again: time passes first.
        self.moment().await;
        self.subscription.cloud().begin(trouble);
    }

    async fn end_trouble(&self) {
        self.subscription.cloud().end_trouble();
        self.moment().await;
    }

    async fn finish(&self, uid: &PodUid, code: i32) {
        self.subscription.cloud().finish(uid.as_str(), code);
    }

    async fn moment(&self) {
        self.subscription.pass(6_000);
    }
}

#[tokio::test]
async fn the_contract_holds() {
    let azure = Azure::new(1);
    contract::holds(&azure).await;
    azure.subscription.nothing_was_violated();
}
