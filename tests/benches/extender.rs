//! What one `filter` call costs: read 5,000 names, decide, write the answer. Budget: 0.30 ms median on one core.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use arc_swap::ArcSwap;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use policy::Timestamp;
use scheduler_extender::committer::{Committer, Event, Settings as CommitterSettings};
use scheduler_extender::extender::answers::SnapshotAnswers;
use scheduler_extender::extender::protocol::{self, Verb};
use scheduler_extender::extender::server::{Phase, Server, Settings};
use scheduler_extender::extender::verbs::PassThrough;
use scheduler_extender::extender::wire;
use scheduler_extender::metrics::{Limits, Metrics};
use scheduler_extender::run;
use serde_json::json;
use tokio::sync::watch;

const NODES: usize = 5_000;
/// The real answers over a published cluster of 5,000 half-full nodes and three virtual ones.
fn answers() -> SnapshotAnswers {
    let metrics = Arc::new(Metrics::new("USD", Limits::STANDARD));
    let mut committer = Committer::new(CommitterSettings::standard("USD"), metrics);
    let now = Timestamp::from_millis(1_790_000_000_000);
    let mut tell = |event| committer.handle(event, now);
    tell(Event::Namespace(Box::new(object(json!({"metadata": {"name": "media", "labels": {"team": "media"}}})))));
    for node in 0..NODES {
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}});
        tell(Event::Node(Box::new(object(json!({"metadata": {"name": name(node)}, "status": status})))));
        let requests = json!({"cpu": format!("{}m", node * 7919 % 8000), "memory": "1Gi"});
        let pod = json!({"metadata": {"name": format!("pod-{node}"), "namespace": "default", "uid": format!("uid-{node}")},
            "spec": {"nodeName": name(node), "containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}]}});
        tell(Event::Pod(Box::new(object(pod))));
    }
    let clouds = ["fargate", "aci", "nomad"];
    for cloud in clouds {
        let virtual_node = json!({"metadata": {"name": cloud, "labels": {"type": "virtual-kubelet", "backend": cloud}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        tell(Event::Node(Box::new(object(virtual_node))));
        tell(Event::VirtualNode(Box::new(object(json!({"metadata": {"name": cloud, "generation": 1},
            "spec": {"inMemory": {"region": "here"}, "adopt": {"nodeSelector": {"backend": cloud}},
                "pricing": {"currency": "USD", "vcpuHour": "0.04", "gbHour": "0.004"}}})))));
    }
    tell(Event::Policy(Box::new(object(
        json!({"metadata": {"name": "p", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"namespaceSelector": {"matchLabels": {"team": "media"}}, "podSelector": {"matchLabels": {"app": "thumbnailer"}},
            "tiers": [{"name": "dedicated"}, {"name": "serverless", "virtualNodes": clouds}]}}),
    ))));
    tell(Event::Synced);
    let published = Arc::new(ArcSwap::from_pointee(committer.published()));
    SnapshotAnswers::new(published, run::now, Arc::default())
}

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("the benchmark's own object")
}

/// As long as the names that clouds give their nodes.
fn name(node: usize) -> String {
    let name = format!("ip-10-{:02}-{:03}.eu-central-1.compute.internal", node / 256, node % 256);
    assert_eq!(name.len(), 42);
    name
}

/// A body as kube-scheduler sends it: an ordinary pod of two containers and the names.
fn request() -> Vec<u8> {
    let names: Vec<String> = (0..NODES).map(name).collect();
    let container = |name: &str| {
        serde_json::json!({"name": name, "image": "registry.example.com/thumbnailer:v1",
            "resources": {"limits": {"spillway.dev/burst": "0"}, "requests": {"cpu": "500m", "memory": "256Mi", "spillway.dev/burst": "0"}},
            "env": [{"name": "BUCKET", "value": "media"}], "imagePullPolicy": "IfNotPresent",
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets", "readOnly": true}]})
    };
    serde_json::to_vec(&serde_json::json!({
        "Pod": {
            "metadata": {"name": "thumbnails-x7k2p", "namespace": "media", "uid": "bcf1ea26-1ac6-4e67-b85c-b9e2a33e793a",
                "labels": {"app": "thumbnailer", "batch.kubernetes.io/job-name": "thumbnails"},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "thumbnails", "uid": "u", "controller": true}]},
            "spec": {"containers": [container("resize"), container("upload")], "priority": 0, "schedulerName": "default-scheduler",
                "preemptionPolicy": "PreemptLowerPriority",
                "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
            "status": {"phase": "Pending", "qosClass": "Burstable"}},
        "Nodes": null,
        "NodeNames": names,
    }))
    .expect("plain values")
}

fn filter(c: &mut Criterion) {
    let request = request();
    let pack = answers();
    let mut group = c.benchmark_group("extender_filter_5000_names");
    group.throughput(Throughput::Bytes(request.len() as u64));
    // Where the time goes: reading alone, and the answer that has the least to write.
    group.bench_function("read_only", |b| b.iter(|| wire::decode_filter(black_box(&request)).map(|r| r.offered.names.len())));
    group.bench_function("pack_one", |b| b.iter(|| protocol::answer(Verb::Filter, black_box(&request), &pack).body));
    group.bench_function("pass_all", |b| b.iter(|| protocol::answer(Verb::Filter, black_box(&request), &PassThrough).body));
    group.finish();
}

/// The same over a real connection, as the scheduler's serial loop feels it.
fn round_trip(c: &mut Criterion) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let mut connection = TcpStream::connect(listener.local_addr().expect("an address")).expect("the server listens");
    connection.set_nodelay(true).expect("a socket");
    let (_running, phase) = watch::channel(Phase::Serving);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let server = Server { settings: Settings::default(), answers: Arc::new(answers()), observer: Arc::new(()) };
        runtime.block_on(async { server.serve(tokio::net::TcpListener::from_std(listener)?, None, phase).await })
    });
    let body = request();
    let mut request = format!("POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(&body);
    let mut received = vec![0; 1 << 20];
    c.bench_function("extender_round_trip_5000_names", |b| {
        b.iter(|| {
            connection.write_all(&request).expect("the server reads");
            let (mut filled, mut expected) = (0, usize::MAX);
            while filled < expected {
                filled += connection.read(&mut received[filled..]).expect("the server answers");
                expected = length(&received[..filled]).unwrap_or(usize::MAX);
            }
        });
    });
}

/// Length of the whole response, once its headers are there.
fn length(received: &[u8]) -> Option<usize> {
    let head = received.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&received[..head]).ok()?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head + length.parse::<usize>().ok()?)
}

criterion_group!(benches, filter, round_trip);
criterion_main!(benches);
