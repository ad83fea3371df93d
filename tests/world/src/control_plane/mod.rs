//! A real control plane for tests and demonstrations: etcd, kube-apiserver, kube-scheduler, kube-controller-manager
//! and KWOK as child processes on loopback ports, ready in seconds.
//!
//! ```text
//! ControlPlane ── folder of its own (certificates, tokens, kubeconfigs, logs, etcd's data)
//!              ── block of ten ports that nobody else takes meanwhile
//!              ── watchdog: ends all processes when this one ends, however it ends
//!              ── etcd ← kube-apiserver ← { kube-scheduler(s), kube-controller-manager, KWOK }
//! ```
//!
//! Any number of them can run side by side in one process and in several. Nothing in a `ControlPlane` belongs to a
//! tokio runtime, so one may be kept in a `static` and shared by many tests: [`ControlPlane::client`] makes a new client
//! for each. RBAC is on, the users are those of [`User`], and nothing is switched off that decides about scheduling or
//! admission, except that pods need no service account.
//!
//! KWOK plays the kubelet of nodes that have [`KWOK_ANNOTATION`]. Annotations tell it what its pods and nodes do:
//! a pod with `kwok.example/run-seconds: "2.5"` ends after that time (with `kwok.example/fails: "true"` it fails), others
//! run until they are deleted; a node with `kwok.example/down` (any value) says that it is not ready. A node of the name
//! `never-starts` starts no pods; a pod with `kwok.example/stops` ends when it is deleted, before it goes.
//!
//! A real autoscaler is started beside them by [`ControlPlane::start_karpenter`].

mod component;
mod credentials;
mod karpenter;
mod nodes;
mod options;
mod ports;
mod process;
mod programs;
mod usage;
mod waiting;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

pub use component::{Component, KWOK_ANNOTATION, KWOK_ANNOTATION_VALUE};
pub use credentials::User;
pub use karpenter::NodePool;
pub use nodes::{DedicatedNodes, VirtualNodeObject, place_of, summary};
pub use options::{ControllerOptions, ExtenderOptions, ExtenderTls, SchedulerOptions};
pub use process::Process;
pub use programs::program;
pub use waiting::wait_until;

use component::NODE_LEASE;
use credentials::Credentials;
use ports::PortBlock;
use process::{CommandLine, Watchdog};

/// A component is ready after 2 to 5 seconds on an idle machine; this is for many of them starting at once on two cores.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a component that is coming up is asked whether it still runs.
const EXIT_CHECK: Duration = Duration::from_millis(50);

/// What to start; see [`ControlPlane::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    scheduler: Option<SchedulerOptions>,
    second_scheduler: Option<SchedulerOptions>,
    controllers: Option<ControllerOptions>,
    kwok: bool,
    service_controller: bool,
    node_lease: Duration,
    api_server_flags: Vec<String>,
}

/// A running control plane. Dropping it ends every process and removes every file.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: the processes, then their watchdog, then what is left of the folder.
    processes: Mutex<BTreeMap<Component, Process>>,
    settings: Mutex<Builder>,
    credentials: Credentials,
    watchdog: Watchdog,
    ports: PortBlock,
    folder: TempDir,
}

// === impl Builder ===

impl Builder {
    /// kube-scheduler with these options instead of [`SchedulerOptions::new`]; `None`: without one.
    #[must_use]
    pub fn scheduler(self, options: impl Into<Option<SchedulerOptions>>) -> Builder {
        Builder { scheduler: options.into(), ..self }
    }

    /// Another kube-scheduler beside the first; its options should have another `scheduler_name`.
    #[must_use]
    pub fn second_scheduler(self, options: SchedulerOptions) -> Builder {
        Builder { second_scheduler: Some(options), ..self }
    }

    /// kube-controller-manager with these options instead of [`ControllerOptions::new`]; `None`: without it (no Jobs, no
    /// node lifecycle).
    #[must_use]
    pub fn controllers(self, options: impl Into<Option<ControllerOptions>>) -> Builder {
        Builder { controllers: options.into(), ..self }
    }

    /// Whether KWOK runs; it does unless this says no.
    #[must_use]
    pub fn kwok(self, kwok: bool) -> Builder {
        Builder { kwok, ..self }
    }

    /// Whether the service controller of cloud controller managers runs; it does not unless this says so.
    #[must_use]
    pub fn service_controller(self, service_controller: bool) -> Builder {
        Builder { service_controller, ..self }
    }

    /// Duration of the leases of KWOK's nodes instead of a kubelet's 40 s. They are renewed after a quarter of it, which at
    /// thousands of nodes takes a whole core: measurements ask for an hour. The node-lifecycle controller waits for twice
    /// as long, unless the [`ControllerOptions`] say otherwise.
    #[must_use]
    pub fn node_lease(self, node_lease: Duration) -> Builder {
        Builder { node_lease, ..self }
    }

    /// A further command line flag for kube-apiserver.
    #[must_use]
    pub fn api_server_flag(mut self, flag: &str) -> Builder {
        self.api_server_flags.push(flag.to_owned());
        self
    }

    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// When a program is not built, ends at once or is not ready in time; the text has the end of its log.
    pub async fn start(self) -> Result<ControlPlane> {
        let folder = tempfile::Builder::new().prefix("spillway-control-plane-").tempdir()?;
        let ports = PortBlock::take()?;
        let credentials = Credentials::create(folder.path(), &url(Component::ApiServer, &ports))?;
        let watchdog = Watchdog::start(folder.path())?;
        let plane = ControlPlane {
            processes: Mutex::default(),
            settings: Mutex::new(self.clone()),
            credentials,
            watchdog,
            ports,
            folder,
        };
        plane.start_component(Component::Etcd).await?;
        plane.start_component(Component::ApiServer).await?;
        let when = async |wanted: bool, component| {
            if wanted { plane.start_component(component).await } else { Ok(()) }
        };
        tokio::try_join!(
            when(self.scheduler.is_some(), Component::Scheduler),
            when(self.second_scheduler.is_some(), Component::SecondScheduler),
            when(self.controllers.is_some(), Component::ControllerManager),
            when(self.kwok, Component::Kwok),
            when(self.service_controller, Component::ServiceController),
        )?;
        Ok(plane)
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// By default: one kube-scheduler, all controllers and KWOK, with client limits that do not hold tests up.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            scheduler: Some(SchedulerOptions::new()),
            second_scheduler: None,
            controllers: Some(ControllerOptions::new()),
            kwok: true,
            service_controller: false,
            node_lease: NODE_LEASE,
            api_server_flags: Vec::new(),
        }
    }

    /// Where the API server listens.
    #[must_use]
    pub fn api_server_url(&self) -> String {
        url(Component::ApiServer, &self.ports)
    }

    /// Where etcd listens, for whoever wants to ask it what no API server asks.
    #[must_use]
    pub fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", Component::Etcd.port(&self.ports))
    }

    /// A kubeconfig file for a user, for other programs.
    #[must_use]
    pub fn kubeconfig_path(&self, user: User) -> PathBuf {
        self.credentials.kubeconfig_path(user)
    }

    /// The folder of this control plane; a test may put files of its own there, they are removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new client that acts as `user`; it belongs to the tokio runtime that runs now.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn client(&self, user: User) -> Result<Client> {
        self.client_of(Component::ApiServer, user)
    }

    /// Starts another program beside the control plane, which ends with it. What it prints is appended to `{name}.log` in the
    /// folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, name: &str, program: &Path, arguments: &[String]) -> Result<Process> {
        self.watchdog.spawn(program, &arguments.to_vec().into(), &self.log_path_of(name))
    }

    /// Everything that a program printed that was started by [`ControlPlane::run`] under this name.
    #[must_use]
    pub fn log_of(&self, name: &str) -> String {
        process::read_log(&self.log_path_of(name))
    }

    /// Ends a component by SIGKILL, like a crash. Nothing happens when it does not run.
    pub fn stop(&self, component: Component) {
        let process = self.processes().remove(&component);
        drop(process);
    }

    /// Starts a component that was stopped, as it was before, and waits until it is ready.
    ///
    /// # Errors
    /// As for [`Builder::start`]; also when it still runs.
    pub async fn start(&self, component: Component) -> Result<()> {
        self.start_component(component).await
    }

    /// [`ControlPlane::stop`] and [`ControlPlane::start`].
    ///
    /// # Errors
    /// As for [`Builder::start`].
    pub async fn restart(&self, component: Component) -> Result<()> {
        self.stop(component);
        self.start(component).await
    }

    /// Restarts kube-apiserver on the same port with the same certificates; watches end, stored objects stay.
    ///
    /// # Errors
    /// As for [`Builder::start`].
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.restart(Component::ApiServer).await
    }

    /// Ends kube-scheduler.
    pub fn stop_scheduler(&self) {
        self.stop(Component::Scheduler);
    }

    /// Starts kube-scheduler with these options from now on; one that runs is ended first.
    ///
    /// # Errors
    /// As for [`Builder::start`].
    pub async fn start_scheduler(&self, options: SchedulerOptions) -> Result<()> {
        self.stop(Component::Scheduler);
        self.settings().scheduler = Some(options);
        self.start(Component::Scheduler).await
    }

    /// Starts the second kube-scheduler with these options from now on; one that runs is ended first.
    ///
    /// # Errors
    /// As for [`Builder::start`].
    pub async fn start_second_scheduler(&self, options: SchedulerOptions) -> Result<()> {
        self.stop(Component::SecondScheduler);
        self.settings().second_scheduler = Some(options);
        self.start(Component::SecondScheduler).await
    }

    /// SIGSTOP: the component hangs until [`ControlPlane::resume`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, component: Component) -> Result<()> {
        let processes = self.processes();
        processes.get(&component).with_context(|| format!("{} does not run", component.name()))?.pause()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, component: Component) -> Result<()> {
        let processes = self.processes();
        processes.get(&component).with_context(|| format!("{} does not run", component.name()))?.resume()
    }

    /// The process id of a running component.
    #[must_use]
    pub fn process_id(&self, component: Component) -> Option<u32> {
        self.processes().get(&component).map(Process::id)
    }

    /// The components that run.
    #[must_use]
    pub fn running(&self) -> Vec<Component> {
        self.processes().keys().copied().collect()
    }

    /// Everything that a component printed so far, over all its restarts.
    #[must_use]
    pub fn log(&self, component: Component) -> String {
        process::read_log(&self.log_path(component))
    }

    /// The metrics of kube-apiserver, a kube-scheduler or kube-controller-manager, as text.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, component: Component) -> Result<String> {
        self.get(component, "/metrics").await
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<Component, Process>> {
        // A test that panicked elsewhere must still be able to clean up.
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> MutexGuard<'_, Builder> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self, component: Component) -> PathBuf {
        self.log_path_of(component.name())
    }

    fn log_path_of(&self, name: &str) -> PathBuf {
        process::log_path(self.folder.path(), name)
    }

    fn client_of(&self, component: Component, user: User) -> Result<Client> {
        let mut config = Config::new(url(component, &self.ports).parse()?);
        config.root_cert = Some(vec![self.credentials.authority_der()]);
        config.auth_info.token = Some(self.credentials.token(user).to_owned().into());
        Ok(Client::try_from(config)?)
    }

    async fn get(&self, component: Component, path: &str) -> Result<String> {
        let request = kube::core::Request::new("").get(path, &kube::api::GetParams::default());
        let mut request = request?;
        *request.uri_mut() = path.parse()?;
        Ok(self.client_of(component, User::Admin)?.request_text(request).await?)
    }

    async fn start_component(&self, component: Component) -> Result<()> {
        ensure!(self.process_id(component).is_none(), "{} runs already", component.name());
        let executable = program(component.program())?;
        let command = self.command_line(component)?;
        let process = self.watchdog.spawn(&executable, &command, &self.log_path(component))?;
        self.processes().insert(component, process);
        let name = component.name();
        let ready = wait_until(name, READY_TIMEOUT, async || self.ready(component).await);
        let answer = tokio::select! {
            answer = ready => answer,
            status = self.exit(component) => Err(anyhow::anyhow!("{name} ended: {status}")),
        };
        answer.with_context(|| {
            let log = process::tail(&self.log_path(component), 15);
            format!("{name} does not come up; the end of its log:\n{log}\n")
        })
    }

    fn command_line(&self, component: Component) -> Result<CommandLine> {
        let folder = self.folder.path();
        let ports = &self.ports;
        let settings = self.settings().clone();
        Ok(match component {
            Component::Etcd => component::etcd(folder, ports).into(),
            Component::ApiServer => component::api_server(folder, ports, &settings.api_server_flags).into(),
            Component::Scheduler => self.scheduler_arguments(component, settings.scheduler.as_ref())?.into(),
            Component::SecondScheduler => self.scheduler_arguments(component, settings.second_scheduler.as_ref())?.into(),
            Component::ControllerManager => {
                let options = settings.controllers.context("this control plane was built without controllers")?;
                let kubeconfig = self.kubeconfig_path(User::ControllerManager);
                component::controller_manager(&kubeconfig, folder, ports, &options, settings.node_lease).into()
            }
            Component::ServiceController => component::service_controller(&self.kubeconfig_path(User::Admin), ports).into(),
            Component::Kwok => component::kwok(&self.kubeconfig_path(User::Admin), folder, ports, settings.node_lease)?.into(),
            Component::Karpenter => karpenter::command_line(&self.kubeconfig_path(User::Admin), folder, ports),
        })
    }

    fn scheduler_arguments(&self, component: Component, options: Option<&SchedulerOptions>) -> Result<Vec<String>> {
        let options = options.with_context(|| format!("there are no options for the {}", component.name()))?;
        let kubeconfig = self.kubeconfig_path(User::Scheduler);
        let configuration = options.configuration(&kubeconfig.to_string_lossy());
        let path = self.folder.path().join(format!("{}.json", component.name()));
        std::fs::write(&path, serde_json::to_vec_pretty(&configuration)?)?;
        Ok(component::scheduler(component, &path, self.folder.path(), &self.ports, &options.flags))
    }

    /// An error says what is missing still.
    async fn ready(&self, component: Component) -> Result<()> {
        match component {
            Component::Etcd | Component::Kwok | Component::ServiceController | Component::Karpenter => {
                TcpStream::connect(("127.0.0.1", component.port(&self.ports))).await?;
            }
            Component::ApiServer => {
                self.get(component, "/readyz").await?;
                // Made by the API server a moment after it calls itself ready; tests put their objects there.
                Api::<Namespace>::all(self.client(User::Admin)?).get("default").await?;
            }
            Component::Scheduler | Component::SecondScheduler => {
                self.get(component, "/readyz").await?;
            }
            Component::ControllerManager => {
                self.get(component, "/healthz").await?;
            }
        }
        Ok(())
    }

    /// Comes back when the component has ended.
    async fn exit(&self, component: Component) -> String {
        loop {
            match self.processes().get_mut(&component).map(Process::exited) {
                None => return "it was stopped".to_owned(),
                Some(Ok(None)) => {}
                Some(Ok(Some(status))) => return status.to_string(),
                Some(Err(error)) => return error.to_string(),
            }
            sleep(EXIT_CHECK).await;
        }
    }
}

fn url(component: Component, ports: &PortBlock) -> String {
    format!("https://127.0.0.1:{}", component.port(ports))
}
