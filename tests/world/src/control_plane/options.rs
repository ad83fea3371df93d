//! What a test can choose about kube-scheduler and kube-controller-manager.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// How kube-scheduler is configured. [`SchedulerOptions::new`] is fast enough not to be the bottleneck of a test;
/// [`SchedulerOptions::stock`] is what clusters have that nobody tuned.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// The `schedulerName` of the pods that it serves.
    pub scheduler_name: String,
    /// Requests per second that its client allows itself.
    pub client_qps: u32,
    /// Requests that its client may send at once.
    pub client_burst: u32,
    /// Called in every scheduling cycle that concerns it.
    pub extender: Option<ExtenderOptions>,
    /// 100 looks at all nodes always; `None` is kube-scheduler's own rule, fewer the more nodes there are.
    pub percentage_of_nodes_to_score: Option<u8>,
    /// Fields that are put into the profile as they are, such as `pluginConfig`.
    pub profile: Map<String, Value>,
    /// Fields that are put into the `KubeSchedulerConfiguration` as they are; they replace what is generated.
    pub configuration: Map<String, Value>,
    /// Further command line flags, such as `--feature-gates=...`.
    pub flags: Vec<String>,
}

/// How kube-scheduler calls an extender.
#[derive(Clone, Debug)]
pub struct ExtenderOptions {
    /// Prefix of the verbs' URLs, such as `http://127.0.0.1:8888/v1`.
    pub url: String,
    /// Path of `filter`; `None`: not called.
    pub filter_verb: Option<String>,
    /// Path of `prioritize`; `None`: not called.
    pub prioritize_verb: Option<String>,
    /// Path of `preempt`; `None`: not called.
    pub preempt_verb: Option<String>,
    /// Weight of its scores.
    pub weight: u32,
    /// How long kube-scheduler waits for an answer.
    pub http_timeout: Duration,
    /// Pods are scheduled without it when it fails.
    pub ignorable: bool,
    /// Node names only (`true`), or whole Node objects in every request.
    pub node_cache_capable: bool,
    /// Only pods that name one of these resources are sent; empty: all pods.
    pub managed_resources: Vec<String>,
    /// How kube-scheduler proves who it is and whom it believes; `None`: plain HTTP.
    pub tls: Option<ExtenderTls>,
}

/// Certificates for calling an extender, as files.
#[derive(Clone, Debug)]
pub struct ExtenderTls {
    /// The authority that signed the extender's certificate.
    pub ca_file: PathBuf,
    /// kube-scheduler's certificate and key for mutual TLS.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name in the extender's certificate, where it is not the URL's host.
    pub server_name: Option<String>,
}

/// How kube-controller-manager is configured.
#[derive(Clone, Debug)]
pub struct ControllerOptions {
    /// Requests per second that each controller's client allows itself.
    pub kube_api_qps: u32,
    /// Requests that each controller's client may send at once.
    pub kube_api_burst: u32,
    /// Which controllers run, in the flag's syntax: `*` all, `-name` not this one.
    pub controllers: Vec<String>,
    /// A node that was silent for this long is `Unknown`; `None`: the program's default.
    pub node_monitor_grace_period: Option<Duration>,
    /// Jobs that are worked on at the same time.
    pub concurrent_job_syncs: u32,
    /// Further command line flags.
    pub flags: Vec<String>,
}

// === impl SchedulerOptions ===

impl SchedulerOptions {
    /// One profile `default-scheduler`, client limits of 1,000 and 2,000, no extender.
    #[must_use]
    pub fn new() -> SchedulerOptions {
        SchedulerOptions {
            scheduler_name: "default-scheduler".to_owned(),
            client_qps: 1_000,
            client_burst: 2_000,
            extender: None,
            percentage_of_nodes_to_score: None,
            profile: Map::new(),
            configuration: Map::new(),
            flags: Vec::new(),
        }
    }

    /// The client limits that kube-scheduler has by default.
    #[must_use]
    pub fn stock() -> SchedulerOptions {
        SchedulerOptions { client_qps: 50, client_burst: 100, ..SchedulerOptions::new() }
    }

    /// Another `schedulerName`.
    #[must_use]
    pub fn named(self, scheduler_name: &str) -> SchedulerOptions {
        SchedulerOptions { scheduler_name: scheduler_name.to_owned(), ..self }
    }

    /// With an extender.
    #[must_use]
    pub fn extender(self, extender: ExtenderOptions) -> SchedulerOptions {
        SchedulerOptions { extender: Some(extender), ..self }
    }

    /// The content of the file for `--config`.
    pub(super) fn configuration(&self, kubeconfig: &str) -> Value {
        let mut profile = self.profile.clone();
        profile.insert("schedulerName".to_owned(), json!(self.scheduler_name));
        let mut configuration = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": kubeconfig, "qps": self.client_qps, "burst": self.client_burst},
            // Alone on its cluster: an election would only cost a second at the start and at every restart.
            "leaderElection": {"leaderElect": false},
            "profiles": [profile],
            "extenders": self.extender.iter().map(ExtenderOptions::configuration).collect::<Vec<_>>(),
        });
        if let Some(percentage) = self.percentage_of_nodes_to_score {
            configuration["percentageOfNodesToScore"] = json!(percentage);
        }
        for (field, value) in &self.configuration {
            configuration[field] = value.clone();
        }
        configuration
    }
}

impl Default for SchedulerOptions {
    fn default() -> SchedulerOptions {
        SchedulerOptions::new()
    }
}

// === impl ExtenderOptions ===

impl ExtenderOptions {
    /// The way Spillway wants to be called: `filter` and `preempt`, node names only, ignorable, one second, and only pods
    /// that carry the marker `spillway.dev/burst`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> ExtenderOptions {
        ExtenderOptions {
            url: url.into(),
            filter_verb: Some("filter".to_owned()),
            prioritize_verb: None,
            preempt_verb: Some("preempt".to_owned()),
            weight: 1,
            http_timeout: Duration::from_secs(1),
            ignorable: true,
            node_cache_capable: true,
            managed_resources: vec!["spillway.dev/burst".to_owned()],
            tls: None,
        }
    }

    fn configuration(&self) -> Value {
        let ExtenderOptions {
            url,
            filter_verb,
            prioritize_verb,
            preempt_verb,
            weight,
            http_timeout,
            ignorable,
            node_cache_capable,
            managed_resources,
            tls,
        } = self;
        let managed: Vec<Value> =
            managed_resources.iter().map(|name| json!({"name": name, "ignoredByScheduler": true})).collect();
        let mut extender = json!({
            "urlPrefix": url,
            "weight": weight,
            "httpTimeout": duration(*http_timeout),
            "ignorable": ignorable,
            "nodeCacheCapable": node_cache_capable,
            "managedResources": managed,
        });
        for (field, verb) in [("filterVerb", filter_verb), ("prioritizeVerb", prioritize_verb), ("preemptVerb", preempt_verb)] {
            if let Some(verb) = verb {
                extender[field] = json!(verb);
            }
        }
        if let Some(tls) = tls {
            extender["enableHTTPS"] = json!(true);
            extender["tlsConfig"] = tls.configuration();
        }
        extender
    }
}

// === impl ExtenderTls ===

impl ExtenderTls {
    fn configuration(&self) -> Value {
        let mut tls = json!({"caFile": self.ca_file});
        if let Some((certificate, key)) = &self.client {
            tls["certFile"] = json!(certificate);
            tls["keyFile"] = json!(key);
        }
        if let Some(name) = &self.server_name {
            tls["serverName"] = json!(name);
        }
        tls
    }
}

// === impl ControllerOptions ===

impl ControllerOptions {
    /// All controllers, client limits of 500 and 1,000.
    #[must_use]
    pub fn new() -> ControllerOptions {
        ControllerOptions {
            kube_api_qps: 500,
            kube_api_burst: 1_000,
            controllers: vec!["*".to_owned()],
            node_monitor_grace_period: None,
            concurrent_job_syncs: 5,
            flags: Vec::new(),
        }
    }

    /// The client limits that kube-controller-manager has by default.
    #[must_use]
    pub fn stock() -> ControllerOptions {
        ControllerOptions { kube_api_qps: 20, kube_api_burst: 30, ..ControllerOptions::new() }
    }
}

impl Default for ControllerOptions {
    fn default() -> ControllerOptions {
        ControllerOptions::new()
    }
}

/// A duration as Go's flags and configuration files read it.
pub(super) fn duration(value: Duration) -> String {
    format!("{}ms", value.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_that_is_not_wanted_is_not_in_the_file() {
        let mut extender = ExtenderOptions::new("https://127.0.0.1:8443/v1");
        extender.tls = Some(ExtenderTls { ca_file: "/ca".into(), client: None, server_name: Some("spillway".into()) });
        let file = SchedulerOptions::new().extender(extender).configuration("/kubeconfig");
        assert_eq!(
            file["extenders"][0],
            json!({
                "urlPrefix": "https://127.0.0.1:8443/v1", "weight": 1, "httpTimeout": "1000ms", "ignorable": true,
                "nodeCacheCapable": true, "filterVerb": "filter", "preemptVerb": "preempt", "enableHTTPS": true,
                "tlsConfig": {"caFile": "/ca", "serverName": "spillway"},
                "managedResources": [{"name": "spillway.dev/burst", "ignoredByScheduler": true}],
            })
        );
    }

    #[test]
    fn fields_of_the_test_replace_generated_ones() {
        let mut options = SchedulerOptions::stock().named("second");
        options.profile.insert("pluginConfig".to_owned(), json!([]));
        options.configuration.insert("podMaxBackoffSeconds".to_owned(), json!(2));
        let file = options.configuration("/kubeconfig");
        assert_eq!(file["clientConnection"], json!({"kubeconfig": "/kubeconfig", "qps": 50, "burst": 100}));
        assert_eq!(file["profiles"], json!([{"schedulerName": "second", "pluginConfig": []}]));
        assert_eq!(file["podMaxBackoffSeconds"], 2);
        assert_eq!(file.get("percentageOfNodesToScore"), None);
    }
}
