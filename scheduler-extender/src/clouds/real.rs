//! The clouds themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use providers::{Clock, Error, Ownership, Provider, Secret, aci, fargate, nomad};

use super::{Credentials, Endpoints};
use crate::api::{self, Invalid};

/// The provider of a virtual node that is neither in memory nor invalid.
pub(super) async fn connect(
    object: &api::VirtualNode,
    compiled: policy::VirtualNode,
    credentials: &Credentials,
    ownership: Ownership,
    clock: Clock,
    endpoints: &Endpoints,
) -> Result<Arc<dyn Provider>, Invalid> {
    let spec = &object.spec;
    if let Some(fargate) = &spec.fargate {
        let settings = fargate::Settings {
            security_groups: fargate.security_groups.clone(),
            execution_role_arn: fargate.execution_role_arn.clone(),
            task_role_arn: fargate.task_role_arn.clone(),
            platform_version: fargate.platform_version.clone(),
            assign_public_ip: fargate.assign_public_ip,
            capacity_type: compiled.capacity_type,
            architecture: match fargate.architecture {
                api::Architecture::Amd64 => providers::Architecture::Amd64,
                api::Architecture::Arm64 => providers::Architecture::Arm64,
            },
            log_group: fargate.log_group.clone(),
            capabilities: compiled.capabilities,
            ..fargate::Settings::new(&fargate.region, &fargate.cluster, fargate.subnets.clone(), ownership)
        };
        let access = fargate::Access { credential: aws(credentials)?, ..endpoints.aws.clone().unwrap_or_default() };
        let provider = fargate::Fargate::connect(settings, access, clock).await;
        return provider.map(of).map_err(|error| refused("fargate", &error));
    }
    if let Some(aci) = &spec.aci {
        let settings = aci::Settings {
            subnet_id: aci.subnet_id.clone(),
            api_version: aci.api_version.clone(),
            capacity_type: compiled.capacity_type,
            ..aci::Settings::new(&aci.subscription_id, &aci.resource_group, &aci.location, ownership)
        };
        let invalid = |error: aci::InvalidSettings| Invalid::new(format!("spec.aci.{}", error.field), "", error.problem);
        let access = match &endpoints.azure {
            Some(elsewhere) => elsewhere.clone(),
            None => aci::Access::new(azure(credentials)?).map_err(invalid)?,
        };
        return aci::Aci::new(settings, access, clock).map(of).map_err(invalid);
    }
    if let Some(nomad) = &spec.nomad {
        let settings = nomad::Settings {
            region: nomad.region.clone(),
            namespace: nomad.namespace.clone(),
            datacenters: nomad.datacenters.clone(),
            node_pool: nomad.node_pool.clone(),
            opened: compiled.capabilities.iter().filter(|(_, open)| *open).map(|(feature, _)| *feature).collect(),
            ..nomad::Settings::new(ownership, compiled.mhz_per_core)
        };
        let token = credentials.entries.as_ref().map(|entries| entry(entries, "NOMAD_TOKEN")).transpose()?;
        let connection = nomad::Connection { address: nomad.address.clone(), token, authorities: credentials.authority.clone() };
        let provider = nomad::NomadProvider::new(settings, &connection, clock);
        return provider.map(of).map_err(|error| refused("nomad", &error));
    }
    Err(Invalid::new("spec", "", "exactly one of fargate, aci, nomad and inMemory must be given"))
}

fn of(provider: impl Provider + 'static) -> Arc<dyn Provider> {
    Arc::new(provider)
}

/// An access key of the Secret, else what the environment gives.
fn aws(credentials: &Credentials) -> Result<fargate::Credential, Invalid> {
    let Some(entries) = &credentials.entries else { return Ok(fargate::Credential::DefaultChain) };
    Ok(fargate::Credential::AccessKey {
        id: entry(entries, "AWS_ACCESS_KEY_ID")?.expose().to_owned(),
        secret: entry(entries, "AWS_SECRET_ACCESS_KEY")?,
        session_token: entries.get("AWS_SESSION_TOKEN").cloned(),
    })
}

/// An application's password of the Secret; the managed identity that it names; else the workload identity of our own pod.
fn azure(credentials: &Credentials) -> Result<aci::Credential, Invalid> {
    let Some(entries) = &credentials.entries else {
        return Ok(aci::Credential::WorkloadIdentity { tenant_id: None, client_id: None, token_file: None });
    };
    let client_id = entry(entries, "AZURE_CLIENT_ID")?.expose().to_owned();
    match entries.get("AZURE_CLIENT_SECRET") {
        Some(secret) => Ok(aci::Credential::ClientSecret {
            tenant_id: entry(entries, "AZURE_TENANT_ID")?.expose().to_owned(),
            client_id,
            secret: secret.clone(),
        }),
        None => Ok(aci::Credential::ManagedIdentity { client_id: Some(client_id) }),
    }
}

fn entry(entries: &BTreeMap<String, Secret>, key: &str) -> Result<Secret, Invalid> {
    let found = entries.get(key).cloned();
    found.ok_or_else(|| Invalid::new("spec.credentialsSecretRef", "", format!("the Secret must have the entry {key}")))
}

fn refused(field: &str, error: &Error) -> Invalid {
    let words = error.source.as_ref().map_or_else(|| error.to_string(), ToString::to_string);
    Invalid::new(format!("spec.{field}"), "", words)
}
