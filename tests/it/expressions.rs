//! Conditions in CEL mean the same to Spillway and to the API server, because generated admission policies carry them.
//!
//! The table of expressions in `golden/expressions.yaml` is asked of a real API server. Every expression becomes the
//! message of an admission policy that refuses every pod, so that the refusal tells what the expression yields.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::PostParams;
use kube::{Api, Client};
use scheduler_extender::expression::{EvaluationError, Expression};
use serde::Deserialize;
use serde_json::{Value, json};
use world::control_plane::{ControlPlane, User, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// A policy answers the request of its own field manager only, so that all can be there at once.
const MANAGER: &str = "row";

#[derive(Deserialize)]
struct Table {
    namespace: Value,
    object: Value,
    results: BTreeMap<String, Vec<String>>,
}

#[tokio::test]
async fn expressions_mean_the_same_to_the_api_server() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/expressions.yaml");
    let table: Table = serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let plane = ControlPlane::builder().scheduler(None).controllers(None).kwok(false).start().await.unwrap();
    let client = plane.client(User::Admin).unwrap();
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(table.namespace.clone()).unwrap()).await.unwrap();

    let rows: Vec<(&String, &String)> =
        table.results.iter().flat_map(|(expected, rows)| rows.iter().map(move |row| (expected, row))).collect();
    assert!(rows.len() > 80, "the table is whole");
    let installed = try_join_all(rows.iter().enumerate().map(|(index, (_, row))| install(&client, index, row))).await.unwrap();
    let mut wrong = Vec::new();
    for (index, (expected, row)) in rows.iter().enumerate() {
        let theirs = match &installed[index] {
            Some(refusal) => format!("refused: {refusal}"),
            None => answer(&client, &table.object, index).await.unwrap(),
        };
        let ours = ours(row, &table.object, &table.namespace);
        // A refusal is followed by its reason, which nobody else words alike.
        let agrees = |answer: &str| answer.split(": ").next() == Some(expected.as_str());
        if !agrees(&theirs) || !agrees(&ours) {
            wrong.push(format!("{row}\n    expected {expected}, the API server says {theirs}, Spillway says {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn ours(source: &str, object: &Value, namespace: &Value) -> String {
    match Expression::compile(source).map(|expression| expression.matches(object, namespace)) {
        Ok(Ok(holds)) => holds.to_string(),
        Ok(Err(EvaluationError::Failed { .. })) => "error".to_owned(),
        Ok(Err(other)) => other.to_string(),
        Err(invalid) => format!("refused: {invalid}"),
    }
}

/// Installs the policy of one row. The answer is the API server's refusal of the expression, if it is one.
async fn install(client: &Client, index: usize, expression: &str) -> Result<Option<String>> {
    let name = format!("{MANAGER}-{index}");
    let policy = json!({
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
            ]},
            "matchConditions": [{"name": "own", "expression": format!("request.options.fieldManager == '{name}'")}],
            "validations": [{"expression": "false", "message": "error", "messageExpression": format!("string({expression})")}],
        },
    });
    let binding = json!({
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    match policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await {
        Err(kube::Error::Api(status)) if status.code == 422 => return Ok(Some(status.message)),
        answer => answer.with_context(|| expression.to_owned())?,
    };
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    Ok(None)
}

/// What the policy of a row says of the pod, as soon as the API server has taken it up.
async fn answer(client: &Client, object: &Value, index: usize) -> Result<String> {
    let pods = Api::<Pod>::namespaced(client.clone(), object["metadata"]["namespace"].as_str().context("a namespace")?);
    let pod: Pod = serde_json::from_value(object.clone())?;
    let manager = format!("{MANAGER}-{index}");
    let params = PostParams { dry_run: true, field_manager: Some(manager.clone()) };
    wait_until(&format!("an answer of {manager}"), PATIENCE, async || match pods.create(&params, &pod).await {
        Ok(_) => bail!("the policy is not in force"),
        Err(kube::Error::Api(status)) => {
            let (_, message) = status.message.split_once("denied request: ").with_context(|| status.message.clone())?;
            ensure!(!message.is_empty(), "{}", status.message);
            Ok(message.to_owned())
        }
        Err(error) => Err(error.into()),
    })
    .await
}
