//! Asks the backend of every virtual node how it is, and writes the answer into `VirtualNode.status`.
//!
//! One task looks after all of them: it lists the VirtualNodes, asks those whose time has come, and writes what they say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use providers::{Error, ErrorKind, Observation, Observed, Observer, Operation, Provider};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::now;
use crate::api::{Invalid, VirtualNode};
use crate::clouds::{self, Credentials, Endpoints};
use crate::compile;
use crate::metrics::Metrics;
use crate::observation::{BACKEND_HEALTHY, Backend, Pace, Priced};

/// How often the set of virtual nodes is compared with what is observed, at least.
const LOOK: Duration = Duration::from_secs(1);
/// An answer that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(20);
/// Backends asked at the same time; the others wait for their turn.
const AT_A_TIME: usize = 16;
/// VirtualNodes that are looked after; the API server pages beyond it, and nobody has so many.
const NODES: u32 = 500;
const MANAGER: &str = "spillway.dev/observer";

/// How a VirtualNode becomes a provider. The program has [`Clouds`]; tests put doubles behind it.
pub trait Connect: Send + Sync + 'static {
    /// The provider behind a VirtualNode.
    fn connect<'a>(&'a self, object: &'a VirtualNode) -> BoxFuture<'a, Result<Arc<dyn Provider>, Invalid>>;
}

/// The clouds themselves, with the credentials that VirtualNodes refer to.
pub struct Clouds {
    client: Client,
    currency: String,
    metrics: Arc<Metrics>,
    endpoints: Endpoints,
}

/// Counts the calls that fail.
struct Failures {
    metrics: Arc<Metrics>,
    provider: policy::virtual_node::Provider,
    node: String,
}

/// One backend under observation.
struct Watched {
    generation: Option<i64>,
    provider: Option<Arc<dyn Provider>>,
    backend: Backend,
    due: Instant,
    asked: bool,
}

/// What a question came to, with the UID of the VirtualNode.
type Answer = (String, Option<i64>, Result<Result<Observation, Error>, Invalid>, Option<Arc<dyn Provider>>);

/// Observes for ever.
pub async fn keep(client: Client, connect: Arc<dyn Connect>, currency: String, pace: Pace) -> anyhow::Result<()> {
    let look = LOOK.min(pace.retry);
    let nodes: Api<VirtualNode> = Api::all(client);
    let mut watched: HashMap<String, Watched> = HashMap::new();
    let mut questions: JoinSet<Answer> = JoinSet::new();
    loop {
        let listed = match timeout(PATIENCE, nodes.list(&ListParams::default().limit(NODES))).await {
            Ok(Ok(listed)) => listed.items,
            Ok(Err(error)) => {
                tracing::debug!(%error, "VirtualNodes not listed; it is tried again");
                sleep(look).await;
                continue;
            }
            Err(_) => continue,
        };
        let by_uid: BTreeMap<String, &VirtualNode> = listed.iter().filter_map(|node| Some((node.uid()?, node))).collect();
        watched.retain(|uid, _| by_uid.contains_key(uid));
        for (uid, node) in &by_uid {
            let known = watched.entry(uid.clone()).or_insert_with(Watched::new);
            if known.generation != node.metadata.generation {
                // Another specification may mean other credentials, another place, another price.
                *known = Watched { generation: node.metadata.generation, ..Watched::new() };
            }
            if !known.asked && known.due <= Instant::now() && questions.len() < AT_A_TIME {
                known.asked = true;
                questions.spawn(question(uid.clone(), (*node).clone(), connect.clone(), known.provider.clone()));
            }
        }
        let looked = Instant::now();
        while let Some(left) = look.checked_sub(looked.elapsed()) {
            if questions.is_empty() {
                sleep(left).await;
                break;
            }
            let Ok(Some(answer)) = timeout(left, questions.join_next()).await else { break };
            // A question that panicked is a defect, and is asked again when the specification changes.
            let Ok((uid, generation, answer, provider)) = answer else { continue };
            let (Some(known), Some(node)) = (watched.get_mut(&uid), by_uid.get(&uid)) else { continue };
            if known.generation != generation {
                continue;
            }
            known.asked = false;
            // Whoever is not let in may have been given another key meanwhile.
            let denied = matches!(&answer, Ok(Err(error)) if error.kind == ErrorKind::Denied);
            known.provider = provider.filter(|_| !denied);
            match answer {
                Ok(answer) => known.backend.answered(answer),
                Err(invalid) => known.backend = Backend::not_configured(invalid.to_string()),
            }
            known.due = Instant::now() + known.backend.wait(&pace);
            write(&nodes, node, &known.backend, &currency).await;
        }
    }
}

async fn question(uid: String, node: VirtualNode, connect: Arc<dyn Connect>, provider: Option<Arc<dyn Provider>>) -> Answer {
    let generation = node.metadata.generation;
    let asked = timeout(PATIENCE, async {
        let provider = match provider {
            Some(provider) => provider,
            None => connect.connect(&node).await?,
        };
        Ok((provider.observe().await, provider))
    });
    match asked.await {
        Ok(Ok((answer, provider))) => (uid, generation, Ok(answer), Some(provider)),
        Ok(Err(invalid)) => (uid, generation, Err(invalid), None),
        // A connection that hangs is made anew.
        Err(_) => (uid, generation, Ok(Err(Error::new(ErrorKind::Unavailable, "backend", Operation::Observe))), None),
    }
}

/// By server-side apply: only the fields that observation owns.
async fn write(nodes: &Api<VirtualNode>, node: &VirtualNode, backend: &Backend, currency: &str) {
    let conditions = node.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let before = conditions.iter().find(|condition| condition.type_ == BACKEND_HEALTHY);
    let priced = priced(node, backend, currency);
    let Some(status) = backend.status(before, node.metadata.generation, priced.as_ref(), currency, now()) else { return };
    let patch = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "VirtualNode", "status": status});
    let params = PatchParams::apply(MANAGER).force();
    let written = timeout(PATIENCE, nodes.patch_status(&node.name_any(), &params, &Patch::Apply(&patch))).await;
    match written {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(virtual_node = node.name_any(), %error, "status not written"),
        Err(_) => tracing::warn!(virtual_node = node.name_any(), "no answer to a status"),
    }
}

/// What quotes are made of: what the admin wrote, else what the cloud publishes, else what is built in.
fn priced(node: &VirtualNode, backend: &Backend, currency: &str) -> Option<Priced> {
    if node.spec.pricing.is_some() {
        let prices = compile::virtual_node(node, currency).ok()?.prices?;
        return Some(Priced { prices, source: "spec.pricing".to_owned() });
    }
    let built_in = clouds::built_in_prices(node, currency);
    // Clouds publish theirs in one currency. Where a list cannot be read, providers say what is built in, too.
    let published = backend.published().filter(|_| node.spec.in_memory.is_some() || currency == providers::prices::CURRENCY);
    if let Some(prices) = published.filter(|prices| built_in.as_ref().is_none_or(|built_in| built_in.prices != *prices)) {
        return Some(Priced { prices, source: "the provider's price list".to_owned() });
    }
    built_in.map(|built_in| Priced { prices: built_in.prices, source: format!("built in: {}", built_in.source) })
}

// === impl Watched ===

impl Watched {
    fn new() -> Watched {
        Watched { generation: None, provider: None, backend: Backend::default(), due: Instant::now(), asked: false }
    }
}

// === impl Clouds ===

impl Clouds {
    /// With Secrets read through this client.
    pub fn new(client: Client, currency: impl Into<String>, metrics: Arc<Metrics>) -> Clouds {
        Clouds { client, currency: currency.into(), metrics, endpoints: Endpoints::default() }
    }

    /// The same with clouds that are somewhere else.
    pub fn at(self, endpoints: Endpoints) -> Clouds {
        Clouds { endpoints, ..self }
    }

    /// What tells this cluster from others: the UID that it was given with its first namespace.
    async fn cluster(&self) -> Result<Arc<str>, Invalid> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let found = namespaces.get("kube-system").await.ok().and_then(|namespace| namespace.uid());
        found
            .map(Arc::from)
            .ok_or_else(|| Invalid::new("kube-system", "", "the namespace cannot be read, so the cluster has no name"))
    }

    async fn credentials(&self, node: &VirtualNode) -> Result<Credentials, Invalid> {
        let mut credentials = Credentials::default();
        if let Some(reference) = &node.spec.credentials_secret_ref {
            let entries = self.secret("spec.credentialsSecretRef", &reference.namespace, &reference.name).await?;
            credentials.entries = Some(entries.into_iter().map(|(key, text)| (key, providers::Secret::new(text))).collect());
        }
        if let Some(reference) = node.spec.nomad.as_ref().and_then(|nomad| nomad.ca_secret_ref.as_ref()) {
            let field = "spec.nomad.caSecretRef";
            let mut entries = self.secret(field, &reference.namespace, &reference.name).await?;
            let missing = || Invalid::new(field, "", format!("the Secret must have the entry {}", reference.key));
            credentials.authority = Some(entries.remove(&reference.key).ok_or_else(missing)?);
        }
        Ok(credentials)
    }

    async fn secret(&self, field: &str, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, Invalid> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = secrets.get(name).await.map_err(|error| {
            let why = if let kube::Error::Api(status) = &error { status.reason.clone() } else { "no answer".to_owned() };
            Invalid::new(field, format!("{namespace}/{name}"), format!("must be a Secret that Spillway may read ({why})"))
        })?;
        let entries = secret.data.into_iter().flatten();
        Ok(entries.filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?))).collect())
    }
}

impl Connect for Clouds {
    fn connect<'a>(&'a self, object: &'a VirtualNode) -> BoxFuture<'a, Result<Arc<dyn Provider>, Invalid>> {
        Box::pin(async move {
            let (cluster, credentials) = (self.cluster().await?, self.credentials(object).await?);
            let provider =
                clouds::connect(object, &credentials, &cluster, &self.currency, Arc::new(now), &self.endpoints).await?;
            let kind = compile::virtual_node(object, &self.currency)?.provider;
            let failures = Failures { metrics: self.metrics.clone(), provider: kind, node: object.name_any() };
            Ok(Arc::new(Observed::new(provider, failures)) as Arc<dyn Provider>)
        })
    }
}

impl Observer for Failures {
    fn answered(&self, _: Operation, _: Duration, error: Option<ErrorKind>) {
        if let Some(kind) = error {
            self.metrics.backend_error(self.provider, &self.node, kind);
        }
    }
}
