//! The watches: list, then watch, and say what is gone when a list shows that something was missed.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::pending;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::api;
use crate::committer::Event;

/// What a kind's events are called.
struct Kind<K> {
    name: &'static str,
    applied: fn(K) -> Event,
    gone: fn(Key) -> Event,
}

/// What is kept of each object: enough to say that it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    namespace: Option<Arc<str>>,
    name: Arc<str>,
    uid: Arc<str>,
}

/// Namespace and name.
type Place = (Option<Arc<str>>, Arc<str>);

/// Who is there, to notice who is gone when the watch has missed it.
#[derive(Default)]
struct Census {
    known: HashMap<Place, Arc<str>>,
    listed: HashMap<Place, Arc<str>>,
}

// === impl Census ===

impl Census {
    /// An object is there. Returns the one that it has taken the name of, which is gone: to be told before, as most kinds are
    /// known by their names.
    fn seen(&mut self, key: &Key) -> Option<Key> {
        let place = (key.namespace.clone(), key.name.clone());
        let before = self.known.insert(place, key.uid.clone()).filter(|uid| *uid != key.uid)?;
        Some(Key { uid: before, ..key.clone() })
    }

    /// A list begins.
    fn list(&mut self) {
        self.listed = HashMap::with_capacity(self.known.len());
    }

    /// An object of the list.
    fn listed(&mut self, key: &Key) -> Option<Key> {
        self.listed.insert((key.namespace.clone(), key.name.clone()), key.uid.clone());
        self.seen(key)
    }

    /// The list is complete. Returns those that are not in it any more.
    fn missing(&mut self) -> Vec<Key> {
        let before = std::mem::replace(&mut self.known, std::mem::take(&mut self.listed));
        let gone = before.into_iter().filter(|(place, _)| !self.known.contains_key(place));
        gone.map(|((namespace, name), uid)| Key { namespace, name, uid }).collect()
    }

    fn deleted(&mut self, key: &Key) {
        self.known.remove(&(key.namespace.clone(), key.name.clone()));
    }
}

/// Running watches. They end when this is dropped.
pub(super) struct Watches(JoinSet<anyhow::Result<()>>);

impl Watches {
    /// The end of one, which is an error.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => error.into(),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("a watch ended"),
        }
    }
}

/// Starts all watches.
pub(super) fn spawn(client: &Client, events: &mpsc::Sender<Event>) -> Watches {
    let (told, all_told) = watch::channel(0_usize);
    let told = Arc::new(told);
    let mut watches = JoinSet::new();
    let mut start = Start { watches: &mut watches, client, events, told: &told };
    start.watch(Kind::<Namespace> {
        name: "namespaces",
        applied: |o| Event::Namespace(Box::new(o)),
        gone: |key| Event::NamespaceGone(key.name.to_string()),
    });
    start.watch(Kind::<Node> {
        name: "nodes",
        applied: |o| Event::Node(Box::new(o)),
        gone: |key| Event::NodeGone(key.name.to_string()),
    });
    start.watch(Kind::<Service> {
        name: "services",
        applied: |o| Event::Service(Box::new(o)),
        gone: |key| Event::ServiceGone {
            namespace: key.namespace.as_deref().unwrap_or_default().to_owned(),
            name: key.name.to_string(),
        },
    });
    start.watch(Kind::<api::BurstPolicy> {
        name: "burstpolicies",
        applied: |o| Event::Policy(Box::new(o)),
        gone: |key| Event::PolicyGone(key.name.to_string()),
    });
    start.watch(Kind::<api::VirtualNode> {
        name: "virtualnodes",
        applied: |o| Event::VirtualNode(Box::new(o)),
        gone: |key| Event::VirtualNodeGone(key.name.to_string()),
    });
    start.watch(Kind::<api::BurstBudget> {
        name: "burstbudgets",
        applied: |o| Event::Budget(Box::new(o)),
        gone: |key| Event::BudgetGone(key.name.to_string()),
    });
    start.watch(Kind::<Pod> { name: "pods", applied: |o| Event::Pod(Box::new(o)), gone: |key| Event::PodGone { uid: key.uid } });
    let count = watches.len();
    watches.spawn(say_synced(all_told, count, events.clone()));
    Watches(watches)
}

/// What every watch is started with.
struct Start<'a> {
    watches: &'a mut JoinSet<anyhow::Result<()>>,
    client: &'a Client,
    events: &'a mpsc::Sender<Event>,
    told: &'a Arc<watch::Sender<usize>>,
}

impl Start<'_> {
    fn watch<K>(&mut self, kind: Kind<K>)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let api: Api<K> = Api::all(self.client.clone());
        self.watches.spawn(follow(api, self.events.clone(), self.told.clone(), kind));
    }
}

async fn say_synced(mut told: watch::Receiver<usize>, count: usize, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    told.wait_for(|told| *told == count).await?;
    // The queue keeps its order, so this comes behind everything that the lists brought.
    events.send(Event::Synced).await?;
    pending().await
}

async fn follow<K>(api: Api<K>, events: mpsc::Sender<Event>, told: Arc<watch::Sender<usize>>, kind: Kind<K>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut census = Census::default();
    let mut first = true;
    // Lists are consistent: what a former leader has written last must be in them.
    let mut stream = watcher(api, watcher::Config::default()).default_backoff().boxed();
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
            watcher::Event::Init => census.list(),
            watcher::Event::InitApply(object) => {
                let Some(key) = key(&object) else { continue };
                if let Some(gone) = census.listed(&key) {
                    events.send((kind.gone)(gone)).await?;
                }
                events.send((kind.applied)(object)).await?;
            }
            watcher::Event::InitDone => {
                for gone in census.missing() {
                    events.send((kind.gone)(gone)).await?;
                }
                if std::mem::take(&mut first) {
                    told.send_modify(|told| *told += 1);
                }
            }
            watcher::Event::Apply(object) => {
                let Some(key) = key(&object) else { continue };
                if let Some(gone) = census.seen(&key) {
                    events.send((kind.gone)(gone)).await?;
                }
                events.send((kind.applied)(object)).await?;
            }
            watcher::Event::Delete(object) => {
                let Some(key) = key(&object) else { continue };
                census.deleted(&key);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, uid: &str) -> Key {
        Key { namespace: None, name: Arc::from(name), uid: Arc::from(uid) }
    }

    #[test]
    fn who_is_missing_from_a_list_is_gone() {
        let mut census = Census::default();
        for name in ["a", "b", "c"] {
            assert_eq!(census.seen(&key(name, "1")), None);
        }
        census.deleted(&key("c", "1"));
        census.list();
        assert_eq!(census.listed(&key("a", "1")), None);
        assert_eq!(census.missing(), [key("b", "1")]);
        census.list();
        assert_eq!(census.missing(), [key("a", "1")]);
    }

    #[test]
    fn an_object_that_was_made_again_meanwhile_is_gone_before_it_is_there() {
        let mut census = Census::default();
        census.seen(&key("a", "1"));
        census.list();
        assert_eq!(census.listed(&key("a", "2")), Some(key("a", "1")));
        assert_eq!(census.missing(), [], "nobody may be told that the new one is gone");
        assert_eq!(census.seen(&key("a", "3")), Some(key("a", "2")));
    }

    #[test]
    fn a_list_that_breaks_off_forgets_nobody() {
        let mut census = Census::default();
        census.seen(&key("a", "1"));
        census.list();
        census.listed(&key("b", "1"));
        census.list();
        let mut missing = census.missing();
        missing.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(missing, [key("a", "1"), key("b", "1")]);
    }
}
