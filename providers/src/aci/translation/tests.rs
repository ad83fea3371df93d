use std::collections::BTreeSet;

use policy::Shape;
use serde_json::Value as Json;

use super::*;
use crate::{
    Container as PodContainer, ContainerResources, File, HostAlias, Mount, Ownership, PodUid, Port as PodPort, Probe as PodProbe,
    RegistryCredential as Login, Variable as PodVariable, Volume as PodVolume,
};

const GB: i64 = 1_000_000_000;
const SECRET: &str = "correct horse battery staple";

fn settings() -> Settings {
    let ownership = Ownership { cluster: "5a1e-cluster".into(), virtual_node: "aci-eastus".into() };
    Settings::new("00000000-0000-0000-0000-000000000001", "bursts", "eastus", ownership)
}

fn in_subnet() -> Settings {
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/pods";
    Settings { subnet_id: Some(id.to_owned()), ..settings() }
}

fn small() -> PodRequest {
    let shape = Shape { cpu_millis: 1000, memory_bytes: GB, ephemeral_bytes: 0 };
    let mut pod = PodRequest::new(PodUid::new("0b6e-uid"), "media", "thumbs-7", shape);
    pod.containers = vec![PodContainer::new("main", "ghcr.io/media/thumbs:1")];
    pod
}

fn with(change: impl FnOnce(&mut PodRequest)) -> PodRequest {
    let mut pod = small();
    change(&mut pod);
    pod
}

fn with_container(change: impl FnOnce(&mut PodContainer)) -> PodRequest {
    with(|pod| change(&mut pod.containers[0]))
}

fn secret() -> Secret {
    Secret::new(SECRET)
}

fn probe_of(action: ProbeAction) -> PodProbe {
    PodProbe {
        action,
        initial_delay: Duration::from_secs(3),
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        failure_threshold: 3,
        success_threshold: 1,
    }
}

fn http() -> ProbeAction {
    let headers = vec![("Host".to_owned(), "example.com".to_owned())];
    ProbeAction::Http { path: "/healthz?full=1".to_owned(), port: 8443, tls: true, headers }
}

/// A pod with everything that ACI can do.
fn everything() -> PodRequest {
    let text = |text: &str| text.to_owned();
    let mount = |volume: &str, path: &str| Mount {
        volume: volume.into(),
        path: text(path),
        sub_path: None,
        read_only: volume != "scratch",
    };
    let mut pod = small();
    pod.shape = Shape { cpu_millis: 2500, memory_bytes: 4 * GB, ephemeral_bytes: 0 };
    pod.restart = RestartPolicy::OnFailure;
    pod.run_limit = Some(Duration::from_secs(600));
    let mut init = PodContainer::new("prepare", "busybox:1");
    init.command = vec![text("sh"), text("-c"), text("true")];
    init.environment = vec![PodVariable { name: text("TOKEN"), value: Value::Secret(secret()) }];
    init.mounts = vec![mount("scratch", "/scratch")];
    init.security.user = Some(1000);
    pod.init_containers = vec![init];
    let main = &mut pod.containers[0];
    main.command = vec![text("/bin/thumbs")];
    main.arguments = vec![text("--all"), text("a b")];
    main.environment = vec![
        PodVariable { name: text("MODE"), value: Value::Plain(text("fast")) },
        PodVariable { name: text("EMPTY"), value: Value::Plain(String::new()) },
        PodVariable { name: text("TOKEN"), value: Value::Secret(secret()) },
    ];
    main.requests = ContainerResources { cpu_millis: 1500, memory_bytes: 2_500_000_000, gpus: 0 };
    main.limits = ContainerResources { cpu_millis: 2000, memory_bytes: 8 * GB, gpus: 0 };
    main.ports = vec![
        PodPort { name: Some(text("https")), number: 8443, protocol: Protocol::Tcp },
        PodPort { name: None, number: 53, protocol: Protocol::Udp },
        PodPort { name: None, number: 99, protocol: Protocol::Sctp },
    ];
    main.mounts =
        vec![mount("scratch", "/scratch"), mount("config", "/etc/thumbs"), mount("empty", "/empty"), mount("share", "/share")];
    main.liveness = Some(probe_of(http()));
    main.readiness = Some(probe_of(ProbeAction::Exec(vec![text("cat"), text("/ready")])));
    main.security.user = Some(1000);
    main.security.group = Some(2000);
    main.security.allow_privilege_escalation = Some(false);
    main.security.dropped_capabilities = vec![text("ALL")];
    pod.containers.push(PodContainer::new("helper", "busybox:1"));
    let file = |path: &str, content: &[u8], secret| File { path: text(path), content: content.to_vec(), secret, mode: 0o644 };
    pod.volumes = vec![
        PodVolume { name: "scratch".into(), source: VolumeSource::Empty { memory: false, size_limit: Some(GB) } },
        PodVolume {
            name: "config".into(),
            source: VolumeSource::Files(vec![file("settings.yaml", b"a: 1\n", false), file("key", SECRET.as_bytes(), true)]),
        },
        PodVolume { name: "empty".into(), source: VolumeSource::Files(Vec::new()) },
        PodVolume {
            name: "share".into(),
            source: VolumeSource::AzureFile { share: text("pictures"), account: text("media"), key: secret(), read_only: true },
        },
    ];
    pod.registries = vec![Login { server: text("ghcr.io"), username: text("bot"), password: secret() }];
    pod.image_bytes = Some(44_000_000);
    pod
}

fn translated(pod: &PodRequest, settings: &Settings) -> Json {
    serde_json::to_value(translate(pod, settings).expect("ACI can do it")).expect("JSON")
}

#[test]
fn golden_the_smallest_pod() {
    insta::assert_json_snapshot!(translated(&small(), &settings()));
}

#[test]
fn golden_a_pod_with_everything() {
    insta::assert_json_snapshot!(translated(&everything(), &in_subnet()));
}

#[test]
fn golden_spot() {
    let spot = Settings { capacity_type: CapacityType::Spot, ..settings() };
    let group = translated(&small(), &spot);
    assert_eq!(group["properties"]["priority"], "Spot");
    assert!(group["properties"].get("ipAddress").is_none(), "Spot groups have no address");
}

#[test]
fn golden_windows() {
    let pod = with(|pod| pod.platform.os = OperatingSystem::Windows);
    assert_eq!(translated(&pod, &settings())["properties"]["osType"], "Windows");
}

#[test]
fn a_subnet_wants_a_port_and_takes_five() {
    let ports = |pod: &PodRequest| translated(pod, &in_subnet())["properties"]["ipAddress"]["ports"].clone();
    assert_eq!(ports(&small()), serde_json::json!([{"port": 80, "protocol": "TCP"}]));
    let many = with_container(|main| {
        main.ports = (1..=9).map(|number| PodPort { name: None, number, protocol: Protocol::Tcp }).collect();
    });
    assert_eq!(ports(&many).as_array().map(Vec::len), Some(5));
}

/// A pod that uses the feature, where a request can show it.
fn using(feature: Feature) -> Option<PodRequest> {
    use Feature as F;
    let text = |text: &str| text.to_owned();
    let volume = |source: VolumeSource| with(|pod| pod.volumes = vec![PodVolume { name: "v".into(), source }]);
    let variable = |value: Value| with_container(|main| main.environment = vec![PodVariable { name: text("A"), value }]);
    let init = |change: fn(&mut PodContainer)| {
        with(|pod| {
            let mut init = PodContainer::new("init", "busybox");
            change(&mut init);
            pod.init_containers = vec![init];
        })
    };
    let file = || File { path: text("a"), content: Vec::new(), secret: false, mode: 0o644 };
    Some(match feature {
        F::HostAliases => with(|pod| pod.host_aliases = vec![HostAlias { address: text("10.0.0.1"), names: vec![text("a")] }]),
        F::ManyContainers => with(|pod| {
            pod.shape.memory_bytes = 16 * GB;
            pod.containers = (0..61).map(|number| PodContainer::new(format!("c{number}"), "a")).collect();
        }),
        F::SeveralContainers => with(|pod| {
            pod.shape = Shape { cpu_millis: 2000, memory_bytes: 3 * GB, ephemeral_bytes: 0 };
            pod.containers.push(PodContainer::new("two", "a"));
        }),
        F::LongGracePeriod => with(|pod| pod.grace_period = Duration::from_secs(31)),
        F::SharedProcessNamespace => with(|pod| pod.share_processes = true),
        F::AddedCapabilities => with_container(|main| main.security.added_capabilities = vec![text("SYS_PTRACE")]),
        F::DroppedCapabilities => with_container(|main| main.security.dropped_capabilities = vec![text("ALL")]),
        F::RunAsUser => with_container(|main| main.security.user = Some(1000)),
        F::ReadOnlyRootFilesystem => with_container(|main| main.security.read_only_root = true),
        F::Sysctls => with(|pod| pod.sysctls = vec![(text("net.core.somaxconn"), text("1"))]),
        F::InitContainers => init(|_| ()),
        F::DemandingInitContainers => init(|init| init.limits.cpu_millis = 100),
        F::Sidecars => init(|init| init.sidecar = true),
        F::RestartAlways => with(|pod| pod.restart = RestartPolicy::Always),
        F::RestartOnFailure => with(|pod| pod.restart = RestartPolicy::OnFailure),
        F::EmptyDir => volume(VolumeSource::Empty { memory: false, size_limit: None }),
        F::EmptyDirMemory => volume(VolumeSource::Empty { memory: true, size_limit: None }),
        F::ConfigVolume => volume(VolumeSource::Files(vec![file()])),
        F::AzureFile => {
            volume(VolumeSource::AzureFile { share: text("s"), account: text("a"), key: secret(), read_only: false })
        }
        F::Nfs => volume(VolumeSource::Nfs { server: text("s"), path: text("/"), read_only: false }),
        F::LivenessExec => with_container(|main| main.liveness = Some(probe_of(ProbeAction::Exec(vec![text("true")])))),
        F::LivenessHttp => with_container(|main| main.liveness = Some(probe_of(http()))),
        F::SocketProbe => with_container(|main| main.readiness = Some(probe_of(ProbeAction::Tcp { port: 80 }))),
        F::ReadinessProbe => with_container(|main| main.readiness = Some(probe_of(http()))),
        F::StartupProbe => with_container(|main| main.startup = Some(probe_of(http()))),
        F::ArgsWithoutCommand => with_container(|main| main.arguments = vec![text("a")]),
        F::AddressFieldRef => variable(Value::PodAddress),
        F::SecretEnvironment => variable(Value::Secret(secret())),
        F::ImagePullSecrets => {
            with(|pod| pod.registries = vec![Login { server: text("s"), username: text("u"), password: secret() }])
        }
        F::LimitAboveRequests => with_container(|main| main.limits.cpu_millis = 64_000),
        F::Gpu => with_container(|main| main.requests.gpus = 1),
        F::Windows => with(|pod| pod.platform.os = OperatingSystem::Windows),
        F::WorkingDirectory => with_container(|main| main.working_directory = Some(text("/srv"))),
        F::SubPath => with_container(|main| {
            main.mounts = vec![Mount { volume: "v".into(), path: text("/v"), sub_path: Some(text("a")), read_only: false }];
        }),
        // Nothing of these is left in a request: they stay in the cluster, or the virtual kubelet has resolved them.
        F::OptedOut | F::DaemonSet | F::MirrorPod | F::SchedulingGate | F::TopologySpread | F::Preferences | F::PodAffinity
        | F::PodAntiAffinity | F::Gang | F::ResourceClaim | F::PersistentVolumeClaim | F::Marked | F::LocalTraffic | F::HostNetwork
        | F::HostPid | F::HostIpc | F::HostPath | F::HostPort | F::Privileged | F::FsGroup | F::SeLinux | F::InlineCsi
        | F::OtherVolume | F::LifecycleHooks | F::ResourceFieldRef | F::ExtendedResource | F::RuntimeClass | F::UserNamespace
        // Looks like a volume of files.
        | F::ProjectedVolume => return None,
    })
}

/// What the engine says of a pod with one feature.
fn engine(feature: Feature) -> Option<&'static str> {
    use policy::selector::Labels;
    let os = if feature == Feature::Windows { "windows" } else { "linux" };
    let mut node = sample_node();
    node.labels = [("kubernetes.io/os", os)].into_iter().collect::<Labels>();
    let mut workload = sample_workload();
    workload.features = [feature].into_iter().collect();
    if feature == Feature::ManyContainers {
        workload.containers = 61;
    }
    policy::capability::refusal(&workload, &node).map(|refusal| refusal.rule)
}

#[test]
fn what_the_engine_lets_through_is_translated_and_the_rest_refused_by_the_same_rule() {
    let mut seen = 0;
    for feature in Feature::ALL {
        let Some(pod) = using(feature) else { continue };
        let translated = translate(&pod, &settings()).err().map(|refusal| refusal.rule);
        assert_eq!(translated, engine(feature), "{feature:?}");
        seen += 1;
    }
    assert!(seen > 30);
}

#[test]
fn conditions_within_a_feature() {
    let rule = |pod: &PodRequest| translate(pod, &settings()).err().map(|refusal| refusal.rule);
    let nested = VolumeSource::Files(vec![File { path: "a/b".to_owned(), content: Vec::new(), secret: false, mode: 0 }]);
    assert_eq!(rule(&with(|pod| pod.volumes = vec![PodVolume { name: "v".into(), source: nested }])), Some("configVolume"));
    assert_eq!(rule(&with(|pod| pod.platform.architecture = Architecture::Arm64)), Some("nodeSelector"));
    assert_eq!(rule(&with_container(|main| main.security.user = Some(1 << 40))), Some("runAsUser"));
    let two = |pod: &mut PodRequest| {
        pod.platform.os = OperatingSystem::Windows;
        pod.containers.push(PodContainer::new("two", "a"));
    };
    assert_eq!(rule(&with(two)), Some("windows"));
}

/// Where in a value a text stands, plain or in Base64.
fn places(value: &Json, text: &str, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Json::String(string) if string.contains(text) || string.contains(&base64(text.as_bytes())) => {
            found.insert(path.to_owned());
        }
        Json::Array(values) => values.iter().for_each(|value| places(value, text, path, found)),
        Json::Object(values) => values.iter().for_each(|(key, value)| places(value, text, &format!("{path}/{key}"), found)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

#[test]
fn secrets_go_to_secure_fields_and_nowhere_else() {
    let group = translate(&everything(), &settings()).expect("ACI can do it");
    let mut found = BTreeSet::new();
    places(&serde_json::to_value(&group).expect("JSON"), SECRET, "", &mut found);
    let secure = [
        "/properties/containers/properties/environmentVariables/secureValue",
        "/properties/imageRegistryCredentials/password",
        "/properties/initContainers/properties/environmentVariables/secureValue",
        "/properties/volumes/azureFile/storageAccountKey",
        "/properties/volumes/secret/key",
    ];
    assert_eq!(found, secure.map(str::to_owned).into());
    let printed = format!("{group:?} {:?}", everything());
    assert!(!printed.contains(SECRET) && !printed.contains(&base64(SECRET.as_bytes())), "{printed}");
}

fn sample_node() -> policy::VirtualNode {
    policy::VirtualNode {
        name: "aci".into(),
        node_name: None,
        provider: Provider::Aci,
        region: "eastus".into(),
        capacity_type: CapacityType::OnDemand,
        labels: [].into_iter().collect(),
        closed: None,
        prices: None,
        start_latency: Duration::ZERO,
        billed_startup: Duration::ZERO,
        start_deadline: Duration::MAX,
        interruptions_per_1000_hours: 0,
        limits: policy::virtual_node::Limits::default(),
        quota: policy::virtual_node::Limits::default(),
        capabilities: Vec::new(),
        mhz_per_core: 0,
        largest_pod: policy::virtual_node::Limits::default(),
    }
}

fn sample_workload() -> policy::Workload {
    policy::Workload {
        namespace: "media".into(),
        labels: [].into_iter().collect(),
        owner: None,
        scheduler_name: "default-scheduler".into(),
        requests: policy::Resources::default(),
        limits: policy::Resources::default(),
        node_selector: Vec::new(),
        node_affinity: None,
        tolerations: Vec::new(),
        priority: 0,
        may_preempt: false,
        features: policy::workload::FeatureSet::default(),
        containers: 1,
        init_containers: 0,
        containers_without_cpu: 0,
        containers_without_memory: 0,
        grace_seconds: 30,
        added_capabilities: Vec::new(),
        expected_run: None,
        run_limit: None,
        held: policy::workload::Held::default(),
    }
}
