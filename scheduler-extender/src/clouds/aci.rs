//! Azure Container Instances.

use std::sync::Arc;

use providers::aci::{Access, Aci, Credential, InvalidSettings, Settings};
use providers::{Clock, Ownership, Provider};

use super::{Credentials, Endpoints, entry};
use crate::api::{self, Invalid};

pub(super) fn connect(
    spec: &api::AciSpec,
    compiled: &policy::VirtualNode,
    credentials: &Credentials,
    ownership: Ownership,
    clock: Clock,
    endpoints: &Endpoints,
) -> Result<Arc<dyn Provider>, Invalid> {
    let settings = Settings {
        subnet_id: spec.subnet_id.clone(),
        api_version: spec.api_version.clone(),
        capacity_type: compiled.capacity_type,
        ..Settings::new(&spec.subscription_id, &spec.resource_group, &spec.location, ownership)
    };
    let invalid = |error: InvalidSettings| Invalid::new(format!("spec.aci.{}", error.field), "", error.problem);
    let access = match &endpoints.azure {
        Some(elsewhere) => elsewhere.clone(),
        None => Access::new(credential(credentials)?).map_err(invalid)?,
    };
    Ok(Arc::new(Aci::new(settings, access, clock).map_err(invalid)?))
}

/// An application's password of the Secret; the managed identity that it names; else the workload identity of our own pod.
fn credential(credentials: &Credentials) -> Result<Credential, Invalid> {
    let Some(entries) = &credentials.entries else {
        return Ok(Credential::WorkloadIdentity { tenant_id: None, client_id: None, token_file: None });
    };
    let client_id = entry(entries, "AZURE_CLIENT_ID")?.expose().to_owned();
    match entries.get("AZURE_CLIENT_SECRET") {
        Some(secret) => Ok(Credential::ClientSecret {
            tenant_id: entry(entries, "AZURE_TENANT_ID")?.expose().to_owned(),
            client_id,
            secret: secret.clone(),
        }),
        None => Ok(Credential::ManagedIdentity { client_id: Some(client_id) }),
    }
}
