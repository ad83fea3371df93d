//! Keeps generated admission policies in the API server: applied, waited for, pruned.

use std::time::Duration;

use anyhow::Context;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::time::sleep;

use crate::admission::{self, GROUP};

/// A changed policy is in force in every API server after about a second.
const SETTLES: Duration = Duration::from_secs(2);
/// Times in `managedFields` have whole seconds.
const RESOLUTION: Duration = Duration::from_secs(1);
/// Versions in which API servers have MutatingAdmissionPolicies: of 1.36, and of 1.34 where somebody switched them on. The
/// fields that are used here are the same in both.
const MUTATING_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// All kinds, bindings before what they bind: nothing must be in force for a moment that is half deleted.
const KINDS: [&str; 4] = [
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "MutatingAdmissionPolicy",
];
const MANAGER: &str = "spillway.dev/guards";

/// The admission policies of one component ([`admission::COMPONENT`]).
#[derive(Clone)]
pub struct AdmissionPolicies {
    client: Client,
    component: &'static str,
    /// Version of the MutatingAdmissionPolicies of this API server, if it has them.
    mutating: Option<&'static str>,
}

// === impl AdmissionPolicies ===

impl AdmissionPolicies {
    /// Asks the API server what it has.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(client: &Client, component: &'static str) -> anyhow::Result<AdmissionPolicies> {
        let mut mutating = None;
        let groups = client.list_api_groups().await.context("asking for the API groups")?;
        let versions = groups.groups.into_iter().filter(|group| group.name == GROUP).flat_map(|group| group.versions);
        let served: Vec<String> = versions.map(|version| version.version).collect();
        for version in MUTATING_VERSIONS {
            if mutating.is_none() && served.iter().any(|one| one == version) {
                let resources = client.list_api_group_resources(&format!("{GROUP}/{version}")).await?.resources;
                mutating = resources.iter().any(|one| one.kind == "MutatingAdmissionPolicy").then_some(version);
            }
        }
        Ok(AdmissionPolicies { client: client.clone(), component, mutating })
    }

    /// Whether this API server knows MutatingAdmissionPolicies. Where it does not, they are left out of what is applied, and
    /// what they would do must be done in another way.
    #[must_use]
    pub fn can_mutate(&self) -> bool {
        self.mutating.is_some()
    }

    /// Applies these policies and bindings, and waits until every API server goes by them.
    ///
    /// # Errors
    /// When the API server refuses one or does not answer; what came before it has been applied.
    pub async fn put_in_force(&self, wanted: &[Value]) -> anyhow::Result<()> {
        let mut settles = Duration::ZERO;
        for object in wanted {
            let kind = object["kind"].as_str().unwrap_or_default();
            let Some(resource) = self.resource(kind) else { continue };
            settles = settles.max(self.apply(object, &resource).await.with_context(|| format!("{kind} {}", name(object)))?);
        }
        sleep(settles).await;
        Ok(())
    }

    /// What the API server says against this object, if it would not take it. Nothing is written.
    ///
    /// # Errors
    /// When the API server does not answer, or for another reason than the object.
    pub async fn refusal(&self, object: &Value) -> anyhow::Result<Option<String>> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let Some(resource) = self.resource(kind) else { return Ok(None) };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let params = PatchParams { dry_run: true, ..PatchParams::apply(MANAGER).force() };
        let answer = api.patch(&name(object), &params, &Patch::Apply(&served(object, &resource))).await;
        match answer.map_err(anyhow::Error::from) {
            Ok(_) => Ok(None),
            Err(error) => match refused(&error) {
                Some(message) => Ok(Some(cause(message))),
                None => Err(error).with_context(|| format!("asking about {kind} {}", name(object))),
            },
        }
    }

    /// Deletes what belongs to the component and is not wanted (any more).
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn prune(&self, wanted: &[Value]) -> anyhow::Result<()> {
        let of_component = ListParams::default().labels(&admission::selector(self.component));
        for kind in KINDS {
            let Some(resource) = self.resource(kind) else { continue };
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            for present in api.list(&of_component).await.with_context(|| format!("listing {kind}"))? {
                let present = present.name_any();
                if wanted.iter().any(|object| object["kind"] == kind && name(object) == present) {
                    continue;
                }
                match api.delete(&present, &DeleteParams::default()).await {
                    Ok(_) => tracing::info!(kind, name = present, "admission policy deleted: nothing wants it any more"),
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(error).with_context(|| format!("deleting {kind} {present}")),
                }
            }
        }
        Ok(())
    }

    /// `None`: this API server does not have the kind.
    fn resource(&self, kind: &str) -> Option<ApiResource> {
        let version = if kind.starts_with("Mutating") { self.mutating? } else { "v1" };
        Some(ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, kind)))
    }

    /// Applies one object and says how long it needs still. One that was as wanted already, as after a restart, needs nothing.
    async fn apply(&self, object: &Value, resource: &ApiResource) -> anyhow::Result<Duration> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let name = name(object);
        let object = served(object, resource);
        let before = api.get_opt(&name).await?.and_then(|present| present.metadata.resource_version);
        let applied = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
        if applied.metadata.resource_version != before {
            return Ok(SETTLES);
        }
        let written = applied.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref()).max();
        let age = written
            .map_or(Duration::ZERO, |time| Duration::try_from(jiff::Timestamp::now().duration_since(time.0)).unwrap_or_default());
        Ok((SETTLES + RESOLUTION).saturating_sub(age).min(SETTLES))
    }
}

/// What the API server has to say against an object that it does not take, if that is what an error is about.
pub(super) fn refused(error: &anyhow::Error) -> Option<&str> {
    match error.downcast_ref::<kube::Error>()? {
        kube::Error::Api(status) if [400, 413, 422].contains(&status.code) => Some(&status.message),
        _ => None,
    }
}

/// The API server repeats an expression before and after what it has to say about it.
fn cause(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.rfind("ERROR: ").map_or(line, |start| &line[start..]).to_owned()
}

/// The object in the version that the API server has.
fn served(object: &Value, resource: &ApiResource) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = Value::from(resource.api_version.as_str());
    object
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
