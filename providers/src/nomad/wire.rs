//! The parts of Nomad's JSON that are used. Unknown fields are ignored, absent and `null` ones are defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

// === what is sent ===

/// A job, as `PUT /v1/jobs` takes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Job {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) region: String,
    /// `batch` ends by itself, `service` does not.
    #[serde(rename = "Type")]
    pub(super) kind: &'static str,
    pub(super) datacenters: Vec<String>,
    pub(super) node_pool: String,
    pub(super) meta: BTreeMap<&'static str, String>,
    pub(super) constraints: Vec<Constraint>,
    pub(super) task_groups: Vec<TaskGroup>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Constraint {
    #[serde(rename = "LTarget")]
    pub(super) left: &'static str,
    pub(super) operand: &'static str,
    #[serde(rename = "RTarget")]
    pub(super) right: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TaskGroup {
    pub(super) name: &'static str,
    pub(super) count: u32,
    pub(super) restart_policy: RestartPolicy,
    pub(super) reschedule_policy: ReschedulePolicy,
    pub(super) disconnect: Disconnect,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) update: Option<Update>,
    pub(super) ephemeral_disk: EphemeralDisk,
    pub(super) networks: Vec<Network>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) services: Vec<Service>,
    pub(super) tasks: Vec<Task>,
}

/// Durations are nanoseconds everywhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RestartPolicy {
    pub(super) attempts: u32,
    pub(super) interval: u64,
    pub(super) delay: u64,
    pub(super) mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ReschedulePolicy {
    pub(super) attempts: u32,
    pub(super) unlimited: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Disconnect {
    pub(super) replace: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Update {
    pub(super) max_parallel: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct EphemeralDisk {
    #[serde(rename = "SizeMB")]
    pub(super) size_mb: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Network {
    pub(super) mode: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) dynamic_ports: Vec<DynamicPort>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DynamicPort {
    pub(super) label: String,
    pub(super) to: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) provider: &'static str,
    pub(super) port_label: String,
    pub(super) task_name: String,
    pub(super) checks: Vec<Check>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Check {
    #[serde(rename = "Type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<&'static str>,
    #[serde(rename = "TLSSkipVerify", skip_serializing_if = "std::ops::Not::not")]
    pub(super) tls_skip_verify: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) header: BTreeMap<String, Vec<String>>,
    pub(super) interval: u64,
    pub(super) timeout: u64,
    pub(super) check_restart: CheckRestart,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckRestart {
    pub(super) limit: u32,
    pub(super) grace: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) driver: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user: String,
    pub(super) config: Docker,
    pub(super) env: BTreeMap<String, String>,
    pub(super) resources: Resources,
    pub(super) kill_timeout: u64,
    pub(super) kill_signal: &'static str,
    pub(super) log_config: LogConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lifecycle: Option<Lifecycle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) restart_policy: Option<RestartPolicy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) templates: Vec<Template>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) secrets: Vec<SecretBlock>,
}

/// Configuration of the docker driver. Its strings are HCL templates.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Docker {
    pub(super) image: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) args: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) work_dir: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) volumes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) mount: Vec<Tmpfs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) extra_hosts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cap_add: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cap_drop: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) security_opt: Vec<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) readonly_rootfs: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sysctl: Vec<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) auth: Vec<Auth>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Tmpfs {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) target: String,
    pub(super) readonly: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tmpfs_options: Vec<TmpfsOptions>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct TmpfsOptions {
    pub(super) size: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Auth {
    pub(super) server_address: String,
    pub(super) username: String,
    pub(super) password: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Resources {
    #[serde(rename = "CPU")]
    pub(super) cpu_mhz: i64,
    #[serde(rename = "MemoryMB")]
    pub(super) memory_mb: i64,
    #[serde(rename = "Devices", skip_serializing_if = "Vec::is_empty")]
    pub(super) devices: Vec<Device>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Device {
    pub(super) name: &'static str,
    pub(super) count: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LogConfig {
    #[serde(rename = "MaxFiles")]
    pub(super) max_files: i64,
    #[serde(rename = "MaxFileSizeMB")]
    pub(super) max_file_size_mb: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Lifecycle {
    pub(super) hook: &'static str,
    pub(super) sidecar: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Template {
    pub(super) embedded_tmpl: String,
    pub(super) dest_path: String,
    pub(super) change_mode: &'static str,
    pub(super) perms: String,
    #[serde(rename = "Envvars", skip_serializing_if = "std::ops::Not::not")]
    pub(super) environment: bool,
}

/// Values of a Nomad Variable for the task's configuration, as `${secret.<name>.<key>}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SecretBlock {
    pub(super) name: &'static str,
    pub(super) provider: &'static str,
    pub(super) path: String,
}

// === what is answered ===

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A job, as lists and `GET /v1/job/…` show it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct JobStub {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) meta: BTreeMap<String, String>,
    pub(super) stop: bool,
    pub(super) status: String,
    /// Nanoseconds since the Unix epoch.
    pub(super) submit_time: i64,
}

/// A job that was accepted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Registered {
    #[serde(deserialize_with = "or_default")]
    pub(super) warnings: String,
}

/// The scheduler's dry run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Plan {
    /// Of the job that exists already; zero if there is none.
    pub(super) job_modify_index: u64,
    #[serde(rename = "FailedTGAllocs", deserialize_with = "or_default")]
    pub(super) failed: BTreeMap<String, PlacementFailure>,
}

/// Why a group could not be placed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct PlacementFailure {
    pub(super) nodes_evaluated: u32,
    pub(super) nodes_in_pool: u32,
    #[serde(deserialize_with = "or_default")]
    pub(super) nodes_available: BTreeMap<String, u32>,
    #[serde(deserialize_with = "or_default")]
    pub(super) constraint_filtered: BTreeMap<String, u32>,
    #[serde(deserialize_with = "or_default")]
    pub(super) dimension_exhausted: BTreeMap<String, u32>,
    #[serde(deserialize_with = "or_default")]
    pub(super) quota_exhausted: Vec<String>,
}

/// An allocation; lists leave `network_status` out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Allocation {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "JobID")]
    pub(super) job_id: String,
    #[serde(rename = "NodeID")]
    pub(super) node_id: String,
    pub(super) create_index: u64,
    pub(super) desired_status: String,
    pub(super) desired_description: String,
    pub(super) client_status: String,
    pub(super) client_description: String,
    pub(super) preempted_by_allocation: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) task_states: BTreeMap<String, TaskState>,
    #[serde(deserialize_with = "or_default")]
    pub(super) allocated_resources: AllocatedResources,
    #[serde(deserialize_with = "or_default")]
    pub(super) network_status: NetworkStatus,
    /// Nanoseconds since the Unix epoch.
    pub(super) create_time: i64,
    /// Nanoseconds since the Unix epoch.
    pub(super) modify_time: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NetworkStatus {
    pub(super) address: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct TaskState {
    pub(super) state: String,
    pub(super) failed: bool,
    pub(super) restarts: u32,
    pub(super) started_at: Option<String>,
    pub(super) finished_at: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) events: Vec<TaskEvent>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct TaskEvent {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    /// Nanoseconds since the Unix epoch.
    pub(super) time: i64,
    pub(super) display_message: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) details: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct AllocatedResources {
    #[serde(deserialize_with = "or_default")]
    pub(super) tasks: BTreeMap<String, AllocatedTask>,
    #[serde(deserialize_with = "or_default")]
    pub(super) task_lifecycles: BTreeMap<String, Option<AllocatedLifecycle>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct AllocatedLifecycle {
    pub(super) hook: String,
    pub(super) sidecar: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct AllocatedTask {
    pub(super) cpu: Cpu,
    pub(super) memory: Memory,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Cpu {
    /// MHz.
    pub(super) cpu_shares: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    #[serde(rename = "MemoryMB")]
    pub(super) mb: i64,
}

/// A client, as lists show it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Node {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) datacenter: String,
    pub(super) node_pool: String,
    pub(super) status: String,
    pub(super) scheduling_eligibility: String,
    pub(super) drain: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) drivers: BTreeMap<String, Driver>,
    #[serde(deserialize_with = "or_default")]
    pub(super) node_resources: NodeResources,
    #[serde(deserialize_with = "or_default")]
    pub(super) reserved_resources: NodeResources,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Driver {
    pub(super) detected: bool,
    pub(super) healthy: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NodeResources {
    pub(super) cpu: Cpu,
    pub(super) memory: Memory,
}

/// What the tasks of an allocation use.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct AllocationUsage {
    #[serde(deserialize_with = "or_default")]
    pub(super) tasks: BTreeMap<String, TaskUsage>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct TaskUsage {
    #[serde(deserialize_with = "or_default")]
    pub(super) resource_usage: ResourceUsage,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ResourceUsage {
    #[serde(deserialize_with = "or_default")]
    pub(super) cpu_stats: CpuStats,
    #[serde(deserialize_with = "or_default")]
    pub(super) memory_stats: MemoryStats,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct CpuStats {
    /// Of one core.
    pub(super) percent: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MemoryStats {
    #[serde(rename = "RSS")]
    pub(super) rss: i64,
    #[serde(rename = "Usage")]
    pub(super) usage: i64,
}

/// One line of the event stream; a heartbeat has no events.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Events {
    #[serde(deserialize_with = "or_default")]
    pub(super) events: Vec<Event>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Event {
    pub(super) payload: Payload,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Payload {
    pub(super) allocation: Option<Changed>,
    pub(super) evaluation: Option<Changed>,
    pub(super) job: Option<Changed>,
}

/// Only what says whose event it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Changed {
    #[serde(rename = "JobID")]
    pub(super) job_id: String,
    #[serde(rename = "ID")]
    pub(super) id: String,
}
