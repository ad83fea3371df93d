//! HashiCorp Nomad.

use std::sync::Arc;

use providers::nomad::{Connection, NomadProvider, Settings};
use providers::{Clock, Ownership, Provider};

use super::{Credentials, entry, refused};
use crate::api::{self, Invalid};

pub(super) fn connect(
    spec: &api::NomadSpec,
    compiled: &policy::VirtualNode,
    credentials: &Credentials,
    ownership: Ownership,
    clock: Clock,
) -> Result<Arc<dyn Provider>, Invalid> {
    let settings = Settings {
        region: spec.region.clone(),
        namespace: spec.namespace.clone(),
        datacenters: spec.datacenters.clone(),
        node_pool: spec.node_pool.clone(),
        opened: compiled.capabilities.iter().filter(|(_, open)| *open).map(|(feature, _)| *feature).collect(),
        ..Settings::new(ownership, compiled.mhz_per_core)
    };
    let token = credentials.entries.as_ref().map(|entries| entry(entries, "NOMAD_TOKEN")).transpose()?;
    let connection = Connection { address: spec.address.clone(), token, authorities: credentials.authority.clone() };
    match NomadProvider::new(settings, &connection, clock) {
        Ok(provider) => Ok(Arc::new(provider)),
        Err(error) => Err(refused("nomad", &error)),
    }
}
