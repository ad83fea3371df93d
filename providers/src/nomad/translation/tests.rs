use policy::Shape;
use policy::workload::Feature;

use super::*;
use crate::{
    ContainerResources, HostAlias, Ownership, Platform, PodUid, Port, Protocol, RegistryCredential, RestartPolicy as Restart,
    Security, Volume,
};

const SECRET: &str = "correct horse\nbattery \"staple\"";

fn settings() -> Settings {
    let ownership = Ownership { cluster: "b6a3c1d2".into(), virtual_node: "nomad-dc1".into() };
    Settings {
        datacenters: vec!["dc1".to_owned(), "dc2".to_owned()],
        node_pool: "batch".to_owned(),
        ..Settings::new(ownership, 2400)
    }
}

fn container(name: &str) -> Container {
    let requests = ContainerResources { cpu_millis: 250, memory_bytes: (512 << 20) + 1, gpus: 0 };
    Container { requests, ..Container::new(name, "registry.example.com/thumbnailer:v1") }
}

fn pod(containers: Vec<Container>) -> PodRequest {
    let shape = Shape { cpu_millis: 250, memory_bytes: 513 << 20, ephemeral_bytes: 0 };
    let uid = PodUid::new("0f0e0d0c-0000-4000-8000-000000000001");
    PodRequest { containers, ..PodRequest::new(uid, "media", "resize-1", shape) }
}

fn plain(name: &str, value: &str) -> Variable {
    Variable { name: name.to_owned(), value: Value::Plain(value.to_owned()) }
}

fn secret(name: &str, value: &str) -> Variable {
    Variable { name: name.to_owned(), value: Value::Secret(Secret::new(value)) }
}

fn mount(volume: &str, path: &str) -> Mount {
    Mount { volume: volume.into(), path: path.to_owned(), sub_path: None, read_only: false }
}

fn volume(name: &str, source: VolumeSource) -> Volume {
    Volume { name: name.into(), source }
}

fn probe(action: ProbeAction) -> Probe {
    Probe {
        action,
        initial_delay: Duration::from_secs(5),
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        failure_threshold: 3,
        success_threshold: 1,
    }
}

/// The job as Nomad gets it, and the names of what is kept from it.
fn shown(request: &PodRequest) -> serde_json::Value {
    let Translation { job, variables } = translate(request, &settings()).expect("a job");
    let variables: BTreeMap<&String, Vec<&String>> =
        variables.iter().map(|(path, items)| (path, items.keys().collect())).collect();
    serde_json::json!({"Job": job, "variables": variables})
}

fn refused(request: &PodRequest) -> &'static str {
    translate(request, &settings()).expect_err("refused").rule
}

#[test]
fn the_smallest_pod() {
    insta::assert_json_snapshot!(shown(&pod(vec![Container::new("main", "busybox:1.36")])));
}

#[test]
fn commands_variables_and_security() {
    let main = Container {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned()],
        arguments: vec!["echo ${HOME:-none} %{if} $(date)".to_owned()],
        working_directory: Some("/work".to_owned()),
        environment: vec![
            plain("MODE", "fast"),
            plain("EMPTY", ""),
            plain("REFERENCE", "${NOMAD_ALLOC_ID} stays"),
            secret("PASSWORD", SECRET),
            Variable { name: "POD_IP".to_owned(), value: Value::PodAddress },
            Variable { name: "HOST_IP".to_owned(), value: Value::HostAddress },
        ],
        ports: vec![Port { name: Some("http".to_owned()), number: 8080, protocol: Protocol::Tcp }],
        security: Security {
            user: Some(1000),
            group: Some(3000),
            read_only_root: true,
            allow_privilege_escalation: Some(false),
            added_capabilities: Vec::new(),
            dropped_capabilities: vec!["ALL".to_owned()],
        },
        ..container("main")
    };
    let login = RegistryCredential {
        server: "registry.example.com".to_owned(),
        username: "robot$ci".to_owned(),
        password: Secret::new("token"),
    };
    let request = PodRequest {
        host_aliases: vec![HostAlias { address: "10.0.0.1".to_owned(), names: vec!["db".to_owned(), "cache".to_owned()] }],
        sysctls: vec![("net.core.somaxconn".to_owned(), "1024".to_owned())],
        registries: vec![login],
        platform: Platform { os: OperatingSystem::Linux, architecture: Architecture::Arm64 },
        ..pod(vec![main])
    };
    insta::assert_json_snapshot!(shown(&request));
}

#[test]
fn init_containers_sidecars_and_volumes() {
    let files = |secret| {
        vec![
            File { path: "app.conf".to_owned(), content: b"a {{ b }} ${c}".to_vec(), secret: false, mode: 0o644 },
            File { path: "sub/key".to_owned(), content: SECRET.as_bytes().to_vec(), secret, mode: 0o400 },
        ]
    };
    let empty = VolumeSource::Empty { memory: false, size_limit: None };
    let request = PodRequest {
        init_containers: vec![
            Container { mounts: vec![mount("work", "/work")], ..container("init") },
            Container { sidecar: true, ..container("proxy") },
        ],
        volumes: vec![
            volume("work", empty.clone()),
            volume("cache", empty.clone()),
            volume("third", empty),
            volume("config", VolumeSource::Files(files(false))),
            volume("keys", VolumeSource::Files(files(true))),
        ],
        restart: Restart::OnFailure,
        grace_period: Duration::from_secs(10),
        ..pod(vec![Container {
            mounts: vec![
                mount("work", "/work"),
                mount("cache", "/cache"),
                mount("third", "/third"),
                mount("config", "/etc/app"),
                Mount { sub_path: Some("sub/key".to_owned()), read_only: true, ..mount("keys", "/key") },
            ],
            ..container("main")
        }])
    };
    insta::assert_json_snapshot!(shown(&request));
}

#[test]
fn a_service_in_memory() {
    let request = PodRequest {
        restart: Restart::Always,
        volumes: vec![volume("scratch", VolumeSource::Empty { memory: true, size_limit: Some(64 << 20) })],
        ..pod(vec![Container { mounts: vec![mount("scratch", "/scratch")], ..container("main") }])
    };
    insta::assert_json_snapshot!(shown(&request));
}

#[test]
fn no_secret_is_in_the_job_or_in_what_is_printed() {
    let request = PodRequest {
        volumes: vec![volume(
            "keys",
            VolumeSource::Files(vec![File {
                path: "k".to_owned(),
                content: SECRET.as_bytes().to_vec(),
                secret: true,
                mode: 0o400,
            }]),
        )],
        registries: vec![RegistryCredential {
            server: "registry.example.com".to_owned(),
            username: "robot".to_owned(),
            password: Secret::new(SECRET),
        }],
        ..pod(vec![Container {
            environment: vec![secret("PASSWORD", SECRET)],
            mounts: vec![mount("keys", "/keys")],
            ..container("main")
        }])
    };
    let translation = translate(&request, &settings()).expect("a job");
    let printed = format!("{}{translation:?}{request:?}", serde_json::to_string(&translation.job).expect("JSON"));
    let encoded = serde_json::Value::from(SECRET).to_string();
    for form in [SECRET, encoded.trim_matches('"'), &BASE64.encode(SECRET)] {
        assert!(!printed.contains(form), "{printed}");
    }
    let kept: Vec<&str> = translation.variables.values().flat_map(|items| items.values().map(Secret::expose)).collect();
    assert!(kept.contains(&SECRET) && kept.contains(&&*BASE64.encode(SECRET)) && kept.contains(&&*encoded), "{}", kept.len());
}

#[test]
fn what_nomad_cannot_run_is_refused_by_the_same_rule_as_in_the_engine() {
    let with = |change: &dyn Fn(&mut Container)| {
        let mut main = container("main");
        change(&mut main);
        pod(vec![main])
    };
    let http = ProbeAction::Http { path: "/".to_owned(), port: 80, tls: false, headers: Vec::new() };
    let tcp = ProbeAction::Tcp { port: 80 };
    let command = ProbeAction::Exec(vec!["true".to_owned()]);
    let cases = [
        (Feature::SharedProcessNamespace, PodRequest { share_processes: true, ..pod(vec![container("main")]) }),
        (Feature::LongGracePeriod, PodRequest { grace_period: Duration::from_secs(31), ..pod(vec![container("main")]) }),
        (Feature::AddedCapabilities, with(&|main| main.security.added_capabilities = vec!["NET_ADMIN".to_owned()])),
        (Feature::Gpu, with(&|main| main.requests.gpus = 1)),
        (Feature::LivenessExec, with(&|main| main.liveness = Some(probe(command.clone())))),
        (Feature::LivenessHttp, with(&|main| main.liveness = Some(probe(http.clone())))),
        (Feature::SocketProbe, with(&|main| main.liveness = Some(probe(tcp.clone())))),
        (Feature::SocketProbe, with(&|main| main.readiness = Some(probe(tcp.clone())))),
        (Feature::ReadinessProbe, with(&|main| main.readiness = Some(probe(http.clone())))),
        (Feature::StartupProbe, with(&|main| main.startup = Some(probe(http.clone())))),
        (Feature::Nfs, {
            let source = VolumeSource::Nfs { server: "fs".to_owned(), path: "/".to_owned(), read_only: false };
            PodRequest { volumes: vec![volume("v", source)], ..pod(vec![container("main")]) }
        }),
        (Feature::AzureFile, {
            let (share, account, key) = ("s".to_owned(), "a".to_owned(), Secret::new("k"));
            let source = VolumeSource::AzureFile { share, account, key, read_only: false };
            PodRequest { volumes: vec![volume("v", source)], ..pod(vec![container("main")]) }
        }),
        (Feature::EmptyDirMemory, {
            let source = VolumeSource::Empty { memory: true, size_limit: None };
            PodRequest { volumes: vec![volume("v", source)], ..pod(vec![container("main"), container("other")]) }
        }),
    ];
    for (feature, request) in cases {
        assert_eq!(refused(&request), feature.label());
    }
}

#[test]
fn what_the_admin_opens_is_translated() {
    let open = |feature| Settings { opened: vec![feature], ..settings() };
    let long = PodRequest { grace_period: Duration::from_secs(600), ..pod(vec![container("main")]) };
    let task = |request: &PodRequest, feature| {
        let mut job = translate(request, &open(feature)).expect("opened").job;
        job.task_groups.remove(0)
    };
    assert_eq!(task(&long, Feature::LongGracePeriod).tasks[0].kill_timeout, 600_000_000_000);
    let mut main = container("main");
    main.requests.gpus = 2;
    assert_eq!(task(&pod(vec![main]), Feature::Gpu).tasks[0].resources.devices, [Device { name: "nvidia/gpu", count: 2 }]);
    let mut main = container("main");
    main.security.added_capabilities = vec!["NET_ADMIN".to_owned()];
    assert_eq!(task(&pod(vec![main]), Feature::AddedCapabilities).tasks[0].config.cap_add, ["NET_ADMIN"]);
    let mut main = container("main");
    main.liveness = Some(probe(ProbeAction::Http { path: "/live".to_owned(), port: 8080, tls: true, headers: Vec::new() }));
    let group = task(&pod(vec![main]), Feature::LivenessHttp);
    assert_eq!(group.networks[0].dynamic_ports, [DynamicPort { label: "main-liveness".to_owned(), to: 8080 }]);
    let check = &group.services[0].checks[0];
    assert_eq!(
        (check.kind, check.path.as_deref(), check.protocol, check.check_restart.limit),
        ("http", Some("/live"), Some("https"), 3)
    );
}

#[test]
fn mounts_that_cannot_be_are_refused() {
    let at = |mount: Mount| {
        let source = VolumeSource::Empty { memory: false, size_limit: None };
        PodRequest { volumes: vec![volume("v", source)], ..pod(vec![Container { mounts: vec![mount], ..container("main") }]) }
    };
    assert_eq!(refused(&at(mount("v", "/local/"))), "otherVolume");
    assert_eq!(refused(&at(mount("v", "/a:b"))), "otherVolume");
    assert_eq!(refused(&at(mount("unknown", "/a"))), "otherVolume");
    assert_eq!(refused(&at(Mount { sub_path: Some("../../etc".to_owned()), ..mount("v", "/a") })), "otherVolume");
    assert!(translate(&at(mount("v", "/a")), &settings()).is_ok());
}

#[test]
fn secrets_that_do_not_fit_and_names_that_templates_do_not_know() {
    let big = "x".repeat(VARIABLE_BYTES);
    let request = |variable| pod(vec![Container { environment: vec![variable], ..container("main") }]);
    assert_eq!(refused(&request(secret("BIG", &big))), "secretEnvironment");
    assert_eq!(refused(&request(secret("with-dash", "x"))), "secretEnvironment");
    assert!(translate(&request(plain("with-dash", "x")), &settings()).is_ok());
}

#[test]
fn ids_tell_owners_apart() {
    let of = |cluster: &str, node: &str| {
        let ownership = Ownership { cluster: cluster.into(), virtual_node: node.into() };
        Settings::new(ownership, 1000).prefix()
    };
    assert_eq!(of("a", "b"), of("a", "b"));
    assert_ne!(of("ab", "c"), of("a", "bc"));
    assert_eq!(of("a", "b").len(), "spillway-".len() + 17);
}

#[test]
fn logins_are_for_their_registry_only() {
    for (image, login, same) in [
        ("registry.example.com/a:1", "registry.example.com", true),
        ("registry.example.com/a:1", "https://registry.example.com/v2/", true),
        ("busybox", "https://index.docker.io/v1/", true),
        ("library/busybox", "docker.io", true),
        ("localhost:5000/a", "localhost:5000", true),
        ("other.example.com/a", "registry.example.com", false),
    ] {
        assert_eq!(registry(image) == server(login), same, "{image} {login}");
    }
}

#[test]
fn a_pod_is_translated_in_microseconds() {
    let main = Container { environment: (0..20).map(|n| plain(&format!("V{n}"), "x")).collect(), ..container("main") };
    let (request, settings) = (pod(vec![main]), settings());
    let best = (0..200)
        .map(|_| {
            let started = std::time::Instant::now();
            let translation = translate(&request, &settings).expect("a job");
            std::hint::black_box(&translation);
            started.elapsed()
        })
        .min();
    // 50 µs are allowed in a release build; this one is not optimised.
    assert!(best.is_some_and(|best| best < Duration::from_micros(1000)), "{best:?}");
}
