//! The harness itself: what the tests beside a real kube-scheduler rely on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use world::control_plane::{
    Component, ControlPlane, DedicatedNodes, ExtenderOptions, ExtenderTls, SchedulerOptions, User, VirtualNodeObject, place_of,
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn two_control_planes_side_by_side_run_a_job_each_and_leave_nothing_behind() {
    let started = Instant::now();
    let (first, second) = tokio::join!(ControlPlane::builder().start(), ControlPlane::builder().start());
    let (first, second) = (first.unwrap(), second.unwrap());
    println!("two control planes were ready after {:.1} s", started.elapsed().as_secs_f64());
    assert_ne!(first.api_server_url(), second.api_server_url());

    let (one, other) = tokio::join!(a_job_runs_and_ends(&first, "one"), a_job_runs_and_ends(&second, "other"));
    one.unwrap();
    other.unwrap();

    let folders = [first.folder().to_path_buf(), second.folder().to_path_buf()];
    assert!(folders.iter().all(|folder| processes_of(folder).len() == 6), "five components and the watchdog");
    drop((first, second));
    for folder in folders {
        assert_eq!(processes_of(&folder), Vec::<String>::new());
        assert!(!folder.exists());
    }
}

async fn a_job_runs_and_ends(plane: &ControlPlane, prefix: &str) -> Result<()> {
    let nodes = plane.create_dedicated_nodes(&DedicatedNodes::new(prefix, 3).cpu("2")).await?;
    let jobs = Api::<Job>::namespaced(plane.client(User::Admin)?, "default");
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "thumbnails"},
        "spec": {"completions": 12, "parallelism": 12, "template": {
            "metadata": {"annotations": {"kwok.example/run-seconds": "2"}},
            "spec": {"restartPolicy": "Never", "containers": [container("500m")]},
        }},
    });
    jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;

    // Exactly full: the scheduler counted, and no node but ours was used.
    let pods = plane.wait_until_bound(("default", "job-name=thumbnails"), 12, PATIENCE).await?;
    let mut per_node: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in &pods {
        *per_node.entry(place_of(pod).unwrap_or_default()).or_default() += 1;
    }
    assert_eq!(per_node, nodes.iter().map(|node| (node.as_str(), 4)).collect());

    wait_until("the Job complete", PATIENCE, async || {
        let status = jobs.get("thumbnails").await?.status.unwrap_or_default();
        ensure!(status.succeeded == Some(12), "{status:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_control_plane_behaves_like_a_cluster() {
    let started = Instant::now();
    let plane = ControlPlane::builder().second_scheduler(SchedulerOptions::new().named("second")).start().await.unwrap();
    println!("a control plane was ready after {:.1} s", started.elapsed().as_secs_f64());
    for component in plane.running() {
        println!("{}: {} MB", component.name(), plane.resident_bytes(component).unwrap() / 1_000_000);
    }
    a_virtual_node_stays_empty(&plane).await.unwrap();
    each_scheduler_serves_its_own_pods(&plane).await.unwrap();
    admission_policies_work(&plane).await.unwrap();
    rights_come_from_rbac(&plane).await.unwrap();
    a_node_that_goes_down_comes_back(&plane).await.unwrap();
    components_can_hang_and_restart(&plane).await.unwrap();
}

async fn a_virtual_node_stays_empty(plane: &ControlPlane) -> Result<()> {
    plane.create_virtual_node(&VirtualNodeObject::new("virtual").resources("100", "100Gi")).await?;
    let pod = json!({"containers": [container("100m")], "tolerations": [{"operator": "Exists"}]});
    create_pod(plane, "tolerant", &pod).await?;
    let pods = plane
        .wait_for_pods("a verdict", ("default", ""), 1, PATIENCE, |pod| {
            world::control_plane::summary(std::slice::from_ref(pod)).contains("Too many pods")
        })
        .await?;
    assert_eq!(place_of(&pods[0]), None);

    // It is open to a Binding all the same, and then KWOK runs the pod.
    bind(&plane.client(User::Admin)?, "tolerant", "virtual").await?;
    plane.wait_until_running(("default", ""), 1, PATIENCE).await?;
    delete_pod(plane, "tolerant").await
}

async fn each_scheduler_serves_its_own_pods(plane: &ControlPlane) -> Result<()> {
    plane.create_dedicated_nodes(&DedicatedNodes::new("dedicated", 2)).await?;
    plane.stop_scheduler();
    create_pod(plane, "of-second", &json!({"schedulerName": "second", "containers": [container("100m")]})).await?;
    create_pod(plane, "of-default", &json!({"containers": [container("100m")]})).await?;
    plane.wait_until_running(("default", "app=of-second"), 1, PATIENCE).await?;
    assert_eq!(place_of(&plane.pods("default", "app=of-default").await?[0]), None);
    // An extender that nobody serves: kube-scheduler takes the configuration and goes on without it.
    let mut extender = ExtenderOptions::new("https://127.0.0.1:1/v1");
    let server_name = Some("spillway-extender".to_owned());
    extender.tls = Some(ExtenderTls { ca_file: plane.folder().join("ca.crt"), client: None, server_name });
    plane.start_scheduler(SchedulerOptions::stock().extender(extender)).await?;
    plane.wait_until_running(("default", "app=of-default"), 1, PATIENCE).await?;
    let mut marked = container("100m");
    marked["resources"]["limits"] = json!({"spillway.dev/burst": "0"});
    create_pod(plane, "marked", &json!({"containers": [marked]})).await?;
    plane.wait_until_running(("default", "app=marked"), 1, PATIENCE).await?;
    let log = plane.log(Component::Scheduler);
    assert!(log.contains("https://127.0.0.1:1/v1"), "the extender was not called:\n{log}");
    delete_pod(plane, "marked").await?;
    delete_pod(plane, "of-second").await?;
    delete_pod(plane, "of-default").await
}

async fn admission_policies_work(plane: &ControlPlane) -> Result<()> {
    let admin = plane.client(User::Admin)?;
    let rules = |resource| json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}]});
    let binding = |kind: &str, name: &str, extra: Value| {
        let mut spec = json!({"policyName": name});
        spec.as_object_mut().expect("an object").extend(extra.as_object().cloned().unwrap_or_default());
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    };
    let policy = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    for object in [
        policy(
            "ValidatingAdmissionPolicy",
            "no-secrets-in-names",
            json!({
                "failurePolicy": "Fail", "matchConstraints": rules("configmaps"),
                "validations": [{"expression": "!object.metadata.name.startsWith('password')", "message": "a name is not a place for passwords"}],
            }),
        ),
        binding("ValidatingAdmissionPolicyBinding", "no-secrets-in-names", json!({"validationActions": ["Deny"]})),
        // ApplyConfiguration needs the OpenAPI document, which is the first thing that breaks in a bad build.
        policy(
            "MutatingAdmissionPolicy",
            "label",
            json!({
                "failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": rules("configmaps"),
                "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
                    "expression": "Object{metadata: Object.metadata{labels: {'seen': 'yes'}}}"}}],
            }),
        ),
        binding("MutatingAdmissionPolicyBinding", "label", json!({})),
    ] {
        let kind = object["kind"].as_str().unwrap_or_default();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
        let api = Api::<DynamicObject>::all_with(admin.clone(), &resource);
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    assert_eq!(Api::<ValidatingAdmissionPolicy>::all(admin.clone()).list(&ListParams::default()).await?.items.len(), 1);

    let config_maps = Api::<ConfigMap>::namespaced(admin, "default");
    let named = |name: &str| ConfigMap {
        metadata: kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    };
    let mut n = 0;
    wait_until("both policies in force", PATIENCE, async || {
        n += 1;
        let made = config_maps.create(&PostParams::default(), &named(&format!("map-{n}"))).await?;
        ensure!(made.metadata.labels.is_some_and(|labels| labels.get("seen").is_some_and(|seen| seen == "yes")), "no label");
        let refusal = config_maps.create(&PostParams::default(), &named(&format!("password-{n}"))).await;
        let refusal = refusal.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(refusal.contains("a name is not a place for passwords"), "not refused: {refusal}");
        Ok(())
    })
    .await
}

async fn rights_come_from_rbac(plane: &ControlPlane) -> Result<()> {
    let pods_of_alice = Api::<Pod>::namespaced(plane.client(User::Alice)?, "default");
    let refusal = pods_of_alice.list(&ListParams::default()).await.unwrap_err().to_string();
    assert!(refusal.contains("\"alice\" cannot list resource \"pods\""), "{refusal}");

    let subject = json!([{"kind": "User", "name": User::Alice.name(), "apiGroup": "rbac.authorization.k8s.io"}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": subject});
    let bindings = Api::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>::all(plane.client(User::Admin)?);
    bindings.create(&PostParams::default(), &serde_json::from_value(role)?).await?;
    wait_until("alice may look", PATIENCE, async || Ok(pods_of_alice.list(&ListParams::default()).await?)).await?;
    Ok(())
}

async fn a_node_that_goes_down_comes_back(plane: &ControlPlane) -> Result<()> {
    let nodes = Api::<Node>::all(plane.client(User::Admin)?);
    for (down, tainted) in [(json!("yes"), true), (Value::Null, false)] {
        let patch = json!({"metadata": {"annotations": {"kwok.example/down": down}}});
        nodes.patch("dedicated-0", &PatchParams::default(), &Patch::Merge(patch)).await?;
        wait_until("the node-lifecycle controller to follow", PATIENCE, async || {
            let taints = nodes.get("dedicated-0").await?.spec.and_then(|spec| spec.taints).unwrap_or_default();
            ensure!(taints.iter().any(|taint| taint.key == "node.kubernetes.io/not-ready") == tainted, "{taints:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn components_can_hang_and_restart(plane: &ControlPlane) -> Result<()> {
    plane.pause(Component::Scheduler)?;
    create_pod(plane, "patient", &json!({"containers": [container("100m")]})).await?;
    plane.restart_apiserver().await?;
    assert_eq!(place_of(&plane.pods("default", "app=patient").await?[0]), None, "the paused scheduler bound it");
    plane.resume(Component::Scheduler)?;
    plane.wait_until_running(("default", "app=patient"), 1, PATIENCE).await?;
    assert!(plane.metrics(Component::Scheduler).await?.contains("scheduler_pending_pods"));
    assert!(plane.start(Component::Scheduler).await.unwrap_err().to_string().contains("runs already"));
    Ok(())
}

#[tokio::test]
async fn a_component_that_does_not_come_up_is_reported_with_its_log() {
    let options = SchedulerOptions { flags: vec!["--no-such-flag".to_owned()], ..SchedulerOptions::new() };
    let error = ControlPlane::builder().scheduler(options).controllers(None).kwok(false).start().await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("kube-scheduler") && text.contains("unknown flag: --no-such-flag"), "{text}");
}

/// Plays two parts: the test starts this binary again for the same test, with the variable set, and kills that process.
#[tokio::test]
async fn nothing_is_left_when_the_test_process_is_killed() {
    const ROLE: &str = "SPILLWAY_TEST_PROCESS_TO_KILL";
    if std::env::var_os(ROLE).is_some() {
        let plane = ControlPlane::builder().controllers(None).start().await.unwrap();
        // A paused process is the hardest to end.
        plane.pause(Component::Scheduler).unwrap();
        println!("\nfolder={}", plane.folder().display());
        tokio::time::sleep(PATIENCE).await;
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["control_plane::nothing_is_left_when_the_test_process_is_killed", "--exact", "--nocapture"])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    let folder = output.lines().map_while(Result::ok).find_map(|line| line.strip_prefix("folder=").map(str::to_owned));
    let folder = folder.expect("the other process starts a control plane and says where");
    let folder = Path::new(&folder);
    assert_eq!(processes_of(folder).len(), 5, "four components and the watchdog: {:?}", processes_of(folder));

    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until("no process left", Duration::from_secs(10), async || {
        let left = processes_of(folder);
        ensure!(left.is_empty() && !folder.exists(), "{left:?}");
        Ok(())
    })
    .await
    .unwrap();
}

fn container(cpu: &str) -> Value {
    json!({"name": "main", "image": "example/thumbnailer:1", "resources": {"requests": {"cpu": cpu}}})
}

async fn create_pod(plane: &ControlPlane, name: &str, spec: &Value) -> Result<()> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
    let api = Api::<Pod>::namespaced(plane.client(User::Admin)?, "default");
    api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}

async fn delete_pod(plane: &ControlPlane, name: &str) -> Result<()> {
    let api = Api::<Pod>::namespaced(plane.client(User::Admin)?, "default");
    api.delete(name, &DeleteParams::default()).await?;
    wait_until("KWOK to end the pod", PATIENCE, async || {
        ensure!(api.get_opt(name).await?.is_none(), "{name} is there");
        Ok(())
    })
    .await
}

async fn bind(client: &Client, pod: &str, node: &str) -> Result<()> {
    let binding =
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": node}});
    let _: Value = Api::<Pod>::namespaced(client.clone(), "default")
        .create_subresource("binding", pod, &PostParams::default(), &binding)
        .await?;
    Ok(())
}

/// Command lines of the processes that work in `folder`, from /proc.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(&folder)).collect()
}
