//! One row of the table: a workload of eight pods, a legacy workload beside it, and what becomes of both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};
use world::control_plane::{DedicatedNodes, VirtualNodeObject, place_of, summary, wait_until};

use super::{HOST, ZONE};
use crate::scenario::{Scenario, dedicated_first, is_refused, record, writers};

const REPLICAS: usize = 8;
const MACHINES: usize = 3;
/// A verdict that the snapshot contradicts is believed ten seconds after everything has settled; there are several such waits in
/// a rolling update, and all rows share two cores.
const PATIENCE: Duration = Duration::from_secs(90);

/// Who makes the pods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Deployment,
    Job,
}

/// A workload with its constraints, in a namespace of its own.
pub(super) struct Row {
    name: &'static str,
    owner: Owner,
    constraints: Value,
    per_machine: usize,
}

/// Where each of some pods is.
type Places = BTreeMap<String, Option<String>>;

impl Row {
    pub(super) fn new(name: &'static str, owner: Owner, constraints: Value, per_machine: usize) -> Row {
        Row { name, owner, constraints, per_machine }
    }

    fn machine(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    fn virtual_node(&self) -> String {
        format!("virtual-{}", self.name)
    }

    /// The namespace, and three machines with so much CPU each.
    pub(super) async fn machines(&self, scenario: &Scenario, cpu: &str) {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": {"row": self.name}}});
        scenario.apply(namespace).await.expect("a namespace");
        let machines = DedicatedNodes::new(self.name, MACHINES).cpu(cpu).memory("64Gi").zones(["a", "b", "c"]);
        scenario.plane.create_dedicated_nodes(&machines.label("row", self.name)).await.expect("machines");
    }

    /// Everything but the workload.
    pub(super) async fn install(&self, scenario: &Scenario) {
        // Two pods of half a CPU, and three small ones of the legacy workload.
        self.machines(scenario, "1300m").await;
        let name = self.virtual_node();
        let node = VirtualNodeObject::new(&name).label("backend", &name).label("row", self.name);
        scenario.plane.create_virtual_node(&node).await.expect("a virtual Node");
        let backend = json!({"inMemory": {"region": "here"}, "labels": {"row": self.name}});
        scenario.virtual_node_spec(&name, backend, "0.04").await;
        let here = json!({"namespaceSelector": {"matchLabels": {"row": self.name}}});
        scenario.policy(self.name, "burst", dedicated_first(&[&name]), here).await;
    }

    /// The life of the workload, from its creation to its second creation.
    pub(super) async fn play(&self, scenario: &Scenario) {
        self.legacy(scenario, 6).await;
        let legacy = self.settled(scenario, "before", "legacy", [2; MACHINES], 0).await;
        scenario.virtual_node_ready(&self.virtual_node()).await;
        self.create(scenario).await;
        self.exact(scenario, "created").await;

        // A machine's replica goes, and its successor takes its place.
        let pods = self.pods(scenario, "burst").await.expect("pods");
        let one = pods.iter().find(|pod| place_of(pod) == Some(&self.machine(0))).expect("a pod on the first machine");
        let name = one.metadata.name.as_deref().expect("a name");
        // At once: while it goes on running for its grace period, its place is taken.
        self.api::<Pod>(scenario).delete(name, &DeleteParams::default().grace_period(0)).await.expect("a pod");
        self.exact(scenario, "after a pod of a machine was deleted").await;

        if self.owner == Owner::Deployment {
            self.roll(scenario).await;
            self.scale(scenario, 2).await;
            wait_until("two are left", PATIENCE, async || {
                let pods = self.pods(scenario, "burst").await?;
                ensure!(pods.len() == 2, "{}", summary(&pods));
                Ok(())
            })
            .await
            .unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
            self.scale(scenario, REPLICAS).await;
            self.exact(scenario, "scaled in, out").await;
        }
        self.delete(scenario).await;
        self.create(scenario).await;
        self.exact(scenario, "created again").await;

        // The others: where they were, all the time, and as free to grow as ever.
        assert_eq!(self.places(scenario, "legacy").await.expect("pods"), legacy, "{}", self.name);
        self.legacy(scenario, 9).await;
        self.settled(scenario, "grown", "legacy", [3; MACHINES], 0).await;
    }

    /// Creates the workload.
    pub(super) async fn create(&self, scenario: &Scenario) {
        let labels = json!({"app": "burst"});
        let template = json!({"metadata": {"labels": labels}, "spec": self.pod("500m", &self.constraints)});
        let object = match self.owner {
            Owner::Deployment => json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "burst", "namespace": self.name},
                "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template,
                    // Half of them at a time: fewer steps, and more that is old and new at once.
                    "strategy": {"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": "50%"}}},
            }),
            Owner::Job => json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "burst", "namespace": self.name},
                "spec": {"completions": REPLICAS, "parallelism": REPLICAS, "backoffLimit": REPLICAS, "template": template},
            }),
        };
        scenario.apply(object).await.expect("a workload");
    }

    /// Deletes it and waits until its pods are gone.
    pub(super) async fn delete(&self, scenario: &Scenario) {
        let everything = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        let deleted = match self.owner {
            Owner::Deployment => self.api::<Deployment>(scenario).delete("burst", &everything).await.map(drop),
            Owner::Job => self.api::<Job>(scenario).delete("burst", &everything).await.map(drop),
        };
        deleted.expect("it was there");
        wait_until("all are gone", PATIENCE, async || {
            let pods = self.pods(scenario, "burst").await?;
            ensure!(pods.is_empty(), "{}", summary(&pods));
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
    }

    /// Waits until machines, the fullest last, have so many pods of the workload, and so many wait for ever.
    pub(super) async fn spread(&self, scenario: &Scenario, sorted: &[usize; MACHINES], waiting: usize) {
        wait_until(&format!("{sorted:?} and {waiting} waiting"), PATIENCE, async || {
            let pods = self.pods(scenario, "burst").await?;
            let (mut machines, elsewhere) = self.count(&pods);
            machines.sort_unstable();
            let refused = pods.iter().filter(|pod| place_of(pod).is_none() && is_refused(pod)).count();
            ensure!(machines == *sorted && elsewhere == 0 && refused == waiting, "{machines:?}, {}", summary(&pods));
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
    }

    /// As many on each machine as there may be, all others on the virtual node, none waiting.
    async fn exact(&self, scenario: &Scenario, when: &str) {
        let outside = REPLICAS - MACHINES * self.per_machine;
        self.settled(scenario, when, "burst", [self.per_machine; MACHINES], outside).await;
        for pod in self.pods(scenario, "burst").await.expect("pods") {
            if place_of(&pod) == Some(&self.virtual_node()) {
                assert_eq!(*record(&pod).policy, *self.name, "{} {when}", self.name);
            } else {
                assert!(!writers(&pod).iter().any(|writer| writer.contains("spillway")), "{} {when}", self.name);
            }
        }
    }

    async fn settled(&self, scenario: &Scenario, when: &str, app: &str, machines: [usize; MACHINES], outside: usize) -> Places {
        let wanted = (machines, outside);
        wait_until(&format!("{app} {when} at {wanted:?}"), PATIENCE, async || {
            let pods = self.pods(scenario, app).await?;
            let running = pods.iter().filter(|pod| is_running(pod)).count();
            ensure!(self.count(&pods) == wanted && running == pods.len(), "{}", summary(&pods));
            self.places(scenario, app).await
        })
        .await
        .unwrap_or_else(|error| panic!("{}: {error:#}\n{}", self.name, scenario.log()))
    }

    /// A rolling update, all of whose steps respect the constraints: they are looked at again and again while it goes on.
    async fn roll(&self, scenario: &Scenario) {
        let before: BTreeSet<String> = self.places(scenario, "burst").await.expect("pods").into_keys().collect();
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
        self.api::<Deployment>(scenario)
            .patch("burst", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("a Deployment");
        wait_until("all are new", PATIENCE, async || {
            let pods = self.pods(scenario, "burst").await?;
            let is_new = |pod: &&Pod| !before.contains(pod.metadata.uid.as_deref().unwrap_or_default());
            let new: Vec<Pod> = pods.iter().filter(is_new).cloned().collect();
            self.assert_allowed(scenario, &pods, &new);
            let running = new.iter().filter(|pod| is_running(pod)).count();
            ensure!(pods.len() == REPLICAS && running == REPLICAS, "{running} new of {}", summary(&pods));
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{}: {error:#}\n{}", self.name, scenario.log()));
    }

    /// A pod that kube-scheduler had already counted on a machine when Spillway's Binding was the first leaves a gap: each such
    /// race may cost a hard spread one.
    fn assert_allowed(&self, scenario: &Scenario, all: &[Pod], new: &[Pod]) {
        let text = self.constraints.to_string();
        let (machines, _) = self.count(all);
        if text.contains("requiredDuring") {
            assert!(machines.iter().all(|pods| *pods <= 1), "{}: {}", self.name, summary(all));
        }
        if text.contains("DoNotSchedule") {
            let (machines, _) = self.count(new);
            let skew = machines.iter().max().zip(machines.iter().min()).map_or(0, |(most, least)| most - least);
            assert!(skew <= 1 + self.races_lost(scenario), "{}: {}", self.name, summary(new));
        }
    }

    /// How often kube-scheduler came too late with a pod of this row.
    fn races_lost(&self, scenario: &Scenario) -> usize {
        let pod = format!("pod=\"{}/", self.name);
        let log = scenario.plane.log_of("kube-scheduler");
        log.lines().filter(|line| line.contains("Abort adding it back to queue") && line.contains(&pod)).count()
    }

    async fn scale(&self, scenario: &Scenario, replicas: usize) {
        let patch = json!({"spec": {"replicas": replicas}});
        let api = self.api::<Deployment>(scenario);
        api.patch("burst", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a Deployment");
    }

    /// A workload that no policy selects and nobody has touched for years, with hard constraints on both keys.
    async fn legacy(&self, scenario: &Scenario, replicas: usize) {
        let hard = |key: &str| {
            json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "legacy"}}})
        };
        let constraints = json!({"topologySpreadConstraints": [hard(HOST), hard(ZONE)]});
        let labels = json!({"app": "legacy"});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "legacy", "namespace": self.name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": self.pod("100m", &constraints)}},
        });
        scenario.apply(deployment).await.expect("a Deployment");
    }

    fn pod(&self, cpu: &str, more: &Value) -> Value {
        let mut spec = json!({
            "nodeSelector": {"row": self.name},
            "containers": [{"name": "main", "image": "registry.example/work:1", "resources": {"requests": {"cpu": cpu, "memory": "128Mi"}}}],
        });
        if self.owner == Owner::Job && cpu == "500m" {
            spec["restartPolicy"] = json!("Never");
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    }

    async fn pods(&self, scenario: &Scenario, app: &str) -> Result<Vec<Pod>> {
        scenario.plane.pods(self.name, &format!("app={app}")).await
    }

    async fn places(&self, scenario: &Scenario, app: &str) -> Result<Places> {
        let pods = self.pods(scenario, app).await?;
        Ok(pods
            .into_iter()
            .map(|pod| (pod.metadata.uid.clone().unwrap_or_default(), place_of(&pod).map(str::to_owned)))
            .collect())
    }

    /// Pods on each machine, and on the virtual node.
    fn count(&self, pods: &[Pod]) -> ([usize; MACHINES], usize) {
        let on = |node: &str| pods.iter().filter(|pod| place_of(pod) == Some(node)).count();
        (std::array::from_fn(|number| on(&self.machine(number))), on(&self.virtual_node()))
    }

    fn api<K>(&self, scenario: &Scenario) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(scenario.client.clone(), self.name)
    }
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}
