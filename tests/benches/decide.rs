//! The engine: one decision over twenty virtual nodes, and the room of a fan-out on 5,000 dedicated nodes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use policy::burst_policy::{After, DedicatedTier, Mode, Packing, ServerlessTier, StopPolicy, Tier};
use policy::dedicated::{DedicatedNode, DedicatedNodes, Fit};
use policy::ledger::{Budget, Ledger, Scope, WhenExceeded};
use policy::selector::{Labels, Selector};
use policy::snapshot::{Backends, Namespaces};
use policy::virtual_node::{CapacityType, Limits, Prices, Provider};
use policy::workload::{FeatureSet, Held};
use policy::{BurstPolicy, Rate, Resources, Room, Snapshot, Timestamp, VirtualNode, Workload, decide};

const GIB: i64 = 1 << 30;

fn workload() -> Workload {
    Workload {
        namespace: Arc::from("media"),
        labels: [("app", "thumbnailer")].into_iter().collect(),
        owner: None,
        scheduler_name: Arc::from("default-scheduler"),
        requests: Resources::new(1000, 2 * GIB),
        limits: Resources::default(),
        node_selector: vec![],
        node_affinity: None,
        tolerations: vec![],
        priority: 0,
        may_preempt: true,
        features: FeatureSet::default(),
        containers: 1,
        init_containers: 0,
        containers_without_cpu: 0,
        containers_without_memory: 0,
        grace_seconds: 30,
        added_capabilities: vec![],
        expected_run: None,
        run_limit: None,
        held: Held::No,
    }
}

fn virtual_node(number: i64) -> VirtualNode {
    let provider =
        [Provider::Fargate, Provider::Aci, Provider::Nomad, Provider::InMemory][usize::try_from(number % 4).unwrap_or(0)];
    let rate = |nanos: i64| Rate::per_hour(policy::Money::from_nanos(nanos));
    VirtualNode {
        name: Arc::from(format!("virtual-{number}")),
        node_name: Some(Arc::from(format!("virtual-{number}"))),
        provider,
        region: Arc::from("region"),
        capacity_type: CapacityType::OnDemand,
        labels: [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")].into_iter().collect(),
        closed: None,
        prices: Some(Prices {
            vcpu: rate(40_480_000 + number),
            gb: rate(4_445_000),
            ephemeral_gb: rate(111_000),
            minimum: Duration::from_secs(60),
            as_of: Timestamp::EPOCH,
        }),
        start_latency: Duration::from_secs(45),
        billed_startup: Duration::from_secs(15),
        start_deadline: Duration::from_secs(900),
        interruptions_per_1000_hours: 0,
        limits: Limits { pods: Some(1000), ..Limits::default() },
        quota: Limits { cpu_millis: Some(4_000_000), ..Limits::default() },
        capabilities: vec![],
        mhz_per_core: 2500,
        largest_pod: Limits::default(),
    }
}

fn burst_policy(nodes: i64) -> BurstPolicy {
    let dedicated = DedicatedTier {
        name: Arc::from("dedicated"),
        node_selector: vec![],
        packing: Packing::MostAllocated,
        vcpu: Rate::FREE,
        gib: Rate::FREE,
    };
    let serverless = ServerlessTier {
        name: Arc::from("serverless"),
        after: After::Fixed(Duration::ZERO),
        virtual_nodes: (0..nodes).map(|number| Arc::from(format!("virtual-{number}"))).collect(),
        spot: false,
        limits: Limits { pods: Some(500), ..Limits::default() },
    };
    BurstPolicy {
        name: Arc::from("image-processing"),
        generation: 1,
        weight: 100,
        created: Timestamp::EPOCH,
        mode: Mode::Enforce,
        stop: StopPolicy::None,
        namespace_selector: Some(Selector::default()),
        pod_selector: Some(Selector::default()),
        tiers: vec![Tier::Dedicated(dedicated), Tier::Serverless(serverless)],
        waiting_cost: Rate::per_hour(policy::Money::from_nanos(100_000_000)),
        expected_run: Duration::from_secs(600),
        extender: false,
        gate: false,
    }
}

fn decisions(criterion: &mut Criterion) {
    let mut backends = Backends::default();
    for number in 0..20 {
        backends.set(Arc::new(virtual_node(number)));
    }
    let mut ledger = Ledger::default();
    let limit = policy::Money::from_nanos(1_000_000_000_000);
    ledger.set_budget(Budget {
        name: Arc::from("media"),
        scope: Scope::default(),
        limit,
        when_exceeded: WhenExceeded::DedicatedOnly,
        start: Timestamp::EPOCH,
        end: Timestamp::MAX,
    });
    ledger.authorize("media", limit);
    let namespaces: Namespaces = [(Arc::from("media"), Labels::default())].into_iter().collect();
    let snapshot = Snapshot { backends: &backends, books: ledger.books(), namespaces: &namespaces };
    let (policy, workload) = (burst_policy(20), workload());
    let room = Room::NoneSince(Timestamp::EPOCH);
    criterion.bench_function("decide over 20 virtual nodes", |bencher| {
        bencher.iter(|| decide(black_box(&snapshot), &policy, &workload, room, Timestamp::from_millis(1)));
    });
}

fn rooms(criterion: &mut Criterion) {
    let mut nodes = DedicatedNodes::default();
    let fit = nodes.watch(Fit::new(&workload(), &[]));
    for number in 0..5000 {
        nodes.set(DedicatedNode {
            name: Arc::from(format!("dedicated-{number}")),
            labels: Labels::default(),
            taints: vec![],
            allocatable: Resources::new(64_000, 256 * GIB),
            pods: 110,
            starting: false,
        });
    }
    let request = Resources::new(1000, 2 * GIB);
    criterion.bench_function("a pod comes and goes on one of 5,000 nodes, room asked", |bencher| {
        bencher.iter(|| {
            nodes.place("dedicated-4711", &request, 0);
            let room = nodes.room(fit);
            nodes.unplace("dedicated-4711", &request, 0);
            black_box(room)
        });
    });
    criterion.bench_function("packing of 5,000 nodes published", |bencher| bencher.iter(|| black_box(nodes.packing())));
}

criterion_group!(benches, decisions, rooms);
criterion_main!(benches);
