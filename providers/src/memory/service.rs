//! The trait over the cloud in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use policy::Timestamp;

use super::Backend;
use crate::{Clock, Error, LogQuery, LogStream, Observation, PodRequest, PodUid, Provider, RemoteId, RemotePod};

/// A [`Backend`] as a [`Provider`], with a clock passed in.
#[derive(Clone)]
pub struct MemoryProvider {
    backend: Arc<Mutex<Backend>>,
    clock: Clock,
}

impl MemoryProvider {
    /// Puts the trait over a backend; `clock` is asked once per call.
    pub fn new(backend: Backend, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> MemoryProvider {
        MemoryProvider { backend: Arc::new(Mutex::new(backend)), clock: Arc::new(clock) }
    }

    /// The cloud behind the trait, for faults and for ending pods. Not to be held across a call.
    pub fn backend(&self) -> MutexGuard<'_, Backend> {
        // A poisoned lock means that a test has failed already; its state is as good as before.
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.backend().create(request, self.now())
    }

    async fn get(&self, uid: &PodUid) -> Result<RemotePod, Error> {
        self.backend().get(uid, self.now())
    }

    async fn list(&self, limit: usize) -> Result<Vec<RemotePod>, Error> {
        self.backend().list(limit, self.now())
    }

    async fn delete(&self, id: &RemoteId) -> Result<(), Error> {
        self.backend().delete(id, self.now())
    }

    async fn logs(&self, id: &RemoteId, query: &LogQuery) -> Result<LogStream, Error> {
        let output = self.backend().logs(id, query, self.now())?;
        Ok(stream::iter([Ok(output)]).boxed())
    }
}
