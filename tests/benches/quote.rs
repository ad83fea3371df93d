//! What it costs to look at a pod: from its object to the engine's view (budget: 10 µs for a simple pod), the capability
//! table, and one quote with the choice of the shape (budget: 200 ns).

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::Pod;
use policy::virtual_node::{CapacityType, Limits, Prices, Provider};
use policy::{Rate, Timestamp, VirtualNode, Workload, capability};
use scheduler_extender::workload;

/// A pod of a fan-out as it comes from the API server, defaults included.
fn pod() -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "thumbnails-x7k2p", "namespace": "media", "uid": "bcf1ea26-1ac6-4e67-b85c-b9e2a33e793a",
            "resourceVersion": "4711", "creationTimestamp": "2026-11-20T16:00:57Z",
            "labels": {"app": "thumbnailer", "batch.kubernetes.io/controller-uid": "2f", "batch.kubernetes.io/job-name": "thumbnails",
                "controller-uid": "2f", "job-name": "thumbnails"},
            "annotations": {"spillway.dev/expected-duration": "90s"},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "thumbnails", "uid": "2f", "controller": true}]},
        "spec": {
            "containers": [{"name": "resize", "image": "registry.example.com/thumbnailer:v1",
                "resources": {"requests": {"cpu": "500m", "memory": "1536Mi"}, "limits": {"memory": "1536Mi", "spillway.dev/burst": "0"}},
                "env": [{"name": "BUCKET", "value": "media"}, {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "key"}}}],
                "volumeMounts": [{"name": "kube-api-access-x7f2k", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
            "volumes": [{"name": "kube-api-access-x7f2k", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "nodeSelector": {"kubernetes.io/os": "linux"}, "restartPolicy": "Never", "priority": 0, "schedulerName": "default-scheduler",
            "preemptionPolicy": "PreemptLowerPriority", "terminationGracePeriodSeconds": 30,
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Pending", "qosClass": "Burstable"}}))
    .expect("plain values")
}

fn rate(text: &str) -> Rate {
    text.parse().expect("a rate")
}

fn virtual_node(provider: Provider, capacity_type: CapacityType) -> VirtualNode {
    VirtualNode {
        name: Arc::from(provider.label()),
        node_name: Some(Arc::from(provider.label())),
        provider,
        region: Arc::from("us-east-1"),
        capacity_type,
        labels: [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")].into_iter().collect(),
        closed: None,
        prices: Some(Prices {
            vcpu: rate("0.04048"),
            gb: rate("0.004445"),
            ephemeral_gb: rate("0.000111"),
            minimum: Duration::from_secs(60),
            as_of: Timestamp::EPOCH,
        }),
        start_latency: Duration::from_secs(45),
        billed_startup: Duration::from_secs(15),
        start_deadline: Duration::from_secs(900),
        interruptions_per_1000_hours: 50,
        limits: Limits::default(),
        quota: Limits::default(),
        capabilities: vec![],
        mhz_per_core: 2500,
        largest_pod: Limits::default(),
    }
}

fn quotes(c: &mut Criterion) {
    let view: Workload = workload::workload(&pod()).expect("a pod as the API server stores it");
    let mut group = c.benchmark_group("quote");
    for (name, provider, capacity_type) in [
        ("fargate", Provider::Fargate, CapacityType::OnDemand),
        ("fargate_spot", Provider::Fargate, CapacityType::Spot),
        ("aci", Provider::Aci, CapacityType::OnDemand),
        ("nomad", Provider::Nomad, CapacityType::OnDemand),
    ] {
        let (node, run, waiting) = (virtual_node(provider, capacity_type), Duration::from_secs(90), rate("0.10"));
        group.bench_function(name, |b| {
            b.iter(|| {
                policy::quote::quote(black_box(&view), black_box(&node), black_box(run), waiting).map(|quote| quote.total())
            });
        });
    }
    group.finish();
}

fn capabilities(c: &mut Criterion) {
    let view = workload::workload(&pod()).expect("a pod as the API server stores it");
    let node = virtual_node(Provider::Fargate, CapacityType::OnDemand);
    c.bench_function("capability_refusal", |b| b.iter(|| capability::refusal(black_box(&view), black_box(&node)).is_some()));
}

fn conversion(c: &mut Criterion) {
    let pod = pod();
    c.bench_function("workload_of_a_pod", |b| {
        b.iter(|| workload::workload(black_box(&pod)).map(|view| view.requests.cpu_millis));
    });
    c.bench_function("requests_of_a_pod", |b| b.iter(|| workload::requests(black_box(&pod)).cpu_millis));
}

criterion_group!(benches, quotes, capabilities, conversion);
criterion_main!(benches);
