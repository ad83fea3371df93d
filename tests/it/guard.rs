//! Virtual nodes stay closed, and records stay true, whoever may do whatever to pods.

#![expect(clippy::needless_pass_by_value, reason = "JSON literals read better without a reference")]

use anyhow::ensure;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, GetParams, ListParams, PostParams, Request};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use scheduler_extender::record::ANNOTATION;
use serde_json::{Value, json};
use world::control_plane::{User, VirtualNodeObject, place_of, wait_until};

use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, dedicated_first, record};

mod admission;
mod daemon_sets;
mod load_balancers;
mod nodes;

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Somebody, and what the API server says to him.
struct As {
    name: String,
    client: Client,
    /// The administrator speaks for him: the API server sees his name, his rights and nobody else's.
    impersonated: bool,
}

impl As {
    fn new(scenario: &Scenario, user: User) -> As {
        let client = scenario.plane.client(user).expect("a client");
        As { name: user.name().to_owned(), client, impersonated: false }
    }

    /// Any user by name.
    fn named(scenario: &Scenario, name: &str) -> As {
        As { name: name.to_owned(), client: scenario.client.clone(), impersonated: true }
    }

    /// The status code, and what was said to a refusal.
    async fn send(&self, method: &str, path: &str, content: &str, body: &Value) -> (u16, String) {
        let mut request = Request::new("").get("any", &GetParams::default()).expect("a request to be filled in");
        *request.method_mut() = method.parse().expect("a method");
        *request.uri_mut() = path.parse().expect("a path");
        request.headers_mut().insert("content-type", content.parse().expect("a type"));
        if self.impersonated {
            request.headers_mut().insert("impersonate-user", self.name.parse().expect("a name"));
        }
        *request.body_mut() = serde_json::to_vec(body).expect("JSON");
        match self.client.request_text(request).await {
            Ok(_) => (200, String::new()),
            Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
            Err(error) => panic!("{} {method} {path}: {error}", self.name),
        }
    }

    async fn refused(&self, what: &str, method: &str, path: &str, content: &str, body: &Value) {
        let (code, message) = self.send(method, path, content, body).await;
        assert_eq!(code, 403, "{what} by {}: {message}", self.name);
        // Refused by the guard and by nothing else.
        assert!(message.contains("ValidatingAdmissionPolicy 'spillway-"), "{what} by {}: {message}", self.name);
        assert!(message.contains(&self.name), "{message}");
    }

    async fn allowed(&self, what: &str, method: &str, path: &str, content: &str, body: &Value) {
        let (code, message) = self.send(method, path, content, body).await;
        assert_eq!(code, 200, "{what} by {}: {message}", self.name);
    }

    /// Binds by the subresource and, where that is refused, by the old resource, too.
    async fn cannot_bind(&self, what: &str, pod: &str, node: &str, annotations: Value) {
        let binding = binding(pod, node, annotations);
        self.refused(what, "POST", &path(pod, "/binding"), JSON, &binding).await;
        self.refused(what, "POST", &format!("/api/v1/namespaces/{NAMESPACE}/bindings"), JSON, &binding).await;
    }
}

fn path(pod: &str, subresource: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}{subresource}")
}

fn binding(pod: &str, node: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod, "namespace": NAMESPACE, "annotations": annotations},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    })
}

/// A pod that no scheduler looks at.
fn idle(name: &str, annotations: Value, more: Value) -> Value {
    let mut spec = json!({"schedulerName": "nobody", "containers": [{"name": "main", "image": "registry.example/work:1"}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations}, "spec": spec})
}

/// Who may do everything but bind to virtual nodes.
const ALMOST_ADMIN: &str = "almost-admin";
/// A controller that makes pods.
const CONTROLLER: &str = "system:serviceaccount:kube-system:job-controller";
/// Who may do everything in the tests' namespace.
const TENANT: &str = "tenant";

/// Rights of several kinds of users; none has the verb `bind` on `virtualnodes`.
async fn empower(scenario: &Scenario) {
    let all_verbs =
        json!(["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "impersonate", "escalate"]);
    let grants = [
        ("alice", "ClusterRole", "alice", json!({"apiGroups": [""], "resources": ["*"], "verbs": ["*"]})),
        ("almost-admin", "ClusterRole", ALMOST_ADMIN, json!({"apiGroups": ["*"], "resources": ["*"], "verbs": all_verbs})),
        ("tenant", "Role", TENANT, json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})),
        (
            "controller",
            "ClusterRole",
            CONTROLLER,
            json!({"apiGroups": [""], "resources": ["pods", "pods/status", "pods/binding", "bindings"], "verbs": ["*"]}),
        ),
    ];
    for (name, kind, user, rule) in grants {
        let mut metadata = json!({"name": name});
        if kind == "Role" {
            metadata["namespace"] = json!(NAMESPACE);
        }
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        let role = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": [rule]});
        scenario.apply(role).await.expect("a role");
        let binding = json!({
            "apiVersion": version, "kind": format!("{kind}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        });
        scenario.apply(binding).await.expect("a role binding");
    }
    let alice = scenario.plane.client(User::Alice).expect("a client");
    wait_until("alice's rights", PATIENCE, async || {
        Ok(Api::<Pod>::all(alice.clone()).list(&Default::default()).await.map(drop)?)
    })
    .await
    .expect("RBAC in force");
}

#[tokio::test]
async fn only_spillway_binds_to_virtual_nodes_and_only_spillway_writes_records() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(1, "4").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("fan-out", "thumbs", dedicated_first(&["virtual-0"]), json!({})).await;
    empower(&scenario).await;
    scenario.start().await;
    scenario.virtual_node_ready("virtual-0").await;
    let [alice, scheduler, admin, spillway] =
        [User::Alice, User::Scheduler, User::Admin, User::Spillway].map(|user| As::new(&scenario, user));

    let [almost, tenant, controller] = [ALMOST_ADMIN, TENANT, CONTROLLER].map(|name| As::named(&scenario, name));

    bindings([&alice, &scheduler, &almost, &tenant, &controller], &spillway).await;
    placements([&alice, &almost, &tenant, &controller], &admin).await;
    records(&scenario, &alice).await;
    everything_else(&scenario, &alice).await;
    break_glass(&scenario, &admin).await;
    who_tolerates_everything_stays_out(&scenario).await;
}

/// Bindings, by both resources; a record in a Binding is a record.
async fn bindings(others: [&As; 5], spillway: &As) {
    let [alice, scheduler, ..] = others;
    let forged = json!({ANNOTATION: "{}"});
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    alice.allowed("an idle pod", "POST", &pods, JSON, &idle("idle", json!({}), json!({}))).await;
    for user in others {
        user.cannot_bind("to a virtual node", "idle", "virtual-0", json!({})).await;
        user.cannot_bind("to a virtual node with a record", "idle", "virtual-0", forged.clone()).await;
        user.cannot_bind("a record to a dedicated node", "idle", "dedicated-0", forged.clone()).await;
        user.cannot_bind("an empty record", "idle", "dedicated-0", json!({ANNOTATION: ""})).await;
    }
    spillway.allowed("Spillway's own", "POST", &path("idle", "/binding"), JSON, &binding("idle", "virtual-0", forged)).await;
    for (user, name) in [(alice, "ordinary-a"), (scheduler, "ordinary-b")] {
        alice.allowed("an idle pod", "POST", &pods, JSON, &idle(name, json!({}), json!({}))).await;
        let ordinary = binding(name, "dedicated-0", json!({"note": "mine"}));
        user.allowed("an ordinary Binding", "POST", &path(name, "/binding"), JSON, &ordinary).await;
    }
}

/// `spec.nodeName` at creation.
async fn placements(others: [&As; 4], admin: &As) {
    let alice = others[0];
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    for user in others {
        user.refused("spec.nodeName", "POST", &pods, JSON, &idle("placed", json!({}), json!({"nodeName": "virtual-0"}))).await;
        user.refused("a record at creation", "POST", &pods, JSON, &idle("placed", json!({ANNOTATION: "{}"}), json!({}))).await;
        let patch = json!({"metadata": {"annotations": {ANNOTATION: null}}});
        user.refused("the removal of a record", "PATCH", &path("idle", ""), MERGE, &patch).await;
        user.refused("its removal through the status", "PATCH", &path("idle", "/status"), MERGE, &patch).await;
    }
    let applied = idle("placed", json!({}), json!({"nodeName": "virtual-0"}));
    let apply = format!("{}?fieldManager=alice&force=true", path("placed", ""));
    alice.refused("spec.nodeName by apply", "PATCH", &apply, APPLY, &applied).await;
    alice.allowed("a dedicated node", "POST", &pods, JSON, &idle("placed", json!({}), json!({"nodeName": "dedicated-0"}))).await;
    admin.allowed("break-glass", "POST", &pods, JSON, &idle("glass-placed", json!({}), json!({"nodeName": "virtual-0"}))).await;
}

/// The annotation: at creation, by update and patch, on a pod that has one and on a pod that has none.
async fn records(scenario: &Scenario, alice: &As) {
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let apply = |pod: &str| format!("{}?fieldManager=alice&force=true", path(pod, ""));
    for value in ["{}", ""] {
        let note = json!({ANNOTATION: value});
        alice.refused("a record at creation", "POST", &pods, JSON, &idle("forged", note.clone(), json!({}))).await;
        alice.refused("creation by apply", "PATCH", &apply("forged"), APPLY, &idle("forged", note.clone(), json!({}))).await;
        let patch = json!({"metadata": {"annotations": note}});
        alice.refused("a record by patch", "PATCH", &path("ordinary-a", ""), MERGE, &patch).await;
        alice.refused("a record through status", "PATCH", &path("ordinary-a", "/status"), MERGE, &patch).await;
        let applied = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ordinary-a", "namespace": NAMESPACE, "annotations": note}});
        alice.refused("a record by apply", "PATCH", &apply("ordinary-a"), APPLY, &applied).await;
        let status = format!("{}?fieldManager=alice&force=true", path("ordinary-a", "/status"));
        alice.refused("a record by apply to status", "PATCH", &status, APPLY, &applied).await;
    }
    for (what, value) in
        [("a changed record", json!("{\"quote\":\"0\"}")), ("no record", Value::Null), ("an empty record", json!(""))]
    {
        let patch = json!({"metadata": {"annotations": {ANNOTATION: value}}});
        alice.refused(what, "PATCH", &path("idle", ""), MERGE, &patch).await;
        alice.refused(what, "PATCH", &path("idle", "/status"), MERGE, &patch).await;
    }
    let mut whole = scenario.get("idle").await;
    whole.metadata.annotations.as_mut().expect("annotations").remove(ANNOTATION);
    let whole = serde_json::to_value(whole).expect("JSON");
    alice.refused("removal by update", "PUT", &path("idle", ""), JSON, &whole).await;
    alice.refused("removal by update of the status", "PUT", &path("idle", "/status"), JSON, &whole).await;
    assert_eq!(scenario.get("idle").await.metadata.annotations.expect("annotations")[ANNOTATION], "{}");
}

/// The guards concern nothing else.
async fn everything_else(scenario: &Scenario, alice: &As) {
    for pod in ["ordinary-a", "idle"] {
        let hints = json!({"metadata": {
            "annotations": {"spillway.dev/expected-duration": "5m", "spillway.dev/deadline": "2026-12-01T00:00:00Z", "note": "x"},
            "labels": {"spillway.dev/do-not-burst": "true", "other": "y"},
        }});
        alice.allowed("hints, annotations, labels", "PATCH", &path(pod, ""), MERGE, &hints).await;
        let without = json!({"metadata": {"annotations": {"spillway.dev/expected-duration": null, "note": null}}});
        alice.allowed("their removal", "PATCH", &path(pod, ""), MERGE, &without).await;
        let status = json!({"status": {"message": "hello"}});
        alice.allowed("a status", "PATCH", &path(pod, "/status"), MERGE, &status).await;
        let whole = serde_json::to_value(scenario.get(pod).await).expect("JSON");
        alice.allowed("a whole pod as it is", "PUT", &path(pod, ""), JSON, &whole).await;
    }
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let hinted = idle("hinted", json!({"spillway.dev/expected-duration": "5m"}), json!({}));
    alice.allowed("a hint at creation", "POST", &pods, JSON, &hinted).await;
    for pod in ["idle", "hinted"] {
        alice.allowed("deletion", "DELETE", &path(pod, ""), JSON, &json!({})).await;
    }
}

/// `system:masters` pass every check of the authorizer: who may do everything is not kept from repairing anything.
async fn break_glass(scenario: &Scenario, admin: &As) {
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    admin.allowed("an idle pod", "POST", &pods, JSON, &idle("glass", json!({}), json!({}))).await;
    let noted = binding("glass", "virtual-0", json!({ANNOTATION: "{}"}));
    admin.allowed("break-glass", "POST", &path("glass", "/binding"), JSON, &noted).await;
    // Spillway does not take for a record what it has not written, and says so.
    let text = scenario.event("glass", "InvalidDecision").await;
    assert!(text.contains(ANNOTATION), "{text}");
}

/// Tolerations open nothing: the node has room for no pod at all.
async fn who_tolerates_everything_stays_out(scenario: &Scenario) {
    let everything = json!([{"operator": "Exists"}]);
    let by_name = json!([{"key": "spillway.dev/virtual-node", "operator": "Exists"}]);
    // Another's virtual kubelet, with room and a taint that its users have always tolerated, is adopted.
    let nodes: Api<Node> = Api::all(scenario.client.clone());
    let foreign = serde_json::from_value(nodes::stock("vk", "vk")).expect("a Node");
    nodes.create(&PostParams::default(), &foreign).await.expect("a Node");
    scenario.virtual_node_spec("vk", json!({"inMemory": {"region": "here"}}), "0.04").await;
    scenario.object_condition("VirtualNode", "vk", "HygieneCompliant", "True", "Compliant").await;
    let provider = json!([{"key": "virtual-kubelet.io/provider", "operator": "Exists"}, {"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]);
    let cases = [
        ("of-old", "0", json!({"tolerations": provider, "nodeSelector": {"backend": "vk"}})),
        ("of-old-wild", "0", json!({"tolerations": everything, "nodeSelector": {"backend": "vk"}})),
        ("too-big", "64", json!({"tolerations": everything})),
        ("wants-it", "0", json!({"tolerations": everything, "nodeSelector": {"type": "virtual-kubelet"}})),
        ("wants-it-by-name", "0", json!({"tolerations": by_name, "nodeSelector": {"backend": "virtual-0"}})),
    ];
    for (name, cpu, more) in cases {
        scenario.pod(name, "not-selected", cpu, more).await;
        let verdict = wait_until(&format!("the scheduler's verdict on {name}"), PATIENCE, async || {
            let pod = scenario.get(name).await;
            ensure!(place_of(&pod).is_none(), "{name} is on {:?}", place_of(&pod));
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            let verdict = conditions.into_iter().find(|one| one.type_ == "PodScheduled" && one.status == "False");
            verdict.and_then(|one| one.message).ok_or_else(|| anyhow::anyhow!("no verdict"))
        })
        .await
        .expect("Unschedulable");
        let expected = if name == "of-old" { "untolerated taint" } else { "Too many pods" };
        assert!(verdict.contains(expected), "{name}: {verdict}");
    }
}

#[tokio::test]
async fn guards_follow_the_virtual_nodes_and_never_stop_dedicated_scheduling() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(2, "8").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("fan-out", "thumbs", dedicated_first(&["virtual-0", "virtual-1", "virtual-2"]), json!({})).await;
    empower(&scenario).await;
    scenario.start().await;
    let alice = As::new(&scenario, User::Alice);
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    alice.allowed("an idle pod", "POST", &pods, JSON, &idle("idle", json!({}), json!({}))).await;

    // As soon as a new virtual node says Ready, and before anything is sent there, it is guarded.
    for name in ["virtual-1", "virtual-2"] {
        scenario.virtual_node(name, "0.01").await;
        let app = format!("on-{name}");
        scenario.policy(&app, &app, json!([{"name": "serverless", "virtualNodes": [name]}]), json!({})).await;
        scenario.pod(&app, &app, "100", json!({})).await;
        scenario.virtual_node_ready(name).await;
        alice.cannot_bind("to a new virtual node", "idle", name, json!({})).await;
        let pod = scenario.all_bound(&app, 1).await.virtual_.remove(0);
        assert_eq!(&*record(&pod).virtual_node, name);
    }
    // A Node that is made anew comes back guarded: there is no moment without.
    scenario.plane.delete_node("virtual-1").await.expect("it is there");
    scenario.virtual_node_reason("virtual-1", "NoNode").await;
    alice.cannot_bind("to a virtual node that is away", "idle", "virtual-1", json!({})).await;
    let again = VirtualNodeObject::new("virtual-1").label("backend", "virtual-1");
    scenario.plane.create_virtual_node(&again).await.expect("a Node");
    scenario.virtual_node_ready("virtual-1").await;
    alice.cannot_bind("to a virtual node that is back", "idle", "virtual-1", json!({})).await;
    // A guard that somebody has removed is put back.
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(scenario.client.clone());
    policies.delete("spillway-bind-guard", &DeleteParams::default()).await.expect("it is there");
    let dry_run = format!("{}?dryRun=All", path("idle", "/binding"));
    wait_until("the guard is back and in force", PATIENCE, async || {
        let (code, message) = alice.send("POST", &dry_run, JSON, &binding("idle", "virtual-0", json!({}))).await;
        ensure!(code == 403, "{code} {message}");
        Ok(policies.get("spillway-bind-guard").await.map(drop)?)
    })
    .await
    .expect("back");
    // A VirtualNode that goes leaves its Node guarded as long as it carries Spillway's taint.
    let virtual_nodes: Api<scheduler_extender::api::VirtualNode> = Api::all(scenario.client.clone());
    virtual_nodes.delete("virtual-2", &DeleteParams::default()).await.expect("it is there");
    Api::<Node>::all(scenario.client.clone()).get("virtual-2").await.expect("the Node stays");

    nothing_stops_dedicated_scheduling(&scenario, &alice).await;
}

/// Types deleted, API server restarted: the guards depend on neither.
async fn nothing_stops_dedicated_scheduling(scenario: &Scenario, alice: &As) {
    let crds: Api<CustomResourceDefinition> = Api::all(scenario.client.clone());
    for crd in scheduler_extender::crds::crds() {
        let name = crd.metadata.name.unwrap_or_default();
        crds.delete(&name, &DeleteParams::default()).await.expect("it is there");
    }
    wait_until("the types are gone", PATIENCE, async || {
        let left = crds.list(&Default::default()).await?.items.len();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .await
    .expect("gone");
    for restarted in [false, true] {
        if restarted {
            scenario.plane.restart_apiserver().await.expect("it comes up again");
        }
        let app = format!("plain-{restarted}");
        scenario.job(&app, 4, "1", json!({})).await;
        assert_eq!(scenario.all_bound(&app, 4).await.counts(), (4, 0, 0), "restarted: {restarted}");
        for name in ["virtual-0", "virtual-1", "virtual-2"] {
            alice.cannot_bind(&format!("to {name} without types, restarted: {restarted}"), "idle", name, json!({})).await;
        }
    }
}

/// What belongs to an installation, and goes when it goes.
#[derive(Clone, Copy, Debug)]
enum Part {
    Process,
    Types,
    Policies,
    Rights,
    Node,
}

impl Part {
    async fn remove(self, scenario: &Scenario) {
        let kind = |group: &str, version: &str, kind: &str| ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let all = |resource: &ApiResource| -> Api<DynamicObject> { Api::all_with(scenario.client.clone(), resource) };
        let ours = ListParams::default().labels("app.kubernetes.io/part-of=spillway");
        match self {
            Part::Process => scenario.kill(),
            Part::Types => {
                let crds = all(&kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
                crds.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("deleted");
                wait_until("no types", PATIENCE, async || {
                    ensure!(crds.list(&ListParams::default()).await?.items.is_empty(), "some are left");
                    Ok(())
                })
                .await
                .expect("gone");
            }
            Part::Policies => {
                for of in ["Validating", "Mutating"]
                    .iter()
                    .flat_map(|of| [format!("{of}AdmissionPolicyBinding"), format!("{of}AdmissionPolicy")])
                {
                    let policies = all(&kind("admissionregistration.k8s.io", "v1", &of));
                    policies.delete_collection(&DeleteParams::default(), &ours).await.expect("deleted");
                }
            }
            Part::Rights => {
                for of in ["ClusterRoleBinding", "ClusterRole"] {
                    let rights = all(&kind("rbac.authorization.k8s.io", "v1", of));
                    rights.delete_collection(&DeleteParams::default(), &ours).await.expect("deleted");
                }
            }
            Part::Node => scenario.plane.delete_node("virtual-0").await.expect("it is there"),
        }
    }
}

#[tokio::test]
async fn uninstalled_in_any_order_nothing_stops_dedicated_scheduling() {
    use Part::{Node, Policies, Process, Rights, Types};
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(2, "16").await;
    let orders = [
        [Process, Policies, Node, Types, Rights],
        [Types, Rights, Policies, Node, Process],
        [Node, Policies, Types, Process, Rights],
    ];
    for (round, order) in orders.into_iter().enumerate() {
        if round > 0 {
            scenario.install().await.expect("installed again");
        }
        scenario.virtual_node("virtual-0", "0.04").await;
        scenario.start().await;
        scenario.virtual_node_ready("virtual-0").await;
        for (step, part) in order.into_iter().enumerate() {
            part.remove(&scenario).await;
            // The API server may come back in the middle of it, with whatever is left.
            if (round, step) == (1, 2) {
                scenario.plane.restart_apiserver().await.expect("it comes up again");
            }
            let app = format!("plain-{round}-{step}");
            scenario.job(&app, 2, "100m", json!({})).await;
            assert_eq!(scenario.all_bound(&app, 2).await.counts(), (2, 0, 0), "{order:?} after {part:?}");
        }
        scenario.kill();
        // A Spillway that still ran may have put its policies back.
        Policies.remove(&scenario).await;
    }
}
