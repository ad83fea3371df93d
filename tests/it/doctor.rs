//! `spillway doctor` on a real control plane.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use tokio::process::Command;
use world::control_plane::{User, place_of, wait_until};

use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, dedicated_first, program};

/// Exit code and findings.
async fn doctor(scenario: &Scenario) -> (Option<i32>, Vec<Value>) {
    let (code, text) = call(scenario, &["-o", "json"]).await;
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

async fn call(scenario: &Scenario, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    command.arg("doctor").args(arguments).arg("--kubeconfig").arg(scenario.plane.kubeconfig_path(User::Admin));
    let output = command.kill_on_drop(true).output().await.expect("the program spillway starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    assert!(output.stderr.is_empty(), "{}", text(output.stderr));
    (output.status.code(), text(output.stdout))
}

/// Level, check and object of everything that is not well.
fn ill(findings: &[Value]) -> Vec<(String, String, String)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().expect("text").to_owned();
    let ill = findings.iter().filter(|finding| finding["level"] != "ok");
    ill.map(|finding| (text(finding, "level"), text(finding, "check"), text(finding, "about"))).collect()
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_and_nothing_where_all_is_well() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(1, "4").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("fine", "fine", dedicated_first(&["virtual-0"]), json!({})).await;

    // Nobody has started Spillway yet.
    let (code, findings) = doctor(&scenario).await;
    let checks: Vec<String> = ill(&findings).into_iter().map(|(_, check, _)| check).collect();
    assert_eq!(
        (code, checks),
        (Some(3), ["guards", "guards", "guards", "guards", "objects", "objects"].map(str::to_owned).to_vec())
    );

    scenario.start().await;
    scenario.virtual_node_ready("virtual-0").await;
    let healthy = wait_until("nothing to do", PATIENCE, async || {
        let (code, findings) = doctor(&scenario).await;
        anyhow::ensure!((code, ill(&findings).len()) == (Some(0), 0), "{code:?} {:?}", ill(&findings));
        Ok(())
    });
    healthy.await.unwrap_or_else(|error| panic!("{error:#}"));
    let (_, text) = call(&scenario, &[]).await;
    assert!(text.contains("ok    rights\n") && text.ends_with("Nothing must be done.\n"), "{text}");

    // Serverless first without anybody who keeps kube-scheduler off; a service that only a virtual node serves; a right that is
    // gone; an admission policy that is gone.
    let first = json!([{"name": "serverless", "virtualNodes": ["virtual-0"]}, {"name": "dedicated"}]);
    scenario.policy("lame", "lame", first, json!({})).await;
    scenario.object_condition("BurstPolicy", "lame", "Ready", "True", "Accepted").await;
    // The only pod behind it finds no room on the dedicated node.
    scenario.pod("fine-0", "fine", "8", json!({})).await;
    assert_eq!(place_of(&scenario.bound("fine-0").await), Some("virtual-0"));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "fine"}}});
    scenario.apply(service).await.expect("a Service");
    let roles: Api<ClusterRole> = Api::all(scenario.client.clone());
    let mut role = roles.get("spillway").await.expect("deploy/rbac.yaml");
    let evicts = |rule: &PolicyRule| rule.resources.iter().flatten().any(|resource| resource == "pods/eviction");
    if let Some(rules) = &mut role.rules {
        rules.retain(|rule| !evicts(rule));
    }
    roles.replace("spillway", &PostParams::default(), &role).await.expect("a role");
    let expected = [
        ("todo", "rights", "ClusterRole spillway"),
        ("todo", "serverless-first", "BurstPolicy lame"),
        ("todo", "services", "Service media/web"),
    ];
    let found = wait_until("three things to do", PATIENCE, async || {
        let (code, findings) = doctor(&scenario).await;
        let ill = ill(&findings);
        let seen: Vec<_> = ill.iter().map(|(level, check, about)| (&**level, &**check, &**about)).collect();
        anyhow::ensure!(code == Some(3) && seen == expected, "{seen:?}");
        let missing = findings.iter().find(|finding| finding["check"] == "rights").expect("the check");
        anyhow::ensure!(missing["message"] == "Spillway's service account may not create pods/eviction", "{missing}");
        Ok(())
    });
    found.await.unwrap_or_else(|error| panic!("{error:#}"));

    // Without its types there is little to say, and no crash.
    scenario.kill();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
    let types: Api<DynamicObject> = Api::all_with(scenario.client.clone(), &kind);
    types.delete("burstbudgets.spillway.dev", &DeleteParams::default()).await.expect("it was there");
    let gone = wait_until("a type is missed", PATIENCE, async || {
        let ill = ill(&doctor(&scenario).await.1);
        anyhow::ensure!(ill.iter().any(|(_, _, about)| about == "CustomResourceDefinition burstbudgets.spillway.dev"), "{ill:?}");
        Ok(())
    });
    gone.await.unwrap_or_else(|error| panic!("{error:#}"));
}
