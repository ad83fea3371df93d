//! Container groups as Azure Resource Manager writes them.
//!
//! Requests are types of their own: they hold secrets, which answers never do, and no field that only Azure may set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::Secret;

/// A container group to make.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Azure location.
    pub location: String,
    /// Whose group it is.
    pub tags: BTreeMap<String, String>,
    /// What it runs.
    pub properties: GroupProperties,
}

/// What a container group runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupProperties {
    /// Always `Standard`: the others cost more or need another quota.
    pub sku: &'static str,
    /// `Regular` or `Spot`.
    pub priority: &'static str,
    /// `Linux` or `Windows`.
    pub os_type: &'static str,
    /// `Always`, `OnFailure` or `Never`.
    pub restart_policy: &'static str,
    /// The containers.
    pub containers: Vec<Container>,
    /// What runs before them, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<InitContainer>,
    /// Who may pull the images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_registry_credentials: Vec<RegistryCredential>,
    /// An address in the subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<IpAddress>,
    /// What the containers mount.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// The subnet to join.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subnet_ids: Vec<SubnetId>,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// All else.
    pub properties: ContainerProperties,
}

/// One container, but for its name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProperties {
    /// Image reference.
    pub image: String,
    /// Replaces the image's entry point and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Ports that it listens on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Its environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment_variables: Vec<Variable>,
    /// Its share of the group.
    pub resources: Resources,
    /// Volumes in its file system.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Restarts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
    /// Takes it out of Services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    /// Users and rights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}

/// One init container: Azure knows neither resources nor ports nor probes of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InitContainer {
    /// Its name.
    pub name: String,
    /// All else.
    pub properties: InitContainerProperties,
}

/// One init container, but for its name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InitContainerProperties {
    /// Image reference.
    pub image: String,
    /// Replaces the image's entry point and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment_variables: Vec<Variable>,
    /// Volumes in its file system.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Users and rights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}

/// An environment variable: one of the two values.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// A value that everybody may read, also an empty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// A value that Azure never shows again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_value: Option<Secure>,
}

/// A secret on its way to Azure, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secure(pub Secret);

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its number.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resources {
    /// What is paid for.
    pub requests: Amounts,
    /// What may be used, at most what the group has.
    pub limits: Amounts,
}

/// CPU and memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Amounts {
    /// vCPUs, in hundredths.
    #[serde(default)]
    pub cpu: f64,
    /// Gigabytes of 10⁹ bytes, in tenths.
    #[serde(default, rename = "memoryInGB")]
    pub memory_gb: f64,
}

/// A volume in a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Name of the volume.
    pub name: String,
    /// Where.
    pub mount_path: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// A question to a container: one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// A command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<ProbeCommand>,
    /// A request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// Before the first.
    pub initial_delay_seconds: u32,
    /// Between two.
    pub period_seconds: u32,
    /// Failures in a row that count.
    pub failure_threshold: u32,
    /// Successes in a row that count.
    pub success_threshold: u32,
    /// How long an answer may take.
    pub timeout_seconds: u32,
}

/// A command that must end with zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeCommand {
    /// It and its arguments.
    pub command: Vec<String>,
}

/// A GET that must succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// Path and query.
    pub path: String,
    /// Port.
    pub port: u16,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<Header>,
}

/// A header of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Users and rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    /// Whether a process may gain more rights than its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_privilege_escalation: Option<bool>,
    /// Linux capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Group number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as_group: Option<i32>,
    /// User number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<i32>,
}

/// Linux capabilities to go without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Their names.
    pub drop: Vec<String>,
}

/// A login at a registry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegistryCredential {
    /// Host name.
    pub server: String,
    /// Who.
    pub username: String,
    /// The password.
    pub password: Secure,
}

/// An address in the subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IpAddress {
    /// Always `Private`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// At least one, at most five.
    pub ports: Vec<Port>,
}

/// A volume: one of the three.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Nothing at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    /// Files in Base64, which Azure never shows again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<BTreeMap<String, Secure>>,
    /// A share of Azure Files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_file: Option<AzureFile>,
}

/// Nothing more to say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EmptyDir {}

/// A share of Azure Files.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureFile {
    /// The share.
    pub share_name: String,
    /// Its account.
    pub storage_account_name: String,
    /// The account's key.
    pub storage_account_key: Secure,
    /// Whether nobody may write to it.
    pub read_only: bool,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubnetId {
    /// Its resource identifier.
    pub id: String,
}

/// A container group as Azure shows it. Lists leave `instanceView` out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct GroupView {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// What it runs.
    #[serde(default)]
    pub properties: GroupPropertiesView,
}

/// What a container group runs and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupPropertiesView {
    /// How far Azure's own work is, such as `Creating` or `Succeeded`.
    pub provisioning_state: String,
    /// `Regular` or `Spot`.
    pub priority: Option<String>,
    /// `Always`, `OnFailure` or `Never`.
    pub restart_policy: Option<String>,
    /// The containers.
    pub containers: Vec<ContainerView>,
    /// Those before them.
    pub init_containers: Vec<ContainerView>,
    /// Its address.
    pub ip_address: Option<IpAddressView>,
    /// What goes on.
    pub instance_view: Option<InstanceView>,
}

/// One container as Azure shows it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ContainerView {
    /// Its name.
    pub name: String,
    /// All else.
    pub properties: ContainerPropertiesView,
}

/// One container as Azure shows it, but for its name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPropertiesView {
    /// Its share of the group; init containers have none.
    pub resources: Option<ResourcesView>,
    /// What goes on in it.
    pub instance_view: Option<ContainerInstanceView>,
}

/// The share of a container.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ResourcesView {
    /// What is paid for.
    pub requests: Amounts,
}

/// What goes on in a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerInstanceView {
    /// How often it was started again.
    pub restart_count: u32,
    /// What it does.
    pub current_state: Option<State>,
    /// What it did before its last restart.
    pub previous_state: Option<State>,
    /// What happened to it.
    pub events: Vec<Event>,
}

/// What a container does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// `Waiting`, `Running` or `Terminated`.
    pub state: String,
    /// Why, in a word.
    pub detail_status: Option<String>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// When it began.
    pub start_time: Option<String>,
    /// When it ended.
    pub finish_time: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// What, such as `Pulling`.
    pub name: String,
    /// The whole story.
    pub message: String,
    /// The first time.
    pub first_timestamp: Option<String>,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What goes on in a group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct InstanceView {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Stopped`.
    pub state: String,
    /// What happened to it.
    pub events: Vec<Event>,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct IpAddressView {
    /// The address itself, once there is one.
    pub ip: Option<String>,
}

/// A part of a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The entries.
    #[serde(default = "Vec::new")]
    pub value: Vec<T>,
    /// Where the next part is.
    #[serde(default)]
    pub next_link: Option<String>,
}

/// How much of something is in use.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageEntry {
    /// Of what.
    pub name: UsageName,
    /// In use.
    #[serde(default)]
    pub current_value: i64,
    /// The quota.
    #[serde(default)]
    pub limit: i64,
}

/// A name of a quota.
#[derive(Clone, Debug, Deserialize)]
pub struct UsageName {
    /// The constant name, such as `StandardCores`.
    #[serde(default)]
    pub value: String,
}

/// What a location can run, for one operating system, kind of address and GPU.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CapabilityEntry {
    /// `Linux` or `Windows`.
    pub os_type: String,
    /// `Public`, `Private` or `None`.
    pub ip_address_type: String,
    /// `None`, or a model.
    pub gpu: String,
    /// The sizes.
    pub capabilities: LargestSizes,
}

/// The largest container group.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LargestSizes {
    /// Gigabytes.
    #[serde(rename = "maxMemoryInGB")]
    pub max_memory_gb: f64,
    /// vCPUs.
    pub max_cpu: f64,
}

/// Output of a container.
#[derive(Clone, Debug, Deserialize)]
pub struct Logs {
    /// All of it.
    #[serde(default)]
    pub content: Option<String>,
}

/// A command to run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecRequest {
    /// One line.
    pub command: String,
    /// Size of the terminal, which there always is.
    pub terminal_size: TerminalSize,
}

/// A terminal's size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Where a command can be talked to.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecAnswer {
    /// A WebSocket.
    pub web_socket_uri: String,
    /// What to say first.
    pub password: String,
}

/// An error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ErrorAnswer {
    /// What it is about.
    pub error: ErrorBody,
}

/// What an error is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    /// A constant name.
    pub code: String,
    /// A sentence.
    pub message: String,
}

// === impl Secure ===

impl Serialize for Secure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}
