//! `spillway run`: everything wired in one place.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use kube::Api;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::{BackendsMode, DaemonSetsMode, GuardsMode, LogForm, RunArgs};
use crate::admin::{Admin, Readiness};
use crate::committer::Settings;
use crate::extender::answers::SnapshotAnswers;
use crate::extender::certificates::{CertificateFiles, Certificates};
use crate::extender::{server, watchdog};
use crate::guards::Subjects;
use crate::metrics::{Limits, Metrics};
use crate::{admin, run};

/// A runtime that does not turn for so long will not come back; a restart is better than a hang (kube-scheduler waits).
const STALL: Duration = Duration::from_secs(10);
/// The books are closed within this time, or not at all.
const CLOSING: Duration = Duration::from_secs(8);

pub(super) fn run(args: RunArgs) -> anyhow::Result<()> {
    log(args.log);
    // One crypto provider for the whole process, said once.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider is installed already");
    }
    super::runtime()?.block_on(serve(args))
}

fn log(form: LogForm) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match form {
        LogForm::Text => builder.init(),
        LogForm::Json => builder.json().init(),
    }
}

async fn serve(args: RunArgs) -> anyhow::Result<()> {
    let RunArgs {
        kubeconfig,
        currency,
        extender_listen,
        extender_prefix,
        tls_cert,
        tls_key,
        tls_client_ca,
        admin_listen,
        bindings_per_second,
        bindings_in_flight,
        guards,
        daemon_sets,
        backends,
        leader_elect,
        leader_elect_lease_duration: lease_duration,
        leader_elect_renew_deadline: renew_deadline,
        leader_elect_retry_period: retry_period,
        leader_elect_resource_namespace: namespace,
        leader_elect_resource_name: name,
        shutdown_delay_duration,
        log: _,
    } = args;
    let identity = identity();
    let election = if leader_elect {
        let times = run::Times { lease_duration, renew_deadline, retry_period }.checked()?;
        Some(run::Election { identity: identity.clone(), namespace, name, times })
    } else {
        None
    };
    anyhow::ensure!(
        currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase()),
        "--currency {currency:?}: three capital letters, as in ISO 4217"
    );
    let tls = match tls_cert.zip(tls_key) {
        Some((certificate, key)) => Some(Certificates::load(CertificateFiles { certificate, key, client_ca: tls_client_ca })?),
        None => {
            anyhow::ensure!(
                extender_listen.ip().is_loopback(),
                "--extender-listen {extender_listen}: without --tls-cert and --tls-key only a loopback address, such as 127.0.0.1:8443"
            );
            None
        }
    };
    let _watchdog = watchdog::Watchdog::start(watchdog::Settings::ending_the_process(STALL), &tokio::runtime::Handle::current())?;
    let client = run::connect(kubeconfig.as_deref(), &identity).await?;
    let metrics = Arc::new(Metrics::new(&currency, Limits::STANDARD));
    let handle = run::Handle::default();
    let settings = Settings {
        bindings_per_second,
        bindings_in_flight: usize::from(bindings_in_flight),
        await_guards: guards == GuardsMode::Apply,
        keep_off_daemon_sets: daemon_sets == DaemonSetsMode::KeepOff,
        observe_backends: backends == BackendsMode::Observe,
        keeper: identity.clone(),
        ..Settings::standard(&currency)
    };

    let (phase, phases) = watch::channel(server::Phase::Serving);
    let answers = SnapshotAnswers::new(handle.published.clone(), run::now, handle.extender_asked.clone());
    let extender = server::Server {
        settings: server::Settings { prefix: extender_prefix, ..server::Settings::default() },
        answers: Arc::new(answers),
        observer: metrics.clone(),
    };
    let extender_listener =
        TcpListener::bind(extender_listen).await.with_context(|| format!("--extender-listen {extender_listen}"))?;
    let admin_listener = TcpListener::bind(admin_listen).await.with_context(|| format!("--admin-listen {admin_listen}"))?;
    tracing::info!(identity = &*identity, extender = %extender_listener.local_addr()?, admin = %admin_listener.local_addr()?, "spillway runs");

    let admin =
        Admin { metrics: metrics.clone(), readiness: readiness(&handle, phases.clone()), status: status(&handle, identity) };
    let (stop, asked) = oneshot::channel::<()>();
    let (closed, is_closed) = oneshot::channel::<()>();
    let committing = run::run(client, settings, election, metrics, handle.clone(), run::Stop { asked, closed });
    // Tasks of their own: they go on while the process is told to stop.
    let mut committing = tokio::spawn(committing);
    let mut extending = tokio::spawn(extender.serve(extender_listener, tls, phases));
    tokio::select! {
        ended = &mut committing => return ended?,
        ended = &mut extending => return ended?.context("the extender's listener failed"),
        ended = admin::serve(admin_listener, admin, std::future::pending()) => return ended.context("the admin listener failed"),
        signal = told_to_stop() => tracing::info!(signal, "spillway stops"),
    }
    // The books are closed, so that another replica may lead; meanwhile whoever asks is answered, and told to ask elsewhere.
    phase.send_replace(server::Phase::Draining);
    let _ = stop.send(());
    let closing = async {
        if tokio::time::timeout(CLOSING, is_closed).await.is_err() {
            tracing::warn!("the books were not closed in time; a successor counts what is authorized as spent");
        }
    };
    tokio::join!(tokio::time::sleep(shutdown_delay_duration), closing);
    phase.send_replace(server::Phase::Stopping);
    let served = extending.await;
    committing.abort();
    served?.context("the extender's listener failed")
}

/// What this process is called in the Lease and beside authorizations: the pod's name, and something that no other process has.
fn identity() -> Arc<str> {
    use std::hash::{BuildHasher, RandomState};
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "spillway".to_owned());
    let unique = RandomState::new().hash_one((std::process::id(), jiff::Timestamp::now().as_nanosecond()));
    Arc::from(format!("{}_{unique:016x}", host.chars().take(200).collect::<String>()))
}

fn readiness(handle: &run::Handle, phases: watch::Receiver<server::Phase>) -> Arc<dyn Fn() -> Readiness + Send + Sync> {
    let handle = handle.clone();
    Arc::new(move || {
        if *phases.borrow() != server::Phase::Serving {
            Readiness::NotReady("it is stopping".to_owned())
        } else if !handle.is_synced() {
            Readiness::NotReady("the first lists are not complete".to_owned())
        } else if handle.standing().leads() && !handle.guarded.load(Ordering::Relaxed) {
            Readiness::NotReady("the guards of virtual nodes are not in force".to_owned())
        } else {
            Readiness::Ready
        }
    })
}

fn status(handle: &run::Handle, identity: Arc<str>) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
    let (published, handle) = (handle.published.clone(), handle.clone());
    Arc::new(move || {
        let standing = handle.standing();
        let leader = match &standing {
            run::Standing::Leads { .. } => standing.leads().then(|| identity.clone()),
            run::Standing::Follows { leader } => leader.clone(),
        };
        let state = published.load();
        let mut nodes: Vec<_> = state.backends.iter().collect();
        nodes.sort_by(|one, other| one.node.name.cmp(&other.node.name));
        serde_json::json!({
            "replica": {"identity": identity, "leads": standing.leads(), "leader": leader},
            "policies": state.policies.iter().map(|compiled| serde_json::json!({"name": compiled.policy.name, "generation": compiled.policy.generation})).collect::<Vec<_>>(),
            "virtualNodes": nodes.iter().map(|backend| serde_json::json!({
                "name": backend.node.name,
                "node": backend.node.node_name,
                "provider": backend.node.provider.label(),
                "pods": backend.usage.pods,
                "closed": backend.node.closed.map(policy::virtual_node::Closed::label),
            })).collect::<Vec<_>>(),
            "budgets": state.books.accounts().map(|(budget, balance)| serde_json::json!({
                "name": budget.name,
                "limit": budget.limit.to_string(),
                "spent": balance.spent.to_string(),
                "committed": balance.committed.saturating_add(balance.reserved).to_string(),
                "authorized": balance.authorized.to_string(),
            })).collect::<Vec<_>>(),
        })
    })
}

/// What the guards speak of in this cluster.
pub(super) async fn guard_subjects(kubeconfig: Option<&Path>) -> anyhow::Result<Subjects> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let nodes: Api<crate::api::VirtualNode> = Api::all(run::connect(kubeconfig, "guards").await?);
    let listed = nodes.list(&kube::api::ListParams::default()).await.context("listing VirtualNodes")?;
    let mut subjects = Subjects::default();
    for node in listed {
        let name = match node.spec.adopt {
            Some(adopt) => {
                subjects.adopting.insert(adopt.node_selector);
                node.status.and_then(|status| status.node_name)
            }
            None => node.metadata.name,
        };
        subjects.closed.extend(name.map(Arc::from));
    }
    subjects.bound.clone_from(&subjects.closed);
    Ok(subjects)
}

async fn told_to_stop() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind: SignalKind, name: &'static str| async move {
        match signal(kind) {
            Ok(mut stream) => {
                stream.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, name, "signal cannot be listened for");
                std::future::pending::<()>().await;
            }
        }
        name
    };
    tokio::select! {
        name = wait(SignalKind::terminate(), "SIGTERM") => name,
        name = wait(SignalKind::interrupt(), "SIGINT") => name,
    }
}
