//! A task definition and its overrides, as ECS names their fields.
//!
//! The SDK's types can be neither compared as text nor hashed over versions of the SDK; these can. Only fields that Spillway
//! uses are here.

use std::collections::BTreeMap;

use aws_sdk_ecs::error::BuildError;
use aws_sdk_ecs::types as sdk;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::settings::hex;

/// What containers run, in which size. Definitions of equal content are one in ECS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// Units of 1/1024 vCPU.
    pub cpu: String,
    /// MiB.
    pub memory: String,
    /// Disk beyond the free 20 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<EphemeralStorage>,
    /// Operating system and processor.
    pub runtime_platform: RuntimePlatform,
    /// Role of ECS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<String>,
    /// Role of the containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role_arn: Option<String>,
    /// `task` lets containers see each other's processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_mode: Option<&'static str>,
    /// Volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Containers.
    pub container_definitions: Vec<ContainerDefinition>,
}

/// Disk of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EphemeralStorage {
    /// 21 to 200.
    #[serde(rename = "sizeInGiB")]
    pub size_in_gib: i32,
}

/// Operating system and processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimePlatform {
    /// `X86_64` or `ARM64`.
    pub cpu_architecture: &'static str,
    /// `LINUX` or a Windows Server.
    pub operating_system_family: &'static str,
}

/// A volume; without EFS an empty directory of the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// A directory of an EFS file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efs_volume_configuration: Option<EfsVolume>,
}

/// A directory of an EFS file system, over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EfsVolume {
    /// `fs-…`.
    pub file_system_id: String,
    /// The directory.
    pub root_directory: String,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDefinition {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// ARN of the secret with a registry login, or the place of one that is not made yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_credentials: Option<String>,
    /// Units of 1/1024 vCPU.
    pub cpu: i32,
    /// MiB at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i32>,
    /// MiB for sure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i32>,
    /// Whether its end is the task's end.
    pub essential: bool,
    /// When it is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<Restart>,
    /// Replaces the image's entry point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entry_point: Vec<String>,
    /// Replaces the image's arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Variables that did not fit into the overrides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<KeyValue>,
    /// Variables from the secret store.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretVariable>,
    /// Ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<MountPoint>,
    /// Containers that must come first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// Seconds from SIGTERM to SIGKILL, 2 to 120.
    pub stop_timeout: i32,
    /// `user` or `user:group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the image's file system cannot be written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly_root_filesystem: bool,
    /// Linux capabilities to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added_capabilities: Vec<String>,
    /// Linux capabilities to go without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped_capabilities: Vec<String>,
    /// Kernel parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_controls: Vec<SystemControl>,
    /// How its health is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Options of the log driver `awslogs`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub awslogs: BTreeMap<&'static str, String>,
}

/// When a container is started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// Exit codes after which it is not.
    pub ignored_exit_codes: Vec<i32>,
    /// Seconds that it must have run; 60 is the least.
    pub restart_attempt_period: i32,
}

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A variable from the secret store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretVariable {
    /// Its name.
    pub name: String,
    /// ARN of the secret and the key in it, or the place of one that is not made yet.
    pub value_from: String,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Its number.
    pub container_port: i32,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
}

/// A volume in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MountPoint {
    /// Name of the volume.
    pub source_volume: String,
    /// Where.
    pub container_path: String,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// A container that must come first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Its name.
    pub container_name: String,
    /// `START` or `SUCCESS`.
    pub condition: &'static str,
}

/// A kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SystemControl {
    /// Its name.
    pub namespace: String,
    /// Its value.
    pub value: String,
}

/// A command that tells a container's health. ECS only reports what it says: nothing restarts or stops a task that no service
/// owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// `CMD` and the command.
    pub command: Vec<String>,
    /// Seconds, 5 to 300.
    pub interval: i32,
    /// Seconds, 2 to 60.
    pub timeout: i32,
    /// 1 to 10.
    pub retries: i32,
    /// Seconds, 0 to 300.
    pub start_period: i32,
}

/// What differs between pods of one definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overrides {
    /// By container.
    pub container_overrides: Vec<ContainerOverride>,
}

/// What differs in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerOverride {
    /// Its name.
    pub name: String,
    /// Its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<KeyValue>,
}

// === impl Definition ===

impl Definition {
    /// A family name that only definitions of this content have. Raising the version makes Spillway forget all that it
    /// registered before, as when the conversion below changes.
    pub fn family(&self) -> String {
        let content = serde_json::to_vec(self).expect("strings, numbers and lists are JSON");
        let hash = Sha256::new().chain_update(b"1").chain_update(content).finalize();
        format!("spillway-{}", hex(hash.as_slice(), 32))
    }

    /// Puts the ARNs of secrets in the places that [`super::translation`] left for them.
    pub fn resolve(&mut self, arns: &BTreeMap<String, String>) {
        let fill = |place: &mut String| {
            if let Some((name, rest)) = place.strip_prefix('{').and_then(|rest| rest.split_once('}'))
                && let Some(arn) = arns.get(name)
            {
                *place = format!("{arn}{rest}");
            }
        };
        for container in &mut self.container_definitions {
            container.repository_credentials.iter_mut().for_each(fill);
            container.secrets.iter_mut().for_each(|secret| fill(&mut secret.value_from));
        }
    }

    pub(super) fn containers(&self) -> Result<Vec<sdk::ContainerDefinition>, BuildError> {
        self.container_definitions.iter().map(ContainerDefinition::to_sdk).collect()
    }

    pub(super) fn volumes(&self) -> Result<Vec<sdk::Volume>, BuildError> {
        self.volumes.iter().map(Volume::to_sdk).collect()
    }

    pub(super) fn platform(&self) -> sdk::RuntimePlatform {
        sdk::RuntimePlatform::builder()
            .cpu_architecture(self.runtime_platform.cpu_architecture.into())
            .operating_system_family(self.runtime_platform.operating_system_family.into())
            .build()
    }

    pub(super) fn storage(&self) -> Option<sdk::EphemeralStorage> {
        self.ephemeral_storage.map(|storage| sdk::EphemeralStorage::builder().size_in_gib(storage.size_in_gib).build())
    }
}

// === impl Volume ===

impl Volume {
    fn to_sdk(&self) -> Result<sdk::Volume, BuildError> {
        let volume = sdk::Volume::builder().name(&self.name);
        let Some(efs) = &self.efs_volume_configuration else {
            return Ok(volume.host(sdk::HostVolumeProperties::builder().build()).build());
        };
        let efs = sdk::EfsVolumeConfiguration::builder()
            .file_system_id(&efs.file_system_id)
            .root_directory(&efs.root_directory)
            .transit_encryption(sdk::EfsTransitEncryption::Enabled)
            .build()?;
        Ok(volume.efs_volume_configuration(efs).build())
    }
}

// === impl ContainerDefinition ===

impl ContainerDefinition {
    fn to_sdk(&self) -> Result<sdk::ContainerDefinition, BuildError> {
        let login = self.repository_credentials.as_ref();
        let login = login.map(|arn| sdk::RepositoryCredentials::builder().credentials_parameter(arn).build()).transpose()?;
        Ok(sdk::ContainerDefinition::builder()
            .name(&self.name)
            .image(&self.image)
            .set_repository_credentials(login)
            .cpu(self.cpu)
            .set_memory(self.memory)
            .set_memory_reservation(self.memory_reservation)
            .essential(self.essential)
            .set_restart_policy(self.restart_policy.as_ref().map(Restart::to_sdk).transpose()?)
            .set_entry_point(filled(&self.entry_point))
            .set_command(filled(&self.command))
            .set_working_directory(self.working_directory.clone())
            .set_environment(filled(&key_values(&self.environment)))
            .set_secrets(self.sdk_secrets()?)
            .set_port_mappings(filled(&self.sdk_ports()))
            .set_mount_points(filled(&self.sdk_mounts()))
            .set_depends_on(self.sdk_dependencies()?)
            .stop_timeout(self.stop_timeout)
            .set_user(self.user.clone())
            .set_readonly_root_filesystem(self.readonly_root_filesystem.then_some(true))
            .set_linux_parameters(self.sdk_capabilities())
            .set_system_controls(filled(&self.sdk_system_controls()))
            .set_health_check(self.health_check.as_ref().map(HealthCheck::to_sdk).transpose()?)
            .set_log_configuration(self.sdk_logs()?)
            .build())
    }

    fn sdk_secrets(&self) -> Result<Option<Vec<sdk::Secret>>, BuildError> {
        let secret = |secret: &SecretVariable| sdk::Secret::builder().name(&secret.name).value_from(&secret.value_from).build();
        let secrets: Vec<_> = self.secrets.iter().map(secret).collect::<Result<_, _>>()?;
        Ok(filled(&secrets))
    }

    fn sdk_ports(&self) -> Vec<sdk::PortMapping> {
        let port = |port: &PortMapping| {
            sdk::PortMapping::builder().container_port(port.container_port).protocol(port.protocol.into()).build()
        };
        self.port_mappings.iter().map(port).collect()
    }

    fn sdk_mounts(&self) -> Vec<sdk::MountPoint> {
        let mount = |mount: &MountPoint| {
            sdk::MountPoint::builder()
                .source_volume(&mount.source_volume)
                .container_path(&mount.container_path)
                .read_only(mount.read_only)
                .build()
        };
        self.mount_points.iter().map(mount).collect()
    }

    fn sdk_dependencies(&self) -> Result<Option<Vec<sdk::ContainerDependency>>, BuildError> {
        let dependency = |dependency: &Dependency| {
            sdk::ContainerDependency::builder()
                .container_name(&dependency.container_name)
                .condition(dependency.condition.into())
                .build()
        };
        let dependencies: Vec<_> = self.depends_on.iter().map(dependency).collect::<Result<_, _>>()?;
        Ok(filled(&dependencies))
    }

    fn sdk_capabilities(&self) -> Option<sdk::LinuxParameters> {
        if self.added_capabilities.is_empty() && self.dropped_capabilities.is_empty() {
            return None;
        }
        let capabilities = sdk::KernelCapabilities::builder()
            .set_add(filled(&self.added_capabilities))
            .set_drop(filled(&self.dropped_capabilities))
            .build();
        Some(sdk::LinuxParameters::builder().capabilities(capabilities).build())
    }

    fn sdk_system_controls(&self) -> Vec<sdk::SystemControl> {
        let control =
            |control: &SystemControl| sdk::SystemControl::builder().namespace(&control.namespace).value(&control.value).build();
        self.system_controls.iter().map(control).collect()
    }

    fn sdk_logs(&self) -> Result<Option<sdk::LogConfiguration>, BuildError> {
        if self.awslogs.is_empty() {
            return Ok(None);
        }
        let options = self.awslogs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        sdk::LogConfiguration::builder().log_driver(sdk::LogDriver::Awslogs).set_options(Some(options)).build().map(Some)
    }
}

// === impl Restart ===

impl Restart {
    fn to_sdk(&self) -> Result<sdk::ContainerRestartPolicy, BuildError> {
        sdk::ContainerRestartPolicy::builder()
            .enabled(true)
            .set_ignored_exit_codes(filled(&self.ignored_exit_codes))
            .restart_attempt_period(self.restart_attempt_period)
            .build()
    }
}

// === impl HealthCheck ===

impl HealthCheck {
    fn to_sdk(&self) -> Result<sdk::HealthCheck, BuildError> {
        sdk::HealthCheck::builder()
            .set_command(Some(self.command.clone()))
            .interval(self.interval)
            .timeout(self.timeout)
            .retries(self.retries)
            .start_period(self.start_period)
            .build()
    }
}

// === impl Overrides ===

impl Overrides {
    pub(super) fn to_sdk(&self) -> Option<sdk::TaskOverride> {
        let container = |container: &ContainerOverride| {
            sdk::ContainerOverride::builder()
                .name(&container.name)
                .set_command(filled(&container.command))
                .set_environment(filled(&key_values(&container.environment)))
                .build()
        };
        let containers: Vec<_> = self.container_overrides.iter().map(container).collect();
        (!containers.is_empty()).then(|| sdk::TaskOverride::builder().set_container_overrides(Some(containers)).build())
    }
}

fn key_values(variables: &[KeyValue]) -> Vec<sdk::KeyValuePair> {
    let pair = |variable: &KeyValue| sdk::KeyValuePair::builder().name(&variable.name).value(&variable.value).build();
    variables.iter().map(pair).collect()
}

/// A field that is left out when it is empty.
fn filled<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
