use std::sync::Arc;
use std::time::Duration;

use policy::virtual_node::{Limits, Prices, Provider as Cloud, Usage};
use policy::{Money, Shape, Timestamp};

use super::*;
use crate::{CallLimit, Container, ErrorKind, Exit, PodRequest, PodUid, Provider, RemotePhase, StartFailure};

const START: Timestamp = Timestamp::from_millis(1_000_000);

fn second(count: u64) -> Timestamp {
    START + Duration::from_secs(count)
}

fn prices() -> Prices {
    Prices {
        vcpu: "0.04048".parse().expect("rate"),
        gb: "0.004445".parse().expect("rate"),
        ephemeral_gb: "0".parse().expect("rate"),
        minimum: Duration::from_secs(60),
        as_of: START,
    }
}

fn request(uid: &str) -> PodRequest {
    PodRequest {
        containers: vec![Container::new("main", "thumbnailer")],
        image_bytes: Some(100 << 20),
        ..PodRequest::new(PodUid::new(uid), "media", uid, shape(1000, 2 << 30))
    }
}

fn shape(cpu_millis: i64, memory_bytes: i64) -> Shape {
    Shape { cpu_millis, memory_bytes, ephemeral_bytes: 0 }
}

/// Pulls after 10 s, runs after 20 s.
fn backend() -> Backend {
    let start = StartLatency {
        before_pull: Duration::from_secs(10),
        pull_bytes_per_second: 10 << 20,
        after_pull: Duration::ZERO,
        spread_percent: 0,
    };
    Backend::new(Settings { start, prices: prices(), ..Settings::immediate() })
}

fn kind<T: std::fmt::Debug>(answer: Result<T, crate::Error>) -> ErrorKind {
    answer.expect_err("refusal").kind
}

#[test]
fn a_pod_goes_through_its_phases_and_is_billed_from_the_pull() {
    let mut cloud = backend();
    let uid = PodUid::new("a");
    cloud.create(&request("a"), second(0)).expect("accepted");
    let phase = |cloud: &mut Backend, at| cloud.get(&uid, second(at)).expect("known").phase;
    assert_eq!(phase(&mut cloud, 9), RemotePhase::Pending);
    assert_eq!(cloud.bill(second(9)), Money::ZERO);
    assert_eq!(cloud.next_change_at(&uid, second(0)), Some(second(10)));
    assert_eq!(phase(&mut cloud, 10), RemotePhase::Pulling);
    assert_eq!(cloud.next_change_at(&uid, second(10)), Some(second(20)));
    assert_eq!(phase(&mut cloud, 20), RemotePhase::Running);
    cloud.finish(&uid, 0, second(130));
    let ended = cloud.get(&uid, second(500)).expect("remembered");
    assert_eq!((ended.phase, ended.exit), (RemotePhase::Stopped, Some(Exit::Finished { code: 0 })));
    // 120 s of 1 vCPU and 2 GiB: 0.04048 / 30 and 2 × 0.004445 / 30, each rounded up.
    assert_eq!(cloud.bill(second(500)).to_string(), "0.001645668");
    assert_eq!(cloud.observe(second(500)).expect("well").usage.pods, 0);
}

#[test]
fn the_minimum_is_billed_once_the_pull_has_begun() {
    let mut cloud = backend();
    let minimum = super::billing::charge(Cloud::InMemory, &prices(), &request("a").shape, Duration::ZERO);
    let id = cloud.create(&request("a"), second(0)).expect("accepted").id;
    let other = cloud.create(&request("b"), second(0)).expect("accepted").id;
    cloud.delete(&other, second(5)).expect("deleted");
    cloud.delete(&id, second(12)).expect("deleted");
    assert_eq!(cloud.charged(&PodUid::new("a"), second(99)), minimum);
    assert_eq!(cloud.charged(&PodUid::new("b"), second(99)), Money::ZERO);
    assert!(minimum > Money::ZERO);
}

#[test]
fn a_gigabyte_is_what_the_cloud_calls_one() {
    let hour = Duration::from_secs(3600);
    let memory_only = Prices { vcpu: policy::Rate::FREE, ..prices() };
    let price = |cloud| super::billing::charge(cloud, &memory_only, &shape(1000, 2 << 30), hour).to_string();
    assert_eq!(price(Cloud::Fargate), "0.00889");
    // 2 GiB are 2.147483648 GB, billed as 2.148.
    assert_eq!(price(Cloud::Aci), "0.00954786");
}

#[test]
fn create_and_delete_may_be_repeated() {
    let mut cloud = backend();
    let first = cloud.create(&request("a"), second(0)).expect("accepted");
    let again = cloud.create(&request("a"), second(3)).expect("accepted");
    assert_eq!(first.id, again.id);
    assert_eq!(again.created_at, second(0));
    assert_eq!(cloud.observe(second(3)).expect("well").usage.pods, 1);
    for _ in 0..2 {
        cloud.delete(&first.id, second(4)).expect("gone is fine");
    }
    cloud.delete(&crate::RemoteId::new("memory-never"), second(4)).expect("gone is fine");
    assert_eq!(cloud.observe(second(4)).expect("well").usage, Usage::default());
    assert_eq!(kind(cloud.get(&PodUid::new("never"), second(4))), ErrorKind::NotFound);
}

#[test]
fn quota_counts_what_runs() {
    let mut cloud = backend();
    cloud.set_quota(Limits { cpu_millis: Some(2500), memory_bytes: None, pods: Some(10) });
    for uid in ["a", "b"] {
        cloud.create(&request(uid), second(0)).expect("accepted");
    }
    assert_eq!(kind(cloud.create(&request("c"), second(1))), ErrorKind::QuotaExceeded);
    cloud.finish(&PodUid::new("a"), 1, second(30));
    cloud.create(&request("c"), second(31)).expect("room again");
}

#[test]
fn calls_are_limited_and_the_advice_is_right() {
    let mut cloud = Backend::new(Settings { creates: CallLimit::per_second(4, 2), ..Settings::immediate() });
    for uid in ["a", "b"] {
        cloud.create(&request(uid), second(0)).expect("accepted");
    }
    let refusal = kind(cloud.create(&request("c"), second(0)));
    assert_eq!(refusal, ErrorKind::Throttled { retry_after: Some(Duration::from_millis(250)) });
    assert!(refusal.is_transient());
    cloud.create(&request("c"), START + Duration::from_millis(250)).expect("accepted");
}

#[test]
fn faults_do_what_they_say_while_they_last() {
    let mut cloud = backend();
    let window = |fault| FaultWindow { fault, from: second(10), until: second(20) };
    cloud.inject(window(Fault::NoCapacity));
    cloud.create(&request("early"), second(9)).expect("before the fault");
    assert_eq!(kind(cloud.create(&request("a"), second(10))), ErrorKind::NoCapacity);
    cloud.create(&request("a"), second(20)).expect("after the fault");

    cloud.clear_faults();
    cloud.inject(window(Fault::LostAnswer));
    assert_eq!(kind(cloud.create(&request("lost"), second(11))), ErrorKind::Unavailable);
    assert_eq!(cloud.get(&PodUid::new("lost"), second(12)).expect("it was created").created_at, second(11));

    cloud.clear_faults();
    let refused = Fault::FailAfterAcceptance {
        after: Duration::from_secs(3),
        cause: StartFailure::Image,
        reason: "CannotPullContainerError".to_owned(),
    };
    cloud.inject(window(refused));
    cloud.create(&request("late"), second(12)).expect("accepted");
    let failed = cloud.get(&PodUid::new("late"), second(15)).expect("known");
    assert_eq!(failed.exit, Some(Exit::NotStarted { cause: StartFailure::Image, reason: "CannotPullContainerError".to_owned() }));
    assert_eq!(cloud.charged(&PodUid::new("late"), second(99)), Money::ZERO);

    cloud.clear_faults();
    cloud.inject(window(Fault::PartialOutage { one_in: 3 }));
    let failures = (0..9).filter(|_| cloud.list(10, second(13)).is_err()).count();
    assert_eq!(failures, 3);
}

#[test]
fn start_times_spread_but_repeat() {
    let started = |uid: &str| {
        let mut cloud = Backend::new(Settings::fargate(prices()));
        cloud.create(&request(uid), second(0)).expect("accepted");
        let pulled = cloud.next_change_at(&PodUid::new(uid), second(0)).expect("will pull");
        cloud.next_change_at(&PodUid::new(uid), pulled).expect("will run")
    };
    let all: std::collections::BTreeSet<_> = (0..50).map(|number| started(&format!("pod-{number}"))).collect();
    assert!(all.len() > 10, "every pod starts alike");
    assert_eq!(started("pod-1"), started("pod-1"));
}

#[tokio::test]
async fn the_trait_speaks_to_the_same_cloud() {
    let provider = MemoryProvider::new(backend(), Arc::new(|| second(25)));
    let as_trait: &dyn Provider = &provider;
    let pod = as_trait.create(&request("a")).await.expect("accepted");
    assert_eq!(as_trait.list(10).await.expect("well").len(), 1);
    assert_eq!(as_trait.get(&pod.uid).await.expect("known").phase, RemotePhase::Pending);
    assert_eq!(kind(as_trait.stats(&pod.id).await), ErrorKind::Unsupported);
    provider.backend().inject(FaultWindow::from_now_on(Fault::Denied, second(0)));
    let error = as_trait.observe().await.expect_err("denied");
    assert_eq!((error.kind, error.to_string()), (ErrorKind::Denied, "in-memory: observe failed: denied".to_owned()));
}
