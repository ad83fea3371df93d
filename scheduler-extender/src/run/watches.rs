//! The watches: list, then watch, and say what is gone when a list shows that something was missed.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use crate::api;
use crate::committer::Event;

/// What a kind's events are called.
struct Kind<K> {
    name: &'static str,
    applied: fn(K) -> Event,
    gone: fn(Key) -> Event,
}

/// What is kept of each object: enough to say that it is gone.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    namespace: Option<Arc<str>>,
    name: Arc<str>,
    uid: Arc<str>,
}

/// Starts all watches. The future ends only when one of them does, and that is an error.
pub(super) fn spawn(client: &Client, events: &mpsc::Sender<Event>) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let (told, all_told) = watch::channel(0_usize);
    let told = Arc::new(told);
    // Pods last: nodes, policies and budgets are known when they come, so that a first decision sees the whole.
    let kinds = [
        start(
            client,
            events,
            &told,
            Kind::<Namespace> {
                name: "namespaces",
                applied: |o| Event::Namespace(Box::new(o)),
                gone: |key| Event::NamespaceGone(key.name.to_string()),
            },
        ),
        start(
            client,
            events,
            &told,
            Kind::<Node> {
                name: "nodes",
                applied: |o| Event::Node(Box::new(o)),
                gone: |key| Event::NodeGone(key.name.to_string()),
            },
        ),
        start(
            client,
            events,
            &told,
            Kind::<Service> {
                name: "services",
                applied: |o| Event::Service(Box::new(o)),
                gone: |key| Event::ServiceGone {
                    namespace: key.namespace.as_deref().unwrap_or_default().to_owned(),
                    name: key.name.to_string(),
                },
            },
        ),
        start(
            client,
            events,
            &told,
            Kind::<api::BurstPolicy> {
                name: "burstpolicies",
                applied: |o| Event::Policy(Box::new(o)),
                gone: |key| Event::PolicyGone(key.name.to_string()),
            },
        ),
        start(
            client,
            events,
            &told,
            Kind::<api::VirtualNode> {
                name: "virtualnodes",
                applied: |o| Event::VirtualNode(Box::new(o)),
                gone: |key| Event::VirtualNodeGone(key.name.to_string()),
            },
        ),
        start(
            client,
            events,
            &told,
            Kind::<api::BurstBudget> {
                name: "burstbudgets",
                applied: |o| Event::Budget(Box::new(o)),
                gone: |key| Event::BudgetGone(key.name.to_string()),
            },
        ),
        start(
            client,
            events,
            &told,
            Kind::<Pod> { name: "pods", applied: |o| Event::Pod(Box::new(o)), gone: |key| Event::PodGone { uid: key.uid } },
        ),
    ];
    let count = kinds.len();
    let synced = tokio::spawn(say_synced(all_told, count, events.clone()));
    async move {
        let (ended, _, _) = futures::future::select_all(kinds).await;
        synced.abort();
        ended
    }
}

async fn say_synced(mut told: watch::Receiver<usize>, count: usize, events: mpsc::Sender<Event>) {
    if told.wait_for(|told| *told == count).await.is_ok() {
        // The queue keeps its order, so this comes behind everything that the lists brought. A closed queue needs no news.
        let _ = events.send(Event::Synced).await;
    }
}

fn start<K>(
    client: &Client,
    events: &mpsc::Sender<Event>,
    told: &Arc<watch::Sender<usize>>,
    kind: Kind<K>,
) -> futures::future::BoxFuture<'static, anyhow::Result<()>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    let (events, told) = (events.clone(), told.clone());
    let task = tokio::spawn(async move { follow(api, events, told, kind).await });
    task.map(|ended| ended.map_err(anyhow::Error::from).and_then(|result| result)).boxed()
}

async fn follow<K>(api: Api<K>, events: mpsc::Sender<Event>, told: Arc<watch::Sender<usize>>, kind: Kind<K>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut known: HashSet<Key> = HashSet::new();
    let mut listed: HashSet<Key> = HashSet::new();
    let mut first = true;
    let mut stream = watcher(api, watcher::Config::default().any_semantic()).default_backoff().boxed();
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => anyhow::bail!("the watch of {} ended", kind.name),
            Err(error) => {
                tracing::warn!(
                    kind = kind.name,
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "watch interrupted; it is resumed with backoff"
                );
                continue;
            }
        };
        match event {
            watcher::Event::Init => listed = HashSet::with_capacity(known.len()),
            watcher::Event::InitApply(object) => {
                let Some(key) = key(&object) else { continue };
                listed.insert(key);
                events.send((kind.applied)(object)).await?;
            }
            watcher::Event::InitDone => {
                for gone in known.difference(&listed) {
                    events.send((kind.gone)(gone.clone())).await?;
                }
                known = std::mem::take(&mut listed);
                if std::mem::take(&mut first) {
                    told.send_modify(|told| *told += 1);
                }
            }
            watcher::Event::Apply(object) => {
                let Some(key) = key(&object) else { continue };
                known.insert(key);
                events.send((kind.applied)(object)).await?;
            }
            watcher::Event::Delete(object) => {
                let Some(key) = key(&object) else { continue };
                known.remove(&key);
                events.send((kind.gone)(key)).await?;
            }
        }
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> Option<Key> {
    let meta = object.meta();
    Some(Key {
        namespace: meta.namespace.as_deref().map(Arc::from),
        name: Arc::from(meta.name.as_deref()?),
        uid: Arc::from(meta.uid.as_deref().unwrap_or_default()),
    })
}
