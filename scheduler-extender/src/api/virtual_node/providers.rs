//! Settings of the providers.
//!
//! Fields that say *where* something runs cannot be changed: the pods there would be lost from sight, and billed.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct, with its `pub`, inside a function")]

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::super::schema;

/// AWS Fargate, as tasks of an ECS cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.region == oldSelf.region")
        .message("region cannot be changed, because what runs there would be lost from sight: create another VirtualNode")
        .field_path(".region").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.cluster == oldSelf.cluster")
        .message("cluster cannot be changed, because what runs there would be lost from sight: create another VirtualNode")
        .field_path(".cluster").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.logGroup) || has(self.executionRoleArn)")
        .message("logGroup needs executionRoleArn, the role with which ECS writes logs")
        .field_path(".executionRoleArn")
)]
pub struct FargateSpec {
    /// AWS region, for example `us-east-1`.
    #[schemars(schema_with = "aws_region_schema")]
    pub region: String,
    /// Name of the ECS cluster.
    #[schemars(schema_with = "ecs_cluster_schema")]
    pub cluster: String,
    /// Subnets that tasks get their addresses in.
    #[schemars(schema_with = "subnets_schema")]
    pub subnets: Vec<String>,
    /// Security groups of the tasks. Absent: the default group of the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "security_groups_schema")]
    pub security_groups: Vec<String>,
    /// Role with which ECS pulls images, reads secrets and writes logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "role_schema")]
    pub execution_role_arn: Option<String>,
    /// Role that the containers get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "role_schema")]
    pub task_role_arn: Option<String>,
    /// Version of the Fargate platform.
    #[serde(default = "latest")]
    #[schemars(schema_with = "platform_version_schema")]
    pub platform_version: String,
    /// Whether tasks get a public address; needed for pulling images in a subnet without NAT.
    #[serde(default)]
    pub assign_public_ip: bool,
    /// CloudWatch log group that containers write to, which must exist; needs `executionRoleArn`. Absent: output is not
    /// kept, and `kubectl logs` has nothing to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "log_group_schema")]
    pub log_group: Option<String>,
    /// Architecture of the tasks. Two architectures make two virtual nodes.
    #[serde(default)]
    pub architecture: Architecture,
}

/// Default of [`FargateSpec::platform_version`].
fn latest() -> String {
    "LATEST".to_owned()
}

/// Architecture of the machines, as in `kubernetes.io/arch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    #[default]
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

/// Azure Container Instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.subscriptionId == oldSelf.subscriptionId")
        .message("subscriptionId cannot be changed, because what runs there would be lost from sight: create another VirtualNode")
        .field_path(".subscriptionId").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.resourceGroup == oldSelf.resourceGroup")
        .message("resourceGroup cannot be changed, because what runs there would be lost from sight: create another VirtualNode")
        .field_path(".resourceGroup").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.location == oldSelf.location")
        .message("location cannot be changed, because what runs there would be lost from sight: create another VirtualNode")
        .field_path(".location").reason(Reason::FieldValueForbidden)
)]
pub struct AciSpec {
    /// Identifier of the Azure subscription, in lower case.
    #[schemars(schema_with = "subscription_schema")]
    pub subscription_id: String,
    /// Resource group that container groups are made in.
    #[schemars(schema_with = "resource_group_schema")]
    pub resource_group: String,
    /// Azure location, for example `eastus`.
    #[schemars(schema_with = "location_schema")]
    pub location: String,
    /// Resource identifier of the subnet that container groups join. Absent: they get no network of yours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "subnet_id_schema")]
    pub subnet_id: Option<String>,
    /// Version of the Azure API, as a date. Absent: the one that this release of Spillway was tested with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "api_version_schema")]
    pub api_version: Option<String>,
}

/// HashiCorp Nomad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.region == oldSelf.region")
        .message("region cannot be changed, because what runs there would be lost from sight: create another VirtualNode")
        .field_path(".region").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.__namespace__ == oldSelf.__namespace__")
        .message("namespace cannot be changed, because what runs there would be lost from sight: create another VirtualNode")
        .field_path(".namespace").reason(Reason::FieldValueForbidden)
)]
pub struct NomadSpec {
    /// URL of the Nomad API; https only, because requests carry a token and secrets.
    #[schemars(schema_with = "address_schema")]
    pub address: String,
    /// Nomad region.
    #[serde(default = "global")]
    #[schemars(schema_with = "nomad_name_schema")]
    pub region: String,
    /// Nomad namespace that jobs are made in.
    #[serde(default = "default_name")]
    #[schemars(schema_with = "nomad_name_schema")]
    pub namespace: String,
    /// Datacenters that jobs may run in; `*` means all.
    #[serde(default = "all")]
    #[schemars(schema_with = "datacenters_schema")]
    pub datacenters: Vec<String>,
    /// Node pool that jobs may run in.
    #[serde(default = "default_name")]
    #[schemars(schema_with = "nomad_name_schema")]
    pub node_pool: String,
    /// How many MHz one vCPU is asked for as, because Nomad counts CPU in MHz.
    #[schemars(schema_with = "mhz_schema")]
    pub mhz_per_core: i64,
    /// Certificate authority of the Nomad API. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}

/// Default of [`NomadSpec::region`].
fn global() -> String {
    "global".to_owned()
}

/// Default of names in Nomad.
fn default_name() -> String {
    "default".to_owned()
}

/// Default of [`NomadSpec::datacenters`].
fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// A provider in the memory of Spillway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.region == oldSelf.region")
        .message("region cannot be changed, because what runs there would be lost from sight: create another VirtualNode")
        .field_path(".region").reason(Reason::FieldValueForbidden)
)]
pub struct InMemorySpec {
    /// Name of the region it plays.
    #[serde(default = "local")]
    #[schemars(schema_with = "schema::dns_label")]
    pub region: String,
}

/// Default of [`InMemorySpec::region`].
fn local() -> String {
    "local".to_owned()
}

/// A secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Namespace of the secret.
    #[schemars(schema_with = "schema::dns_label")]
    pub namespace: String,
    /// Name of the secret.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// One entry of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Namespace of the secret.
    #[schemars(schema_with = "schema::dns_label")]
    pub namespace: String,
    /// Name of the secret.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key of the entry.
    #[serde(default = "ca_certificate")]
    #[schemars(schema_with = "secret_key_schema")]
    pub key: String,
}

/// Default of [`SecretKeyRef::key`].
fn ca_certificate() -> String {
    "ca.crt".to_owned()
}

// === schemas ===

fn aws_region_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(32, "^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$")
}

fn ecs_cluster_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(255, "^[A-Za-z0-9_-]+$")
}

fn subnets_schema(_: &mut SchemaGenerator) -> Schema {
    schema::strings(1, 16, 24, "^subnet-[0-9a-f]{8,17}$")
}

fn security_groups_schema(_: &mut SchemaGenerator) -> Schema {
    schema::strings(0, 5, 20, "^sg-[0-9a-f]{8,17}$")
}

fn role_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(2048, "^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$")
}

fn platform_version_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(16, "^(LATEST|[0-9]+\\.[0-9]+\\.[0-9]+)$")
}

fn log_group_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(512, "^[A-Za-z0-9_./#-]+$")
}

fn subscription_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(36, "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
}

fn resource_group_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(90, "^[A-Za-z0-9_.()-]*[A-Za-z0-9_()-]$")
}

fn location_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(40, "^[a-z0-9]+$")
}

fn subnet_id_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(
        512,
        "^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\\.Network/virtualNetworks/[^/]+/subnets/[^/]+$",
    )
}

fn api_version_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(18, "^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$")
}

fn address_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "string", "minLength": 9, "maxLength": 512,
        "x-kubernetes-validations": [{
            "rule": "isURL(self) && url(self).getScheme() == 'https' && url(self).getHostname() != ''",
            "message": "must be a https URL, such as https://nomad.example.com:4646",
        }],
    })
}

fn nomad_name_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(128, "^[A-Za-z0-9_-]+$")
}

fn datacenters_schema(_: &mut SchemaGenerator) -> Schema {
    schema::strings(1, 32, 128, "^[A-Za-z0-9_*-]+$")
}

fn mhz_schema(_: &mut SchemaGenerator) -> Schema {
    schema::integer(100, 20_000)
}

fn secret_key_schema(_: &mut SchemaGenerator) -> Schema {
    schema::string(253, "^[A-Za-z0-9_.-]+$")
}
