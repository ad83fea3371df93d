//! The definitions of our kinds on a real API server: it takes them, it refuses nonsense with a message that names the
//! field, and it fills in defaults. What it refuses is refused on the command line too, with the same field.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, Request};
use kube::{Api, Client};
use policy::Timestamp;
use scheduler_extender::api::{BurstBudget, BurstPolicy, Invalid, VirtualNode, strict};
use scheduler_extender::{compile, crds};
use serde_json::{Value, json};
use world::control_plane::{ControlPlane, User, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

const POLICY: &str = "
apiVersion: spillway.dev/v1alpha1
kind: BurstPolicy
metadata: {name: images}
spec:
  weight: 200
  namespaceSelector: {matchLabels: {team: media}}
  podSelector: {matchExpressions: [{key: app, operator: In, values: [thumbnailer]}]}
  matchConditions: [{name: small, expression: object.spec.containers.size() == 1}]
  tiers:
  - {name: dedicated, nodeSelector: {pool: batch}, packing: Spread, price: {vcpuHour: '0.01'}}
  - {name: soon, after: 45s, virtualNodes: [fargate, aci], spot: Allow, limits: {pods: 500, cpu: 1500m, memory: 1Gi}}
  - {name: later, after: Auto, virtualNodes: [nomad]}
  waitingCost: '0.10'
  expectedDuration: 10m
";

const FARGATE: &str = "
apiVersion: spillway.dev/v1alpha1
kind: VirtualNode
metadata: {name: fargate}
spec:
  fargate:
    region: us-east-1
    cluster: burst
    subnets: [subnet-0a1b2c3d, subnet-0a1b2c3d4e5f60718]
    securityGroups: [sg-0a1b2c3d]
    executionRoleArn: arn:aws:iam::123456789012:role/pull
    platformVersion: 1.4.0
    architecture: arm64
  capacityType: Spot
  labels: {team: media}
  credentialsSecretRef: {namespace: spillway-system, name: aws}
  pricing: {currency: USD, vcpuHour: '0.05', gbHour: '0.004445', discountPercent: '20', asOf: '2026-11-01', minimumBilledSeconds: 60}
  startLatency: 45s
  billedStartup: 15s
  spotInterruptionsPerHour: '0.05'
  limits: {pods: 200, memory: 64Gi}
  largestPod: {cpu: 16}
  capabilities: [{rule: startupProbe, allow: true}]
";

const ACI: &str = "
apiVersion: spillway.dev/v1alpha1
kind: VirtualNode
metadata: {name: aci}
spec:
  aci:
    subscriptionId: 00000000-0000-0000-0000-000000000000
    resourceGroup: burst
    location: eastus
    subnetId: /subscriptions/0/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v/subnets/s
    apiVersion: 2023-05-01
  adopt: {nodeSelector: {example.com/backend: aci}}
";

const NOMAD: &str = "
apiVersion: spillway.dev/v1alpha1
kind: VirtualNode
metadata: {name: nomad}
spec:
  nomad:
    address: https://nomad.example.com:4646
    mhzPerCore: 2500
    caSecretRef: {namespace: spillway-system, name: nomad-ca}
";

const MEMORY: &str = "
apiVersion: spillway.dev/v1alpha1
kind: VirtualNode
metadata: {name: memory}
spec: {inMemory: {}}
";

const BUDGET: &str = "
apiVersion: spillway.dev/v1alpha1
kind: BurstBudget
metadata: {name: nightly}
spec:
  amount: '12.50'
  currency: USD
  period: Day
  timeZone: Europe/Berlin
  scope: {namespaceSelector: {matchLabels: {team: media}}, policies: [images]}
";

/// A manifest, a part of it, what stands there instead, and the field that the refusal must name.
const NONSENSE: [(&str, &str, &str, &str); 81] = [
    // unknown fields and wrong types
    (POLICY, "weight: 200", "wieght: 200", "spec.wieght"),
    (POLICY, "after: 45s", "waitFor: 45s", "spec.tiers[1].waitFor"),
    (POLICY, "weight: 200", "weight: heavy", "spec.weight"),
    (POLICY, "'0.10'", "0.10", "spec.waitingCost"),
    (POLICY, "[fargate, aci]", "fargate", "spec.tiers[1].virtualNodes"),
    (BUDGET, "'12.50'", "12.5", "spec.amount"),
    (BUDGET, "period: Day", "perod: Day", "spec.perod"),
    (BUDGET, "  period: Day\n", "", "spec.period"),
    // policies
    (POLICY, "weight: 200", "weight: -1", "spec.weight"),
    (POLICY, "weight: 200", "weight: 1000001", "spec.weight"),
    (POLICY, "weight: 200", "mode: Dry", "spec.mode"),
    (POLICY, "weight: 200", "stopPolicy: Pause", "spec.stopPolicy"),
    (POLICY, "weight: 200", "extender: Maybe", "spec.extender"),
    (POLICY, "weight: 200", "returnToDedicated: Sometimes", "spec.returnToDedicated"),
    (POLICY, "weight: 200", "whenUnsatisfiable: Explode", "spec.whenUnsatisfiable"),
    (POLICY, "  waitingCost: '0.10'\n", "", "spec.waitingCost"),
    (POLICY, "'0.10'", "'-0.10'", "spec.waitingCost"),
    (POLICY, "'0.10'", "'1e3'", "spec.waitingCost"),
    (POLICY, "10m", "ten minutes", "spec.expectedDuration"),
    (POLICY, "10m", "0s", "spec.expectedDuration"),
    (POLICY, "10m", "9000h", "spec.expectedDuration"),
    (POLICY, "operator: In", "operator: Equals", "spec.podSelector.matchExpressions[0].operator"),
    (POLICY, ", values: [thumbnailer]", "", "spec.podSelector.matchExpressions[0].values"),
    (POLICY, "key: app", "key: 'a pp'", "spec.podSelector.matchExpressions[0].key"),
    (POLICY, "{team: media}", "{'te am': media}", "spec.namespaceSelector.matchLabels"),
    (POLICY, "{team: media}", "{team: 'me dia'}", "spec.namespaceSelector.matchLabels.team"),
    (POLICY, "name: small", "name: Small!", "spec.matchConditions[0].name"),
    (POLICY, "object.spec.containers.size() == 1", "''", "spec.matchConditions[0].expression"),
    (POLICY, "[{name: small,", "[{name: small, expression: 'true'}, {name: small,", "spec.matchConditions[1]"),
    // tiers
    (POLICY, "name: dedicated", "name: Dedicated", "spec.tiers[0].name"),
    (POLICY, "name: later", "name: soon", "spec.tiers[2]"),
    (POLICY, "after: 45s", "after: 5 minutes", "spec.tiers[1].after"),
    (POLICY, "after: 45s", "after: 25h", "spec.tiers[1].after"),
    (POLICY, "after: 45s", "after: -1s", "spec.tiers[1].after"),
    (POLICY, "{pool: batch}, ", "{pool: batch}, after: 5s, ", "spec.tiers[0].after"),
    (POLICY, "{pool: batch}, ", "{}, ", "spec.tiers[0].nodeSelector"),
    (POLICY, "{pool: batch}, ", "{'po ol': batch}, ", "spec.tiers[0].nodeSelector"),
    (POLICY, "{pool: batch}, ", "{pool: batch}, spot: Deny, ", "spec.tiers[0].spot"),
    (POLICY, "{pool: batch}, ", "{pool: batch}, limits: {pods: 1}, ", "spec.tiers[0].limits"),
    (POLICY, "spot: Allow", "nodeSelector: {a: b}", "spec.tiers[1].nodeSelector"),
    (POLICY, "spot: Allow", "packing: Spread", "spec.tiers[1].packing"),
    (POLICY, "spot: Allow", "price: {vcpuHour: '1'}", "spec.tiers[1].price"),
    (POLICY, "'0.01'", "'free'", "spec.tiers[0].price.vcpuHour"),
    (POLICY, "[nomad]", "[]", "spec.tiers[2].virtualNodes"),
    (POLICY, "[fargate, aci]", "[fargate, fargate]", "spec.tiers[1].virtualNodes[1]"),
    (POLICY, "[fargate, aci]", "[fargate, ACI]", "spec.tiers[1].virtualNodes[1]"),
    (POLICY, "after: Auto, virtualNodes: [nomad]", "after: 0s", "spec.tiers"),
    (POLICY, "pods: 500", "pods: -1", "spec.tiers[1].limits.pods"),
    (POLICY, "cpu: 1500m", "cpu: -4", "spec.tiers[1].limits.cpu"),
    (POLICY, "cpu: 1500m", "cpu: 9999999", "spec.tiers[1].limits.cpu"),
    (POLICY, "memory: 1Gi", "memory: 1 GB", "spec.tiers[1].limits.memory"),
    // virtual nodes
    (MEMORY, "{inMemory: {}}", "{}", "fargate, aci, nomad and inMemory"),
    (FARGATE, "  capacityType", "  inMemory: {}\n  capacityType", "fargate, aci, nomad and inMemory"),
    (FARGATE, "us-east-1", "Virginia", "spec.fargate.region"),
    (FARGATE, "    cluster: burst\n", "", "spec.fargate.cluster"),
    (FARGATE, "[subnet-0a1b2c3d, subnet-0a1b2c3d4e5f60718]", "[]", "spec.fargate.subnets"),
    (FARGATE, "subnet-0a1b2c3d,", "net-1,", "spec.fargate.subnets[0]"),
    (FARGATE, "arm64", "riscv", "spec.fargate.architecture"),
    (FARGATE, "arn:aws:iam::123456789012:role/pull", "pull", "spec.fargate.executionRoleArn"),
    (FARGATE, "capacityType: Spot", "capacityType: OnDemand", "spec.spotInterruptionsPerHour"),
    (FARGATE, "billedStartup: 15s", "billedStartup: 46s", "spec.billedStartup"),
    (FARGATE, "startLatency: 45s", "startLatency: 2h", "spec.startLatency"),
    (FARGATE, "discountPercent: '20'", "discountPercent: '120'", "spec.pricing.discountPercent"),
    (FARGATE, "currency: USD", "currency: dollars", "spec.pricing.currency"),
    (FARGATE, "gbHour: '0.004445', ", "", "spec.pricing.gbHour"),
    (FARGATE, "2026-11-01", "yesterday", "spec.pricing.asOf"),
    (FARGATE, "rule: startupProbe", "rule: 'start up'", "spec.capabilities[0].rule"),
    (ACI, "00000000-0000-0000-0000-000000000000", "mine", "spec.aci.subscriptionId"),
    (ACI, "{example.com/backend: aci}", "{}", "spec.adopt.nodeSelector"),
    (ACI, "{example.com/backend: aci}", "{kubernetes.io/hostname: aci}", "spec.adopt.nodeSelector"),
    (NOMAD, "https://", "http://", "spec.nomad.address"),
    (NOMAD, "mhzPerCore: 2500", "mhzPerCore: 0", "spec.nomad.mhzPerCore"),
    (NOMAD, "  nomad:", "  capacityType: Spot\n  nomad:", "spec.capacityType"),
    // budgets
    (BUDGET, "Europe/Berlin", "Mars/Olympus", "spec.timeZone"),
    (BUDGET, "policies: [images]", "policies: []", "spec.scope.policies"),
    (BUDGET, "'12.50'", "'-12.50'", "spec.amount"),
    (BUDGET, "'12.50'", "'12.5000000001'", "spec.amount"),
    (BUDGET, "'12.50'", "'1000000000'", "spec.amount"),
    (BUDGET, "USD", "usd", "spec.currency"),
    (BUDGET, "Day", "Fortnight", "spec.period"),
    (BUDGET, "Europe/Berlin", "Local", "spec.timeZone"),
];

/// A valid manifest, a part of it and what stands there instead: a change that is refused although both are valid.
const CHANGES: [(&str, &str, &str, &str); 8] = [
    (BUDGET, "USD", "EUR", "spec.currency"),
    (MEMORY, "{inMemory: {}}", "{nomad: {address: 'https://nomad:4646', mhzPerCore: 2000}}", "inMemory"),
    (MEMORY, "{inMemory: {}}", "{inMemory: {region: elsewhere}}", "spec.inMemory.region"),
    (MEMORY, "{inMemory: {}}", "{inMemory: {}, adopt: {nodeSelector: {a: b}}}", "spec.adopt"),
    (FARGATE, "us-east-1", "eu-west-1", "spec.fargate.region"),
    (FARGATE, "cluster: burst", "cluster: other", "spec.fargate.cluster"),
    (ACI, "location: eastus", "location: westeurope", "spec.aci.location"),
    (NOMAD, "mhzPerCore: 2500", "mhzPerCore: 2500\n    namespace: other", "spec.nomad.namespace"),
];

#[tokio::test]
async fn the_api_server_refuses_nonsense_and_says_where_it_is() {
    let plane = ControlPlane::builder().scheduler(None).controllers(None).kwok(false).start().await.unwrap();
    let client = plane.client(User::Admin).unwrap();
    install(&client).await.unwrap();

    good_manifests_are_taken_with_defaults(&client).await.unwrap();
    let mut wrong = Vec::new();
    for (manifest, part, replacement, field) in NONSENSE {
        let changed = changed(manifest, part, replacement);
        if let Err(error) = refused_everywhere(&client, &changed, field).await {
            wrong.push(format!("{part} -> {replacement}: {error:#}"));
        }
    }
    let long = MEMORY.replace("name: memory", &format!("name: {}", "m".repeat(64)));
    if let Err(error) = refused_everywhere(&client, &long, "metadata.name").await {
        wrong.push(format!("a name of 64 characters: {error:#}"));
    }
    for (manifest, part, replacement, field) in CHANGES {
        if let Err(error) = change_refused(&client, &changed(manifest, part, replacement), field).await {
            wrong.push(format!("{part} becomes {replacement}: {error:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    status_is_a_resource_of_its_own(&client).await.unwrap();
    examples_are_taken(&client).await.unwrap();
}

/// Installs the definitions as `spillway crds` prints them. The API server prices every CEL rule when it takes them.
async fn install(client: &Client) -> Result<()> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for document in crds::print().split("---\n").filter(|document| !document.is_empty()) {
        let crd: CustomResourceDefinition = serde_yaml_ng::from_str(document)?;
        let name = crd.metadata.name.clone().context("a definition has a name")?;
        definitions.patch(&name, &PatchParams::apply("test").validation_strict(), &Patch::Apply(&crd)).await?;
        wait_until(&format!("{name} served"), PATIENCE, async || {
            let conditions = definitions.get(&name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
            for (kind, expected) in [("Established", "True"), ("NonStructuralSchema", "False"), ("Terminating", "False")] {
                let found = conditions.iter().find(|condition| condition.type_ == kind);
                let holds = found.map_or(kind != "Established", |condition| condition.status == expected);
                ensure!(holds, "{kind}: {found:?}");
            }
            // Established comes a moment before the resource is served.
            resources(client, &crd.spec.names.kind, &crd.spec.names.plural).list(&Default::default()).await?;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn good_manifests_are_taken_with_defaults(client: &Client) -> Result<()> {
    for manifest in [POLICY, FARGATE, ACI, NOMAD, MEMORY, BUDGET] {
        on_the_command_line(manifest).map_err(|invalid| anyhow::anyhow!("{manifest}: {invalid}"))?;
        apply(client, manifest, &PatchParams::apply("test").validation_strict()).await.context(manifest)?;
    }
    let params = PatchParams::apply("test");
    let stored = |manifest| apply(client, manifest, &params);
    let policy = stored(POLICY).await?.data["spec"].take();
    let defaults = json!({"mode": "Enforce", "stopPolicy": "None", "returnToDedicated": "Never", "extender": "Ignore",
        "whenUnsatisfiable": "Wait"});
    for (field, value) in defaults.as_object().into_iter().flatten() {
        ensure!(policy[field] == *value, "{field}: {}", policy[field]);
    }
    ensure!(policy["tiers"][0]["after"] == "0s" && policy["tiers"][0]["price"]["gibHour"] == "0", "{policy}");
    ensure!(policy["tiers"][2].get("spot").is_none(), "a default that only serverless tiers have: {policy}");
    let nomad = stored(NOMAD).await?.data["spec"].take();
    let expected = json!({"address": "https://nomad.example.com:4646", "mhzPerCore": 2500, "region": "global", "namespace": "default",
        "datacenters": ["*"], "nodePool": "default",
        "caSecretRef": {"namespace": "spillway-system", "name": "nomad-ca", "key": "ca.crt"}});
    ensure!(nomad["nomad"] == expected && nomad["capacityType"] == "OnDemand", "{nomad}");
    let fargate = stored(FARGATE).await?.data["spec"].take();
    ensure!(fargate["fargate"]["assignPublicIp"] == false && fargate["pricing"]["ephemeralGbHour"] == "0", "{fargate}");
    let plain = BUDGET.replace("nightly", "plain").replace("  timeZone: Europe/Berlin\n", "");
    let budget = stored(&plain).await?;
    ensure!(budget.data["spec"]["timeZone"] == "UTC" && budget.data["spec"]["whenExceeded"] == "DedicatedOnly", "{budget:?}");
    // What the API server stores is what our types read.
    let typed = Api::<BurstPolicy>::all(client.clone()).get("images").await?;
    ensure!(compile::burst_policy(&typed)?.policy.weight == 200, "{typed:?}");
    Ok(())
}

async fn refused_everywhere(client: &Client, manifest: &str, field: &str) -> Result<()> {
    match on_the_command_line(manifest) {
        Ok(()) => bail!("the command line takes it"),
        Err(invalid) => ensure!(invalid.to_string().contains(field), "the command line says {invalid}"),
    }
    refused_by_the_server(client, manifest, field).await
}

async fn refused_by_the_server(client: &Client, manifest: &str, field: &str) -> Result<()> {
    said(create(client, manifest).await, field)
}

async fn change_refused(client: &Client, manifest: &str, field: &str) -> Result<()> {
    let mut value: Value = serde_yaml_ng::from_str(manifest)?;
    let (objects, name) = place(client, &value)?;
    let mut object = objects.get(&name).await?;
    object.data["spec"] = value["spec"].take();
    said(objects.replace(&name, &PostParams { dry_run: true, ..PostParams::default() }, &object).await, field)
}

/// The request was refused, and the field named.
fn said<T>(answer: kube::Result<T>, field: &str) -> Result<()> {
    match answer {
        Ok(_) => bail!("the API server takes it"),
        // 400: not readable with strict fields. 422: invalid.
        Err(kube::Error::Api(status)) if status.code == 400 || status.code == 422 => {
            ensure!(status.message.contains(field), "the API server says {}", status.message);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// As `kubectl create --dry-run=server --validate=strict` does it. (Server-side apply would drop an empty list.)
async fn create(client: &Client, manifest: &str) -> kube::Result<Value> {
    let value: Value = serde_yaml_ng::from_str(manifest).unwrap();
    let (objects, _) = place(client, &value).unwrap();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let mut request = Request::new(objects.resource_url()).create(&params, serde_json::to_vec(&value).unwrap()).unwrap();
    *request.uri_mut() = format!("{}&fieldValidation=Strict", request.uri()).parse().unwrap();
    client.request(request).await
}

/// What `spillway` says to a manifest that never meets an API server.
fn on_the_command_line(manifest: &str) -> Result<(), Invalid> {
    let value: Value = serde_yaml_ng::from_str(manifest).map_err(|error| Invalid::new("", "", error.to_string()))?;
    match value["kind"].as_str() {
        Some("BurstPolicy") => strict::<BurstPolicy>(value).and_then(|object| compile::burst_policy(&object)).map(|_| ()),
        Some("VirtualNode") => strict::<VirtualNode>(value).and_then(|object| compile::virtual_node(&object, "USD")).map(|_| ()),
        _ => strict::<BurstBudget>(value)
            .and_then(|object| compile::burst_budget(&object, "USD", Timestamp::from_millis(1_795_261_724_000)))
            .map(|_| ()),
    }
}

/// The specification cannot be written through the status, nor the status through the specification.
async fn status_is_a_resource_of_its_own(client: &Client) -> Result<()> {
    let budgets = Api::<BurstBudget>::all(client.clone());
    let condition = json!({"type": "Ready", "status": "True", "reason": "InForce", "message": "", "observedGeneration": 1,
        "lastTransitionTime": "2026-11-21T11:48:44Z"});
    let both = json!({"spec": {"amount": "1"}, "status": {"spent": "0.25", "periodStart": "2026-11-21T00:00:00Z", "conditions": [condition]}});
    let through_spec = budgets.patch("nightly", &PatchParams::default(), &Patch::Merge(&both)).await?;
    ensure!(through_spec.status.is_none() && through_spec.spec.amount == "1", "{through_spec:?}");
    let back = json!({"spec": {"amount": "12.50"}, "status": both["status"]});
    let through_status = budgets.patch_status("nightly", &PatchParams::default(), &Patch::Merge(&back)).await?;
    ensure!(through_status.spec.amount == "1", "{:?}", through_status.spec);
    let status = through_status.status.context("a status")?;
    ensure!(status.spent.as_deref() == Some("0.25") && status.conditions[0].observed_generation == Some(1), "{status:?}");
    // A condition's status is one of three words.
    let maybe = json!({"status": {"conditions": [{"type": "Ready", "status": "Maybe", "reason": "X", "message": "",
        "lastTransitionTime": "2026-11-21T11:48:44Z"}]}});
    let refused = budgets.patch_status("nightly", &PatchParams::default(), &Patch::Merge(&maybe)).await.err();
    ensure!(refused.is_some_and(|error| error.to_string().contains("status.conditions[0].status")), "Maybe was taken");
    Ok(())
}

/// The examples that we ship are taken, on a server that has never seen them.
async fn examples_are_taken(client: &Client) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut taken = 0;
    for example in std::fs::read_dir(&folder).context("deploy/examples")? {
        for file in std::fs::read_dir(example?.path())? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            for document in text.split("\n---\n").filter(|document| document.contains("apiVersion: spillway.dev/")) {
                on_the_command_line(document).map_err(|invalid| anyhow::anyhow!("{}: {invalid}", path.display()))?;
                create(client, document).await.with_context(|| path.display().to_string())?;
                taken += 1;
            }
        }
    }
    ensure!(taken >= 5, "only {taken} objects of ours are in deploy/examples");
    Ok(())
}

fn changed(manifest: &str, part: &str, replacement: &str) -> String {
    assert!(manifest.contains(part), "{part:?} is not in the manifest {manifest}");
    manifest.replacen(part, replacement, 1)
}

async fn apply(client: &Client, manifest: &str, params: &PatchParams) -> Result<DynamicObject> {
    let value: Value = serde_yaml_ng::from_str(manifest)?;
    let (objects, name) = place(client, &value)?;
    Ok(objects.patch(&name, params, &Patch::Apply(&value)).await?)
}

fn place(client: &Client, value: &Value) -> Result<(Api<DynamicObject>, String)> {
    let kind = value["kind"].as_str().context("a kind")?;
    let plural = match kind {
        "BurstPolicy" => "burstpolicies",
        "VirtualNode" => "virtualnodes",
        "BurstBudget" => "burstbudgets",
        other => bail!("{other} is none of our kinds"),
    };
    Ok((resources(client, kind, plural), value["metadata"]["name"].as_str().context("a name")?.to_owned()))
}

fn resources(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("spillway.dev", "v1alpha1", kind);
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, plural))
}
