//! Workloads and virtual nodes for this crate's tests: plain ones, to be changed in the one thing that a test is about.

use std::sync::Arc;
use std::time::Duration;

use crate::selector::Labels;
use crate::virtual_node::{CapacityType, Limits, Prices, Provider};
use crate::workload::{FeatureSet, Held};
use crate::{Rate, Resources, Timestamp, VirtualNode, Workload};

/// A pod of one container that asks for nothing special.
pub(crate) fn workload(cpu_millis: i64, memory_bytes: i64) -> Workload {
    Workload {
        namespace: Arc::from("media"),
        labels: Labels::default(),
        owner: None,
        scheduler_name: Arc::from("default-scheduler"),
        requests: Resources::new(cpu_millis, memory_bytes),
        limits: Resources::default(),
        node_selector: vec![],
        node_affinity: None,
        tolerations: vec![],
        priority: 0,
        may_preempt: true,
        features: FeatureSet::default(),
        containers: 1,
        init_containers: 0,
        containers_without_cpu: u16::from(cpu_millis == 0),
        containers_without_memory: u16::from(memory_bytes == 0),
        grace_seconds: 30,
        added_capabilities: vec![],
        expected_run: None,
        run_limit: None,
        held: Held::No,
    }
}

/// A Linux virtual node at the list prices of us-east-1 and eastus.
pub(crate) fn virtual_node(provider: Provider) -> VirtualNode {
    let rate = |text: &str| text.parse::<Rate>().expect("the sample's own rate");
    let (vcpu, gb, minimum) = match provider {
        Provider::Fargate => ("0.04048", "0.004445", 60),
        Provider::Aci => ("0.0405", "0.00445", 0),
        Provider::Nomad | Provider::InMemory => ("0.02", "0.002", 0),
    };
    VirtualNode {
        name: Arc::from(provider.label()),
        node_name: Some(Arc::from(provider.label())),
        provider,
        region: Arc::from("somewhere"),
        capacity_type: CapacityType::OnDemand,
        labels: [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")].into_iter().collect(),
        closed: None,
        prices: Some(Prices {
            vcpu: rate(vcpu),
            gb: rate(gb),
            ephemeral_gb: rate("0.000111"),
            minimum: Duration::from_secs(minimum),
            as_of: Timestamp::EPOCH,
        }),
        start_latency: Duration::from_secs(45),
        billed_startup: Duration::from_secs(15),
        start_deadline: Duration::from_secs(900),
        interruptions_per_1000_hours: 0,
        limits: Limits::default(),
        quota: Limits::default(),
        capabilities: vec![],
        mhz_per_core: if provider == Provider::Nomad { 2500 } else { 0 },
        largest_pod: Limits::default(),
    }
}
