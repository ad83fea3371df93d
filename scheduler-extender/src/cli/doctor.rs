//! `spillway doctor`: reads the cluster, examines it, says what to do.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Deserialize;

use super::explain::list;
use super::{DoctorArgs, OutputForm};
use crate::admission;
use crate::doctor::{Cluster, Finding, Level, examine};
use crate::run::AdmissionPolicies;

/// The one list of rights; what is applied is what is checked.
const RIGHTS: &str = include_str!("../../../deploy/rbac.yaml");
/// Reviews under way at most.
const REVIEWS_AT_A_TIME: usize = 8;
/// Exit code where somebody must do something.
const SOMETHING_TO_DO: u8 = 3;

pub(super) fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let DoctorArgs { service_account, kubeconfig, output } = args;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (namespace, name) =
        service_account.split_once('/').with_context(|| format!("--service-account {service_account:?}: NAMESPACE/NAME"))?;
    let findings = super::runtime()?.block_on(async {
        let client = crate::run::connect(kubeconfig.as_deref(), "doctor").await?;
        anyhow::Ok(examine(&read(&client, namespace, name).await?))
    })?;
    match output {
        OutputForm::Text => super::print(&table(&findings))?,
        OutputForm::Json => super::print(&format!("{:#}\n", serde_json::to_value(&findings)?))?,
    }
    let todo = findings.iter().any(|finding| finding.level == Level::Todo);
    Ok(if todo { ExitCode::from(SOMETHING_TO_DO) } else { ExitCode::SUCCESS })
}

async fn read(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Cluster> {
    let missing_types = missing_types(client).await?;
    let can_mutate = AdmissionPolicies::of(client, crate::pod_admission::COMPONENT).await?.can_mutate();
    let mut cluster = Cluster {
        missing_types,
        can_mutate,
        admission: admission_policies(client, can_mutate).await?,
        missing_rights: missing_rights(client, namespace, name).await?,
        namespaces: list(client).await?,
        nodes: list(client).await?,
        pods: list(client).await?,
        services: list(client).await?,
        slices: list(client).await?,
        ..Cluster::default()
    };
    if cluster.missing_types.is_empty() {
        cluster.policies = served(client, &mut cluster.missing_types).await?;
        cluster.virtual_nodes = served(client, &mut cluster.missing_types).await?;
        cluster.budgets = served(client, &mut cluster.missing_types).await?;
    }
    Ok(cluster)
}

/// Objects of a type of ours; one that comes or goes may be established and not served, and is missing then.
async fn served<K>(client: &Client, missing: &mut Vec<String>) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match list(client).await {
        Ok(objects) => Ok(objects),
        Err(error) => match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) if status.code == 404 => {
                missing.push(format!("{}.{}", K::plural(&()), K::group(&())));
                Ok(Vec::new())
            }
            _ => Err(error),
        },
    }
}

async fn missing_types(client: &Client) -> anyhow::Result<Vec<String>> {
    let present: Vec<CustomResourceDefinition> = list(client).await?;
    let established = |name: &str| {
        let found = present.iter().find(|crd| crd.metadata.name.as_deref() == Some(name));
        let conditions = found.and_then(|crd| crd.status.as_ref()?.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|one| one.type_ == "Established" && one.status == "True")
    };
    let wanted = crate::crds::crds().into_iter().map(|crd| crd.name_any());
    Ok(wanted.filter(|name| !established(name)).collect())
}

/// What there is of generated policies, as `kind name` with its text.
async fn admission_policies(client: &Client, can_mutate: bool) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let validating = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    let mutating: &[&str] = if can_mutate { &["MutatingAdmissionPolicy"] } else { &[] };
    for kind in validating.iter().chain(mutating) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(admission::GROUP, "v1", kind));
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        for object in all.list(&ListParams::default()).await.with_context(|| format!("listing {kind}"))? {
            found.push((format!("{kind} {}", object.name_any()), object.data.to_string()));
        }
    }
    Ok(found)
}

/// Asks for every right of the ClusterRole whether the service account has it.
async fn missing_rights(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let ask = async |attributes: ResourceAttributes| {
        let spec = SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{name}")),
            groups: Some(vec![
                "system:authenticated".to_owned(),
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ]),
            resource_attributes: Some(attributes.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = reviews.create(&PostParams::default(), &review).await.context("asking what Spillway may do")?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        anyhow::Ok((!allowed).then(|| told(&attributes)))
    };
    let missing: Vec<Option<String>> =
        futures::stream::iter(rights()?.into_iter().map(ask)).buffered(REVIEWS_AT_A_TIME).try_collect().await?;
    Ok(missing.into_iter().flatten().collect())
}

/// One entry per verb, resource and name of the roles.
fn rights() -> anyhow::Result<Vec<ResourceAttributes>> {
    let mut rights = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(RIGHTS) {
        let object = serde_json::Value::deserialize(document).context("deploy/rbac.yaml")?;
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        let rules = match object["kind"].as_str() {
            Some("ClusterRole" | "Role") => Vec::<PolicyRule>::deserialize(&object["rules"]).context("deploy/rbac.yaml")?,
            Some(_) | None => continue,
        };
        rights.extend(rules.iter().flat_map(|rule| of_rule(rule, namespace.as_ref())));
    }
    Ok(rights)
}

fn of_rule(rule: &PolicyRule, namespace: Option<&String>) -> Vec<ResourceAttributes> {
    let names: Vec<Option<String>> = match &rule.resource_names {
        Some(names) if !names.is_empty() => names.iter().cloned().map(Some).collect(),
        Some(_) | None => vec![None],
    };
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for (name, verb) in names.iter().flat_map(|name| rule.verbs.iter().map(move |verb| (name, verb))) {
                let (resource, subresource) =
                    resource.split_once('/').map_or((resource.as_str(), None), |(one, two)| (one, Some(two)));
                rights.push(ResourceAttributes {
                    group: Some(group.clone()),
                    resource: Some(resource.to_owned()),
                    subresource: subresource.map(str::to_owned),
                    verb: Some(verb.clone()),
                    name: name.clone(),
                    namespace: namespace.cloned(),
                    ..ResourceAttributes::default()
                });
            }
        }
    }
    rights
}

/// `patch pods/status`, `get validatingadmissionpolicies.admissionregistration.k8s.io spillway-bind-guard`.
fn told(attributes: &ResourceAttributes) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let mut right = format!("{} {}", text(&attributes.verb), text(&attributes.resource));
    if let Some(group) = attributes.group.as_deref().filter(|group| !group.is_empty()) {
        right = format!("{right}.{group}");
    }
    if let Some(subresource) = &attributes.subresource {
        right = format!("{right}/{subresource}");
    }
    if let Some(name) = &attributes.name {
        right = format!("{right} {name}");
    }
    right
}

/// For people: a line per finding, and under it what to do.
fn table(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { level, check, about, message, next } in findings {
        let level = match level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Todo => "TODO",
        };
        // Writing to a String cannot fail.
        let _ = match about.as_str() {
            "" => writeln!(out, "{level:<5} {check}"),
            about => writeln!(out, "{level:<5} {check:<17} {about}: {message}\n{:<23} -> {next}", ""),
        };
    }
    let todo = findings.iter().filter(|finding| finding.level == Level::Todo).count();
    let _ = match todo {
        0 => writeln!(out, "\nNothing must be done."),
        todo => writeln!(out, "\n{todo} to do."),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_is_asked_for_by_itself() {
        let rights = rights().expect("deploy/rbac.yaml");
        let told: Vec<String> = rights.iter().map(told).collect();
        for right in [
            "create pods/binding",
            "bind virtualnodes.spillway.dev",
            "patch validatingadmissionpolicies.admissionregistration.k8s.io spillway-bind-guard",
            "create pods/eviction",
        ] {
            assert!(told.iter().any(|one| one == right), "{right}: {told:?}");
        }
    }

    #[test]
    fn the_table_says_what_to_do() {
        let finding = |level, about: &str| Finding {
            level,
            check: "rights",
            about: about.to_owned(),
            message: "may not bind".to_owned(),
            next: "kubectl apply".to_owned(),
        };
        let text = table(&[finding(Level::Todo, "ClusterRole spillway"), finding(Level::Ok, "")]);
        assert_eq!(
            text,
            "TODO  rights            ClusterRole spillway: may not bind\n                        -> kubectl apply\nok    rights\n\n1 to do.\n"
        );
    }
}
