//! What one `filter` call costs: read 5,000 names, decide, write the answer. Budget: 0.30 ms median on one core.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foldhash::HashMap;
use scheduler_extender::extender::protocol::{self, Verb};
use scheduler_extender::extender::server::{Phase, Server, Settings};
use scheduler_extender::extender::verbs::{Answers, Candidates, Fault, FilterAnswer, PassThrough, PreemptAnswer};
use scheduler_extender::extender::verbs::{ReasonText, Refusal, Score, Scores, Victims};
use scheduler_extender::extender::wire::{self, PodView};
use tokio::sync::watch;

const NODES: usize = 5_000;
const PASSED_OVER: ReasonText = ReasonText::new("spillway: packed onto another node");

/// The shape of the real decision: look every name up, take the fullest node with room.
struct Pack {
    free_by_node: HashMap<String, u64>,
}

impl Pack {
    fn new() -> Pack {
        Pack { free_by_node: (0..NODES).map(|node| (name(node), 100 + (node as u64 * 7919) % 4000)).collect() }
    }
}

impl Answers for Pack {
    fn filter(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<FilterAnswer, Fault> {
        let free = |name| self.free_by_node.get(name).copied().filter(|free| *free >= 500);
        let fullest = candidates.iter().filter_map(|(index, name)| Some((free(name)?, index))).min();
        Ok(match fullest {
            Some((_, index)) => candidates.choose(index, Refusal::Unresolvable(PASSED_OVER)),
            None => candidates.refuse_all(Refusal::Failed(PASSED_OVER)),
        })
    }

    fn prioritize(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<Scores, Fault> {
        Ok(candidates.score(|_, _| Score::LOWEST))
    }

    fn preempt(&self, _: &PodView<'_>, victims: Victims<'_>) -> Result<PreemptAnswer, Fault> {
        Ok(victims.spare_all())
    }
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
    let pack = Pack::new();
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
        let server = Server { settings: Settings::default(), answers: Arc::new(Pack::new()), observer: Arc::new(()) };
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
