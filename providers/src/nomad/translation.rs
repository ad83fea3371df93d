//! From a pod to a job: a pure function.
//!
//! Nomad expands references of its own, in three different ways, and everything that came from the pod is kept from all of
//! them. The docker driver's configuration is a set of HCL templates, so `${` and `%{` are escaped. In `Env` references to what
//! Nomad knows are replaced and nothing can be escaped, so such a value goes through a template. Templates are Go templates, so
//! bytes stand in them as base64.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use policy::capability::Refusal;
use policy::workload::Feature;

use super::Settings;
use super::wire::{
    Auth, Check, CheckRestart, Constraint, Device, Disconnect, Docker, DynamicPort, EphemeralDisk, Job, Lifecycle, LogConfig,
    Network, ReschedulePolicy, Resources, RestartPolicy, SecretBlock, Service, Task, TaskGroup, Template, Tmpfs, TmpfsOptions,
    Update,
};
use crate::{
    Architecture, Container, File, Mount, OperatingSystem, PodRequest, Probe, ProbeAction, Secret, Value, Variable, VolumeSource,
};

/// A job and the Nomad Variables that its templates read.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The job. No secret is in it.
    pub job: Job,
    /// Nomad Variables by path.
    pub variables: BTreeMap<String, BTreeMap<String, Secret>>,
}

/// Name of the one task group, also part of the path of the registries' Variable.
pub(super) const GROUP: &str = "pod";
/// Keys of a job's metadata.
pub(super) const META_UID: &str = "spillway.dev/pod-uid";
pub(super) const META_NAMESPACE: &str = "spillway.dev/namespace";
pub(super) const META_NAME: &str = "spillway.dev/pod";
pub(super) const META_CLUSTER: &str = "spillway.dev/cluster";
pub(super) const META_VIRTUAL_NODE: &str = "spillway.dev/virtual-node";
/// Thousandths of a vCPU, bytes of memory, bytes of disk.
pub(super) const META_SHAPE: &str = "spillway.dev/shape";

/// Paths of the Variables that were made for the job, with spaces between them.
pub(super) const META_VARIABLES: &str = "spillway.dev/variables";

/// Nomad's defaults for a task that asks for nothing; `policy::Shape` prices the same.
const DEFAULT_MHZ: i64 = 100;
const DEFAULT_MEMORY_MB: i64 = 300;
const SMALLEST_MEMORY_MB: i64 = 10;
/// Output that a client keeps of a container, for each of its two streams.
const LOG_FILES: i64 = 2;
const LOG_FILE_MB: i64 = 10;
/// Nomad's default size of an allocation's disk.
const DISK_MB: i64 = 300;
/// `terminationGracePeriodSeconds` that every client allows (`max_kill_timeout`).
const LONGEST_GRACE: Duration = Duration::from_secs(30);
/// What a Nomad Variable may hold in all.
const VARIABLE_BYTES: usize = 64 << 10;
/// Allocation directories that Nomad makes writable for everybody; any other is made by docker and belongs to root.
const WRITABLE: [&str; 2] = ["data", "tmp"];
/// Nomad mounts these into every container.
const TAKEN: [&str; 3] = ["/alloc", "/local", "/secrets"];
const MIB: i64 = 1 << 20;
/// Label of the port that is asked for only so that Nomad says the pod's address.
const ADDRESS_PORT: &str = "pod";

/// The job of a pod, or the first rule that keeps Nomad from running it.
pub fn translate(request: &PodRequest, settings: &Settings) -> Result<Translation, Refusal> {
    let open = |feature| settings.opened.contains(&feature);
    check_pod(request, &open)?;
    let id = settings.job_id(&request.uid).as_str().to_owned();
    let mut vault = Vault::new(&id);
    let pod = Pod { request, settings, open: &open };
    let init = request.init_containers.iter().map(|container| pod.task(container, true, &mut vault));
    let mut tasks = init.collect::<Result<Vec<Task>, Refusal>>()?;
    for container in &request.containers {
        tasks.push(pod.task(container, false, &mut vault)?);
    }
    let (services, ports) = pod.services();
    let group = TaskGroup {
        name: GROUP,
        count: 1,
        restart_policy: restart_policy(request.restart),
        // A pod is never moved: its owner makes another one.
        reschedule_policy: ReschedulePolicy { attempts: 0, unlimited: false },
        disconnect: Disconnect { replace: false },
        // Deployments would judge the health of something that only ever has one version.
        update: (request.restart == crate::RestartPolicy::Always).then_some(Update { max_parallel: 0 }),
        ephemeral_disk: EphemeralDisk { size_mb: disk_mb(request, tasks.len()) },
        networks: vec![Network { mode: settings.network.clone(), dynamic_ports: ports }],
        services,
        tasks,
    };
    let variables = vault.close()?;
    let mut meta = meta(request, settings);
    if !variables.is_empty() {
        meta.insert(META_VARIABLES, variables.keys().map(String::as_str).collect::<Vec<_>>().join(" "));
    }
    let job = Job {
        name: id.clone(),
        id,
        namespace: settings.namespace.clone(),
        region: settings.region.clone(),
        kind: if request.restart == crate::RestartPolicy::Always { "service" } else { "batch" },
        datacenters: settings.datacenters.clone(),
        node_pool: settings.node_pool.clone(),
        meta,
        constraints: constraints(request),
        task_groups: vec![group],
    };
    Ok(Translation { job, variables })
}

fn refuse(feature: Feature, sentence: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal { rule: feature.label(), sentence: sentence.into() }
}

/// What concerns the pod as a whole.
fn check_pod(request: &PodRequest, open: &dyn Fn(Feature) -> bool) -> Result<(), Refusal> {
    if request.share_processes {
        return Err(refuse(Feature::SharedProcessNamespace, "Nomad gives every container a process namespace of its own"));
    }
    if request.grace_period > LONGEST_GRACE && !open(Feature::LongGracePeriod) {
        let sentence = "Nomad's clients allow a grace period of 30 s unless their max_kill_timeout says otherwise";
        return Err(refuse(Feature::LongGracePeriod, sentence));
    }
    for volume in &request.volumes {
        match &volume.source {
            VolumeSource::Empty { memory: true, .. } if request.init_containers.len() + request.containers.len() > 1 => {
                let sentence = "Nomad's memory file systems belong to one container and cannot be shared";
                return Err(refuse(Feature::EmptyDirMemory, sentence));
            }
            VolumeSource::AzureFile { .. } => {
                let sentence = "Nomad mounts Azure Files only through a CSI plugin, which Spillway does not use";
                return Err(refuse(Feature::AzureFile, sentence));
            }
            VolumeSource::Nfs { .. } => return Err(refuse(Feature::Nfs, "Nomad mounts NFS only through a CSI plugin")),
            VolumeSource::Empty { .. } | VolumeSource::Files(_) => {}
        }
    }
    Ok(())
}

fn meta(request: &PodRequest, settings: &Settings) -> BTreeMap<&'static str, String> {
    let shape = &request.shape;
    BTreeMap::from([
        (META_UID, request.uid.to_string()),
        (META_NAMESPACE, request.namespace.to_string()),
        (META_NAME, request.name.to_string()),
        (META_CLUSTER, settings.ownership.cluster.to_string()),
        (META_VIRTUAL_NODE, settings.ownership.virtual_node.to_string()),
        (META_SHAPE, format!("{}/{}/{}", shape.cpu_millis, shape.memory_bytes, shape.ephemeral_bytes)),
    ])
}

fn constraints(request: &PodRequest) -> Vec<Constraint> {
    let architecture = match request.platform.architecture {
        Architecture::Amd64 => "amd64",
        Architecture::Arm64 => "arm64",
    };
    let system = match request.platform.os {
        OperatingSystem::Linux => "linux",
        OperatingSystem::Windows => "windows",
    };
    vec![
        Constraint { left: "${attr.cpu.arch}", operand: "=", right: architecture },
        Constraint { left: "${attr.kernel.name}", operand: "=", right: system },
    ]
}

/// Kubernetes restarts without end, waiting longer and longer; Nomad counts within an interval and then waits for the next.
fn restart_policy(policy: crate::RestartPolicy) -> RestartPolicy {
    match policy {
        crate::RestartPolicy::Never => {
            RestartPolicy { attempts: 0, interval: nanos(Duration::from_secs(24 * 3600)), delay: nanos(SECOND), mode: "fail" }
        }
        crate::RestartPolicy::OnFailure | crate::RestartPolicy::Always => RestartPolicy {
            attempts: 5,
            interval: nanos(Duration::from_secs(300)),
            delay: nanos(Duration::from_secs(10)),
            mode: "delay",
        },
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The disk must hold the output of all tasks, which Nomad counts for each stream once.
fn disk_mb(request: &PodRequest, tasks: usize) -> i64 {
    let logs = i64::try_from(tasks).unwrap_or(i64::MAX).saturating_mul(LOG_FILES * LOG_FILE_MB);
    let asked = request.shape.ephemeral_bytes.max(0).div_euclid(MIB) + i64::from(request.shape.ephemeral_bytes % MIB != 0);
    asked.max(DISK_MB).max(logs.saturating_add(LOG_FILE_MB))
}

struct Pod<'a> {
    request: &'a PodRequest,
    settings: &'a Settings,
    open: &'a dyn Fn(Feature) -> bool,
}

impl Pod<'_> {
    fn task(&self, container: &Container, init: bool, vault: &mut Vault) -> Result<Task, Refusal> {
        self.check_container(container)?;
        let mut templates = Vec::new();
        let env = environment(&container.environment, vault, &mut templates)?;
        let (volumes, mount) = self.mounts(container, vault, &mut templates)?;
        let auth = vault.login(self.request, &container.image);
        let secrets = if auth.is_empty() { Vec::new() } else { vec![vault.registries()] };
        let security = &container.security;
        let no_new_privileges = security.allow_privilege_escalation == Some(false);
        let config = Docker {
            image: literal(&container.image),
            entrypoint: container.command.iter().map(|part| literal(part)).collect(),
            args: container.arguments.iter().map(|part| literal(part)).collect(),
            work_dir: container.working_directory.as_deref().map(literal),
            volumes,
            mount,
            extra_hosts: self.extra_hosts(),
            cap_add: security.added_capabilities.iter().map(|capability| literal(capability)).collect(),
            cap_drop: security.dropped_capabilities.iter().map(|capability| literal(capability)).collect(),
            security_opt: if no_new_privileges { vec!["no-new-privileges"] } else { Vec::new() },
            readonly_rootfs: security.read_only_root,
            sysctl: self.sysctls(),
            auth,
        };
        let sidecar = init && container.sidecar;
        Ok(Task {
            name: container.name.to_string(),
            driver: "docker",
            user: user(container)?,
            config,
            env,
            resources: self.resources(container),
            kill_timeout: nanos(self.request.grace_period),
            kill_signal: "SIGTERM",
            log_config: LogConfig { max_files: LOG_FILES, max_file_size_mb: LOG_FILE_MB },
            lifecycle: init.then_some(Lifecycle { hook: "prestart", sidecar }),
            // A sidecar is started again whatever the pod's policy says.
            restart_policy: sidecar.then(|| restart_policy(crate::RestartPolicy::Always)),
            templates,
            secrets,
        })
    }

    fn check_container(&self, container: &Container) -> Result<(), Refusal> {
        let name = &container.name;
        if !container.security.added_capabilities.is_empty() && !(self.open)(Feature::AddedCapabilities) {
            let sentence = "Nomad adds only capabilities that the docker plugin's allow_caps lists on every client";
            return Err(refuse(Feature::AddedCapabilities, sentence));
        }
        if container.requests.gpus.max(container.limits.gpus) > 0 && !(self.open)(Feature::Gpu) {
            return Err(refuse(Feature::Gpu, "Nomad runs pods with GPUs only where clients have a device plugin"));
        }
        if container.startup.is_some() {
            return Err(refuse(Feature::StartupProbe, "Nomad has no startup probes"));
        }
        if let Some(probe) = &container.readiness {
            let feature = probe_feature(probe, Feature::ReadinessProbe, Feature::ReadinessProbe);
            return Err(refuse(feature, format!("the readiness of container {name} could not be told")));
        }
        if let Some(probe) = &container.liveness {
            let feature = probe_feature(probe, Feature::LivenessExec, Feature::LivenessHttp);
            let checkable = matches!(probe.action, ProbeAction::Http { .. } | ProbeAction::Tcp { .. });
            if !checkable || !(self.open)(feature) {
                let sentence = "Nomad checks liveness by HTTP and TCP only, from a client that can reach the pod's network";
                return Err(refuse(feature, sentence));
            }
        }
        Ok(())
    }

    fn resources(&self, container: &Container) -> Resources {
        let request = container.requests;
        let memory_mb = request.memory_bytes.div_euclid(MIB) + i64::from(request.memory_bytes % MIB != 0);
        let gpus = request.gpus.max(container.limits.gpus);
        Resources {
            cpu_mhz: if request.cpu_millis > 0 { self.settings.mhz(request.cpu_millis) } else { DEFAULT_MHZ },
            memory_mb: if request.memory_bytes > 0 { memory_mb.max(SMALLEST_MEMORY_MB) } else { DEFAULT_MEMORY_MB },
            devices: if gpus > 0 { vec![Device { name: "nvidia/gpu", count: gpus }] } else { Vec::new() },
        }
    }

    fn extra_hosts(&self) -> Vec<String> {
        let aliases = self.request.host_aliases.iter();
        aliases.flat_map(|alias| alias.names.iter().map(|name| literal(&format!("{name}:{}", alias.address)))).collect()
    }

    fn sysctls(&self) -> Vec<BTreeMap<String, String>> {
        let settings: BTreeMap<String, String> =
            self.request.sysctls.iter().map(|(name, value)| (name.clone(), literal(value))).collect();
        if settings.is_empty() { Vec::new() } else { vec![settings] }
    }

    /// Liveness checks, and the ports that they and references to the pod's address need.
    fn services(&self) -> (Vec<Service>, Vec<DynamicPort>) {
        let mut ports = Vec::new();
        let everything = || self.request.init_containers.iter().chain(&self.request.containers);
        let wants_address = everything().flat_map(|container| &container.environment).any(|it| it.value == Value::PodAddress);
        if wants_address {
            // No traffic comes through it; without a port Nomad tells nobody the address.
            ports.push(DynamicPort { label: ADDRESS_PORT.to_owned(), to: 0 });
        }
        let mut services = Vec::new();
        for container in everything() {
            let Some(probe) = &container.liveness else { continue };
            let (port, check) = match check(probe) {
                Some(checked) => checked,
                None => continue,
            };
            let label = format!("{}-liveness", container.name);
            ports.push(DynamicPort { label: label.clone(), to: port });
            services.push(Service {
                name: format!("{}-{}", self.request.uid, container.name),
                provider: "nomad",
                port_label: label,
                task_name: container.name.to_string(),
                checks: vec![check],
            });
        }
        (services, ports)
    }

    /// What docker binds and what it makes in memory.
    fn mounts(
        &self,
        container: &Container,
        vault: &mut Vault,
        templates: &mut Vec<Template>,
    ) -> Result<(Vec<String>, Vec<Tmpfs>), Refusal> {
        let (mut binds, mut memory) = (Vec::new(), Vec::new());
        let mut rendered: Vec<&str> = Vec::new();
        for mount in &container.mounts {
            check_mount(mount)?;
            let Some(volume) = self.request.volumes.iter().find(|volume| volume.name == mount.volume) else {
                return Err(refuse(Feature::OtherVolume, format!("there is no volume {}", mount.volume)));
            };
            let directory = match &volume.source {
                VolumeSource::Empty { memory: true, size_limit } => {
                    memory.push(Tmpfs {
                        kind: "tmpfs",
                        target: literal(&mount.path),
                        readonly: mount.read_only,
                        tmpfs_options: size_limit.map(|size| TmpfsOptions { size }).into_iter().collect(),
                    });
                    continue;
                }
                VolumeSource::Empty { memory: false, .. } => self.shared_directory(&mount.volume),
                VolumeSource::Files(files) => {
                    // One secret among them makes the volume secret: it is mounted whole.
                    let secret = files.iter().any(|file| file.secret);
                    let directory = format!("{}/volumes/{}", if secret { "secrets" } else { "local" }, mount.volume);
                    if !rendered.contains(&&*mount.volume) {
                        rendered.push(&mount.volume);
                        for file in files {
                            templates.push(file_template(file, &directory, vault)?);
                        }
                    }
                    directory
                }
                VolumeSource::AzureFile { .. } => return Err(refuse(Feature::AzureFile, "Nomad has no Azure Files")),
                VolumeSource::Nfs { .. } => return Err(refuse(Feature::Nfs, "Nomad has no NFS")),
            };
            let source = match &mount.sub_path {
                Some(sub_path) => format!("{directory}/{sub_path}"),
                None => directory,
            };
            let read_only = mount.read_only || matches!(volume.source, VolumeSource::Files(_));
            binds.push(literal(&format!("{source}:{}{}", mount.path, if read_only { ":ro" } else { "" })));
        }
        Ok((binds, memory))
    }

    /// Where an emptyDir lies, relative to a task's directory.
    fn shared_directory(&self, name: &str) -> String {
        let empty =
            self.request.volumes.iter().filter(|volume| matches!(volume.source, VolumeSource::Empty { memory: false, .. }));
        match empty.map(|volume| &*volume.name).position(|other| other == name).and_then(|place| WRITABLE.get(place)) {
            Some(directory) => format!("../alloc/{directory}"),
            None => format!("../alloc/volumes/{name}"),
        }
    }
}

fn probe_feature(probe: &Probe, command: Feature, http: Feature) -> Feature {
    match probe.action {
        ProbeAction::Exec(_) => command,
        ProbeAction::Http { .. } => http,
        ProbeAction::Tcp { .. } | ProbeAction::Grpc { .. } => Feature::SocketProbe,
    }
}

/// A check of Nomad's own service discovery, which restarts the task; and the port that is asked.
fn check(probe: &Probe) -> Option<(u16, Check)> {
    let (kind, port, path, tls, header) = match &probe.action {
        ProbeAction::Http { path, port, tls, headers } => {
            let mut header: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, value) in headers {
                header.entry(name.clone()).or_default().push(value.clone());
            }
            ("http", *port, Some(path.clone()), *tls, header)
        }
        ProbeAction::Tcp { port } => ("tcp", *port, None, false, BTreeMap::new()),
        ProbeAction::Exec(_) | ProbeAction::Grpc { .. } => return None,
    };
    let check = Check {
        kind,
        path,
        protocol: tls.then_some("https"),
        tls_skip_verify: tls,
        header,
        // Nomad takes no shorter ones.
        interval: nanos(probe.period.max(SECOND)),
        timeout: nanos(probe.timeout.max(SECOND)),
        check_restart: CheckRestart { limit: probe.failure_threshold.max(1), grace: nanos(probe.initial_delay) },
    };
    Some((port, check))
}

fn user(container: &Container) -> Result<String, Refusal> {
    match (container.security.user, container.security.group) {
        (None, None) => Ok(String::new()),
        (Some(user), None) => Ok(user.to_string()),
        (Some(user), Some(group)) => Ok(format!("{user}:{group}")),
        (None, Some(_)) => {
            Err(refuse(Feature::RunAsUser, format!("container {} sets runAsGroup without runAsUser", container.name)))
        }
    }
}

fn check_mount(mount: &Mount) -> Result<(), Refusal> {
    let path = mount.path.trim_end_matches('/');
    if TAKEN.contains(&path) {
        return Err(refuse(Feature::OtherVolume, format!("Nomad itself mounts something at {path}")));
    }
    let sub_path = mount.sub_path.as_deref().unwrap_or_default();
    if [path, sub_path].iter().any(|path| path.contains(':')) {
        return Err(refuse(Feature::OtherVolume, format!("docker mounts nothing at a path with a colon: {path}")));
    }
    if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
        return Err(refuse(Feature::OtherVolume, format!("subPath {sub_path:?} leads out of the volume")));
    }
    Ok(())
}

/// A text of which HCL makes nothing else.
fn literal(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

/// Plain variables, and a template for the others.
fn environment(
    variables: &[Variable],
    vault: &mut Vault,
    templates: &mut Vec<Template>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut env = BTreeMap::new();
    let mut lines = String::new();
    let mut line = |name: &str, value: String| {
        // What Nomad's parser of such files takes; it refuses the whole file otherwise.
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.';
        if name.is_empty() || !name.chars().all(plain) {
            let sentence =
                format!("variable {name:?} has a value that only a template can give, and a name that templates do not");
            return Err(refuse(Feature::SecretEnvironment, sentence));
        }
        lines.push_str(&format!("{name}={{{{ {value} | toJSON }}}}\n"));
        Ok(())
    };
    for Variable { name, value } in variables {
        match value {
            Value::Plain(text) if text.contains("${") => {
                line(name, format!("{:?} | base64Decode", BASE64.encode(text)))?;
            }
            Value::Plain(text) => {
                env.insert(name.clone(), text.clone());
            }
            Value::Secret(secret) => {
                let key = vault.keep(secret.clone());
                line(name, format!(".{key}.Value"))?;
            }
            Value::PodAddress => {
                env.insert(name.clone(), format!("${{NOMAD_ALLOC_IP_{ADDRESS_PORT}}}"));
            }
            Value::HostAddress => {
                env.insert(name.clone(), "${attr.unique.network.ip-address}".to_owned());
            }
        }
    }
    if !lines.is_empty() {
        templates.push(Template {
            embedded_tmpl: vault.reading(&lines),
            dest_path: "secrets/environment".to_owned(),
            change_mode: "noop",
            perms: "0400".to_owned(),
            environment: true,
        });
    }
    Ok(env)
}

fn file_template(file: &File, directory: &str, vault: &mut Vault) -> Result<Template, Refusal> {
    if file.path.starts_with('/') || file.path.split('/').any(|part| part == "..") || file.path.contains("${") {
        return Err(refuse(Feature::ConfigVolume, format!("file {:?} leads out of its volume", file.path)));
    }
    let embedded_tmpl = if file.secret {
        let key = vault.keep(Secret::new(BASE64.encode(&file.content)));
        vault.reading(&format!("{{{{ .{key}.Value | base64Decode }}}}"))
    } else {
        format!("{{{{ {:?} | base64Decode }}}}", BASE64.encode(&file.content))
    };
    Ok(Template {
        embedded_tmpl,
        dest_path: format!("{directory}/{}", file.path),
        change_mode: "noop",
        perms: format!("{:04o}", file.mode & 0o7777),
        environment: false,
    })
}

/// The secrets of a pod, on their way to Nomad Variables.
struct Vault {
    job: String,
    /// Of the pod itself.
    kept: Vec<Secret>,
    /// Logins: the user name and the password, as JSON strings, because the `secret` block reads a file of variables.
    logins: BTreeMap<String, Secret>,
}

// === impl Vault ===

impl Vault {
    fn new(job: &str) -> Vault {
        Vault { job: job.to_owned(), kept: Vec::new(), logins: BTreeMap::new() }
    }

    /// The Variable that only this job's tasks may read.
    fn path(&self) -> String {
        format!("nomad/jobs/{}", self.job)
    }

    /// The Variable for the registries: a `secret` block reads all of one, so it is kept apart.
    fn registries_path(&self) -> String {
        format!("nomad/jobs/{}/{GROUP}", self.job)
    }

    /// Keeps a secret and says under which key; equal ones are kept once.
    fn keep(&mut self, secret: Secret) -> String {
        let place = self.kept.iter().position(|kept| *kept == secret).unwrap_or_else(|| {
            self.kept.push(secret);
            self.kept.len() - 1
        });
        format!("s{place}")
    }

    /// A template within which keys are fields. Where nothing is kept yet the Variable may not exist, and waiting for it would
    /// take for ever.
    fn reading(&self, template: &str) -> String {
        if self.kept.is_empty() {
            return template.to_owned();
        }
        format!("{{{{ with nomadVar {:?} }}}}{template}{{{{ end }}}}", self.path())
    }

    /// The login for an image, by reference.
    fn login(&mut self, request: &PodRequest, image: &str) -> Vec<Auth> {
        let host = registry(image);
        let found = request.registries.iter().enumerate().find(|(_, login)| server(&login.server) == host);
        let Some((place, login)) = found else { return Vec::new() };
        let mut keep = |name: &str, text: &str| {
            let key = format!("{name}{place}");
            self.logins.insert(key.clone(), Secret::new(serde_json::Value::from(text).to_string()));
            format!("${{secret.registry.{key}}}")
        };
        let username = keep("username", &login.username);
        let password = keep("password", login.password.expose());
        vec![Auth { server_address: literal(&login.server), username, password }]
    }

    fn registries(&self) -> SecretBlock {
        SecretBlock { name: "registry", provider: "nomad", path: self.registries_path() }
    }

    fn close(self) -> Result<BTreeMap<String, BTreeMap<String, Secret>>, Refusal> {
        let mut variables = BTreeMap::new();
        let (path, registries) = (self.path(), self.registries_path());
        let kept: BTreeMap<String, Secret> =
            self.kept.into_iter().enumerate().map(|(place, secret)| (format!("s{place}"), secret)).collect();
        for (path, items) in [(path, kept), (registries, self.logins)] {
            let bytes: usize = items.iter().map(|(key, secret)| key.len() + secret.expose().len()).sum();
            if bytes > VARIABLE_BYTES {
                let sentence = format!("the pod's secrets take {bytes} bytes and a Nomad Variable holds {VARIABLE_BYTES}");
                return Err(refuse(Feature::SecretEnvironment, sentence));
            }
            if !items.is_empty() {
                variables.insert(path, items);
            }
        }
        Ok(variables)
    }
}

/// The registry of an image, as docker understands references.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        Some(_) | None => "docker.io",
    }
}

/// The registry of a login; Docker Hub has an old name with a path.
fn server(text: &str) -> &str {
    let host = text.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    if host == "index.docker.io" { "docker.io" } else { host }
}

#[cfg(test)]
mod tests;
