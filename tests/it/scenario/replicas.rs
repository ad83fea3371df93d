//! Several `spillway run` beside one control plane, as a Deployment has them.
#![allow(dead_code, reason = "the benchmarks need one only")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use world::control_plane::{Process, User, wait_until};

use super::{PATIENCE, Scenario, free_port};

/// The flags' defaults, in the words of the tests.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(6);
/// What is promised.
pub(crate) const TAKEOVER: Duration = Duration::from_secs(10);

/// One process.
pub(crate) struct Replica {
    name: &'static str,
    pub(crate) extender: SocketAddr,
    admin: SocketAddr,
    process: Process,
}

/// What a replica is started with.
pub(crate) struct Launch {
    /// `replica-a`, `replica-b` or `replica-c`.
    pub(crate) name: &'static str,
    pub(crate) kubeconfig: PathBuf,
    /// Where kube-scheduler finds it; by default nowhere.
    pub(crate) extender: Option<SocketAddr>,
    pub(crate) flags: Vec<&'static str>,
}

impl Scenario {
    /// A replica with everything at its default.
    pub(crate) async fn replica(&self, name: &'static str) -> Replica {
        let kubeconfig = self.kubeconfig.clone();
        self.launch(Launch { name, kubeconfig, extender: None, flags: vec![] }).await
    }

    /// Starts a replica and waits until it is ready.
    pub(crate) async fn launch(&self, launch: Launch) -> Replica {
        let Launch { name, kubeconfig, extender, flags } = launch;
        let port = || SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
        let (extender, admin) = (extender.unwrap_or_else(port), port());
        let process = self.run(name, (extender, admin), &kubeconfig, &flags);
        self.ready(name, admin).await;
        Replica { name, extender, admin, process }
    }

    /// Two replicas, the first of which leads.
    pub(crate) async fn pair(&self) -> (Replica, Replica) {
        let first = self.replica("replica-a").await;
        self.led_by(&first, PATIENCE).await;
        (first, self.replica("replica-b").await)
    }

    /// Waits until this replica leads, and returns how long that took.
    pub(crate) async fn led_by(&self, replica: &Replica, patience: Duration) -> Duration {
        let started = Instant::now();
        let what = format!("{} leads", replica.name);
        let led = wait_until(&what, patience, async || {
            ensure!(replica.leads().await?, "it does not");
            Ok(())
        });
        led.await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
        started.elapsed()
    }

    /// A kubeconfig with the token of a real service account, and with another address of the API server if there is one.
    pub(crate) async fn service_account_kubeconfig(&self, name: &str, server: Option<SocketAddr>) -> PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "spillway-system");
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "spillway", "namespace": "spillway-system"}});
        self.apply(account).await.expect("a service account");
        let asked: TokenRequest =
            serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}})).expect("a request");
        let token = accounts.create_token_request("spillway", &PostParams::default(), &asked).await.expect("a token");
        let text = std::fs::read(self.plane.kubeconfig_path(User::Spillway)).expect("the harness's own file");
        let mut kubeconfig: Value = serde_json::from_slice(&text).expect("JSON");
        kubeconfig["users"][0]["user"] = json!({"token": token.status.expect("a token").token});
        if let Some(server) = server {
            kubeconfig["clusters"][0]["cluster"]["server"] = json!(format!("https://{server}"));
        }
        let path = self.plane.folder().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, kubeconfig.to_string()).expect("a file");
        path
    }

    /// The Leases of Spillway's namespace.
    pub(crate) fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), "spillway-system")
    }
}

impl Replica {
    /// Whether its gauge says that it leads.
    pub(crate) async fn leads(&self) -> Result<bool> {
        let metrics = self.get("metrics").await?;
        let line = metrics.lines().find(|line| line.starts_with("spillway_leader ")).context("no gauge")?;
        Ok(line.ends_with(" 1"))
    }

    /// A page of its admin port.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        Ok(reqwest::get(format!("http://{}/{path}", self.admin)).await?.error_for_status()?.text().await?)
    }

    /// What its status page says about the replica itself.
    pub(crate) async fn about_itself(&self) -> Result<Value> {
        Ok(serde_json::from_str::<Value>(&self.get("status.json").await?)?["replica"].clone())
    }

    /// The sum of the samples whose line starts so.
    pub(crate) async fn metric(&self, start: &str) -> f64 {
        let text = self.get("metrics").await.expect("metrics");
        text.lines().filter(|line| line.starts_with(start)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// `kill -9`.
    pub(crate) fn kill(self) {
        drop(self.process);
    }

    /// SIGSTOP.
    pub(crate) fn pause(&self) {
        self.process.pause().expect("a process of ours");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.process.resume().expect("a process of ours");
    }

    /// SIGTERM, as a kubelet sends it. Returns when the process has ended, for good reasons only.
    pub(crate) async fn terminate(mut self) {
        self.process.terminate().expect("a process of ours");
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.process.exited().expect("a child of ours") {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "{} does not stop", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(status.success(), "{}: {status}", self.name);
    }
}
