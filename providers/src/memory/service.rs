//! The trait over the cloud in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use policy::Timestamp;

use super::Backend;
use crate::{Clock, Error, LogQuery, LogStream, Observation, Ownership, PodRequest, PodUid, Provider, RemoteId, RemotePod};

/// A [`Backend`] as a [`Provider`], with a clock passed in.
#[derive(Clone)]
pub struct MemoryProvider {
    account: Arc<Mutex<Backend>>,
    /// Whose each pod is.
    owners: Arc<Mutex<HashMap<PodUid, Ownership>>>,
    owner: Ownership,
    clock: Clock,
}

impl MemoryProvider {
    /// Puts the trait over a backend; `clock` is asked once per call.
    pub fn new(backend: Backend, clock: Clock) -> MemoryProvider {
        let owner = Ownership { cluster: Arc::from("memory"), virtual_node: Arc::from("memory") };
        MemoryProvider { account: Arc::new(Mutex::new(backend)), owners: Arc::default(), owner, clock }
    }

    /// The same account, used by somebody else.
    #[must_use]
    pub fn of(&self, owner: Ownership) -> MemoryProvider {
        MemoryProvider { owner, ..self.clone() }
    }

    /// The cloud behind the trait, for faults and for ending pods. Not to be held across a call.
    pub fn backend(&self) -> MutexGuard<'_, Backend> {
        // A poisoned lock means that a test has failed already; its state is as good as before.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<PodUid, Ownership>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

#[async_trait]
impl Provider for MemoryProvider {
    fn name(&self) -> &'static str {
        self.backend().settings().provider.label()
    }

    async fn observe(&self) -> Result<Observation, Error> {
        self.backend().observe(self.now())
    }

    async fn create(&self, request: &PodRequest) -> Result<RemotePod, Error> {
        self.owners().entry(request.uid.clone()).or_insert_with(|| self.owner.clone());
        self.backend().create(request, self.now())
    }

    async fn get(&self, uid: &PodUid) -> Result<RemotePod, Error> {
        self.backend().get(uid, self.now())
    }

    async fn list(&self, limit: usize) -> Result<Vec<RemotePod>, Error> {
        let mut pods = self.backend().list(usize::MAX, self.now())?;
        let owners = self.owners();
        pods.retain(|pod| owners.get(&pod.uid) == Some(&self.owner));
        pods.truncate(limit);
        Ok(pods)
    }

    async fn delete(&self, id: &RemoteId) -> Result<(), Error> {
        self.backend().delete(id, self.now())
    }

    async fn logs(&self, id: &RemoteId, query: &LogQuery) -> Result<LogStream, Error> {
        let output = self.backend().logs(id, query, self.now())?;
        Ok(stream::iter([Ok(output)]).boxed())
    }
}
