//! What applies, awaits and prunes generated admission policies, on a real API server.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use scheduler_extender::admission::{mutating, validating};
use scheduler_extender::run::AdmissionPolicies;
use serde_json::{Value, json};
use world::control_plane::{ControlPlane, User};

const COMPONENT: &str = "tests";

fn on_config_maps() -> Value {
    json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]})
}

/// Refuses ConfigMaps of this name.
fn refusing(name: &str) -> [Value; 2] {
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": on_config_maps(),
        "validations": [{"expression": format!("object.metadata.name != '{name}'"), "reason": "Forbidden"}],
    });
    validating(COMPONENT, &format!("refuse-{name}"), &spec)
}

/// Labels ConfigMaps.
fn labelling(value: &str) -> [Value; 2] {
    let expression = format!("Object{{metadata: Object.metadata{{labels: {{'mark': '{value}'}}}}}}");
    let spec = json!({
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": on_config_maps(),
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
    });
    mutating(COMPONENT, "label", &spec)
}

/// What becomes of a ConfigMap of this name: its mark, or the status code.
async fn made(client: &Client, name: &str) -> Result<Option<String>, u16> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let map = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a ConfigMap");
    match maps.create(&PostParams { dry_run: true, ..PostParams::default() }, &map).await {
        Ok(map) => Ok(map.labels().get("mark").cloned()),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn generated_policies_are_in_force_when_they_are_said_to_be_and_go_when_nobody_wants_them() {
    let plane = ControlPlane::builder().scheduler(None).controllers(None).kwok(false).start().await.expect("an API server");
    let client = plane.client(User::Admin).expect("a client");
    let policies = AdmissionPolicies::of(&client, COMPONENT).await.expect("an answer");
    assert!(policies.can_mutate(), "Kubernetes 1.36 has MutatingAdmissionPolicies");

    for (first, second, mark) in [("a", "b", "one"), ("b", "c", "two")] {
        let wanted = [refusing(first), refusing(second), labelling(mark)].concat();
        policies.put_in_force(&wanted).await.expect("applied");
        // No waiting here: in force means for the next request.
        assert_eq!(made(&client, first).await, Err(403), "{mark}");
        assert_eq!(made(&client, second).await, Err(403), "{mark}");
        assert_eq!(made(&client, "other").await, Ok(Some(mark.to_owned())));
    }

    // Somebody else's are none of its business, nor are those of another component.
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy"));
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let mut foreign = refusing("x")[0].clone();
    for (name, component) in [("foreign", Value::Null), ("another", json!("others"))] {
        foreign["metadata"] = json!({"name": name, "labels": {"app.kubernetes.io/component": component, "app.kubernetes.io/managed-by": "spillway"}});
        if component.is_null() {
            foreign["metadata"]["labels"] = json!({});
        }
        all.patch(name, &PatchParams::apply("tests"), &Patch::Apply(&foreign)).await.expect("a policy");
    }
    let wanted = [refusing("c")].concat();
    policies.put_in_force(&wanted).await.expect("applied");
    policies.prune(&wanted).await.expect("pruned");
    let left = all.list(&Default::default()).await.expect("a list");
    let mut left: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
    left.sort();
    assert_eq!(left, ["another", "foreign", "refuse-c"]);
    policies.put_in_force(&wanted).await.expect("applied");
    let unmarked = world::control_plane::wait_until("nothing is marked any more", crate::scenario::PATIENCE, async || {
        anyhow::ensure!(made(&client, "other").await == Ok(None) && made(&client, "b").await == Ok(None), "still");
        Ok(())
    });
    unmarked.await.expect("not marked");
    assert_eq!(made(&client, "c").await, Err(403));
}
