//! What an admin says of a Nomad cluster.

use std::sync::Arc;

use policy::workload::Feature;
use sha2::{Digest, Sha256};

use crate::{Ownership, PodUid, RemoteId, Secret};

/// Where in a Nomad cluster pods run, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nomad's region.
    pub region: String,
    /// Namespace of the jobs.
    pub namespace: String,
    /// Datacenters that may be used, with `*` for any characters.
    pub datacenters: Vec<String>,
    /// Node pool that may be used; `all` is every node.
    pub node_pool: String,
    /// MHz that one vCPU is asked for as. Nomad counts CPU in MHz.
    pub mhz_per_core: u32,
    /// Network of the pods: `bridge`, or `cni/…` where the clients have a network of that name that the cluster can route to.
    pub network: String,
    /// Features that the capability table leaves to the admin, and that the admin has opened.
    pub opened: Vec<Feature>,
    /// Whose pods these are.
    pub ownership: Ownership,
}

/// How the API is reached.
#[derive(Clone, Debug)]
pub struct Connection {
    /// URL of an agent, without path.
    pub address: String,
    /// ACL token; none where ACLs are off.
    pub token: Option<Secret>,
    /// PEM of the authorities that the agent's certificate may be from; none means those of the system.
    pub authorities: Option<String>,
}

// === impl Settings ===

impl Settings {
    /// A cluster with everything at its default.
    pub fn new(ownership: Ownership, mhz_per_core: u32) -> Settings {
        Settings {
            region: "global".to_owned(),
            namespace: "default".to_owned(),
            datacenters: vec!["*".to_owned()],
            node_pool: "default".to_owned(),
            mhz_per_core,
            network: "bridge".to_owned(),
            opened: Vec::new(),
            ownership,
        }
    }

    /// What the IDs of this owner's jobs begin with: Nomad finds jobs by prefix without reading the others.
    pub(super) fn prefix(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.ownership.cluster, &self.ownership.virtual_node] {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let short = digest.iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        format!("spillway-{short}-")
    }

    /// The job of a pod.
    pub(super) fn job_id(&self, uid: &PodUid) -> RemoteId {
        RemoteId::new(Arc::from(self.prefix() + uid.as_str()))
    }

    /// MHz for so many thousandths of a vCPU, rounded up; Nomad's smallest is one.
    pub(super) fn mhz(&self, cpu_millis: i64) -> i64 {
        let mhz = i128::from(cpu_millis.max(0)) * i128::from(self.mhz_per_core.max(1));
        i64::try_from((mhz + 999) / 1000).unwrap_or(i64::MAX).max(1)
    }

    /// Thousandths of a vCPU that so many MHz are, rounded down.
    pub(super) fn cpu_millis(&self, mhz: i64) -> i64 {
        i64::try_from(i128::from(mhz) * 1000 / i128::from(self.mhz_per_core.max(1))).unwrap_or(i64::MAX)
    }
}
