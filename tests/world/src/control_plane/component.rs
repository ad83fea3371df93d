//! The programs of a control plane and the command line of each.

use std::path::Path;
use std::time::Duration;

use super::options::{ControllerOptions, duration};
use super::ports::PortBlock;

/// One program of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The API server's store.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-scheduler, the one of ordinary pods.
    Scheduler,
    /// Another kube-scheduler with a `schedulerName` of its own.
    SecondScheduler,
    /// kube-controller-manager.
    ControllerManager,
    /// KWOK: plays the kubelet of every Node that has [`KWOK_ANNOTATION`].
    Kwok,
    /// The service controller of cloud controller managers, with a cloud that prints what it is told: each line of its log that
    /// is a JSON object says which `nodes` the load balancer of a `service` gets.
    ServiceController,
    /// Karpenter, whose machines are KWOK's.
    Karpenter,
}

/// KWOK plays the kubelet of nodes that have this annotation (value [`KWOK_ANNOTATION_VALUE`]), and of no others, so
/// that a virtual kubelet can bring nodes of its own.
pub const KWOK_ANNOTATION: &str = "kwok.example/managed";
/// See [`KWOK_ANNOTATION`].
pub const KWOK_ANNOTATION_VALUE: &str = "true";

/// What kubelets use; a lease is renewed after a quarter of it.
pub(super) const NODE_LEASE: Duration = Duration::from_secs(40);

const STAGES: [(&str, &str); 7] = [
    ("kwok.yaml", include_str!("stages/kwok.yaml")),
    ("node-ready.yaml", include_str!("stages/node-ready.yaml")),
    ("pod-run.yaml", include_str!("stages/pod-run.yaml")),
    ("pod-finish.yaml", include_str!("stages/pod-finish.yaml")),
    ("pod-stop.yaml", include_str!("stages/pod-stop.yaml")),
    ("pod-stopped.yaml", include_str!("stages/pod-stopped.yaml")),
    ("pod-delete.yaml", include_str!("stages/pod-delete.yaml")),
];

impl Component {
    /// Name of the program and of its log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Component::SecondScheduler => "second-scheduler",
            other => other.program(),
        }
    }

    /// File name of the program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Component::Etcd => "etcd",
            Component::ApiServer => "kube-apiserver",
            Component::Scheduler | Component::SecondScheduler => "kube-scheduler",
            Component::ControllerManager => "kube-controller-manager",
            Component::Kwok => "kwok",
            Component::ServiceController => "service-controller",
            Component::Karpenter => "karpenter",
        }
    }

    /// The port that it serves on.
    pub(super) fn port(self, ports: &PortBlock) -> u16 {
        ports.port(match self {
            Component::Etcd => 1,
            Component::ApiServer => 3,
            Component::Scheduler => 4,
            Component::SecondScheduler => 5,
            Component::ControllerManager => 6,
            Component::Kwok => 7,
            Component::ServiceController => 8,
            Component::Karpenter => 9,
        })
    }
}

/// Durability is switched off: the store of a test may be lost with the machine, and syncing is most of what it costs.
pub(super) fn etcd(folder: &Path, ports: &PortBlock) -> Vec<String> {
    let client = format!("http://127.0.0.1:{}", Component::Etcd.port(ports));
    let peer = format!("http://127.0.0.1:{}", ports.port(2));
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

pub(super) fn api_server(folder: &Path, ports: &PortBlock, flags: &[String]) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", Component::Etcd.port(ports)),
        "--bind-address=127.0.0.1".to_owned(),
        // Else it looks for an interface with a default route, and a machine may have none.
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", Component::ApiServer.port(ports)),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("service-account.pub")),
        format!("--service-account-signing-key-file={}", file("service-account.key")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        // Pods of tests name no service account and run nothing that would use its token.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        // There is no second API server whose endpoints would have to be kept in order.
        "--endpoint-reconciler-type=none".to_owned(),
        "--allow-privileged=true".to_owned(),
        // The machine is the limit, not a number.
        "--max-requests-inflight=4000".to_owned(),
        "--max-mutating-requests-inflight=2000".to_owned(),
        "--profiling=false".to_owned(),
    ];
    arguments.extend_from_slice(flags);
    arguments
}

pub(super) fn scheduler(component: Component, config: &Path, folder: &Path, ports: &PortBlock, flags: &[String]) -> Vec<String> {
    let mut arguments = vec![format!("--config={}", config.display())];
    arguments.extend(serving(component, folder, ports));
    arguments.extend_from_slice(flags);
    arguments
}

pub(super) fn controller_manager(
    kubeconfig: &Path,
    folder: &Path,
    ports: &PortBlock,
    options: &ControllerOptions,
    node_lease: Duration,
) -> Vec<String> {
    let ControllerOptions { kube_api_qps, kube_api_burst, controllers, node_monitor_grace_period, concurrent_job_syncs, flags } =
        options;
    let mut arguments = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
        // As in real clusters: every controller is a service account with its own rights and its own client limits.
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", folder.join("service-account.key").display()),
        format!("--kube-api-qps={kube_api_qps}"),
        format!("--kube-api-burst={kube_api_burst}"),
        format!("--controllers={}", controllers.join(",")),
        format!("--concurrent-job-syncs={concurrent_job_syncs}"),
        "--profiling=false".to_owned(),
    ];
    // Rarer heartbeats need more patience; at the usual ones the program's default stays.
    let patience = (node_lease > NODE_LEASE).then_some(node_lease * 2);
    if let Some(grace) = node_monitor_grace_period.or(patience) {
        arguments.push(format!("--node-monitor-grace-period={}", duration(grace)));
    }
    arguments.extend(serving(Component::ControllerManager, folder, ports));
    arguments.extend_from_slice(flags);
    arguments
}

/// Also writes the stages into the folder, because KWOK reads files only.
pub(super) fn kwok(kubeconfig: &Path, folder: &Path, ports: &PortBlock, node_lease: Duration) -> std::io::Result<Vec<String>> {
    let mut arguments = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--manage-nodes-with-annotation-selector={KWOK_ANNOTATION}={KWOK_ANNOTATION_VALUE}"),
        format!("--node-lease-duration-seconds={}", node_lease.as_secs()),
        // Pods without an address are behind no Service.
        "--cidr=10.128.0.0/9".to_owned(),
        format!("--server-address=127.0.0.1:{}", Component::Kwok.port(ports)),
    ];
    for (name, stage) in STAGES {
        let path = folder.join(name);
        std::fs::write(&path, stage)?;
        arguments.push(format!("--config={}", path.display()));
    }
    Ok(arguments)
}

pub(super) fn service_controller(kubeconfig: &Path, ports: &PortBlock) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--listen=127.0.0.1:{}", Component::ServiceController.port(ports)),
    ]
}

/// Health and metrics over HTTPS with the shared certificate.
fn serving(component: Component, folder: &Path, ports: &PortBlock) -> [String; 5] {
    [
        // Open to whoever can reach the loopback port, as far as reading numbers goes.
        "--authorization-always-allow-paths=/healthz,/livez,/readyz,/metrics".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", component.port(ports)),
        format!("--tls-cert-file={}", folder.join("server.crt").display()),
        format!("--tls-private-key-file={}", folder.join("server.key").display()),
    ]
}
