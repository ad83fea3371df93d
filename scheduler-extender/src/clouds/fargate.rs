//! AWS Fargate.

use std::sync::Arc;

use providers::fargate::{Access, Credential, Fargate, Settings};
use providers::{Architecture, Clock, Ownership, Provider};

use super::{Credentials, Endpoints, entry, refused};
use crate::api::{self, Invalid};

pub(super) async fn connect(
    spec: &api::FargateSpec,
    compiled: policy::VirtualNode,
    credentials: &Credentials,
    ownership: Ownership,
    clock: Clock,
    endpoints: &Endpoints,
) -> Result<Arc<dyn Provider>, Invalid> {
    let settings = Settings {
        security_groups: spec.security_groups.clone(),
        execution_role_arn: spec.execution_role_arn.clone(),
        task_role_arn: spec.task_role_arn.clone(),
        platform_version: spec.platform_version.clone(),
        assign_public_ip: spec.assign_public_ip,
        capacity_type: compiled.capacity_type,
        architecture: match spec.architecture {
            api::Architecture::Amd64 => Architecture::Amd64,
            api::Architecture::Arm64 => Architecture::Arm64,
        },
        log_group: spec.log_group.clone(),
        capabilities: compiled.capabilities,
        ..Settings::new(&spec.region, &spec.cluster, spec.subnets.clone(), ownership)
    };
    let access = Access { credential: credential(credentials)?, ..endpoints.aws.clone().unwrap_or_default() };
    match Fargate::connect(settings, access, clock).await {
        Ok(provider) => Ok(Arc::new(provider)),
        Err(error) => Err(refused("fargate", &error)),
    }
}

/// An access key of the Secret, else what the environment gives.
fn credential(credentials: &Credentials) -> Result<Credential, Invalid> {
    let Some(entries) = &credentials.entries else { return Ok(Credential::DefaultChain) };
    Ok(Credential::AccessKey {
        id: entry(entries, "AWS_ACCESS_KEY_ID")?.expose().to_owned(),
        secret: entry(entries, "AWS_SECRET_ACCESS_KEY")?,
        session_token: entries.get("AWS_SESSION_TOKEN").cloned(),
    })
}
