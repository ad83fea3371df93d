//! `spillway demo`: the real engine, ledger, committer and extender in a simulated cluster.
//!
//! The cluster is `world::simulation`, in virtual time. kube-scheduler's model calls the extender over HTTP on the loopback
//! interface; everything else is function calls. One seed, one history.

mod chart;
mod clouds;
mod driver;
mod examples;
mod extender_client;
mod kubernetes;
mod objects;
mod progress;
mod report;
mod run;
mod summary;
mod tally;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Node;
use policy::{Money, Timestamp};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use world::simulation::{Manifests, Settings, Simulation};

use self::driver::{Driver, Shared};
use self::extender_client::ExtenderClient;
use self::objects::Objects;
use self::run::{Backend, Budget, ExtenderCalls, Run};
use self::tally::{Fate, Totals, tally};
use crate::admin::{self, Admin, Readiness};
use crate::api::names;
use crate::committer::{self, Committer, Published};
use crate::extender::answers::SnapshotAnswers;
use crate::extender::server::{self, Phase, Server};
use crate::metrics::{self, Metrics};

/// Runs a burst in a simulated cluster and says what it cost.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Manifests to run instead of the built-in example: files, or directories with *.yaml.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub manifests: Vec<PathBuf>,
    /// Seed of everything random: the same seed gives the same history.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Virtual seconds per real second, to watch it: 60 shows a minute in a second. Without it, as fast as possible.
    #[arg(long, value_name = "FACTOR", value_parser = clap::value_parser!(u32).range(1..))]
    pub speed: Option<u32>,
    /// Runs on a real control plane instead of the simulated one: real etcd, kube-apiserver, kube-scheduler and
    /// kube-controller-manager, with KWOK as kubelets. Their programs must be there (`make components`, or $KUBEBUILDER_ASSETS).
    #[arg(long, conflicts_with_all = ["seed", "speed", "metrics_listen"])]
    pub kubernetes: bool,
    /// Form of the result on standard output.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Also writes the result as one HTML page.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Serves metrics at this address. The first scrape starts the burst, and the program stays until it was scraped after the end.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
}

/// Form of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table and sentences.
    Text,
    /// One JSON object.
    Json,
}

/// `deploy/examples/image-fan-out`, built in so that the program alone is enough.
const EXAMPLE: [(&str, &str); 5] = [
    ("namespace.yaml", include_str!("../../../deploy/examples/image-fan-out/namespace.yaml")),
    ("nodes.yaml", include_str!("../../../deploy/examples/image-fan-out/nodes.yaml")),
    ("virtual-nodes.yaml", include_str!("../../../deploy/examples/image-fan-out/virtual-nodes.yaml")),
    ("policy.yaml", include_str!("../../../deploy/examples/image-fan-out/policy.yaml")),
    ("job.yaml", include_str!("../../../deploy/examples/image-fan-out/job.yaml")),
];
const SETTING: &str = "A simulated cluster in virtual time; engine, ledger, committer and extender are the real ones.";
/// No demonstration is longer than this, in virtual time.
const LIMIT: Duration = Duration::from_secs(24 * 3600);
/// The work arrives when the committer knows everything else.
const WORK_AFTER: Duration = Duration::from_secs(1);
/// A burst that begins before anybody looks shows no rise, so one scrape starts it.
const SCRAPES_BEFORE: u64 = 1;
/// A rate needs two points, so the metrics are scraped twice before the program ends.
const SCRAPES_AFTER_END: u64 = 2;
/// Manifests beyond this are a mistake.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// The whole demonstration, results on standard output.
pub fn main(args: &Args) -> anyhow::Result<()> {
    let manifests = read(&args.manifests)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(demonstrate(args, manifests))
}

async fn demonstrate(args: &Args, manifests: Manifests) -> anyhow::Result<()> {
    let currency = currency(&manifests);
    let metrics = Arc::new(Metrics::new(&currency, metrics::Limits::STANDARD));
    let mut scraped = match args.metrics_listen {
        Some(address) => Some(serve_metrics(address, metrics.clone()).await?),
        None => None,
    };
    if let Some((address, scrapes)) = &mut scraped {
        eprintln!("Metrics: http://{address}/metrics; the burst begins with the first scrape");
        if !scraped_again(scrapes, SCRAPES_BEFORE).await? {
            return Ok(());
        }
    }
    let run = if args.kubernetes {
        kubernetes::play(manifests, &currency).await?
    } else {
        play(Script { manifests, settings: Settings::new(args.seed), currency, metrics, speed: args.speed }).await?
    };
    match args.output {
        Output::Text => print!("{}", summary::text(&run)),
        Output::Json => println!("{:#}", summary::json(&run)),
    }
    if let Some(path) = &args.report {
        std::fs::write(path, report::html(&run)).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("Report: {}", path.display());
    }
    if let Some((address, mut scrapes)) = scraped {
        eprintln!("Metrics: http://{address}/metrics, until they were scraped {SCRAPES_AFTER_END} more times");
        scraped_again(&mut scrapes, SCRAPES_AFTER_END).await?;
    }
    Ok(())
}

/// Waits for more scrapes. False if Ctrl-C came first.
async fn scraped_again(scrapes: &mut watch::Receiver<u64>, more: u64) -> anyhow::Result<bool> {
    let enough = *scrapes.borrow() + more;
    tokio::select! {
        waited = scrapes.wait_for(|count| *count >= enough) => waited.map(|_| true).context("the metrics server ended"),
        signal = tokio::signal::ctrl_c() => signal.map(|()| false).context("cannot wait for signals"),
    }
}

/// What is played.
struct Script {
    manifests: Manifests,
    settings: Settings,
    currency: String,
    metrics: Arc<Metrics>,
    speed: Option<u32>,
}

/// Plays the manifests with a server of the extender beside it.
async fn play(script: Script) -> anyhow::Result<Run> {
    let published = Arc::new(ArcSwap::from_pointee(Published::default()));
    let clock = Arc::new(AtomicI64::new(script.settings.start.millis()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no loopback port for the extender")?;
    let address = listener.local_addr().context("address of the extender")?;
    let (stop, phase) = watch::channel(Phase::Serving);
    let server = Server {
        settings: server::Settings::default(),
        answers: Arc::new(answers(published.clone(), clock.clone())),
        observer: script.metrics.clone(),
    };
    let serving = tokio::spawn(server.serve(listener, None, phase));
    let runtime = Handle::current();
    let played = tokio::task::spawn_blocking(move || {
        let extender = ExtenderClient::new(address, runtime)?;
        simulate(script, extender, Shared { published, clock })
    })
    .await
    .context("the simulation ended by itself")?;
    stop.send(Phase::Stopping).ok();
    serving.await.context("the extender's server ended by itself")?.context("the extender's server failed")?;
    played
}

/// The extender as `spillway run` has it, but for its clock.
fn answers(published: Arc<ArcSwap<Published>>, clock: Arc<AtomicI64>) -> SnapshotAnswers {
    // That the scheduler asked is told by the driver, at the moment in virtual time when it did.
    let asked = Arc::default();
    SnapshotAnswers::new(published, move || Timestamp::from_millis(clock.load(Ordering::Relaxed)), asked)
}

fn simulate(script: Script, extender: ExtenderClient, shared: Shared) -> anyhow::Result<Run> {
    let begun = Instant::now();
    let Script { manifests, settings, currency, metrics, speed } = script;
    let Manifests { nodes, pods, jobs, namespaces, others } = manifests;
    let objects = Objects::read(others, namespaces)?;
    let seed = settings.seed;
    let mut simulation = Simulation::new(settings);
    let clouds = clouds::attach(&mut simulation, clouds::find(objects.virtual_nodes(), &nodes, &currency)?)?;
    let title = title(&jobs, pods.len());
    let dedicated = nodes.iter().filter(|node| !is_virtual(node)).count();
    simulation.apply(Manifests { nodes, ..Manifests::default() });
    let committer = Committer::new(committer::Settings::standard(&currency), metrics);
    let mut driver = Driver::new(simulation, committer, objects, clouds, extender, shared);
    driver.synchronize();
    let started = driver.simulation.now() + WORK_AFTER;
    driver.begin(started, Manifests { pods, jobs, ..Manifests::default() });
    let names: Vec<String> = driver.clouds.iter().map(|cloud| cloud.virtual_node.clone()).collect();
    let mut progress = progress::Progress::new(started, names, &currency, speed);
    driver.run(started + LIMIT, |sample| progress.show(sample))?;
    progress.end();
    Ok(finish(driver, Frame { title, seed, currency, started, dedicated, begun }))
}

fn is_virtual(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(names::NODE_TYPE_LABEL)).is_some_and(|kind| kind == names::VIRTUAL_NODE_TYPE)
}

/// What is known before the first pod.
struct Frame {
    title: String,
    seed: u64,
    currency: String,
    started: Timestamp,
    dedicated: usize,
    begun: Instant,
}

/// Reads the result out of the cluster.
fn finish(mut driver: Driver, frame: Frame) -> Run {
    let Frame { title, seed, currency, started, dedicated, begun } = frame;
    let mut backends = vec![Backend::new("dedicated", &format!("{dedicated} nodes"))];
    backends.extend(driver.clouds.iter().map(|cloud| Backend::new(&cloud.virtual_node, &cloud.detail)));
    let ended = driver.simulation.now();
    let fates = driver.simulation.pods().map(|(pod, life)| Fate {
        place: life.node.as_ref().map(|node| driver.place(node)),
        created_at: life.created_at,
        bound_at: life.bound_at,
        started_at: life.started_at,
        ended_at: life.ended_at,
        cpu_millis: world::simulation::cpu_millis(pod),
        quoted: driver::record(pod).map_or(Money::ZERO, |record| record.quote),
        charged: driver.simulation.charged(pod),
        is_succeeded: pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded"),
    });
    let Totals { pods, succeeded, all_bound_after } = tally(&mut backends, fates, started, ended);
    let is_complete = all_bound_after.is_some() && driver.simulation.jobs().all(|job| job.is_complete);
    let budgets = budgets(&driver);
    let bindings = driver.bindings;
    let examples = std::mem::take(&mut driver.examples).finish(&driver.simulation);
    let samples = std::mem::take(&mut driver.samples);
    let extender: ExtenderCalls = driver.into_extender().calls();
    Run {
        title,
        setting: SETTING.to_owned(),
        seed: Some(seed),
        currency,
        started,
        ended,
        real: begun.elapsed(),
        pods,
        succeeded,
        is_complete,
        all_bound_after,
        backends,
        samples,
        budgets,
        examples,
        bindings,
        extender,
    }
}

fn budgets(driver: &Driver) -> Vec<Budget> {
    let published = driver.committer.published();
    let with_object = driver.objects.budgets().filter_map(|(name, object)| {
        let (budget, balance) = published.books.account(name)?;
        Some(Budget {
            name: name.clone(),
            amount: budget.limit,
            period: format!("{:?}", object.spec.period),
            total: balance.total(),
            peak: driver.peaks.get(name).copied().unwrap_or_default(),
            held_pods: driver.examples.held_by(name),
        })
    });
    with_object.collect()
}

/// The manifests of a demonstration: the given ones, or the built-in example.
fn read(paths: &[PathBuf]) -> anyhow::Result<Manifests> {
    let mut manifests = Manifests::default();
    if paths.is_empty() {
        for (name, text) in EXAMPLE {
            manifests.read(text, name)?;
        }
        return Ok(manifests);
    }
    for path in paths {
        for file in files(path)? {
            let context = || format!("cannot read {}", file.display());
            let size = std::fs::metadata(&file).with_context(context)?.len();
            anyhow::ensure!(size <= MANIFEST_BYTES_MAX, "{} is larger than {} MiB", file.display(), MANIFEST_BYTES_MAX >> 20);
            let text = std::fs::read_to_string(&file).with_context(context)?;
            manifests.read(&text, &file.display().to_string())?;
        }
    }
    anyhow::ensure!(
        !manifests.jobs.is_empty() || !manifests.pods.is_empty(),
        "the manifests hold no Job and no Pod, so nothing would happen"
    );
    Ok(manifests)
}

/// A file, or the *.yaml and *.yml of a directory by name.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", path.display());
    if !std::fs::metadata(path).with_context(context)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(context)? {
        let file = entry.with_context(context)?.path();
        if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(file);
        }
    }
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{} holds no *.yaml", path.display());
    Ok(files)
}

/// The installation's currency: that of the first price or budget.
fn currency(manifests: &Manifests) -> String {
    let named = |value: &serde_json::Value| {
        let text = |path: &str| value.pointer(path).and_then(serde_json::Value::as_str).map(str::to_owned);
        text("/spec/pricing/currency").or_else(|| text("/spec/currency"))
    };
    manifests.others.iter().find_map(named).unwrap_or_else(|| "USD".to_owned())
}

fn title(jobs: &[Job], pods: usize) -> String {
    let name = |job: &Job| {
        let metadata = &job.metadata;
        format!("{}/{}", metadata.namespace.as_deref().unwrap_or("default"), metadata.name.as_deref().unwrap_or_default())
    };
    match (jobs, pods) {
        ([job], 0) => name(job),
        ([], 1) => "1 pod".to_owned(),
        ([], pods) => format!("{pods} pods"),
        (jobs, pods) => format!("{} Jobs and {pods} pods", jobs.len()),
    }
}

/// Serves the metrics; the number of scrapes is watched.
async fn serve_metrics(address: SocketAddr, metrics: Arc<Metrics>) -> anyhow::Result<(SocketAddr, watch::Receiver<u64>)> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr().context("address of the metrics")?;
    let (count, scrapes) = watch::channel(0);
    let admin = Admin { metrics, readiness: Arc::new(|| Readiness::Ready), status: Arc::new(|| serde_json::json!({})) };
    let counted = admin::router(admin).layer(axum::middleware::from_fn(
        move |request: axum::extract::Request, next: axum::middleware::Next| {
            let count = count.clone();
            async move {
                let is_scrape = request.uri().path() == "/metrics";
                let response = next.run(request).await;
                if is_scrape {
                    count.send_modify(|count| *count += 1);
                }
                response
            }
        },
    ));
    tokio::spawn(async move { axum::serve(listener, counted).await });
    Ok((address, scrapes))
}
