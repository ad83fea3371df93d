//! What the admin says about a backend, and how AWS is reached.

use std::fmt::Write;
use std::time::Duration;

use policy::virtual_node::CapacityType;
use policy::workload::Feature;
use sha2::{Digest, Sha256};

use crate::{Architecture, CallLimit, Ownership, Secret};

/// One backend: an ECS cluster of one region, with one capacity type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// AWS region, such as `us-east-1`.
    pub region: String,
    /// Name of the ECS cluster.
    pub cluster: String,
    /// Subnets that tasks get their addresses in.
    pub subnets: Vec<String>,
    /// Security groups of the tasks; empty is the network's default group.
    pub security_groups: Vec<String>,
    /// Role with which ECS pulls images, reads secrets and writes logs.
    pub execution_role_arn: Option<String>,
    /// Role that the containers get.
    pub task_role_arn: Option<String>,
    /// Version of the Fargate platform, or `LATEST`.
    pub platform_version: String,
    /// Whether tasks get a public address.
    pub assign_public_ip: bool,
    /// Capacity provider `FARGATE` or `FARGATE_SPOT`.
    pub capacity_type: CapacityType,
    /// Processor of the tasks, for their price.
    pub architecture: Architecture,
    /// CloudWatch log group that containers write to; `None` keeps no output.
    pub log_group: Option<String>,
    /// `VirtualNode.spec.capabilities`: what the admin opened of the table's conditional cells.
    pub capabilities: Vec<(Feature, bool)>,
    /// Whose tasks these are.
    pub ownership: Ownership,
    /// How many tasks may be launched. See [`LAUNCHES`].
    pub launches: CallLimit,
}

/// AWS launches 100 Fargate tasks at once and then 20 a second, separately for on-demand and Spot, in every account and region.
pub const LAUNCHES: CallLimit = CallLimit::per_second(20, 100);

/// Where AWS publishes its prices, without credentials.
pub const PRICE_LIST: &str = "https://pricing.us-east-1.amazonaws.com";

/// How AWS is reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// Who Spillway is.
    pub credential: Credential,
    /// Takes the place of AWS's own endpoints, for tests.
    pub endpoint: Option<String>,
    /// Base URL of the price list; see [`PRICE_LIST`]. `None` uses only the prices that are built in.
    pub price_list: Option<String>,
    /// From one read of a followed log to the next.
    pub log_pace: Duration,
}

/// Who Spillway is to AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// What the SDK finds: environment, profile, a service account's role (IRSA), EKS pod identity, the machine's role.
    DefaultChain,
    /// An access key.
    AccessKey {
        /// Its public part.
        id: String,
        /// Its secret part.
        secret: Secret,
        /// The token of a temporary key.
        session_token: Option<Secret>,
    },
}

// === impl Settings ===

impl Settings {
    /// The ordinary backend of a cluster: on demand, the newest platform, no public address, no output kept.
    pub fn new(region: impl Into<String>, cluster: impl Into<String>, subnets: Vec<String>, ownership: Ownership) -> Settings {
        Settings {
            region: region.into(),
            cluster: cluster.into(),
            subnets,
            security_groups: Vec::new(),
            execution_role_arn: None,
            task_role_arn: None,
            platform_version: "LATEST".to_owned(),
            assign_public_ip: false,
            capacity_type: CapacityType::OnDemand,
            architecture: Architecture::Amd64,
            log_group: None,
            capabilities: Vec::new(),
            ownership,
            launches: LAUNCHES,
        }
    }

    /// Name of the capacity provider, as the cluster must have it.
    pub fn capacity_provider(&self) -> &'static str {
        match self.capacity_type {
            CapacityType::OnDemand => "FARGATE",
            CapacityType::Spot => "FARGATE_SPOT",
        }
    }

    /// Whether the admin opened what the capability table leaves to him.
    pub(super) fn opens(&self, feature: Feature) -> bool {
        self.capabilities.contains(&(feature, true))
    }

    /// Sixteen hex digits for cluster and virtual node. Names of AWS have too few letters for both, and not the same ones.
    pub(super) fn owner(&self) -> String {
        let Ownership { cluster, virtual_node } = &self.ownership;
        hex(Sha256::digest(format!("{cluster}/{virtual_node}").as_bytes()).as_slice(), 16)
    }

    /// `startedBy` of every task: the only thing that tasks can be listed by and that outlives their tags.
    pub(super) fn started_by(&self) -> String {
        format!("spillway/{}", self.owner())
    }
}

// === impl Access ===

impl Access {
    /// AWS itself, with whatever credentials the SDK finds.
    pub fn new() -> Access {
        Access {
            credential: Credential::DefaultChain,
            endpoint: None,
            price_list: Some(PRICE_LIST.to_owned()),
            log_pace: Duration::from_secs(2),
        }
    }
}

impl Default for Access {
    fn default() -> Access {
        Access::new()
    }
}

/// The first `digits` hex digits.
pub(super) fn hex(bytes: &[u8], digits: usize) -> String {
    let mut text = String::with_capacity(digits + 1);
    for byte in bytes.iter().take(digits.div_ceil(2)) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.truncate(digits);
    text
}
