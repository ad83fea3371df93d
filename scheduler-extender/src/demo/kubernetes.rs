//! `spillway demo --kubernetes`: the same manifests on a real control plane, with this program beside a real kube-scheduler.
//!
//! Time is real here, so pods run for seconds instead of minutes; KWOK plays the kubelets, and what pods cost is what
//! Spillway's own books say.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use policy::{Money, Timestamp};
use serde::Deserialize as _;
use serde_json::Value;
use world::control_plane::{
    ControlPlane, ExtenderOptions, KWOK_ANNOTATION, KWOK_ANNOTATION_VALUE, Process, SchedulerOptions, User, wait_until,
};
use world::simulation::Manifests;

use super::clouds::{self, Cloud};
use super::driver::record;
use super::objects::Objects;
use super::progress::Progress;
use super::run::{Backend, Bindings, Budget, Example, ExtenderCalls, Run, Sample};
use super::tally::{Fate, tally};
use super::{is_virtual, title};
use crate::api::BurstBudget;
use crate::record::Record;
use crate::run::now;

const SETTING: &str = "A real control plane in real time. KWOK plays the kubelets, pods run for ten seconds, and costs are what Spillway's books say.";
/// How long something may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(60);
/// A demonstration on a real control plane is over by then.
const LIMIT: Duration = Duration::from_secs(180);
/// Nothing has happened for so long: what waits now, waits.
const REST: Duration = Duration::from_secs(45);
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// How long KWOK lets the pods of the demonstration run.
const RUN_SECONDS: (&str, &str) = ("kwok.example/run-seconds", "10");
/// Rights of Spillway, as the chart gives them.
const RIGHTS: &str = include_str!("../../../deploy/rbac.yaml");

/// Pods by UID, samples, and the most that each budget had spent and promised.
type Watched = (BTreeMap<String, Seen>, Vec<Sample>, BTreeMap<String, Money>);

/// A pod as the watch has shown it.
struct Seen {
    pod: Pod,
    created_at: Timestamp,
    bound_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

/// A control plane with this program beside it.
struct Stage {
    plane: ControlPlane,
    client: Client,
    extender: SocketAddr,
    admin: SocketAddr,
    clouds: Vec<Cloud>,
    /// Ended before the control plane is.
    spillway: Option<Process>,
}

/// Plays the manifests.
pub(super) async fn play(manifests: Manifests, currency: &str) -> anyhow::Result<Run> {
    // A second one would be no harm: they are equal.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let begun = Instant::now();
    let Manifests { nodes, pods, jobs, namespaces, others } = manifests;
    let objects = Objects::read(others.clone(), namespaces.clone())?;
    let clouds = clouds::find(objects.virtual_nodes(), &nodes, currency)?.into_iter().map(|(cloud, _)| cloud).collect();
    let dedicated = nodes.iter().filter(|node| !is_virtual(node)).count();
    let title = title(&jobs, pods.len());
    eprintln!("Starting etcd, kube-apiserver, kube-scheduler, kube-controller-manager and KWOK …");
    let mut stage = Stage::start(clouds).await?;
    for namespace in &namespaces {
        stage.apply(serde_json::to_value(namespace)?).await?;
    }
    for object in others {
        stage.apply(object).await?;
    }
    stage.plane.create_nodes(nodes.into_iter().map(managed).collect()).await?;
    stage.spillway = Some(stage.run_spillway(currency).await?);
    let expected = pods.len() + jobs.iter().map(completions).sum::<usize>();
    let started = now();
    for pod in pods {
        stage.apply(serde_json::to_value(short(pod))?).await?;
    }
    for job in jobs {
        stage.apply(serde_json::to_value(short_job(job))?).await?;
    }
    let names = stage.clouds.iter().map(|cloud| cloud.virtual_node.clone()).collect();
    let mut progress = Progress::new(started, names, currency, None);
    let (seen, samples, peaks) = stage.watch(started, expected, &mut progress).await?;
    progress.end();
    let ended = now();
    let mut backends = vec![Backend::new("dedicated", &format!("{dedicated} nodes"))];
    backends.extend(stage.clouds.iter().map(|cloud| Backend::new(&cloud.virtual_node, &cloud.detail)));
    let totals = tally(&mut backends, seen.values().map(|seen| stage.fate(seen, ended)), started, ended);
    let metrics = stage.metrics().await?;
    Ok(Run {
        title,
        setting: SETTING.to_owned(),
        seed: None,
        currency: currency.to_owned(),
        started,
        ended,
        real: begun.elapsed(),
        pods: totals.pods,
        succeeded: totals.succeeded,
        is_complete: totals.succeeded == expected,
        all_bound_after: totals.all_bound_after,
        backends,
        samples,
        budgets: stage.budgets(&peaks).await?,
        examples: examples(&seen),
        bindings: Bindings {
            created: sum(&metrics, "spillway_bindings_total{outcome=\"created\"}"),
            conflicts: sum(&metrics, "spillway_bindings_total{outcome=\"conflict\"}"),
            failed: sum(&metrics, "spillway_bindings_total{outcome=\"failed\"}")
                + sum(&metrics, "spillway_bindings_total{outcome=\"refused\"}"),
        },
        extender: ExtenderCalls {
            filter: sum(&metrics, "spillway_extender_requests_total{mode=\"cache\",outcome=\"answered\",verb=\"filter\"}"),
            preempt: sum(&metrics, "spillway_extender_requests_total{mode=\"cache\",outcome=\"answered\",verb=\"preempt\"}"),
            ..ExtenderCalls::default()
        },
    })
}

// === impl Stage ===

impl Stage {
    /// A cluster with Spillway's types and rights.
    async fn start(clouds: Vec<Cloud>) -> anyhow::Result<Stage> {
        let (extender, admin) = (free_port()?, free_port()?);
        let scheduler = SchedulerOptions::new().extender(ExtenderOptions::new(format!("http://{extender}/v1")));
        let plane = ControlPlane::builder().scheduler(scheduler).start().await.context("the control plane does not start")?;
        let client = plane.client(User::Admin)?;
        let stage = Stage { plane, client, extender, admin, clouds, spillway: None };
        let crds: Api<CustomResourceDefinition> = Api::all(stage.client.clone());
        for crd in crate::crds::crds() {
            crds.create(&PostParams::default(), &crd).await.context("definitions of spillway.dev")?;
        }
        wait_until("the types of spillway.dev", PATIENCE, async || {
            for crd in crds.list(&ListParams::default()).await?.items {
                let conditions = crd.status.unwrap_or_default().conditions.unwrap_or_default();
                let is_established = conditions.iter().any(|one| one.type_ == "Established" && one.status == "True");
                anyhow::ensure!(is_established, "{} are not established", crd.spec.names.plural);
            }
            Ok(())
        })
        .await?;
        for document in serde_yaml_ng::Deserializer::from_str(RIGHTS) {
            stage.apply(Value::deserialize(document)?).await?;
        }
        Ok(stage)
    }

    /// This very program, as a process with its own service account.
    async fn run_spillway(&self, currency: &str) -> anyhow::Result<Process> {
        let kubeconfig = self.plane.kubeconfig_path(User::Spillway);
        let arguments = [
            "run".to_owned(),
            format!("--currency={currency}"),
            format!("--extender-listen={}", self.extender),
            format!("--admin-listen={}", self.admin),
            format!("--kubeconfig={}", kubeconfig.display()),
            // There is only this one, and its clouds are played by KWOK.
            "--leader-elect=false".to_owned(),
            "--backends=ignore".to_owned(),
        ];
        let program = std::env::current_exe().context("path of this program")?;
        let process = self.plane.run("spillway", &program, &arguments).context("spillway run does not start")?;
        wait_until("spillway ready", PATIENCE, async || {
            let answer = reqwest::get(format!("http://{}/readyz", self.admin)).await?;
            anyhow::ensure!(answer.status().is_success(), "{}", answer.text().await?);
            Ok(())
        })
        .await?;
        Ok(process)
    }

    /// Applies one object of any kind.
    async fn apply(&self, object: Value) -> anyhow::Result<()> {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let dynamic: DynamicObject = serde_json::from_value(object).with_context(|| format!("{kind} {name}"))?;
        let api: Api<DynamicObject> = match (dynamic.metadata.namespace.as_deref(), kind.as_str()) {
            (Some(namespace), _) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            (None, "Pod" | "Job") => Api::namespaced_with(self.client.clone(), "default", &resource),
            (None, _) => Api::all_with(self.client.clone(), &resource),
        };
        let parameters = PatchParams::apply("spillway-demo").force();
        api.patch(&name, &parameters, &Patch::Apply(&dynamic)).await.with_context(|| format!("{kind} {name}"))?;
        Ok(())
    }

    /// Watches until all is done, or nothing happens any more.
    async fn watch(&self, started: Timestamp, expected: usize, progress: &mut Progress) -> anyhow::Result<Watched> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut events = watcher(pods, watcher::Config::default()).applied_objects().boxed();
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        let (mut samples, mut peaks) = (Vec::new(), BTreeMap::new());
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        let mut changed = now();
        loop {
            tokio::select! {
                pod = events.try_next() => {
                    changed = now();
                    observe(&mut seen, pod.context("the watch of pods failed")?.context("the watch of pods ended")?, changed);
                }
                _ = ticks.tick() => {
                    let committed = self.committed(&mut peaks).await?;
                    let sample = self.sample(&seen, committed);
                    progress.show(&sample);
                    samples.push(sample);
                    let is_done = seen.len() >= expected && seen.values().filter(|seen| is_succeeded(&seen.pod)).count() == expected;
                    if is_done || now().since(started) >= LIMIT || now().since(changed) >= REST {
                        return Ok((seen, samples, peaks));
                    }
                }
            }
        }
    }

    /// Spent and promised over all budgets, as their statuses say.
    async fn committed(&self, peaks: &mut BTreeMap<String, Money>) -> anyhow::Result<Money> {
        let mut sum = Money::ZERO;
        for budget in Api::<BurstBudget>::all(self.client.clone()).list(&ListParams::default()).await?.items {
            let total = total(&budget);
            let peak = peaks.entry(budget.metadata.name.unwrap_or_default()).or_default();
            *peak = (*peak).max(total);
            sum = sum.saturating_add(total);
        }
        Ok(sum)
    }

    fn sample(&self, seen: &BTreeMap<String, Seen>, committed: Money) -> Sample {
        let at = now();
        let mut sample =
            Sample { at, waiting: 0, placed: vec![0; self.clouds.len() + 1], done: 0, committed, charged: Money::ZERO };
        for seen in seen.values() {
            match (node_name(&seen.pod), seen.ended_at) {
                (_, Some(_)) => sample.done += 1,
                (None, None) => sample.waiting += 1,
                (Some(node), None) => sample.placed[self.place(node)] += 1,
            }
            sample.charged = sample.charged.saturating_add(bill(seen, at));
        }
        sample
    }

    fn place(&self, node: &str) -> usize {
        self.clouds.iter().position(|cloud| cloud.node == node).map_or(0, |place| place + 1)
    }

    fn fate(&self, seen: &Seen, until: Timestamp) -> Fate {
        Fate {
            place: node_name(&seen.pod).map(|node| self.place(node)),
            created_at: seen.created_at,
            bound_at: seen.bound_at,
            started_at: seen.started_at,
            ended_at: seen.ended_at,
            cpu_millis: world::simulation::cpu_millis(&seen.pod),
            quoted: record(&seen.pod).map_or(Money::ZERO, |record| record.quote),
            charged: bill(seen, until),
            is_succeeded: is_succeeded(&seen.pod),
        }
    }

    async fn budgets(&self, peaks: &BTreeMap<String, Money>) -> anyhow::Result<Vec<Budget>> {
        let budgets = Api::<BurstBudget>::all(self.client.clone()).list(&ListParams::default()).await?.items;
        let budget = |budget: BurstBudget| {
            let name = budget.metadata.name.clone().unwrap_or_default();
            Budget {
                amount: budget.spec.amount.parse().unwrap_or_default(),
                period: format!("{:?}", budget.spec.period),
                total: total(&budget),
                peak: peaks.get(&name).copied().unwrap_or_default(),
                held_pods: 0,
                name,
            }
        };
        Ok(budgets.into_iter().map(budget).collect())
    }

    async fn metrics(&self) -> anyhow::Result<String> {
        Ok(reqwest::get(format!("http://{}/metrics", self.admin)).await.context("metrics of spillway")?.text().await?)
    }
}

/// The first times are those at which the watch told: the objects themselves carry whole seconds only.
fn observe(all: &mut BTreeMap<String, Seen>, pod: Pod, at: Timestamp) {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let seen = all.entry(uid).or_insert_with(|| Seen {
        pod: Pod::default(),
        created_at: at,
        bound_at: None,
        started_at: None,
        ended_at: None,
    });
    if node_name(&pod).is_some() {
        seen.bound_at.get_or_insert(at);
    }
    if matches!(phase.as_str(), "Running" | "Succeeded" | "Failed") {
        seen.started_at.get_or_insert(at);
    }
    if matches!(phase.as_str(), "Succeeded" | "Failed") {
        seen.ended_at.get_or_insert(at);
    }
    seen.pod = pod;
}

fn bill(seen: &Seen, until: Timestamp) -> Money {
    let record: Option<Record> = record(&seen.pod);
    record.map_or(Money::ZERO, |record| record.bill(seen.started_at, seen.ended_at.unwrap_or(until)))
}

fn total(budget: &BurstBudget) -> Money {
    let amount = |text: Option<&String>| text.and_then(|text| text.parse::<Money>().ok()).unwrap_or_default();
    let status = budget.status.as_ref();
    amount(status.and_then(|status| status.spent.as_ref()))
        .saturating_add(amount(status.and_then(|status| status.reserved.as_ref())))
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn is_succeeded(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded")
}

/// One pod on a virtual node and one on a dedicated node, by what stands on them.
fn examples(seen: &BTreeMap<String, Seen>) -> Vec<Example> {
    let name = |pod: &Pod| {
        let metadata = &pod.metadata;
        format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    };
    let dedicated =
        seen.values().find(|seen| node_name(&seen.pod).is_some() && record(&seen.pod).is_none()).map(|seen| Example {
            pod: name(&seen.pod),
            outcome: format!("dedicated node {}", node_name(&seen.pod).unwrap_or_default()),
            lines: vec!["bound by kube-scheduler".to_owned()],
        });
    let burst = seen.values().find_map(|seen| record(&seen.pod).map(|record| (seen, record))).map(|(seen, record)| Example {
        pod: name(&seen.pod),
        outcome: format!("burst to {} for at most {}", record.virtual_node, record.quote.display_decimals(4)),
        lines: vec![
            format!("policy {}, tier {}: {}", record.policy, record.tier, record.why()),
            format!("{} an hour, expected to run {} s", record.hourly, record.run.as_secs()),
        ],
    });
    dedicated.into_iter().chain(burst).collect()
}

/// The sum of the series whose line starts so; all of them are counts.
fn sum(metrics: &str, start: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(start));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// A node whose kubelet KWOK plays, ready from the first moment.
fn managed(mut node: Node) -> Node {
    node.metadata.annotations.get_or_insert_default().insert(KWOK_ANNOTATION.to_owned(), KWOK_ANNOTATION_VALUE.to_owned());
    let time = k8s_openapi::jiff::Timestamp::now();
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    if !conditions.iter().any(|condition| condition.type_ == "Ready") {
        conditions.push(NodeCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: Some("NodeReady".to_owned()),
            last_heartbeat_time: Some(Time(time)),
            last_transition_time: Some(Time(time)),
            ..NodeCondition::default()
        });
    }
    node
}

fn short(mut pod: Pod) -> Pod {
    pod.metadata.annotations.get_or_insert_default().insert(RUN_SECONDS.0.to_owned(), RUN_SECONDS.1.to_owned());
    pod
}

fn short_job(mut job: Job) -> Job {
    let template = &mut job.spec.get_or_insert_default().template;
    let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    annotations.insert(RUN_SECONDS.0.to_owned(), RUN_SECONDS.1.to_owned());
    job
}

fn completions(job: &Job) -> usize {
    let spec = job.spec.as_ref();
    let count = spec.and_then(|spec| spec.completions.or(spec.parallelism)).unwrap_or(1);
    usize::try_from(count).unwrap_or(0)
}

/// A port that nobody has at this moment.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?;
    listener.local_addr().context("address of a loopback port")
}
