//! DaemonSets roll on beside virtual nodes.

use anyhow::ensure;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use scheduler_extender::{daemon_sets, guards, run};
use serde_json::{Value, json};
use world::control_plane::{ControlPlane, User, VirtualNodeObject, place_of, wait_until};

use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario};

fn everything() -> Value {
    json!({"tolerations": [{"operator": "Exists"}]})
}

fn linux(mut spec: Value) -> Value {
    spec["nodeSelector"] = json!({"kubernetes.io/os": "linux"});
    spec
}

fn daemon_set(name: &str, image: &str, spec: &Value) -> DaemonSet {
    let mut template = json!({"containers": [{"name": "main", "image": image}], "terminationGracePeriodSeconds": 0});
    for (key, value) in spec.as_object().into_iter().flatten() {
        template[key] = value.clone();
    }
    let labels = json!({"app": name});
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": template}},
    }))
    .expect("a DaemonSet")
}

fn terms(daemon_set: &DaemonSet) -> Value {
    let spec = serde_json::to_value(daemon_set).expect("JSON")["spec"]["template"]["spec"].clone();
    spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].clone()
}

/// The DaemonSets of a scenario.
struct Sets<'a> {
    scenario: &'a Scenario,
    api: Api<DaemonSet>,
}

impl Sets<'_> {
    fn of(scenario: &Scenario) -> Sets<'_> {
        Sets { scenario, api: Api::namespaced(scenario.client.clone(), NAMESPACE) }
    }

    async fn create(&self, name: &str, spec: &Value) -> DaemonSet {
        self.api.create(&PostParams::default(), &daemon_set(name, "registry.example/agent:1", spec)).await.expect("a DaemonSet")
    }

    async fn roll(&self, name: &str, version: u32) {
        let containers = json!([{"name": "main", "image": format!("registry.example/agent:{version}")}]);
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        self.api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.expect("a rolling update");
    }

    /// Waits for the numbers of a status: pods that should be, that are available, that are new.
    async fn reaches(&self, name: &str, desired: i32, available: i32, updated: i32) {
        wait_until(&format!("{name}: {desired} desired, {available} available, {updated} updated"), PATIENCE, async || {
            let daemon_set = self.api.get(name).await?;
            let status = daemon_set.status.clone().unwrap_or_default();
            let seen = (
                status.desired_number_scheduled,
                status.number_available.unwrap_or(0),
                status.updated_number_scheduled.unwrap_or(0),
            );
            ensure!(
                seen == (desired, available, updated) && status.observed_generation == daemon_set.metadata.generation,
                "{seen:?}"
            );
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.scenario.log()));
    }

    /// Versions of the pods on dedicated nodes, and of those that wait.
    async fn versions(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let pods = self.scenario.plane.pods(NAMESPACE, &format!("app={name}")).await.expect("pods");
        let version = |pod: &Pod| {
            pod.spec
                .as_ref()
                .and_then(|spec| spec.containers[0].image.clone())
                .unwrap_or_default()
                .replace("registry.example/agent:", "")
        };
        let (placed, waiting): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| place_of(pod).is_some());
        (placed.into_iter().map(version).collect(), waiting.into_iter().map(version).collect())
    }
}

/// Frozen without Spillway, and rolling again as soon as it is there.
#[tokio::test]
async fn rolling_updates_of_daemon_sets_are_complete_beside_a_virtual_node() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(2, "4").await;
    let stock = VirtualNodeObject::new("virtual-0").label("backend", "virtual-0").label("kubernetes.io/os", "linux");
    scenario.plane.create_virtual_node(&stock).await.expect("a Node");
    let sets = Sets::of(&scenario);
    let cases = [
        ("tolerant", everything()),
        ("tolerant-linux", linux(everything())),
        ("plain", json!({})),
        ("plain-linux", linux(json!({}))),
    ];
    for (name, spec) in &cases {
        sets.create(name, spec).await;
    }
    for (name, _) in &cases {
        sets.reaches(name, if name.starts_with("tolerant") { 3 } else { 2 }, 2, if name.starts_with("tolerant") { 3 } else { 2 })
            .await;
        sets.roll(name, 2).await;
    }
    // The others are the clock: they roll twice, and those that tolerate everything do not get beyond the pod that waits.
    for version in [2, 3] {
        for name in ["plain", "plain-linux"] {
            sets.reaches(name, 2, 2, 2).await;
            if version == 2 {
                sets.roll(name, 3).await;
            }
        }
        for name in ["tolerant", "tolerant-linux"] {
            sets.reaches(name, 3, 2, 1).await;
            assert_eq!(sets.versions(name).await, (vec!["1".to_owned(); 2], vec!["2".to_owned()]), "{name} is frozen");
        }
    }

    let linux_before = sets.api.get("tolerant-linux").await.expect("it is there").metadata.generation;
    scenario.virtual_node_spec("virtual-0", json!({"inMemory": {"region": "here"}}), "0.04").await;
    scenario.start().await;
    for name in ["tolerant", "tolerant-linux"] {
        sets.reaches(name, 2, 2, 2).await;
        assert_eq!(sets.versions(name).await, (vec!["2".to_owned(); 2], vec![]), "{name} rolls again");
    }
    scenario.virtual_node_ready("virtual-0").await;
    // A selector for the platform keeps it off already: its pods are not restarted for anything.
    assert_eq!(sets.api.get("tolerant-linux").await.expect("it is there").metadata.generation, linux_before);
    for (name, _) in &cases {
        sets.roll(name, 4).await;
    }
    // A new one is kept off when it is written, and so is one that would come back.
    let new = sets.create("new", &everything()).await;
    let kept_off = json!([{"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}]}]);
    assert_eq!(terms(&new), kept_off);
    let undo = json!({"spec": {"template": {"spec": {"affinity": null}}}});
    let undone = sets.api.patch("tolerant", &PatchParams::default(), &Patch::Merge(undo)).await.expect("a patch");
    assert_eq!(terms(&undone), kept_off);
    for (name, _) in &cases {
        sets.reaches(name, 2, 2, 2).await;
        assert_eq!(sets.versions(name).await, (vec!["4".to_owned(); 2], vec![]), "{name}");
    }
    sets.reaches("new", 2, 2, 2).await;
    assert_eq!(scenario.metric("spillway_daemon_sets_open").await, 0.0);
}

/// As before Kubernetes 1.36: no MutatingAdmissionPolicies.
#[tokio::test]
async fn an_older_api_server_is_served_as_well_and_a_daemon_set_that_comes_back_is_reported() {
    let resources = ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"]
        .map(|resource| format!("admissionregistration.k8s.io/v1/{resource}=false"))
        .join(",");
    let scenario = Scenario::with(Extender::Absent, world::control_plane::SchedulerOptions::new(), |builder| {
        builder
            .api_server_flag("--feature-gates=MutatingAdmissionPolicy=false")
            .api_server_flag(&format!("--runtime-config={resources}"))
    })
    .await
    .expect("a control plane");
    let policies = run::AdmissionPolicies::of(&scenario.client, guards::COMPONENT).await.expect("an answer");
    assert!(!policies.can_mutate(), "this API server has none");
    scenario.dedicated(1, "4").await;
    let sets = Sets::of(&scenario);
    sets.create("tolerant", &everything()).await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.start().await;
    scenario.virtual_node_ready("virtual-0").await;
    // It was kept off before the virtual node was used for anything.
    let kept_off = sets.api.get("tolerant").await.expect("it is there");
    assert_eq!(daemon_sets::operations(&kept_off), Vec::<Value>::new());
    sets.reaches("tolerant", 1, 1, 1).await;

    // Somebody applies his own version again. Patching it once more would restart its pods for ever.
    let undo = json!({"spec": {"template": {"spec": {"affinity": null}}}});
    let undone = sets.api.patch("tolerant", &PatchParams::default(), &Patch::Merge(undo)).await.expect("a patch");
    assert_eq!(terms(&undone), Value::Null);
    wait_until("it is reported", PATIENCE, async || {
        ensure!(scenario.metric("spillway_daemon_sets_open").await > 0.5, "not yet");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    let event = scenario.event("tolerant", "ReachesVirtualNodes").await;
    assert!(event.contains("type NotIn [virtual-kubelet]"), "{event}");
    assert_eq!(
        sets.api.get("tolerant").await.expect("it is there").metadata.generation,
        undone.metadata.generation,
        "left alone"
    );
    // The Node is kept in order there, too.
    let node: Api<k8s_openapi::api::core::v1::Node> = Api::all(scenario.client.clone());
    let host = json!({"metadata": {"labels": {"kubernetes.io/hostname": "virtual-0"}}});
    node.patch("virtual-0", &PatchParams::default(), &Patch::Merge(host)).await.expect("a patch");
    wait_until("no hostname", PATIENCE, async || {
        ensure!(!node.get("virtual-0").await?.labels().contains_key("kubernetes.io/hostname"), "still");
        Ok(())
    })
    .await
    .expect("repaired");
}

/// Templates, and whether they are open.
fn templates() -> Vec<(&'static str, bool, Value)> {
    let required =
        |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let expression = |key: &str, operator: &str, values: &[&str]| {
        let values = if values.is_empty() { Value::Null } else { json!(values) };
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    };
    let with = |affinity: Value| json!({"tolerations": [{"operator": "Exists"}], "affinity": affinity});
    let tolerating = |toleration: Value| json!({"tolerations": [toleration]});
    vec![
        ("nothing", false, json!({})),
        ("everything", true, everything()),
        ("no-schedule", true, tolerating(json!({"operator": "Exists", "effect": "NoSchedule"}))),
        ("no-execute", false, tolerating(json!({"operator": "Exists", "effect": "NoExecute"}))),
        ("by-name", true, tolerating(json!({"key": "spillway.dev/virtual-node", "operator": "Exists"}))),
        ("another", false, tolerating(json!({"key": "team", "operator": "Exists"}))),
        ("os", false, linux(everything())),
        ("role", true, json!({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"role": "worker"}})),
        ("meant-for-it", false, json!({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"type": "virtual-kubelet"}})),
        ("pod-affinity", true, with(json!({"podAntiAffinity": {}}))),
        (
            "preferred",
            true,
            with(json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
            [{"weight": 1, "preference": expression("role", "In", &["worker"])}]}})),
        ),
        (
            "terms",
            true,
            with(required(json!([expression("role", "In", &["worker"]), expression("kubernetes.io/os", "In", &["linux"])]))),
        ),
        (
            "closed-terms",
            false,
            with(required(json!([expression("kubernetes.io/arch", "Exists", &[]), expression("type", "In", &["machine"])]))),
        ),
        ("negations", true, with(required(json!([expression("kubernetes.io/os", "NotIn", &["windows"])])))),
        (
            "fields",
            true,
            with(required(json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["x"]}]}]))),
        ),
        ("kept-off", false, with(required(json!([expression("type", "NotIn", &["virtual-kubelet"])])))),
    ]
}

/// The policy and the patch say the same of every template.
#[tokio::test]
async fn the_daemon_set_guard_and_the_patch_go_by_one_rule() {
    let plane = ControlPlane::builder().scheduler(None).controllers(None).kwok(false).start().await.expect("an API server");
    let client: Client = plane.client(User::Admin).expect("a client");
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), "default");
    let made = |name: &str, spec: &Value| {
        let mut made = daemon_set(name, "registry.example/agent:1", spec);
        made.metadata.namespace = None;
        made
    };
    let mut patched = Vec::new();
    for (name, open, spec) in templates() {
        let stored = sets.create(&PostParams::default(), &made(name, &spec)).await.expect("a DaemonSet");
        let patch = daemon_sets::patch(&stored);
        assert_eq!(patch.is_some(), open, "{name}");
        let Some(patch) = patch else {
            patched.push((name, spec, stored));
            continue;
        };
        let patch = serde_json::from_value(patch).expect("a JSON patch");
        let after = sets.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch)).await.expect("patched");
        assert_eq!(daemon_sets::patch(&after), None, "{name}: once is enough");
        assert!(daemon_sets::was_patched(&after));
        patched.push((name, spec, after));
    }
    let policies = run::AdmissionPolicies::of(&client, guards::COMPONENT).await.expect("an answer");
    let wanted = guards::guards(&guards::Subjects::default(), &guards::Guard::ALL);
    policies.put_in_force(&wanted).await.expect("in force");
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for (name, spec, patched) in patched {
        let guarded = sets.create(&dry_run, &made(&format!("{name}-guarded"), &spec)).await.expect("a DaemonSet");
        let affinity = |one: &DaemonSet| one.spec.clone().and_then(|spec| spec.template.spec).and_then(|spec| spec.affinity);
        assert_eq!(affinity(&guarded), affinity(&patched), "{name}");
    }
}
