//! What generated admission policies do to pods: the extender's marker and the scheduling gate, as the policies come and go.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use scheduler_extender::api;
use serde_json::{Value, json};
use world::control_plane::{place_of, wait_until};

use crate::scenario::{Extender, PATIENCE, Scenario, container, dedicated_first, record};

fn serverless_first(virtual_nodes: &[&str]) -> Value {
    json!([{"name": "serverless", "virtualNodes": virtual_nodes}, {"name": "dedicated"}])
}

/// A pod as it would be stored.
async fn admitted(scenario: &Scenario, labels: Value, spec: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": "probe", "labels": labels}, "spec": container("1", &json!({}))});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    scenario.pods().create(&dry, &serde_json::from_value(pod).expect("a pod")).await.expect("admitted")
}

/// The marker of the first container.
fn mark(pod: &Pod) -> Option<String> {
    let resources = pod.spec.as_ref()?.containers.first()?.resources.clone()?;
    resources.limits?.get("spillway.dev/burst").map(|limit| limit.0.clone())
}

fn gates(pod: &Pod) -> Vec<String> {
    let gates = pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
    gates.map(|gate| gate.name.clone()).collect()
}

async fn until(scenario: &Scenario, what: &str, app: &str, wanted: impl Fn(&Pod) -> bool) {
    let seen = wait_until(what, PATIENCE, async || {
        let pod = admitted(scenario, json!({"app": app}), json!({})).await;
        ensure!(wanted(&pod), "{:?} {:?}", mark(&pod), gates(&pod));
        Ok(())
    });
    seen.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
}

#[tokio::test]
async fn pods_are_marked_as_their_policy_wants_it_and_nobody_else_is_touched() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("virtual-0", "0.04").await;
    let uses = |more: Value| {
        let mut spec = json!({"extender": "Use"});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    };
    let tiers = || dedicated_first(&["virtual-0"]);
    scenario.policy("plain", "plain", tiers(), json!({})).await;
    scenario.policy("audited", "audited", tiers(), uses(json!({"mode": "Audit"}))).await;
    let small = json!({"matchConditions": [
        {"name": "small", "expression": "object.spec.containers.all(c, quantity(c.resources.requests.cpu).compareTo(quantity('2')) < 0)"},
        {"name": "ours", "expression": "namespaceObject.metadata.labels.team == 'media'"}]});
    scenario.policy("small", "small", tiers(), uses(small)).await;
    let expressions = json!({"podSelector": {"matchExpressions": [
        {"key": "app", "operator": "In", "values": ["in", "both"]}, {"key": "never", "operator": "DoesNotExist"},
        {"key": "tier", "operator": "NotIn", "values": ["web"]}]}});
    scenario.policy("expressions", "", tiers(), uses(expressions)).await;
    scenario.policy("heavier", "both", tiers(), json!({"weight": 200})).await;
    let elsewhere = json!({"namespaceSelector": {"matchLabels": {"team": "other"}}});
    scenario.policy("elsewhere", "elsewhere", tiers(), uses(elsewhere)).await;
    scenario.start().await;
    until(&scenario, "small pods are marked", "small", |pod| mark(pod).as_deref() == Some("0")).await;

    let marked = Some("0".to_owned());
    let resources = |resources: Value| json!({"containers": [{"name": "c", "image": "i", "resources": resources}, {"name": "d", "image": "i"}]});
    let requests = json!({"requests": {"cpu": "1"}});
    let table = [
        (
            json!({"app": "small"}),
            resources(requests.clone()),
            None,
            "the second container asks for nothing: its condition fails",
        ),
        (
            json!({"app": "small"}),
            container("1", &json!({"resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}})),
            marked.clone(),
            "limits are kept",
        ),
        (json!({"app": "small"}), container("3", &json!({})), None, "too large"),
        (json!({"app": "in"}), json!({}), marked.clone(), ""),
        (json!({"app": "in"}), json!({"containers": [{"name": "c", "image": "i"}]}), marked.clone(), "no resources at all"),
        (json!({"app": "in", "tier": "web"}), json!({}), None, "NotIn"),
        (json!({"app": "in", "tier": "batch"}), json!({}), marked.clone(), "NotIn"),
        (json!({"app": "in", "never": ""}), json!({}), None, "DoesNotExist"),
        (json!({"app": "in", "spillway.dev/do-not-burst": "true"}), json!({}), None, "opted out"),
        (json!({"app": "both"}), json!({}), None, "a heavier policy selects it, and does not ask for the extender"),
        (json!({"app": "plain"}), json!({}), None, ""),
        (json!({"app": "audited"}), json!({}), None, "audit writes on no pod"),
        (json!({"app": "elsewhere"}), json!({}), None, "another namespace"),
        (json!({}), json!({}), None, "no labels"),
    ];
    for (labels, spec, expected, why) in table {
        let pod = admitted(&scenario, labels.clone(), spec.clone()).await;
        assert_eq!(mark(&pod), expected, "{labels} {spec}: {why}");
        assert!(gates(&pod).is_empty());
    }

    // As they change and go.
    scenario.delete("BurstPolicy", "heavier").await;
    until(&scenario, "nobody is heavier any more", "both", |pod| mark(pod).is_some()).await;
    scenario.policy("plain", "plain", tiers(), uses(json!({}))).await;
    until(&scenario, "plain pods are marked now", "plain", |pod| mark(pod).is_some()).await;
    for name in ["plain", "small", "expressions", "elsewhere"] {
        scenario.delete("BurstPolicy", name).await;
    }
    until(&scenario, "nobody is marked any more", "in", |pod| mark(pod).is_none()).await;
}

/// Spillway takes it; the API server wants the elements of a list to be of one type.
const REFUSED: &str = "[1, 'a'].size() == 2";

#[tokio::test]
async fn a_policy_that_the_api_server_does_not_take_harms_only_itself() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("virtual-0", "0.04").await;
    let tiers = || dedicated_first(&["virtual-0"]);
    // The heaviest one selects the pods of all.
    let refused = json!({"extender": "Use", "weight": 200, "podSelector": {},
        "matchConditions": [{"name": "odd", "expression": REFUSED}]});
    scenario.policy("refused", "", tiers(), refused.clone()).await;
    scenario.policy("good", "good", tiers(), json!({"extender": "Use"})).await;
    let first = serverless_first(&["virtual-0"]);
    scenario.policy("gated", "gated", first.clone(), json!({"gate": "Use"})).await;
    scenario.policy("also-gated", "gated", first, json!({"gate": "Use", "weight": 50})).await;
    scenario.policy("plain", "plain", tiers(), json!({})).await;
    scenario.start().await;
    let message = scenario.object_condition("BurstPolicy", "refused", "AdmissionInForce", "False", "Refused").await;
    assert!(
        message.starts_with("spec.matchConditions: ERROR: <input>:1:") && message.contains("expected type 'int'"),
        "{message}"
    );
    scenario.object_condition("BurstPolicy", "good", "AdmissionInForce", "True", "InForce").await;
    until(&scenario, "those of the good policy are marked", "good", |pod| mark(pod).is_some()).await;
    // Two ask for the gate, and it is put on once.
    until(&scenario, "those of the gating policies are gated", "gated", |pod| gates(pod) == ["spillway.dev/decide"]).await;
    assert_eq!(mark(&admitted(&scenario, json!({"app": "other"}), json!({})).await), None);
    let plain: api::BurstPolicy = Api::all(scenario.client.clone()).get("plain").await.expect("it is there");
    let conditions = plain.status.map(|status| status.conditions).unwrap_or_default();
    assert!(conditions.iter().all(|one| one.type_ != "AdmissionInForce"), "it asks for nothing: {conditions:?}");

    // Others come and go beside it.
    scenario.policy("late", "late", tiers(), json!({"extender": "Use"})).await;
    until(&scenario, "those of a new policy are marked", "late", |pod| mark(pod).is_some()).await;
    scenario.delete("BurstPolicy", "good").await;
    until(&scenario, "those of a policy that is gone are not", "good", |pod| mark(pod).is_none()).await;
    // It asks for nothing, and is in nobody's way.
    let mut quiet = refused.clone();
    quiet["extender"] = json!("Ignore");
    scenario.policy("refused", "", tiers(), quiet).await;
    scenario.object_condition("BurstPolicy", "refused", "AdmissionInForce", "False", "Refused").await;
    until(&scenario, "those of the others are marked still", "late", |pod| mark(pod).is_some()).await;

    // Corrected, it is in force.
    let mut corrected = refused;
    corrected["matchConditions"] = json!([{"name": "odd", "expression": "[1, 2].size() == 2"}]);
    scenario.policy("refused", "", tiers(), corrected).await;
    scenario.object_condition("BurstPolicy", "refused", "AdmissionInForce", "True", "InForce").await;
    until(&scenario, "now its pods are marked", "other", |pod| mark(pod).is_some()).await;
}

#[tokio::test]
async fn serverless_first_without_an_extender_goes_through_the_gate() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(4, "32").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("first", "first", serverless_first(&["virtual-0"]), json!({"gate": "Use"})).await;
    scenario.policy("capped", "capped", serverless_first(&["virtual-0"]), json!({"gate": "Use"})).await;
    let spec = json!({"amount": "0.8", "currency": "USD", "period": "Month", "scope": {"policies": ["capped"]}});
    let budget =
        json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "BurstBudget", "metadata": {"name": "capped"}, "spec": spec});
    scenario.apply(budget).await.expect("a budget");
    scenario.start().await;
    scenario.virtual_node_ready("virtual-0").await;
    until(&scenario, "pods are gated", "capped", |pod| gates(pod) == ["spillway.dev/decide"]).await;
    let marked = admitted(&scenario, json!({"app": "first"}), crate::scenario::marked("1")).await;
    assert!(gates(&marked).is_empty(), "the extender is asked about it");

    // Dedicated nodes have room for all; not one pod slips through to them.
    scenario.job("first", 100, "1", json!({})).await;
    let places = scenario.all_bound("first", 100).await;
    assert_eq!(places.counts(), (0, 100, 0), "{}", scenario.log());
    assert!(places.virtual_.iter().all(|pod| &*record(pod).reason == "ServerlessFirst" && gates(pod).is_empty()));
    // As far as the money goes; the others are ordinary pods.
    scenario.job("capped", 50, "1", json!({})).await;
    assert_eq!(scenario.all_bound("capped", 50).await.counts(), (30, 20, 0), "{}", scenario.log());

    // Down, gated pods wait; that is the price.
    scenario.kill();
    scenario.pod("first-late", "first", "1", json!({})).await;
    assert_eq!(gates(&scenario.get("first-late").await), ["spillway.dev/decide"]);
    scenario.start().await;
    assert_eq!(place_of(&scenario.bound("first-late").await), Some("virtual-0"));

    // Stopped, it gates nobody, and lets those go that are gated.
    scenario.policy("first", "first", serverless_first(&["virtual-0"]), json!({"gate": "Use", "stopPolicy": "Hold"})).await;
    scenario.object_condition("BurstPolicy", "first", "Ready", "True", "Accepted").await;
    scenario.pod("first-held", "first", "1", json!({"schedulingGates": [{"name": "spillway.dev/decide"}]})).await;
    assert!(place_of(&scenario.bound("first-held").await).is_some_and(|node| node.starts_with("dedicated")));
    until(&scenario, "nobody is gated any more", "first", |pod| gates(pod).is_empty()).await;
    // Nor does anybody keep a pod that no policy selects any more.
    scenario.delete("BurstPolicy", "first").await;
    scenario.pod("first-free", "first", "1", json!({"schedulingGates": [{"name": "spillway.dev/decide"}]})).await;
    assert!(place_of(&scenario.bound("first-free").await).is_some_and(|node| node.starts_with("dedicated")));
}
