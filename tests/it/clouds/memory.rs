//! The cloud in memory, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use policy::virtual_node::Limits;
use policy::{Shape, Timestamp};
use providers::memory::{Backend, Fault, FaultWindow, MemoryProvider, Settings, StartLatency};
use providers::{Clock, Container, Ownership, PodRequest, PodUid, Provider, StartFailure};

use super::contract::{self, HELLO, Stage, Trouble};

struct Memory {
    provider: MemoryProvider,
    millis: Arc<AtomicI64>,
}

impl Memory {
    fn new() -> Memory {
        let millis = Arc::new(AtomicI64::new(1_000_000));
        let read = millis.clone();
        let clock: Clock = Arc::new(move || Timestamp::from_millis(read.load(Ordering::Relaxed)));
        let start = StartLatency {
            before_pull: Duration::from_secs(1),
            pull_bytes_per_second: 100_000_000,
            after_pull: Duration::from_secs(1),
            spread_percent: 10,
        };
        let backend = Backend::new(Settings { start, ..Settings::immediate() });
        Memory { provider: MemoryProvider::new(backend, clock), millis }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl Stage for Memory {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.provider.clone())
    }

    fn restarted(&self) -> Arc<dyn Provider> {
        self.provider()
    }

    fn stranger(&self) -> Arc<dyn Provider> {
        Arc::new(self.provider.of(Ownership { cluster: "this".into(), virtual_node: "another".into() }))
    }

    fn request(&self, uid: &PodUid) -> PodRequest {
        let shape = Shape { cpu_millis: 250, memory_bytes: 512 << 20, ephemeral_bytes: 0 };
        let main = Container { arguments: vec![HELLO.to_owned()], ..Container::new("main", "hello") };
        PodRequest { containers: vec![main], ..PodRequest::new(uid.clone(), "media", format!("pod-{uid}"), shape) }
    }

    async fn begin(&self, trouble: Trouble) {
        let fault = match trouble {
            Trouble::Throttling => Fault::Throttle { retry_after: None },
            Trouble::ExpiredCredentials => Fault::Denied,
            Trouble::PartialOutage => Fault::PartialOutage { one_in: 2 },
            Trouble::LostAnswer => Fault::LostAnswer,
            Trouble::NoCapacity => Fault::NoCapacity,
            Trouble::QuotaExceeded => {
                return self.provider.backend().set_quota(Limits { pods: Some(0), ..Limits::default() });
            }
            Trouble::UnpullableImage => Fault::FailAfterAcceptance {
                after: Duration::from_secs(2),
                cause: StartFailure::Image,
                reason: "no such image".to_owned(),
            },
        };
        self.provider.backend().inject(FaultWindow::from_now_on(fault, self.now()));
    }

    async fn end_trouble(&self) {
        let mut backend = self.provider.backend();
        backend.clear_faults();
        backend.set_quota(Limits::default());
    }

    async fn finish(&self, uid: &PodUid, code: i32) {
        self.provider.backend().finish(uid, code, self.now());
    }

    async fn moment(&self) {
        self.millis.fetch_add(500, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_contract_holds() {
    contract::holds(&Memory::new()).await;
}
