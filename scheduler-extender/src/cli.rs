//! The command line.

mod doctor;
mod explain;
mod provider;
mod serve;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::guards::Guard;
use clap::{Args, CommandFactory, Parser, Subcommand};

/// Overflow a Kubernetes cluster into serverless containers, pod by pod, by cost, under a hard cap in money.
#[derive(Debug, Parser)]
#[command(name = "spillway", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Examples:\n  spillway demo                                    watch 500 pods overflow a simulated cluster\n  spillway crds | kubectl apply -f -               install the API types\n  spillway run --currency USD                      decide, commit and answer kube-scheduler\n  spillway why pod/thumbnails-abc12 -n media       why a pod is where it is"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the committer and the extender against the cluster of the current kubeconfig or service account.
    Run(Box<RunArgs>),
    /// Show the whole on a simulated cluster, in virtual time: no cluster, no account, no network.
    Demo(crate::demo::Args),
    /// Print the CustomResourceDefinitions.
    #[command(after_help = "Example:\n  spillway crds | kubectl apply -f -")]
    Crds,
    /// Print the admission policies that keep virtual nodes closed to everybody but Spillway, and from breaking others.
    #[command(
        after_help = "Examples:\n  spillway guards --node fargate-us-east-1 --node aci-eastus | kubectl apply -f -\n  spillway guards --only nodes,daemon-sets"
    )]
    Guards(GuardsArgs),
    /// Say why a pod is where it is, or why it waits: tier by tier, backend by backend, with prices.
    #[command(
        after_help = "Examples:\n  spillway why pod/thumbnails-abc12 -n media\n  spillway why thumbnails-abc12 -n media -o json"
    )]
    Why(WhyArgs),
    /// Try a backend out on the real account.
    Provider(provider::ProviderArgs),
    /// Look for what Spillway cannot work with, in its installation and in the workloads, and say what to do about it.
    #[command(
        after_help = "The exit code is 3 if somebody must do something, else 0.\n\nExamples:\n  spillway doctor\n  spillway doctor -o json | jq '.[] | select(.level == \"todo\")'"
    )]
    Doctor(DoctorArgs),
    /// Print a kube-scheduler configuration that asks the extender.
    SchedulerConfig(SchedulerConfigArgs),
    /// Print shell completion.
    #[command(after_help = "Example:\n  source <(spillway completion bash)")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Flags of `spillway run`. Everything about policies, prices and budgets is in the API server.
#[derive(Debug, Args)]
struct RunArgs {
    /// Kubeconfig file; by default $KUBECONFIG, ~/.kube/config or the service account.
    #[arg(long, env = "SPILLWAY_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The one currency of this installation (ISO 4217). Objects in another currency are refused.
    #[arg(long, env = "SPILLWAY_CURRENCY", default_value = "USD", value_name = "CODE")]
    currency: String,
    /// Address on which kube-scheduler asks the extender.
    #[arg(long, env = "SPILLWAY_EXTENDER_LISTEN", default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    extender_listen: std::net::SocketAddr,
    /// First part of the extender's path, as in `urlPrefix` of the scheduler's configuration.
    #[arg(long, env = "SPILLWAY_EXTENDER_PREFIX", default_value = "/v1", value_name = "PATH")]
    extender_prefix: String,
    /// Certificate chain of the extender, PEM. Without it plain HTTP is spoken, on loopback addresses only.
    #[arg(long, env = "SPILLWAY_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM. Both are read again when they change.
    #[arg(long, env = "SPILLWAY_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Authorities of client certificates, PEM. With it kube-scheduler must show a certificate.
    #[arg(long, env = "SPILLWAY_TLS_CLIENT_CA", requires = "tls_cert", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Address of health, readiness, metrics and the status page.
    #[arg(long, env = "SPILLWAY_ADMIN_LISTEN", default_value = "0.0.0.0:9090", value_name = "ADDRESS")]
    admin_listen: std::net::SocketAddr,
    /// Bindings per second, in the long run.
    #[arg(long, env = "SPILLWAY_BINDINGS_PER_SECOND", default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bindings_per_second: u32,
    /// Bindings whose answer is awaited at the same time.
    #[arg(long, env = "SPILLWAY_BINDINGS_IN_FLIGHT", default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    bindings_in_flight: u16,
    /// Whether the admission policies that guard virtual nodes are kept up to date.
    #[arg(long, env = "SPILLWAY_GUARDS", default_value = "apply", value_name = "WHAT")]
    guards: GuardsMode,
    /// What happens to DaemonSets that would make pods for virtual nodes: their rolling updates would stop.
    #[arg(long, env = "SPILLWAY_DAEMON_SETS", default_value = "keep-off", value_name = "WHAT")]
    daemon_sets: DaemonSetsMode,
    /// Whether one of several replicas is elected to commit, by a Lease; the others stand by. `false`: there is only this one.
    #[arg(long, env = "SPILLWAY_LEADER_ELECT", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,
    /// A standby takes over when the Lease was not renewed for so long. Whole seconds.
    #[arg(long, env = "SPILLWAY_LEADER_ELECT_LEASE_DURATION", default_value = "6s", value_name = "DURATION", value_parser = duration)]
    leader_elect_lease_duration: Duration,
    /// A leader that could not renew the Lease for so long stops committing.
    #[arg(long, env = "SPILLWAY_LEADER_ELECT_RENEW_DEADLINE", default_value = "4s", value_name = "DURATION", value_parser = duration)]
    leader_elect_renew_deadline: Duration,
    /// Time between two attempts to renew or to acquire the Lease.
    #[arg(long, env = "SPILLWAY_LEADER_ELECT_RETRY_PERIOD", default_value = "1s", value_name = "DURATION", value_parser = duration)]
    leader_elect_retry_period: Duration,
    /// Namespace of the Lease.
    #[arg(long, env = "SPILLWAY_LEADER_ELECT_RESOURCE_NAMESPACE", default_value = "spillway-system", value_name = "NAME")]
    leader_elect_resource_namespace: String,
    /// Name of the Lease.
    #[arg(long, env = "SPILLWAY_LEADER_ELECT_RESOURCE_NAME", default_value = "spillway", value_name = "NAME")]
    leader_elect_resource_name: String,
    /// How long kube-scheduler's calls are still answered after the process was told to stop, so that they find another replica.
    #[arg(long, env = "SPILLWAY_SHUTDOWN_DELAY_DURATION", default_value = "5s", value_name = "DURATION", value_parser = duration)]
    shutdown_delay_duration: Duration,
    /// Whether the clouds behind virtual nodes are asked for their quota, usage, prices and health.
    #[arg(long, env = "SPILLWAY_BACKENDS", default_value = "observe", value_name = "WHAT")]
    backends: BackendsMode,
    /// Form of the log; its level is set by $RUST_LOG.
    #[arg(long, env = "SPILLWAY_LOG", default_value = "text", value_name = "FORM")]
    log: LogForm,
}

/// A duration as Kubernetes writes it, of at most an hour.
fn duration(text: &str) -> Result<Duration, String> {
    /// Longer than any of these is meant.
    const LONGEST: Duration = Duration::from_secs(3600);
    let parsed = crate::duration::parse(text).filter(|duration| *duration <= LONGEST);
    parsed.ok_or_else(|| "a duration of at most 1h is allowed, such as 500ms, 6s or 1m30s".to_owned())
}

/// Who keeps the guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum GuardsMode {
    /// Spillway applies them whenever a virtual node appears or goes.
    Apply,
    /// Somebody else does (`spillway guards`).
    Ignore,
}

/// What happens to DaemonSets that tolerate everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DaemonSetsMode {
    /// Their templates get the node affinity `type NotIn [virtual-kubelet]`, which restarts the pods of those that lack it, once.
    KeepOff,
    /// Nothing is done about them.
    Leave,
}

/// Who says how backends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum BackendsMode {
    /// Spillway asks them and writes `VirtualNode.status`.
    Observe,
    /// Somebody else writes it.
    Ignore,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogForm {
    /// For people.
    Text,
    /// For machines.
    Json,
}

#[derive(Debug, Args)]
struct GuardsArgs {
    /// Name of a virtual node's Node object; may be given several times. By default those of the cluster's VirtualNodes.
    #[arg(long = "node", value_name = "NAME")]
    nodes: Vec<String>,
    /// Only these guards.
    #[arg(long, value_name = "GUARD", value_delimiter = ',')]
    only: Vec<Guard>,
    /// Kubeconfig file, if the names are to be asked for.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct WhyArgs {
    /// The pod: `pod/NAME` or `NAME`.
    #[arg(value_name = "POD")]
    pod: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// Kubeconfig file.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The installation's currency.
    #[arg(long, env = "SPILLWAY_CURRENCY", default_value = "USD", value_name = "CODE")]
    currency: String,
    /// Form of the answer.
    #[arg(short, long, default_value = "text", value_name = "FORM")]
    output: OutputForm,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// The service account whose rights are checked.
    #[arg(long, default_value = "spillway-system/spillway", value_name = "NAMESPACE/NAME")]
    service_account: String,
    /// Kubeconfig file.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, default_value = "text", value_name = "FORM")]
    output: OutputForm,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OutputForm {
    /// For people.
    Text,
    /// For machines.
    Json,
}

#[derive(Debug, Args)]
struct SchedulerConfigArgs {
    /// URL of the extender as kube-scheduler reaches it, prefix included.
    #[arg(long, default_value = "https://spillway-extender.spillway-system.svc:8443/v1", value_name = "URL")]
    url: String,
    /// Kubeconfig file of kube-scheduler.
    #[arg(long, default_value = "/etc/kubernetes/scheduler.conf", value_name = "FILE")]
    scheduler_kubeconfig: String,
}

/// Parses the arguments and runs the command. The exit code is 0 for done, 1 for failed, 2 for wrong usage, and 3 where `doctor`
/// has found something to do.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spillway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever reads our output has seen enough, as `spillway crds | head` has.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let done = match cli.command {
        Command::Doctor(args) => return doctor::doctor(&args),
        Command::Run(args) => serve::run(*args),
        Command::Demo(args) => crate::demo::main(&args),
        Command::Crds => print(&crate::crds::print()),
        Command::Guards(args) => guards(args),
        Command::Why(args) => explain::why(&args),
        Command::Provider(args) => provider::main(&args),
        Command::SchedulerConfig(args) => print(&scheduler_config(&args)),
        Command::Completion { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "spillway", &mut out);
            std::io::stdout().write_all(&out)?;
            Ok(())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn guards(args: GuardsArgs) -> anyhow::Result<()> {
    let GuardsArgs { nodes, only, kubeconfig } = args;
    let subjects = if nodes.is_empty() {
        runtime()?.block_on(serve::guard_subjects(kubeconfig.as_deref()))?
    } else {
        crate::guards::Subjects::named(nodes.iter().map(String::as_str))
    };
    let only = if only.is_empty() { Guard::ALL.to_vec() } else { only };
    print(&crate::guards::print(&subjects, &only)?)
}

/// An async runtime for one command. Decisions are made by one task; the others wait for the network.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// The part of kube-scheduler's configuration that matters, as tested (docs/operations.md).
fn scheduler_config(args: &SchedulerConfigArgs) -> String {
    let SchedulerConfigArgs { url, scheduler_kubeconfig } = args;
    format!(
        "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {{kubeconfig: {scheduler_kubeconfig}}}
extenders:
- urlPrefix: {url}
  filterVerb: filter
  preemptVerb: preempt
  nodeCacheCapable: true      # names only; whole Nodes cost 300 times as much
  enableHTTPS: true
  tlsConfig:
    caFile: /etc/spillway/ca.crt
    certFile: /etc/spillway/tls.crt
    keyFile: /etc/spillway/tls.key
  httpTimeout: 1s             # a hanging extender costs this much per marked pod
  ignorable: true             # down means: scheduled as without Spillway
  managedResources:           # pods without this limit are never sent
  - {{name: spillway.dev/burst, ignoredByScheduler: true}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_scheduler_configuration_is_yaml() {
        let args = SchedulerConfigArgs { url: "https://x/v1".to_owned(), scheduler_kubeconfig: "/k".to_owned() };
        let parsed: serde_json::Value = serde_yaml_ng::from_str(&scheduler_config(&args)).expect("YAML");
        assert_eq!(parsed["extenders"][0]["ignorable"], true);
        assert_eq!(parsed["extenders"][0]["managedResources"][0]["ignoredByScheduler"], true);
    }
}
