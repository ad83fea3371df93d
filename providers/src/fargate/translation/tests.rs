use std::sync::Arc;

use policy::capability::refusal;
use policy::selector::Labels;
use policy::virtual_node::Limits;
use policy::workload::FeatureSet;
use policy::{Resources, Shape, VirtualNode, Workload};
use serde_json::json;

use super::*;
use crate::{ContainerResources, File, HostAlias, Mount, Ownership, Platform, PodUid, Port, Security, Variable};

const PASSWORD: &str = "hunter2-is-secret";

fn settings() -> Settings {
    let ownership = Ownership { cluster: "c1".into(), virtual_node: "fargate-us-east-1".into() };
    Settings {
        execution_role_arn: Some("arn:aws:iam::123456789012:role/spillway-execution".to_owned()),
        log_group: Some("/spillway/pods".to_owned()),
        ..Settings::new("us-east-1", "burst", vec!["subnet-0123456789abcdef0".to_owned()], ownership)
    }
}

fn shape(cpu_millis: i64, gib: i64) -> Shape {
    Shape { cpu_millis, memory_bytes: gib << 30, ephemeral_bytes: 0 }
}

fn plain_pod() -> PodRequest {
    let main = Container::new("main", "registry.example.com/thumbnailer:1");
    PodRequest {
        containers: vec![main],
        ..PodRequest::new(PodUid::new("5f0c1e9a-0000-4000-8000-000000000007"), "media", "thumbnails-7", shape(1000, 2))
    }
}

fn asks(cpu_millis: i64, mib: i64) -> ContainerResources {
    ContainerResources { cpu_millis, memory_bytes: mib << 20, gpus: 0 }
}

fn variable(name: &str, value: Value) -> Variable {
    Variable { name: name.to_owned(), value }
}

fn text(value: &str) -> Value {
    Value::Plain(value.to_owned())
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn exec_probe() -> Probe {
    Probe {
        action: ProbeAction::Exec(strings(&["cat", "/tmp/healthy"])),
        initial_delay: Duration::from_secs(7),
        period: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        failure_threshold: 30,
        success_threshold: 1,
    }
}

/// Everything that Fargate has a field for.
fn rich_pod() -> PodRequest {
    let main = Container {
        command: strings(&["/bin/convert"]),
        arguments: strings(&["--index", "7"]),
        working_directory: Some("/srv".to_owned()),
        environment: vec![
            variable("INDEX", text("7")),
            variable("EMPTY", text("")),
            variable("PASSWORD", Value::Secret(Secret::new(PASSWORD))),
            variable("TOKEN:1", Value::Secret(Secret::new("t"))),
        ],
        requests: asks(500, 1024),
        limits: asks(2000, 8192),
        ports: vec![
            Port { name: Some("http".to_owned()), number: 8080, protocol: Protocol::Tcp },
            Port { name: None, number: 53, protocol: Protocol::Udp },
            Port { name: None, number: 99, protocol: Protocol::Sctp },
        ],
        mounts: vec![
            Mount { volume: "scratch".into(), path: "/scratch".to_owned(), sub_path: None, read_only: false },
            Mount { volume: "library".into(), path: "/library".to_owned(), sub_path: None, read_only: true },
        ],
        liveness: Some(exec_probe()),
        security: Security {
            user: Some(1000),
            group: Some(2000),
            read_only_root: true,
            allow_privilege_escalation: Some(false),
            added_capabilities: strings(&["SYS_PTRACE"]),
            dropped_capabilities: strings(&["ALL"]),
        },
        ..Container::new("main", "registry.example.com:5000/media/thumbnailer@sha256:aa")
    };
    let proxy = Container {
        sidecar: true,
        requests: asks(250, 512),
        limits: asks(250, 512),
        ports: vec![Port { name: None, number: 8080, protocol: Protocol::Tcp }],
        environment: vec![variable("PASSWORD", Value::Secret(Secret::new("another")))],
        ..Container::new("proxy", "envoy:1")
    };
    let fetch = Container { arguments: strings(&["fetch"]), ..Container::new("fetch", "docker.io/library/busybox") };
    let migrate = Container::new("migrate", "registry.example.com:5000/media/migrate");
    PodRequest {
        platform: Platform { os: OperatingSystem::Linux, architecture: Architecture::Arm64 },
        shape: Shape { ephemeral_bytes: 40 << 30, ..shape(1000, 2) },
        grace_period: Duration::from_secs(90),
        share_processes: true,
        sysctls: vec![("net.core.somaxconn".to_owned(), "1024".to_owned())],
        init_containers: vec![fetch, proxy, migrate],
        containers: vec![main],
        volumes: vec![
            Volume { name: "scratch".into(), source: VolumeSource::Empty { memory: false, size_limit: Some(1 << 30) } },
            Volume {
                name: "library".into(),
                source: VolumeSource::Nfs {
                    server: "fs-0123456789abcdef0.efs.us-east-1.amazonaws.com".to_owned(),
                    path: "/library".to_owned(),
                    read_only: true,
                },
            },
        ],
        registries: vec![
            RegistryCredential {
                server: "https://registry.example.com:5000".to_owned(),
                username: "puller".to_owned(),
                password: Secret::new(PASSWORD),
            },
            RegistryCredential {
                server: "https://index.docker.io/v1/".to_owned(),
                username: "hub".to_owned(),
                password: Secret::new("hub-password"),
            },
        ],
        ..plain_pod()
    }
}

fn opened(features: &[Feature]) -> Settings {
    Settings { capabilities: features.iter().map(|feature| (*feature, true)).collect(), ..settings() }
}

fn golden(task: &Task) -> serde_json::Value {
    let secrets: Vec<&str> = task.secrets.iter().map(|secret| secret.name.as_str()).collect();
    json!({"definition": task.definition, "overrides": task.overrides, "secrets": secrets})
}

#[test]
fn a_plain_pod() {
    insta::assert_json_snapshot!(golden(&translate(&plain_pod(), &settings()).expect("a task")));
}

#[test]
fn a_pod_with_everything() {
    let settings = opened(&[Feature::Sysctls, Feature::LivenessExec]);
    let task = translate(&rich_pod(), &settings).expect("a task");
    insta::assert_json_snapshot!(golden(&task));
    let contents: Vec<&str> = task.secrets.iter().map(|secret| secret.content.expose()).collect();
    let expected = [
        format!(r#"{{"v0":"another","v1":"{PASSWORD}","v2":"t"}}"#),
        r#"{"password":"hub-password","username":"hub"}"#.to_owned(),
        format!(r#"{{"password":"{PASSWORD}","username":"puller"}}"#),
    ];
    assert_eq!(contents, expected);
}

#[test]
fn a_service_restarts() {
    let mut pod = plain_pod();
    pod.restart = RestartPolicy::Always;
    pod.containers.push(Container::new("second", "busybox"));
    insta::assert_json_snapshot!(golden(&translate(&pod, &settings()).expect("a task")));
}

#[test]
fn a_windows_pod_that_is_tried_again() {
    let mut pod = plain_pod();
    pod.platform.os = OperatingSystem::Windows;
    pod.restart = RestartPolicy::OnFailure;
    insta::assert_json_snapshot!(golden(&translate(&pod, &opened(&[Feature::RestartOnFailure])).expect("a task")));
}

#[test]
fn no_secret_is_in_the_task() {
    let task = translate(&rich_pod(), &opened(&[Feature::Sysctls, Feature::LivenessExec])).expect("a task");
    let sent = serde_json::to_string(&task.definition).expect("JSON") + &serde_json::to_string(&task.overrides).expect("JSON");
    for shown in [sent, format!("{task:?}"), format!("{:?}", task.definition.containers().expect("SDK types"))] {
        assert!(!shown.contains(PASSWORD) && !shown.contains("hub-password"), "{shown}");
    }
}

#[test]
fn pods_that_differ_in_arguments_and_variables_share_a_definition() {
    let of_index = |index: &str| {
        let mut pod = plain_pod();
        pod.uid = PodUid::new(format!("uid-{index}"));
        pod.name = format!("thumbnails-{index}").into();
        pod.containers[0].arguments = strings(&["--index", index]);
        pod.containers[0].environment = vec![variable("INDEX", text(index))];
        translate(&pod, &settings()).expect("a task")
    };
    let (one, other) = (of_index("1"), of_index("2"));
    assert_eq!(one.definition.family(), other.definition.family());
    assert_ne!(one.overrides, other.overrides);
    let mut larger = plain_pod();
    larger.shape = shape(2000, 4);
    let larger = translate(&larger, &settings()).expect("a task");
    assert_ne!(one.definition.family(), larger.definition.family());
    assert!(one.definition.family().len() < 64, "{}", one.definition.family());
}

#[test]
fn what_does_not_fit_into_the_overrides_is_in_the_definition_the_largest_first() {
    let mut pod = plain_pod();
    pod.containers[0].environment = vec![
        variable("CONFIG", text(&"x".repeat(7000))),
        variable("INDEX", text("7")),
        variable("QUOTED", text(&"\"".repeat(1500))),
        variable("MORE", text(&"y".repeat(900))),
    ];
    let task = translate(&pod, &settings()).expect("a task");
    let names = |variables: &[KeyValue]| variables.iter().map(|variable| variable.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&task.definition.container_definitions[0].environment), ["CONFIG"]);
    assert_eq!(names(&task.overrides.container_overrides[0].environment), ["INDEX", "QUOTED", "MORE"]);
    assert!(characters(&task.overrides) <= OVERRIDE_CHARACTERS);
    // A quote takes two characters of JSON.
    pod.containers[0].environment[2] = variable("QUOTED", text(&"\"".repeat(4200)));
    let task = translate(&pod, &settings()).expect("a task");
    assert_eq!(names(&task.definition.container_definitions[0].environment), ["QUOTED"]);
    assert!(characters(&task.overrides) <= OVERRIDE_CHARACTERS);
}

#[test]
fn secrets_get_their_arns() {
    let mut task = translate(&rich_pod(), &opened(&[Feature::Sysctls, Feature::LivenessExec])).expect("a task");
    let arn = |name: &str| format!("arn:aws:secretsmanager:us-east-1:1:secret:{name}-AbCdEf");
    task.definition.resolve(&task.secrets.iter().map(|secret| (secret.name.clone(), arn(&secret.name))).collect());
    let main = task.definition.container_definitions.last().expect("main");
    assert_eq!(main.secrets[0].value_from, format!("{}:v1::", arn("environment")));
    assert_eq!(main.repository_credentials, Some(arn("registry-1")));
    assert!(!serde_json::to_string(&task.definition).expect("JSON").contains('{') || !main.secrets[0].value_from.contains('{'));
}

#[test]
fn logins_are_for_their_registry() {
    for (image, expected) in [
        ("busybox", "docker.io"),
        ("library/busybox", "docker.io"),
        ("docker.io/library/busybox", "docker.io"),
        ("localhost/x", "localhost"),
        ("registry.example.com:5000/a/b:1", "registry.example.com:5000"),
    ] {
        assert_eq!(registry(image), expected, "{image}");
    }
    assert_eq!(host("https://index.docker.io/v1/"), "docker.io");
    assert_eq!(host("registry.example.com"), "registry.example.com");
}

#[test]
fn limits_above_requests_reserve_the_requests_only() {
    let sizes = |requests: ContainerResources, limits: ContainerResources| {
        let mut pod = plain_pod();
        pod.containers[0].requests = requests;
        pod.containers[0].limits = limits;
        let container = translate(&pod, &settings()).expect("a task").definition.container_definitions.remove(0);
        (container.cpu, container.memory, container.memory_reservation)
    };
    assert_eq!(sizes(asks(0, 0), asks(0, 0)), (0, None, None));
    assert_eq!(sizes(asks(500, 256), asks(500, 256)), (512, Some(256), None));
    assert_eq!(sizes(asks(250, 256), asks(2000, 512)), (256, Some(512), Some(256)));
    assert_eq!(sizes(asks(250, 256), asks(0, 0)), (256, Some(2048), Some(256)), "the task is the limit");
    assert_eq!(sizes(asks(250, 2048), asks(0, 9000)), (256, Some(2048), None));
}

#[test]
fn secrets_need_a_role_that_reads_them() {
    let settings = Settings { execution_role_arn: None, ..opened(&[Feature::Sysctls, Feature::LivenessExec]) };
    let refused = translate(&rich_pod(), &settings).expect_err("nobody could read the secret");
    assert_eq!(refused.rule, "secretEnvironment");
    assert!(refused.sentence.contains("spec.fargate.executionRoleArn"), "{}", refused.sentence);
    let mut pod = plain_pod();
    pod.containers[0].environment = vec![variable("BIG", Value::Secret(Secret::new("x".repeat(70_000))))];
    assert!(translate(&pod, &self::settings()).expect_err("too much").sentence.contains("65536 bytes"));
}

#[test]
fn only_efs_is_mounted() {
    let mut pod = plain_pod();
    let source = VolumeSource::Nfs { server: "nfs.example.com".to_owned(), path: "/".to_owned(), read_only: false };
    pod.volumes = vec![Volume { name: "v".into(), source }];
    let refused = translate(&pod, &settings()).expect_err("not EFS");
    assert_eq!(refused.rule, "nfs");
    assert!(refused.sentence.contains("nfs.example.com"), "{}", refused.sentence);
}

/// What a pod looks like that uses one feature; `None` where a request cannot say so, because the feature is a matter of the
/// cluster, or is resolved before a request is made.
fn using(feature: Feature) -> Option<PodRequest> {
    let mut pod = plain_pod();
    let main = &mut pod.containers[0];
    let probe = |action| Some(Probe { action, ..exec_probe() });
    let http = || ProbeAction::Http { path: "/".to_owned(), port: 80, tls: false, headers: vec![] };
    let volume = |source| Volume { name: "v".into(), source };
    match feature {
        Feature::HostAliases => pod.host_aliases = vec![HostAlias { address: "10.0.0.1".to_owned(), names: vec![] }],
        Feature::ManyContainers => {
            pod.restart = RestartPolicy::Always;
            pod.containers = (0..11).map(|number| Container::new(format!("c{number}"), "i")).collect();
        }
        Feature::LongGracePeriod => pod.grace_period = Duration::from_secs(121),
        Feature::SharedProcessNamespace => pod.share_processes = true,
        Feature::AddedCapabilities => main.security.added_capabilities = strings(&["NET_ADMIN"]),
        Feature::DroppedCapabilities => main.security.dropped_capabilities = strings(&["CAP_NET_RAW"]),
        Feature::RunAsUser => main.security.user = Some(1),
        Feature::ReadOnlyRootFilesystem => main.security.read_only_root = true,
        Feature::Sysctls => pod.sysctls = vec![("a".to_owned(), "b".to_owned())],
        Feature::InitContainers | Feature::DemandingInitContainers => pod.init_containers = vec![Container::new("i", "i")],
        Feature::Sidecars => pod.init_containers = vec![Container { sidecar: true, ..Container::new("i", "i") }],
        Feature::RestartAlways => pod.restart = RestartPolicy::Always,
        Feature::RestartOnFailure => pod.restart = RestartPolicy::OnFailure,
        Feature::EmptyDir => pod.volumes = vec![volume(VolumeSource::Empty { memory: false, size_limit: None })],
        Feature::EmptyDirMemory => pod.volumes = vec![volume(VolumeSource::Empty { memory: true, size_limit: None })],
        Feature::ConfigVolume => {
            let file = File { path: "a".to_owned(), content: vec![], secret: false, mode: 0o644 };
            pod.volumes = vec![volume(VolumeSource::Files(vec![file]))];
        }
        Feature::AzureFile => {
            let source = VolumeSource::AzureFile {
                share: "s".to_owned(),
                account: "a".to_owned(),
                key: Secret::new("k"),
                read_only: false,
            };
            pod.volumes = vec![volume(source)];
        }
        Feature::Nfs => {
            let server = "fs-1.efs.us-east-1.amazonaws.com".to_owned();
            pod.volumes = vec![volume(VolumeSource::Nfs { server, path: "/".to_owned(), read_only: false })];
        }
        Feature::LivenessExec => main.liveness = Some(exec_probe()),
        Feature::LivenessHttp => main.liveness = probe(http()),
        Feature::SocketProbe => main.liveness = probe(ProbeAction::Tcp { port: 1 }),
        Feature::ReadinessProbe => main.readiness = Some(exec_probe()),
        Feature::StartupProbe => main.startup = Some(exec_probe()),
        Feature::ArgsWithoutCommand => main.arguments = strings(&["a"]),
        Feature::AddressFieldRef => main.environment = vec![variable("IP", Value::PodAddress)],
        Feature::SecretEnvironment => main.environment = vec![variable("S", Value::Secret(Secret::new("s")))],
        Feature::ImagePullSecrets => {
            pod.registries = vec![RegistryCredential {
                server: "registry.example.com".to_owned(),
                username: "u".to_owned(),
                password: Secret::new("p"),
            }];
        }
        Feature::LimitAboveRequests => (main.requests, main.limits) = (asks(100, 100), asks(4000, 9000)),
        Feature::Gpu => main.requests.gpus = 1,
        Feature::Windows => pod.platform.os = OperatingSystem::Windows,
        Feature::WorkingDirectory => main.working_directory = Some("/srv".to_owned()),
        Feature::SubPath => {
            let part = Some("a".to_owned());
            main.mounts = vec![Mount { volume: "v".into(), path: "/v".to_owned(), sub_path: part, read_only: false }];
        }
        Feature::SeveralContainers => pod.containers.push(Container::new("other", "i")),
        Feature::OptedOut
        | Feature::DaemonSet
        | Feature::MirrorPod
        | Feature::SchedulingGate
        | Feature::TopologySpread
        | Feature::Preferences
        | Feature::PodAffinity
        | Feature::PodAntiAffinity
        | Feature::Gang
        | Feature::ResourceClaim
        | Feature::PersistentVolumeClaim
        | Feature::Marked
        | Feature::LocalTraffic
        | Feature::HostNetwork
        | Feature::HostPid
        | Feature::HostIpc
        | Feature::HostPath
        | Feature::HostPort
        | Feature::Privileged
        | Feature::FsGroup
        | Feature::SeLinux
        | Feature::ProjectedVolume
        | Feature::InlineCsi
        | Feature::OtherVolume
        | Feature::LifecycleHooks
        | Feature::ResourceFieldRef
        | Feature::ExtendedResource
        | Feature::RuntimeClass
        | Feature::UserNamespace => return None,
    }
    Some(pod)
}

/// The engine and the translation must agree on every pod: what one sends, the other takes.
#[test]
fn the_capability_table_and_the_translation_agree() {
    for capacity_type in [CapacityType::OnDemand, CapacityType::Spot] {
        for feature in Feature::ALL {
            let Some(pod) = using(feature) else { continue };
            let settings = Settings { capacity_type, ..settings() };
            let engine = refusal(&workload(feature, &pod), &virtual_node(feature, capacity_type)).map(|refusal| refusal.rule);
            let here = translate(&pod, &settings).err().map(|refusal| refusal.rule);
            assert_eq!(here, engine, "{feature:?} {capacity_type:?}");
        }
    }
}

fn workload(feature: Feature, pod: &PodRequest) -> Workload {
    Workload {
        namespace: pod.namespace.clone(),
        labels: Labels::default(),
        owner: None,
        scheduler_name: "default-scheduler".into(),
        requests: Resources::default(),
        limits: Resources::default(),
        node_selector: vec![],
        node_affinity: None,
        tolerations: vec![],
        priority: 0,
        may_preempt: false,
        features: FeatureSet::from_iter([feature]),
        containers: u16::try_from(pod.containers.len()).expect("few"),
        init_containers: u16::try_from(pod.init_containers.len()).expect("few"),
        containers_without_cpu: 0,
        containers_without_memory: 0,
        grace_seconds: u32::try_from(pod.grace_period.as_secs()).expect("short"),
        added_capabilities: pod.containers[0].security.added_capabilities.iter().map(|name| Arc::from(name.as_str())).collect(),
        expected_run: None,
        run_limit: None,
        held: policy::workload::Held::No,
    }
}

fn virtual_node(feature: Feature, capacity_type: CapacityType) -> VirtualNode {
    let os = if feature == Feature::Windows { "windows" } else { "linux" };
    VirtualNode {
        name: "v".into(),
        node_name: None,
        provider: Provider::Fargate,
        region: "us-east-1".into(),
        capacity_type,
        labels: [("kubernetes.io/os", os)].into_iter().collect(),
        closed: None,
        prices: None,
        start_latency: Duration::ZERO,
        billed_startup: Duration::ZERO,
        start_deadline: Duration::from_secs(900),
        interruptions_per_1000_hours: 0,
        limits: Limits::default(),
        quota: Limits::default(),
        capabilities: vec![],
        mhz_per_core: 0,
        largest_pod: Limits::default(),
    }
}

/// 50 µs a pod are promised; a debug build on a busy machine gets a hundred times that.
#[test]
fn translation_is_quick() {
    let (pod, settings) = (rich_pod(), opened(&[Feature::Sysctls, Feature::LivenessExec]));
    let started = std::time::Instant::now();
    for _ in 0..100 {
        std::hint::black_box(translate(&pod, &settings).expect("a task"));
    }
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed() / 100);
}
