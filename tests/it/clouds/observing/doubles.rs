//! The program's own providers behind it, each talking to the double of its cloud, and the engine that goes by what they say.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::{Request, header};
use futures::future::join_all;
use kube::Api;
use policy::Shape;
use providers::{PodRequest, PodUid, RemoteId};
use scheduler_extender::api::{VirtualNode, VirtualNodeStatus};
use scheduler_extender::clouds::Endpoints;
use scheduler_extender::metrics::{Limits, Metrics};
use scheduler_extender::observation::Pace;
use scheduler_extender::run::observing::{self, Clouds};
use serde_json::{Value, json};
use world::control_plane::{User, wait_until};

use super::super::aci::Azure;
use super::super::contract::{Stage, Trouble};
use super::super::fargate::Ecs;
use super::super::nomad::front::{Fault, Front};
use super::super::nomad::{self, Nomad};
use crate::scenario::{Extender, PATIENCE, Scenario, dedicated_first};

/// Faster than the program asks, so that nobody waits for half a minute.
const PACE: Pace = Pace { interval: Duration::from_millis(500), retry: Duration::from_millis(100) };
const NAMES: [&str; 3] = ["fargate", "aci", "nomad"];

/// A double of each cloud. The names of the VirtualNodes are those of the clouds.
struct Doubles {
    ecs: Ecs,
    azure: Azure,
    nomad: Nomad,
    /// Before Nomad's agent, because Spillway talks to it over TLS only.
    front: Front,
}

impl Doubles {
    async fn begin(&self, trouble: Trouble) {
        self.ecs.begin(trouble).await;
        self.azure.begin(trouble).await;
        self.front.stage(nomad::fault(trouble));
    }

    async fn end_trouble(&self) {
        self.ecs.end_trouble().await;
        self.azure.end_trouble().await;
        self.front.stage(None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cloud_is_observed_closes_and_reopens_and_the_engine_goes_by_it() {
    let scenario = Scenario::new(Extender::Absent).await;
    let nomad = Nomad::new().await;
    let (front, authority) = nomad.over_tls().await;
    let doubles = Doubles { ecs: Ecs::start().await, azure: Azure::new(30), nomad, front };
    virtual_nodes(&scenario, &doubles, &authority).await;
    scenario.start().await;
    // The rights of the program are enough.
    let client = scenario.plane.client(User::Spillway).expect("a client");
    let endpoints = Endpoints { aws: Some(doubles.ecs.access()), azure: Some(doubles.azure.elsewhere().0) };
    let clouds = Clouds::new(client.clone(), "USD", Arc::new(Metrics::new("USD", Limits::STANDARD))).at(endpoints);
    let observing = tokio::spawn(observing::keep(client, Arc::new(clouds), "USD".to_owned(), PACE));

    what_is_missing_is_named_and_found_when_it_comes(&scenario).await;
    open(&scenario, &NAMES).await;
    quota_usage_and_prices_are_those_of_the_cloud(&scenario).await;
    what_others_use_shows(&scenario, &doubles).await;
    for (trouble, reason) in [(Trouble::Throttling, "Throttled"), (Trouble::ExpiredCredentials, "CredentialsRefused")] {
        doubles.begin(trouble).await;
        closed(&scenario, &NAMES.map(|name| (name, reason))).await;
        doubles.end_trouble().await;
        open(&scenario, &NAMES).await;
    }
    doubles.ecs.lose_capacity_providers();
    doubles.front.stage(Some(Fault::Status(500, "rpc error: No cluster leader")));
    closed(&scenario, &[("fargate", "Down"), ("nomad", "Unreachable")]).await;
    open(&scenario, &["aci"]).await;
    doubles.end_trouble().await;
    open(&scenario, &NAMES).await;
    a_quota_that_others_use_up_keeps_pods_away(&scenario, &doubles.ecs).await;
    doubles.azure.nothing_was_violated();
    observing.abort();
}

/// One of each cloud. Fargate's credentials are not there yet.
async fn virtual_nodes(scenario: &Scenario, doubles: &Doubles, authority: &str) {
    secret(scenario, "nomad-ca", json!({"ca.crt": authority})).await;
    let of = |name: &str| json!({"namespace": "spillway-system", "name": name});
    let subnets = ["subnet-0123456789abcdef0"];
    let fargate = json!({
        "fargate": {"region": "us-east-1", "cluster": "burst", "subnets": subnets},
        "credentialsSecretRef": of("aws"), "pricing": null,
    });
    let aci = json!({"aci": doubles.azure.elsewhere().1, "pricing": null});
    let nomad = json!({"nomad": {"address": doubles.front.url(), "mhzPerCore": 1000, "caSecretRef": of("nomad-ca")}});
    for (name, spec) in NAMES.into_iter().zip([fargate, aci, nomad]) {
        scenario.virtual_node_with(name, spec, "0.05").await;
    }
}

async fn secret(scenario: &Scenario, name: &str, entries: Value) {
    let metadata = json!({"name": name, "namespace": "spillway-system"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": entries});
    scenario.apply(secret).await.expect("a Secret");
}

async fn what_is_missing_is_named_and_found_when_it_comes(scenario: &Scenario) {
    let message = scenario.object_condition("VirtualNode", "fargate", "BackendHealthy", "False", "NotConfigured").await;
    assert!(message.contains("spec.credentialsSecretRef") && message.contains("spillway-system/aws"), "{message}");
    let entries = json!({"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI"});
    secret(scenario, "aws", entries).await;
}

/// The backends answer, and the engine uses them.
async fn open(scenario: &Scenario, names: &[&str]) {
    join_all(names.iter().map(async |name| {
        scenario.object_condition("VirtualNode", name, "BackendHealthy", "True", "Answers").await;
        scenario.virtual_node_ready(name).await;
    }))
    .await;
}

/// The backends fail, for these reasons, and the engine leaves them alone.
async fn closed(scenario: &Scenario, nodes: &[(&str, &str)]) {
    join_all(nodes.iter().map(async |(name, reason)| {
        scenario.object_condition("VirtualNode", name, "BackendHealthy", "False", reason).await;
        scenario.virtual_node_reason(name, "BackendUnhealthy").await;
    }))
    .await;
}

async fn status(scenario: &Scenario, name: &str) -> anyhow::Result<VirtualNodeStatus> {
    Api::<VirtualNode>::all(scenario.client.clone()).get(name).await?.status.context("no status")
}

async fn quota_usage_and_prices_are_those_of_the_cloud(scenario: &Scenario) {
    for (name, pods, cpu, price, source) in [
        ("fargate", None, Some("100000m"), "0.04048", "built in: "),
        ("aci", Some(100), Some("100000m"), "0.0405", "the provider's price list"),
        // Its size is that of the machine.
        ("nomad", None, None, "0.05", "spec.pricing"),
    ] {
        let status = status(scenario, name).await.expect("a status");
        let quota = status.quota.expect("a quota");
        assert_eq!(quota.pods, pods, "{name}");
        assert!(quota.cpu.is_some_and(|found| cpu.is_none_or(|cpu| cpu == found.0)), "{name}");
        assert_eq!(status.usage.and_then(|usage| usage.pods), Some(0), "{name}");
        assert!(status.observed_at.is_some(), "{name}");
        // Fargate's sizes are always the same.
        assert_eq!(
            status.largest_pod.is_some_and(|size| size.cpu.is_some() && size.memory.is_some()),
            name != "fargate",
            "{name}"
        );
        let prices = status.prices.expect("prices");
        assert_eq!((prices.vcpu_hour.as_str(), prices.currency.as_str()), (price, "USD"), "{name}");
        assert!(prices.source.starts_with(source) && prices.observed_at.is_some(), "{name}: {prices:?}");
        let row = row(scenario, name).await;
        assert_eq!([&row["Ready"], &row["Healthy"], &row["vCPU-Hour"]], ["True", "True", price], "{row}");
    }
}

/// What `kubectl get virtualnodes -o wide` shows of one.
async fn row(scenario: &Scenario, name: &str) -> Value {
    let table = Request::get(format!("/apis/spillway.dev/v1alpha1/virtualnodes/{name}"))
        .header(header::ACCEPT, "application/json;as=Table;g=meta.k8s.io;v=v1")
        .body(vec![])
        .expect("a request");
    let table: Value = scenario.client.request(table).await.expect("a table");
    let columns = table["columnDefinitions"].as_array().into_iter().flatten();
    let cells = table["rows"][0]["cells"].as_array().into_iter().flatten();
    columns.zip(cells).map(|(column, cell)| (column["name"].as_str().unwrap_or_default().to_owned(), cell.clone())).collect()
}

/// Pods of another cluster in the same accounts.
async fn what_others_use_shows(scenario: &Scenario, doubles: &Doubles) {
    let stages: [(&str, &dyn Stage); 2] = [("aci", &doubles.azure), ("nomad", &doubles.nomad)];
    for (name, stage) in stages {
        let uid = PodUid::new("00000000-0000-4000-8000-00000000000f");
        let id = stage.provider().create(&stage.request(&uid)).await.expect("accepted").id;
        uses(scenario, name, 1).await;
        stage.provider().delete(&id).await.expect("deleted");
        stage.moment().await;
        stage.moment().await;
        uses(scenario, name, 0).await;
    }
}

async fn uses(scenario: &Scenario, name: &str, pods: i64) {
    wait_until(&format!("{pods} pods in {name}"), PATIENCE, async || {
        let usage = status(scenario, name).await?.usage.context("no usage")?;
        ensure!(usage.pods == Some(pods), "{usage:?}");
        Ok(())
    })
    .await
    .expect("what runs is counted");
}

/// 100 vCPU are six tasks of 16, and what is left is not enough for a pod of 8.
async fn a_quota_that_others_use_up_keeps_pods_away(scenario: &Scenario, ecs: &Ecs) {
    let provider = ecs.provider();
    let mut others: Vec<RemoteId> = Vec::new();
    for index in 0..6 {
        let shape = Shape { cpu_millis: 16_000, memory_bytes: 32 << 30, ephemeral_bytes: 0 };
        let request = PodRequest { shape, ..ecs.request(&PodUid::new(format!("large-{index}"))) };
        others.push(provider.create(&request).await.expect("room").id);
    }
    moments(ecs).await;
    uses(scenario, "fargate", 6).await;
    scenario.policy("burst", "late", dedicated_first(&["fargate"]), json!({})).await;
    scenario.pod("late", "late", "8", json!({})).await;
    let text = scenario.event("late", "LimitReached").await;
    assert_eq!(text, "does not burst: the cloud's quota is used up");
    assert_eq!(scenario.places("late").await.counts(), (0, 0, 1));
    provider.delete(&others[0]).await.expect("deleted");
    moments(ecs).await;
    wait_until("the pod bursts", PATIENCE, async || {
        ensure!(scenario.places("late").await.counts() == (0, 1, 0));
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
}

/// Long enough for tasks to begin and to end.
async fn moments(ecs: &Ecs) {
    for _ in 0..20 {
        ecs.moment().await;
    }
}
