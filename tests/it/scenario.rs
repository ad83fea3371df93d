//! A real control plane with Spillway beside it: the stage on which the tests of the whole play.
//!
//! The program itself runs, as a process of its own under its own service account, so that it can be killed and stopped.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use scheduler_extender::api;
use scheduler_extender::record::{ANNOTATION, Record};
use serde::Deserialize;
use serde_json::{Value, json};
use world::control_plane::{
    Builder, ControlPlane, DedicatedNodes, ExtenderOptions, Process, SchedulerOptions, User, VirtualNodeObject, place_of,
    wait_until,
};

// With its path, because the benchmarks include this file from their own place.
#[path = "scenario/observing.rs"]
mod observing;
#[path = "scenario/replicas.rs"]
pub(crate) mod replicas;

/// How long a test waits for what should happen at once: long, because CI machines are slow; nobody waits for it in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The namespace that policies of the tests select.
pub(crate) const NAMESPACE: &str = "media";

/// A cluster with Spillway's types and rights installed.
pub(crate) struct Scenario {
    pub(crate) plane: ControlPlane,
    pub(crate) client: Client,
    pub(crate) extender: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// What Spillway finds the API server by.
    pub(crate) kubeconfig: PathBuf,
    spillway: Mutex<Option<Process>>,
}

/// Whether kube-scheduler is told of the extender.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extender {
    Configured,
    Absent,
}

impl Scenario {
    /// A cluster; Spillway is started by [`Scenario::start`].
    pub(crate) async fn new(extender: Extender) -> Scenario {
        Scenario::with(extender, SchedulerOptions::new(), |builder| builder).await.expect("a control plane")
    }

    /// A cluster with other options.
    pub(crate) async fn with(
        extender: Extender,
        scheduler: SchedulerOptions,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Result<Scenario> {
        let ports = [free_port()?, free_port()?];
        let [extender_at, admin] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let scheduler = match extender {
            Extender::Configured => scheduler.extender(ExtenderOptions::new(format!("http://{extender_at}/v1"))),
            Extender::Absent => scheduler,
        };
        let plane = change(ControlPlane::builder().scheduler(scheduler)).start().await?;
        let client = plane.client(User::Admin)?;
        let kubeconfig = plane.kubeconfig_path(User::Spillway);
        let scenario = Scenario { plane, client, extender: extender_at, admin, kubeconfig, spillway: Mutex::new(None) };
        scenario.install().await?;
        Ok(scenario)
    }

    /// Types, rights and the namespace.
    pub(crate) async fn install(&self) -> Result<()> {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for crd in scheduler_extender::crds::crds() {
            crds.create(&PostParams::default(), &crd).await?;
        }
        wait_until("the types of spillway.dev", PATIENCE, async || {
            for crd in scheduler_extender::crds::crds() {
                let name = crd.metadata.name.clone().unwrap_or_default();
                let status = crds.get(&name).await?.status.unwrap_or_default();
                let established =
                    status.conditions.iter().flatten().any(|one| one.type_ == "Established" && one.status == "True");
                ensure!(established, "{name} is not established");
                // Established, and yet not served for a moment.
                let kind = GroupVersionKind::gvk(&crd.spec.group, "v1alpha1", &crd.spec.names.kind);
                let objects: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind));
                objects.list(&ListParams::default().limit(1)).await?;
            }
            Ok(())
        })
        .await?;
        self.apply_yaml(include_str!("../../deploy/rbac.yaml")).await?;
        self.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"team": "media"}}}))
            .await
    }

    /// Starts Spillway and waits until it is ready.
    pub(crate) async fn start(&self) {
        self.start_with(&[]).await;
    }

    /// Starts Spillway with further flags. There is only this one; see [`Scenario::replica`] for several.
    pub(crate) async fn start_with(&self, flags: &[&str]) {
        self.start_process(&[&["--leader-elect=false"], flags].concat()).await;
    }

    /// Starts Spillway with everything that an installation has, leader election too, and waits until it leads.
    #[allow(dead_code, reason = "only the benchmarks need the one process so")]
    pub(crate) async fn start_as_installed(&self) {
        self.start_process(&[]).await;
        wait_until("it leads", PATIENCE, async || {
            ensure!(self.metric("spillway_leader ").await == 1.0, "it does not");
            Ok(())
        })
        .await
        .expect("nobody else is there");
    }

    async fn start_process(&self, flags: &[&str]) {
        let process = self.run("spillway", (self.extender, self.admin), &self.kubeconfig, flags);
        *self.spillway.lock().expect("no test panics while it holds this") = Some(process);
        self.ready("spillway", self.admin).await;
    }

    /// Starts the program.
    fn run(&self, name: &str, (extender, admin): (SocketAddr, SocketAddr), kubeconfig: &Path, flags: &[&str]) -> Process {
        let mut arguments = vec![
            "run".to_owned(),
            format!("--extender-listen={extender}"),
            format!("--admin-listen={admin}"),
            format!("--kubeconfig={}", kubeconfig.display()),
            // The clouds of these tests do not exist; what they would say is written by the tests.
            "--backends=ignore".to_owned(),
        ];
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.plane.run(name, &program(), &arguments).expect("the program spillway starts")
    }

    async fn ready(&self, name: &str, admin: SocketAddr) {
        let what = format!("{name} ready");
        let ready = wait_until(&what, PATIENCE, async || {
            let answer = reqwest::get(format!("http://{admin}/readyz")).await?;
            ensure!(answer.status().is_success(), "{}", answer.text().await?);
            Ok(())
        });
        ready.await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.plane.log_of(name)));
    }

    /// What Spillway has logged, all replicas of it.
    pub(crate) fn log(&self) -> String {
        ["spillway", "replica-a", "replica-b", "replica-c"].map(|name| self.plane.log_of(name)).concat()
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        drop(self.spillway.lock().expect("no test panics while it holds this").take());
    }

    /// SIGSTOP.
    pub(crate) fn pause(&self) {
        self.process(|process| process.pause().expect("a process of ours"));
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.process(|process| process.resume().expect("a process of ours"));
    }

    fn process<T>(&self, look: impl FnOnce(&Process) -> T) -> T {
        look(self.spillway.lock().expect("no test panics while it holds this").as_ref().expect("Spillway runs"))
    }

    /// CPU that Spillway has used, user and system.
    #[allow(dead_code, reason = "only the benchmarks measure this")]
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        // Fields 14 and 15, in clock ticks of 10 ms; the name in brackets may hold spaces.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory of Spillway.
    #[allow(dead_code, reason = "only the benchmarks measure this")]
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? * 1024)
    }

    #[allow(dead_code, reason = "only the benchmarks measure this")]
    fn proc(&self, file: &str) -> Result<String> {
        let id = self.process(Process::id);
        Ok(std::fs::read_to_string(format!("/proc/{id}/{file}"))?)
    }

    /// Everything at `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        reqwest::get(format!("http://{}/metrics", self.admin)).await.expect("metrics").text().await.expect("text")
    }

    /// The sum of the samples whose line starts so.
    pub(crate) async fn metric(&self, start: &str) -> f64 {
        let text = self.metrics().await;
        text.lines().filter(|line| line.starts_with(start)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    // === objects ===

    /// Applies one object of any kind.
    pub(crate) async fn apply(&self, object: Value) -> Result<()> {
        let kind: GroupVersionKind = gvk(&object)?;
        let resource = ApiResource::from_gvk(&kind);
        let dynamic: DynamicObject = serde_json::from_value(object)?;
        let name = dynamic.metadata.name.clone().context("metadata.name")?;
        let api: Api<DynamicObject> = match dynamic.metadata.namespace.clone() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&dynamic)).await?;
        Ok(())
    }

    pub(crate) async fn apply_yaml(&self, text: &str) -> Result<()> {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            self.apply(Value::deserialize(document)?).await?;
        }
        Ok(())
    }

    /// Dedicated nodes named `dedicated-0` and so on.
    pub(crate) async fn dedicated(&self, count: usize, cpu: &str) -> Vec<String> {
        self.plane
            .create_dedicated_nodes(&DedicatedNodes::new("dedicated", count).cpu(cpu).memory("64Gi"))
            .await
            .expect("dedicated nodes")
    }

    /// A virtual node, its Node and its VirtualNode, at this price per vCPU-hour.
    pub(crate) async fn virtual_node(&self, name: &str, vcpu_hour: &str) {
        self.virtual_node_with(name, json!({"inMemory": {"region": "here"}}), vcpu_hour).await;
    }

    /// A virtual node of any provider.
    pub(crate) async fn virtual_node_with(&self, name: &str, provider: Value, vcpu_hour: &str) {
        self.plane.create_virtual_node(&VirtualNodeObject::new(name).label("backend", name)).await.expect("a virtual Node");
        self.virtual_node_spec(name, provider, vcpu_hour).await;
    }

    /// The VirtualNode alone, to change one that is there. `more` is merged into its spec; what is null there is left out.
    pub(crate) async fn virtual_node_spec(&self, name: &str, more: Value, vcpu_hour: &str) {
        let mut spec = json!({
            "adopt": {"nodeSelector": {"backend": name}},
            "pricing": {"currency": "USD", "vcpuHour": vcpu_hour, "gbHour": "0", "asOf": "2026-11-01"},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        self.apply(
            json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "VirtualNode", "metadata": {"name": name}, "spec": spec}),
        )
        .await
        .expect("a VirtualNode");
    }

    /// Waits until a virtual node takes pods, its guard in force.
    pub(crate) async fn virtual_node_ready(&self, name: &str) {
        self.virtual_node_reason(name, "Open").await;
    }

    /// Waits until the condition `Ready` of a virtual node has this reason.
    pub(crate) async fn virtual_node_reason(&self, name: &str, reason: &str) {
        let status = if reason == "Open" { "True" } else { "False" };
        self.object_condition("VirtualNode", name, "Ready", status, reason).await;
    }

    /// A policy for the pods with label `app` in the tests' namespace. `more` is merged into its spec.
    pub(crate) async fn policy(&self, name: &str, app: &str, tiers: Value, more: Value) {
        let mut spec = json!({
            "namespaceSelector": {"matchLabels": {"team": "media"}},
            "podSelector": {"matchLabels": {"app": app}},
            "tiers": tiers,
            "expectedDuration": "1h",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        self.apply(
            json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "BurstPolicy", "metadata": {"name": name}, "spec": spec}),
        )
        .await
        .expect("a BurstPolicy");
    }

    pub(crate) async fn budget(&self, name: &str, amount: &str) {
        let spec = json!({"amount": amount, "currency": "USD", "period": "Month"});
        self.apply(
            json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "BurstBudget", "metadata": {"name": name}, "spec": spec}),
        )
        .await
        .expect("a BurstBudget");
    }

    /// Writes fields of a VirtualNode's status, as a virtual kubelet or an observer would.
    pub(crate) async fn virtual_node_status(&self, name: &str, status: Value) {
        let api: Api<api::VirtualNode> = Api::all(self.client.clone());
        let patch = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "VirtualNode", "status": status});
        api.patch_status(name, &PatchParams::apply("tests-observer").force(), &Patch::Apply(&patch)).await.expect("a status");
    }

    /// A Job whose pods ask for so much CPU and run for ever. `more` is merged into the pod's spec.
    pub(crate) async fn job(&self, name: &str, pods: u32, cpu: &str, more: Value) {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), NAMESPACE);
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"completions": pods, "parallelism": pods, "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec(cpu, &more)}},
        });
        jobs.create(&PostParams::default(), &serde_json::from_value(job).expect("a Job")).await.expect("a Job");
    }

    /// One pod with label `app`.
    pub(crate) async fn pod(&self, name: &str, app: &str, cpu: &str, more: Value) -> Pod {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let pod = json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": pod_spec(cpu, &more)});
        pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("a pod")
    }

    /// The pods of the tests' namespace.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// A pod as it stands now.
    pub(crate) async fn get(&self, name: &str) -> Pod {
        Api::<Pod>::namespaced(self.client.clone(), NAMESPACE).get(name).await.expect("the pod")
    }

    /// The priority class `important`: its pods may evict all others.
    pub(crate) async fn important(&self) {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "important"}, "value": 1000});
        self.apply(class).await.expect("a PriorityClass");
    }

    /// Waits until a pod's scheduler has called it Unschedulable.
    pub(crate) async fn refused(&self, name: &str) {
        wait_until(&format!("a verdict on {name}"), PATIENCE, async || {
            ensure!(is_refused(&self.get(name).await), "none so far");
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
    }

    /// Waits until a pod is bound.
    pub(crate) async fn bound(&self, name: &str) -> Pod {
        wait_until(&format!("{name} bound"), PATIENCE, async || {
            let pod = self.get(name).await;
            ensure!(place_of(&pod).is_some(), "it waits");
            Ok(pod)
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()))
    }

    /// Waits until all pods with label `app` are bound, and sorts them into dedicated and virtual.
    pub(crate) async fn all_bound(&self, app: &str, count: usize) -> Places {
        let pods = self.plane.wait_until_bound((NAMESPACE, &format!("app={app}")), count, PATIENCE).await;
        Places::of(pods.unwrap_or_else(|error| panic!("{error:#}\n{}", self.log())))
    }

    /// The pods with label `app` as they are now.
    pub(crate) async fn places(&self, app: &str) -> Places {
        Places::of(self.plane.pods(NAMESPACE, &format!("app={app}")).await.expect("a list of pods"))
    }

    /// Waits for an Event with this reason on a pod, and returns its text.
    pub(crate) async fn event(&self, pod: &str, reason: &str) -> String {
        use k8s_openapi::api::events::v1::Event;
        let events: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        let params = ListParams::default().fields(&format!("regarding.name={pod},reason={reason}"));
        wait_until(&format!("the event {reason} on {pod}"), PATIENCE, async || {
            let found = events.list(&params).await?.items.into_iter().next().context("no event")?;
            found.note.context("no text")
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()))
    }

    /// A budget's status.
    pub(crate) async fn budget_status(&self, name: &str) -> api::BurstBudgetStatus {
        Api::<api::BurstBudget>::all(self.client.clone()).get(name).await.expect("the budget").status.unwrap_or_default()
    }
}

/// Where pods are.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) dedicated: Vec<Pod>,
    pub(crate) virtual_: Vec<Pod>,
    pub(crate) pending: Vec<Pod>,
}

impl Places {
    fn of(pods: Vec<Pod>) -> Places {
        let mut places = Places::default();
        for pod in pods {
            match place_of(&pod) {
                None => places.pending.push(pod),
                Some(node) if node.starts_with("dedicated") => places.dedicated.push(pod),
                Some(_) => places.virtual_.push(pod),
            }
        }
        places
    }

    /// Dedicated, virtual, pending.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.dedicated.len(), self.virtual_.len(), self.pending.len())
    }
}

/// The decision on a pod; every pod on a virtual node must have one.
pub(crate) fn record(pod: &Pod) -> Record {
    let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
    Record::parse(annotation.unwrap_or_else(|| panic!("{:?} has no decision", pod.metadata.name))).expect("a record of ours")
}

/// Whether the scheduler's verdict Unschedulable stands on a pod.
pub(crate) fn is_refused(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|one| one.type_ == "PodScheduled" && one.reason.as_deref() == Some("Unschedulable"))
}

/// Who has written on an object, in the words of the API server.
pub(crate) fn writers(pod: &Pod) -> BTreeSet<String> {
    pod.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.manager.clone()).collect()
}

/// A pod that waits, and on which Spillway has written nothing.
pub(crate) fn assert_ordinary_pending(pod: &Pod) {
    assert_eq!(place_of(pod), None, "{:?}", pod.metadata.name);
    assert!(is_refused(pod), "{:?}", pod.status);
    assert_eq!(pod.metadata.annotations, None);
    assert!(!writers(pod).iter().any(|writer| writer.contains("spillway")), "{:?}", writers(pod));
}

/// Dedicated nodes first, then these virtual nodes.
pub(crate) fn dedicated_first(virtual_nodes: &[&str]) -> Value {
    json!([{"name": "dedicated"}, {"name": "serverless", "virtualNodes": virtual_nodes}])
}

fn pod_spec(cpu: &str, more: &Value) -> Value {
    let mut spec = json!({
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": "registry.example/work:1", "resources": {"requests": {"cpu": cpu, "memory": "128Mi"}}}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

/// The container list of a pod, with further fields in its container.
pub(crate) fn container(cpu: &str, more: &Value) -> Value {
    let mut container =
        json!({"name": "main", "image": "registry.example/work:1", "resources": {"requests": {"cpu": cpu, "memory": "128Mi"}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    json!({"containers": [container]})
}

/// The marker that sends a pod to the extender, as the container list of a pod.
pub(crate) fn marked(cpu: &str) -> Value {
    json!({"containers": [{"name": "main", "image": "registry.example/work:1",
        "resources": {"requests": {"cpu": cpu, "memory": "128Mi"}, "limits": {"spillway.dev/burst": "0"}}}]})
}

fn gvk(object: &Value) -> Result<GroupVersionKind> {
    let (version, kind) = (object["apiVersion"].as_str().context("apiVersion")?, object["kind"].as_str().context("kind")?);
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    Ok(GroupVersionKind::gvk(group, version, kind))
}

/// The program as built beside the tests; `make test` builds it first.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test program");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let program = folder.join("spillway");
    assert!(program.exists(), "{} is missing: run `cargo build` before the tests", program.display());
    program
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
