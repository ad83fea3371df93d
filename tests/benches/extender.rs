//! What one `filter` call costs: read 5,000 names, decide, write the answer. Budget: 0.30 ms median on one core.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foldhash::HashMap;
use scheduler_extender::extender::protocol::{self, Verb};
use scheduler_extender::extender::verbs::{
    Answers, Candidates, Fault, FilterAnswer, PassThrough, PreemptAnswer, ReasonText, Refusal,
};
use scheduler_extender::extender::verbs::{Score, Scores, Victims};
use scheduler_extender::extender::wire::{self, PodView};

const NODES: usize = 5_000;
const PASSED_OVER: ReasonText = ReasonText::new("spillway: packed onto another node");

/// The shape of the real decision: look every name up, take the fullest node with room.
struct Pack {
    free_by_node: HashMap<String, u64>,
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
    let pack = Pack { free_by_node: (0..NODES).map(|node| (name(node), 100 + (node as u64 * 7919) % 4000)).collect() };
    let mut group = c.benchmark_group("extender_filter_5000_names");
    group.throughput(Throughput::Bytes(request.len() as u64));
    // Where the time goes: reading alone, and the answer that has the least to write.
    group.bench_function("read_only", |b| b.iter(|| wire::decode_filter(black_box(&request)).map(|r| r.offered.names.len())));
    group.bench_function("pack_one", |b| b.iter(|| protocol::answer(Verb::Filter, black_box(&request), &pack).body));
    group.bench_function("pass_all", |b| b.iter(|| protocol::answer(Verb::Filter, black_box(&request), &PassThrough).body));
    group.finish();
}

criterion_group!(benches, filter);
criterion_main!(benches);
