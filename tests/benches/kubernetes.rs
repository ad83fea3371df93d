//! Spillway beside a real kube-scheduler, against kube-scheduler alone: `make bench-kubernetes`.
//!
//! ```text
//! cargo bench -p tests --bench kubernetes -- fan-out --nodes 1000 --pairs 5
//! cargo bench -p tests --bench kubernetes -- single
//! cargo bench -p tests --bench kubernetes -- memory
//! cargo bench -p tests --bench kubernetes -- guards
//! cargo bench -p tests --bench kubernetes -- backlog
//! cargo bench -p tests --bench kubernetes -- bystanders
//! ```
//!
//! *fan-out*: a Job of 1,000 pods. Reference: its pods are small, everything fits on dedicated nodes, no Spillway runs.
//! Measured: its pods are ten times as large, dedicated nodes have room for 100, Spillway binds the rest. Time from the POST of
//! the Job until the last pod has a node, seen through a watch. Both halves of a pair run on the same control plane.
//!
//! Spillway runs as it is installed: guards, leader lease and marker in force.
//!
//! *guards*: what the admission policies cost a request that has nothing to do with Spillway, with 50 virtual nodes.
//!
//! *backlog*: how fast the committer is when nobody else holds it up: pods that wait for a policy on hold, from the moment when
//! the hold is lifted.
//!
//! *bystanders*: what pods that wait cost others: a pod that no policy selects, from its POST until kube-scheduler has bound it,
//! while 500 pods wait for their backend; without Spillway and with it, in turn.

#[path = "../it/scenario.rs"]
#[allow(dead_code, reason = "the stage is shared with the tests")]
mod scenario;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use scenario::{Extender, NAMESPACE, Scenario, dedicated_first};
use scheduler_extender::guards::{COMPONENT, Guard, Subjects};
use scheduler_extender::run::AdmissionPolicies;
use serde_json::{Value, json};
use world::control_plane::{Component, ControlPlane, DedicatedNodes, SchedulerOptions, User, wait_until};

const PODS: u32 = 1000;
const ROOM: usize = 100;
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |name: &str, default: usize| -> Result<usize> {
        match arguments.iter().position(|argument| argument == name) {
            Some(place) => arguments.get(place + 1).context("a number after it")?.parse().with_context(|| name.to_owned()),
            None => Ok(default),
        }
    };
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.first().map(String::as_str) {
        Some("fan-out") => {
            let stock = arguments.iter().any(|argument| argument == "--stock-scheduler-limits");
            runtime.block_on(fan_out(number("--nodes", 10)?, number("--pairs", 5)?, stock))
        }
        Some("single") => runtime.block_on(single(number("--pods", 50)?)),
        Some("guards") => runtime.block_on(guards(number("--virtual-nodes", 50)?, number("--rounds", 5)?)),
        Some("backlog") => runtime.block_on(backlog(number("--pods", 1000)?, number("--rounds", 5)?)),
        Some("bystanders") => runtime.block_on(bystanders(number("--waiting", 500)?, number("--rounds", 5)?)),
        Some("memory") => runtime.block_on(memory(number("--nodes", 5000)?, number("--pods", 50_000)?)),
        // `cargo bench` runs every benchmark; this one takes minutes and wants to be asked for.
        None => {
            println!("kubernetes: say fan-out, single, guards, backlog, bystanders or memory");
            Ok(())
        }
        Some(other) => bail!("{other}: fan-out, single, guards, backlog, bystanders or memory"),
    }
}

async fn fan_out(nodes: usize, pairs: usize, stock: bool) -> Result<()> {
    let scheduler = if stock { SchedulerOptions::stock() } else { SchedulerOptions::new() };
    let scenario = Scenario::with(Extender::Absent, scheduler, |builder| builder.node_lease(Duration::from_secs(3600))).await?;
    // Ten nodes have room for ten large pods each; the others are too small for one, but kube-scheduler looks at them all.
    scenario.plane.create_dedicated_nodes(&DedicatedNodes::new("dedicated", 10).cpu("10").memory("64Gi")).await?;
    if nodes > 10 {
        scenario
            .plane
            .create_dedicated_nodes(&DedicatedNodes::new("dedicated-small", nodes - 10).cpu("500m").memory("8Gi"))
            .await?;
    }
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("fan-out", "large", dedicated_first(&["virtual-0"]), json!({})).await;
    println!(
        "{PODS} pods, {nodes} dedicated nodes, kube-scheduler client {}",
        if stock { "at its default limits" } else { "1000/2000 qps" }
    );
    println!(
        "{:>4}  {:>11}  {:>11}  {:>6}  {:>18}  {:>14}",
        "pair", "reference s", "spillway s", "ratio", "dedicated/virtual", "spillway CPU s"
    );
    let mut ratios = Vec::new();
    for pair in 1..=pairs {
        scenario.plane.wait_until_idle(PATIENCE).await?;
        let reference = timed(&scenario, "small", "100m").await?;
        clear(&scenario, "small").await?;
        scenario.start_as_installed().await;
        scenario.plane.wait_until_idle(PATIENCE).await?;
        let before = scenario.cpu_time()?;
        let measured = timed(&scenario, "large", "1").await?;
        let cpu = scenario.cpu_time()?.saturating_sub(before);
        let places = scenario.places("large").await;
        let ratio = measured.as_secs_f64() / reference.as_secs_f64();
        println!(
            "{pair:>4}  {:>11.2}  {:>11.2}  {ratio:>6.2}  {:>18}  {:>14.2}",
            reference.as_secs_f64(),
            measured.as_secs_f64(),
            format!("{}/{}", places.dedicated.len(), places.virtual_.len()),
            cpu.as_secs_f64(),
        );
        anyhow::ensure!(places.dedicated.len() == ROOM, "dedicated nodes hold exactly {ROOM}");
        ratios.push(ratio);
        scenario.kill();
        clear(&scenario, "large").await?;
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
    Ok(())
}

/// From the POST of a Job until its last pod has a node.
async fn timed(scenario: &Scenario, name: &str, cpu: &str) -> Result<Duration> {
    let bound = watch_bound(&scenario.client, name, PODS as usize);
    tokio::pin!(bound);
    // The watch is open before the Job is there.
    tokio::select! {
        ended = &mut bound => bail!("the watch ended early: {ended:?}"),
        () = tokio::time::sleep(Duration::from_millis(500)) => {}
    }
    let started = Instant::now();
    scenario.job(name, PODS, cpu, json!({})).await;
    let last = tokio::time::timeout(PATIENCE, bound).await.context("pods without a node")??;
    Ok(last.duration_since(started))
}

/// When the last of `count` pods of the app had a node.
async fn watch_bound(client: &Client, app: &str, count: usize) -> Result<Instant> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let mut bound: HashSet<String> = HashSet::new();
    // The API server cuts off watchers that are slow for a moment; this one lists again and goes on.
    let mut stream =
        watcher(pods, watcher::Config::default().labels(&format!("app={app}"))).default_backoff().applied_objects().boxed();
    while let Some(event) = stream.next().await {
        let Ok(pod) = event else { continue };
        if world::control_plane::place_of(&pod).is_some() {
            bound.extend(pod.metadata.uid);
        }
        if bound.len() == count {
            return Ok(Instant::now());
        }
    }
    bail!("the watch ended with {} of {count} pods bound", bound.len())
}

async fn clear(scenario: &Scenario, name: &str) -> Result<()> {
    let jobs: Api<Job> = Api::namespaced(scenario.client.clone(), NAMESPACE);
    jobs.delete(name, &DeleteParams::background()).await?;
    wait_until("an empty namespace", PATIENCE, async || {
        let left = scenario.plane.pods(NAMESPACE, &format!("app={name}")).await?.len();
        anyhow::ensure!(left == 0, "{left} pods left");
        Ok(())
    })
    .await
}

/// One pod at a time, dedicated nodes full: from its POST until it has a node.
async fn single(count: usize) -> Result<()> {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(3, "1").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    let selector = json!({"podSelector": {"matchLabels": {"single": "yes"}}});
    scenario.policy("single", "single", dedicated_first(&["virtual-0"]), selector).await;
    scenario.start_as_installed().await;
    scenario.plane.wait_until_idle(PATIENCE).await?;
    // The library's own client adds a delayed acknowledgement to every POST, which is not what is measured here.
    let client = scheduler_extender::run::connect(Some(&scenario.plane.kubeconfig_path(User::Admin)), "bench").await?;
    let times = one_by_one(&client, "single", count, "2", json!({"single": "yes"})).await?;
    println!("single pod, created to bound on the virtual node, {count} pods: {}", spread(times));
    Ok(())
}

/// Creates pods one after another, each when the last one has a node, and says how long each took from its POST.
async fn one_by_one(client: &Client, prefix: &str, count: usize, cpu: &str, labels: Value) -> Result<Vec<Duration>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let mut times = Vec::new();
    for number in 0..count {
        let app = format!("{prefix}-{number}");
        let bound = watch_bound(client, &app, 1);
        tokio::pin!(bound);
        tokio::select! {
            ended = &mut bound => bail!("the watch ended early: {ended:?}"),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        let mut pod = json!({"metadata": {"name": app, "labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}});
        pod["metadata"]["labels"]["app"] = json!(app);
        let posted = Instant::now();
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        times.push(tokio::time::timeout(PATIENCE, bound).await.context("a pod without a node")??.duration_since(posted));
    }
    Ok(times)
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, p90 {:.1} ms, max {:.1} ms", at(50), at(90), at(100))
}

/// Pods that are there already and wait: how many a second go to a virtual node when they may.
async fn backlog(count: usize, rounds: usize) -> Result<()> {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(1, "1").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.start_as_installed().await;
    for round in 1..=rounds {
        let name = format!("backlog-{round}");
        let policy = async |hold: &str| {
            scenario.policy(&name, &name, dedicated_first(&["virtual-0"]), json!({"stopPolicy": hold})).await;
        };
        policy("Hold").await;
        scenario.job(&name, u32::try_from(count)?, "2", json!({})).await;
        wait_until("all are refused", PATIENCE, async || {
            let pods = scenario.plane.pods(NAMESPACE, &format!("app={name}")).await?;
            let refused = pods.iter().filter(|pod| scenario::is_refused(pod)).count();
            anyhow::ensure!(refused == count, "{refused} of {count}");
            Ok(())
        })
        .await?;
        scenario.plane.wait_until_idle(PATIENCE).await?;
        let bound = watch_bound(&scenario.client, &name, count);
        tokio::pin!(bound);
        tokio::select! {
            ended = &mut bound => bail!("the watch ended early: {ended:?}"),
            () = tokio::time::sleep(Duration::from_millis(1000)) => {}
        }
        let (before, started) = (scenario.cpu_time()?, Instant::now());
        policy("None").await;
        let took = tokio::time::timeout(PATIENCE, bound).await.context("pods without a node")??.duration_since(started);
        let cpu = scenario.cpu_time()?.saturating_sub(before);
        println!(
            "{count} waiting pods bound in {:.2} s: {:.0} a second, {:.2} ms of CPU for each",
            took.as_secs_f64(),
            count as f64 / took.as_secs_f64(),
            cpu.as_secs_f64() * 1000.0 / count as f64
        );
        clear(&scenario, &name).await?;
    }
    Ok(())
}

/// What pods that wait cost a pod that no policy selects.
async fn bystanders(waiting: usize, rounds: usize) -> Result<()> {
    /// Pods of one half of a round.
    const SAMPLE: usize = 50;
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(10, "16").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("waiting", "waiting", dedicated_first(&["virtual-0"]), json!({"stopPolicy": "Hold"})).await;
    scenario.job("waiting", u32::try_from(waiting)?, "32", json!({})).await;
    let client = scheduler_extender::run::connect(Some(&scenario.plane.kubeconfig_path(User::Admin)), "bench").await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        scenario.plane.wait_until_idle(PATIENCE).await?;
        without.extend(one_by_one(&client, &format!("without-{round}"), SAMPLE, "1m", json!({})).await?);
        scenario.start_as_installed().await;
        scenario.plane.wait_until_idle(PATIENCE).await?;
        with.extend(one_by_one(&client, &format!("with-{round}"), SAMPLE, "1m", json!({})).await?);
        scenario.kill();
    }
    println!("unrelated pods while {waiting} wait, created to bound, without Spillway: {}", spread(without));
    println!("unrelated pods while {waiting} wait, created to bound, with Spillway:    {}", spread(with));
    Ok(())
}

/// Requests per round and kind. One client, one at a time: latency, not throughput.
const REQUESTS: usize = 200;
/// What is measured of each.
const KINDS: [&str; 3] = ["POST pod", "POST Binding", "PATCH node status"];
/// After so long a policy that was deleted is out of force.
const SETTLES: Duration = Duration::from_secs(2);

/// Creation of a pod, its Binding to a dedicated node, and a kubelet's status, without the guards and with them, in turn.
async fn guards(virtual_nodes: usize, rounds: usize) -> Result<()> {
    let plane = ControlPlane::builder().scheduler(None).controllers(None).kwok(false).start().await?;
    let client = plane.client(User::Admin)?;
    plane.create_dedicated_nodes(&DedicatedNodes::new("dedicated", 1)).await?;
    let names: Vec<String> = (0..virtual_nodes).map(|number| format!("virtual-{number}")).collect();
    let mut subjects = Subjects::named(names.iter().map(String::as_str));
    subjects.adopting = names.iter().map(|name| [("example.com/backend".to_owned(), name.clone())].into()).collect();
    let policies = AdmissionPolicies::of(&client, COMPONENT).await?;
    let wanted = scheduler_extender::guards::guards(&subjects, &Guard::ALL);
    let mut without: [Vec<Duration>; 3] = Default::default();
    let mut with: [Vec<Duration>; 3] = Default::default();
    // The first round only warms up.
    for round in 0..=rounds {
        for (name, times) in [("without", &mut without), ("with", &mut with)] {
            if name == "with" {
                policies.put_in_force(&wanted).await?;
            } else {
                policies.prune(&[]).await?;
                tokio::time::sleep(SETTLES).await;
            }
            let measured = requests(&client, &format!("{round}-{name}")).await?;
            if round > 0 {
                times.iter_mut().zip(measured).for_each(|(all, new)| all.extend(new));
            }
        }
    }
    println!("{virtual_nodes} virtual nodes, {rounds} rounds of {REQUESTS} requests of each kind, in turn; milliseconds");
    println!("{:>32}  {:>8}  {:>8}  {:>8}", "", "p50", "p90", "p99");
    for (kind, (mut without, mut with)) in KINDS.into_iter().zip(without.into_iter().zip(with)) {
        for (how, times) in [("without guards", &mut without), ("with guards", &mut with)] {
            times.sort();
            let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
            println!("{:>32}  {:>8.2}  {:>8.2}  {:>8.2}", format!("{kind}, {how}"), at(50), at(90), at(99));
        }
    }
    Ok(())
}

/// The times of one round, by kind.
async fn requests(client: &Client, round: &str) -> Result<[Vec<Duration>; 3]> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let nodes: Api<Node> = Api::all(client.clone());
    let mut times: [Vec<Duration>; 3] = Default::default();
    for number in 0..REQUESTS {
        let name = format!("pod-{round}-{number}");
        let pod = json!({"metadata": {"name": name}, "spec": {"schedulerName": "nobody",
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1m"}}}]}});
        let pod = serde_json::from_value(pod)?;
        let started = Instant::now();
        pods.create(&PostParams::default(), &pod).await?;
        times[0].push(started.elapsed());
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": "default"},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "dedicated-0"}});
        let started = Instant::now();
        pods.create_subresource::<_, serde_json::Value>("binding", &name, &PostParams::default(), &binding).await?;
        times[1].push(started.elapsed());
        let status = json!({"status": {"allocatable": {"example.com/beat": number.to_string()}}});
        let started = Instant::now();
        nodes.patch_status("dedicated-0", &PatchParams::default(), &Patch::Merge(&status)).await?;
        times[2].push(started.elapsed());
    }
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete_collection(&at_once, &ListParams::default()).await?;
    Ok(times)
}

/// Resident memory with many nodes and pods.
async fn memory(nodes: usize, pods: usize) -> Result<()> {
    let scenario =
        Scenario::with(Extender::Absent, SchedulerOptions::new(), |builder| builder.node_lease(Duration::from_secs(3600)))
            .await?;
    let names = scenario.plane.create_dedicated_nodes(&DedicatedNodes::new("dedicated", nodes).cpu("64").memory("256Gi")).await?;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("fan-out", "large", dedicated_first(&["virtual-0"]), json!({})).await;
    // Nothing but the API server is needed to store them, and nothing should eat the machine meanwhile.
    for component in [Component::Scheduler, Component::ControllerManager, Component::Kwok] {
        scenario.plane.stop(component);
    }
    let api: Api<Pod> = Api::namespaced(scenario.client.clone(), NAMESPACE);
    let started = Instant::now();
    let creations = futures::stream::iter(0..pods).map(|number| {
        let (api, node) = (api.clone(), &names[number % names.len()]);
        let pod = json!({
            "metadata": {"name": format!("pod-{number}"), "labels": {"app": format!("app-{}", number % 100)}},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/work:1",
                "env": (0..10).map(|key| json!({"name": format!("SETTING_{key}"), "value": "some value of ordinary length"})).collect::<Vec<_>>(),
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]},
        });
        async move { api.create(&PostParams::default(), &serde_json::from_value(pod)?).await.map(drop).map_err(anyhow::Error::from) }
    });
    let mut creations = creations.buffer_unordered(32);
    let mut done = 0;
    while let Some(created) = creations.next().await {
        created?;
        done += 1;
        if done % 10_000 == 0 {
            println!("{done} pods after {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    scenario.start().await;
    let ready = scenario.resident_bytes()?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!(
        "{nodes} nodes, {pods} pods: {:.0} MB resident when ready, {:.0} MB after 20 s",
        mb(ready),
        mb(scenario.resident_bytes()?)
    );
    Ok(())
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
