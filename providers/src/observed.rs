//! Every call counted and traced, whatever the cloud.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tracing::Instrument;

use crate::{
    Change, Error, ErrorKind, ExecRequest, ExecSession, Feasibility, LogQuery, LogStream, Observation, Operation, PodRequest,
    PodUid, Provider, RemoteId, RemotePod, Stats,
};

/// Who hears of every call.
pub trait Observer: Send + Sync {
    /// A call has been answered; how long it took, and what kind of error it was.
    fn answered(&self, operation: Operation, took: Duration, error: Option<ErrorKind>);
}

/// A provider whose calls an [`Observer`] hears of. Each runs in a tracing span with the operation and the pod.
pub struct Observed<O> {
    provider: Arc<dyn Provider>,
    observer: O,
}

// === impl Observed ===

impl<O: Observer> Observed<O> {
    /// Puts an observer before a provider.
    pub fn new(provider: Arc<dyn Provider>, observer: O) -> Observed<O> {
        Observed { provider, observer }
    }

    async fn call<T>(&self, operation: Operation, pod: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let started = Instant::now();
        let span = tracing::debug_span!("provider", provider = self.provider.name(), %operation, pod);
        let answer = call.instrument(span.clone()).await;
        let error = answer.as_ref().err().map(|error| error.kind);
        self.observer.answered(operation, started.elapsed(), error);
        if let Err(error) = &answer {
            // The caller decides whether this matters; the cloud's own words are in the source.
            let source = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
            span.in_scope(|| tracing::debug!(kind = error.kind.label(), source, "call failed"));
        }
        answer
    }
}

#[async_trait]
impl<O: Observer> Provider for Observed<O> {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    async fn observe(&self) -> Result<Observation, Error> {
        self.call(Operation::Observe, "", self.provider.observe()).await
    }

    async fn create(&self, request: &PodRequest) -> Result<RemotePod, Error> {
        self.call(Operation::Create, request.uid.as_str(), self.provider.create(request)).await
    }

    async fn get(&self, uid: &PodUid) -> Result<RemotePod, Error> {
        self.call(Operation::Get, uid.as_str(), self.provider.get(uid)).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<RemotePod>, Error> {
        self.call(Operation::List, "", self.provider.list(limit)).await
    }

    async fn feasible(&self, request: &PodRequest) -> Result<Feasibility, Error> {
        self.call(Operation::Observe, request.uid.as_str(), self.provider.feasible(request)).await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        self.provider.changes()
    }

    async fn delete(&self, id: &RemoteId) -> Result<(), Error> {
        self.call(Operation::Delete, id.as_str(), self.provider.delete(id)).await
    }

    async fn logs(&self, id: &RemoteId, query: &LogQuery) -> Result<LogStream, Error> {
        self.call(Operation::Logs, id.as_str(), self.provider.logs(id, query)).await
    }

    async fn exec(&self, id: &RemoteId, request: &ExecRequest) -> Result<ExecSession, Error> {
        self.call(Operation::Exec, id.as_str(), self.provider.exec(id, request)).await
    }

    async fn stats(&self, id: &RemoteId) -> Result<Stats, Error> {
        self.call(Operation::Stats, id.as_str(), self.provider.stats(id)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use policy::Timestamp;

    use super::*;
    use crate::memory::{Backend, Fault, FaultWindow, MemoryProvider, Settings};

    #[derive(Default)]
    struct Heard(Mutex<Vec<(Operation, Option<ErrorKind>)>>);

    impl Observer for Arc<Heard> {
        fn answered(&self, operation: Operation, _: Duration, error: Option<ErrorKind>) {
            self.0.lock().expect("no test has panicked").push((operation, error));
        }
    }

    #[tokio::test]
    async fn every_call_is_heard_of_with_its_outcome() {
        let heard = Arc::new(Heard::default());
        let cloud = MemoryProvider::new(Backend::new(Settings::immediate()), Arc::new(|| Timestamp::EPOCH));
        let provider = Observed::new(Arc::new(cloud.clone()), heard.clone());
        assert_eq!(provider.name(), "in-memory");
        provider.list(1).await.expect("the cloud answers");
        cloud.backend().inject(FaultWindow::from_now_on(Fault::Denied, Timestamp::EPOCH));
        let uid = PodUid::new("a");
        let id = RemoteId::new("a");
        assert!(provider.observe().await.is_err());
        assert!(
            provider
                .create(&PodRequest::new(
                    uid.clone(),
                    "n",
                    "a",
                    policy::Shape { cpu_millis: 1, memory_bytes: 1, ephemeral_bytes: 0 }
                ))
                .await
                .is_err()
        );
        assert!(provider.get(&uid).await.is_err());
        assert!(provider.delete(&id).await.is_err());
        assert!(provider.logs(&id, &LogQuery::all("c")).await.is_err());
        assert!(provider.stats(&id).await.is_err());
        let denied = Some(ErrorKind::Denied);
        let expected = [
            (Operation::List, None),
            (Operation::Observe, denied),
            (Operation::Create, denied),
            (Operation::Get, denied),
            (Operation::Delete, denied),
            (Operation::Logs, denied),
            (Operation::Stats, Some(ErrorKind::Unsupported)),
        ];
        assert_eq!(*heard.0.lock().expect("no test has panicked"), expected);
    }
}
