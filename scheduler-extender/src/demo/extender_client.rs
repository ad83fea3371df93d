//! kube-scheduler's side of the extender's protocol, for the simulated scheduler: real HTTP, one call at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use world::simulation::{Extender, FilterOutcome};

use super::run::{ExtenderCalls, percentile};

/// What kube-scheduler's configuration calls `httpTimeout`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Calls a server from a thread that may block. Virtual time stands still meanwhile.
pub(super) struct ExtenderClient {
    client: reqwest::Client,
    base: String,
    runtime: Handle,
    filters: u64,
    preempts: u64,
    errors: u64,
    latencies: Vec<Duration>,
}

/// The part of the answer to `filter` that matters with `nodeCacheCapable: true`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct FilterAnswer {
    node_names: Option<Vec<String>>,
    failed_nodes: Option<BTreeMap<String, String>>,
    failed_and_unresolvable_nodes: Option<BTreeMap<String, String>>,
    error: Option<String>,
}

/// The answer to `preempt`; the victims of a node that stays are never changed, so they are not looked at.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PreemptAnswer {
    node_name_to_meta_victims: Option<BTreeMap<String, serde_json::Value>>,
}

// === impl ExtenderClient ===

impl ExtenderClient {
    /// A client for the server at this address.
    pub(super) fn new(address: SocketAddr, runtime: Handle) -> anyhow::Result<ExtenderClient> {
        let client =
            reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("HTTP client of the simulated scheduler")?;
        Ok(ExtenderClient {
            client,
            base: format!("http://{address}"),
            runtime,
            filters: 0,
            preempts: 0,
            errors: 0,
            latencies: Vec::new(),
        })
    }

    /// Calls of `filter` until now.
    pub(super) fn filters(&self) -> u64 {
        self.filters
    }

    /// How it went.
    pub(super) fn calls(mut self) -> ExtenderCalls {
        self.latencies.sort_unstable();
        ExtenderCalls {
            filter: self.filters,
            preempt: self.preempts,
            latency_p50: percentile(&self.latencies, 50),
            latency_p99: percentile(&self.latencies, 99),
            errors: self.errors,
        }
    }

    fn call<T: for<'a> Deserialize<'a>>(&mut self, verb: &str, body: &serde_json::Value) -> anyhow::Result<T> {
        let begun = Instant::now();
        let url = format!("{}/{verb}", self.base);
        let answer = self.runtime.block_on(async {
            let response = self.client.post(url).json(body).send().await?;
            let status = response.status();
            anyhow::ensure!(status == reqwest::StatusCode::OK, "status {status}");
            Ok(response.json().await?)
        });
        self.latencies.push(begun.elapsed());
        self.errors += u64::from(answer.is_err());
        answer
    }
}

impl Extender for ExtenderClient {
    fn filter(&mut self, pod: &Pod, nodes: &[&str]) -> FilterOutcome {
        self.filters += 1;
        let answer: anyhow::Result<FilterAnswer> = self.call("filter", &json!({"Pod": pod, "Nodes": null, "NodeNames": nodes}));
        match answer {
            Ok(FilterAnswer { error: Some(error), .. }) if !error.is_empty() => FilterOutcome::Error(error),
            Ok(answer) => FilterOutcome::Answer {
                feasible: answer.node_names.unwrap_or_default(),
                failed: answer.failed_nodes.unwrap_or_default(),
                unresolvable: answer.failed_and_unresolvable_nodes.unwrap_or_default(),
            },
            Err(error) => FilterOutcome::Error(format!("{error:#}")),
        }
    }

    fn preempt(&mut self, pod: &Pod, victims: &BTreeMap<String, Vec<String>>) -> Option<BTreeSet<String>> {
        self.preempts += 1;
        let meta = |uids: &Vec<String>| {
            let pods: Vec<_> = uids.iter().map(|uid| json!({"UID": uid})).collect();
            json!({"Pods": pods, "NumPDBViolations": 0})
        };
        let offered: BTreeMap<&String, _> = victims.iter().map(|(node, uids)| (node, meta(uids))).collect();
        let body = json!({"Pod": pod, "NodeNameToVictims": null, "NodeNameToMetaVictims": offered});
        let answer: PreemptAnswer = self.call("preempt", &body).ok()?;
        Some(answer.node_name_to_meta_victims.unwrap_or_default().into_keys().collect())
    }
}
