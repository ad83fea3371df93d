//! The contract of a provider: one suite for every cloud.
//!
//! A [`Stage`] is a cloud that can be made to misbehave: the one in memory, a double of a real one, or a real one behind a
//! proxy. Each step starts pods of its own, so that steps do not disturb each other.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use providers::{
    ErrorKind, Exit, Health, LogQuery, PodRequest, PodUid, Provider, RemoteId, RemotePhase, RemotePod, StartFailure,
};

/// A cloud to be tested.
#[async_trait]
pub(crate) trait Stage: Sync {
    /// A provider as a virtual node uses it.
    fn provider(&self) -> Arc<dyn Provider>;

    /// The same after a restart of the process: it remembers nothing.
    fn restarted(&self) -> Arc<dyn Provider>;

    /// The provider of another virtual node in the same account.
    fn stranger(&self) -> Arc<dyn Provider>;

    /// A pod that this cloud can run. Its one container, `main`, writes [`HELLO`] and runs until [`Stage::finish`].
    fn request(&self, uid: &PodUid) -> PodRequest;

    /// From now on something goes wrong.
    async fn begin(&self, trouble: Trouble);

    /// Nothing goes wrong any more.
    async fn end_trouble(&self);

    /// A container ends by itself.
    async fn finish(&self, uid: &PodUid, code: i32);

    /// A moment passes, long enough that a cloud gets on with its work and short enough to wait for a hundred of them.
    async fn moment(&self);
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Every call is one too many.
    Throttling,
    /// Credentials are not accepted any more.
    ExpiredCredentials,
    /// Every second call fails without effect, as far as the provider's own library does not repeat it.
    PartialOutage,
    /// `create` takes effect, and its answer is lost.
    LostAnswer,
    /// The cloud has no room for new pods, and says so at once or after it has accepted them.
    NoCapacity,
    /// The account's quota is used up, and the cloud says so at once or after it has accepted them.
    QuotaExceeded,
    /// What is accepted from now on never runs: its image cannot be pulled.
    UnpullableImage,
}

/// What a pod of [`Stage::request`] writes.
pub(crate) const HELLO: &str = "hello from the contract";
/// Moments that anything may take.
const PATIENCE: usize = 200;

/// Runs the whole suite.
pub(crate) async fn holds(stage: &impl Stage) {
    step("create twice is one, also at the same time", create_twice_is_one(stage)).await;
    step("a pod goes its way", a_pod_goes_its_way(stage)).await;
    step("an exit code comes back", an_exit_code_comes_back(stage)).await;
    step("what runs is found after a restart, by its own virtual node only", found_after_a_restart(stage)).await;
    step("logs", logs(stage)).await;
    step("delete twice", delete_twice(stage)).await;
    step("unknown pods", unknown_pods(stage)).await;
    step("throttling", throttling(stage)).await;
    step("expired credentials", expired_credentials(stage)).await;
    step("partial outage", partial_outage(stage)).await;
    step("a lost answer", lost_answer(stage)).await;
    step("no capacity", refused(stage, Trouble::NoCapacity, ErrorKind::NoCapacity, StartFailure::NoCapacity)).await;
    step("quota exceeded", refused(stage, Trouble::QuotaExceeded, ErrorKind::QuotaExceeded, StartFailure::QuotaExceeded)).await;
    step("failure after acceptance", failure_after_acceptance(stage)).await;
    step("usage", usage(stage)).await;
}

async fn step(name: &str, step: impl Future<Output = ()>) {
    println!("contract: {name}");
    step.await;
}

async fn create_twice_is_one(stage: &impl Stage) {
    let (provider, uid) = (stage.provider(), uid("twice"));
    let request = stage.request(&uid);
    let (one, other) = tokio::join!(provider.create(&request), provider.create(&request));
    // Both may be first, or one may hear that the other is being made; asked again, it is there.
    assert!(one.is_ok() || other.is_ok(), "{one:?}, {other:?}");
    for answer in [one, other] {
        assert!(answer.as_ref().err().is_none_or(|error| error.kind == ErrorKind::Conflict), "{answer:?}");
    }
    let third = provider.create(&request).await.expect("what is there");
    assert_eq!(third.uid, uid);
    assert_eq!(found(&*provider, &uid).await, 1);
    end(stage, &third.id).await;
}

async fn a_pod_goes_its_way(stage: &impl Stage) {
    let (provider, uid) = (stage.provider(), uid("way"));
    let request = stage.request(&uid);
    let accepted = provider.create(&request).await.expect("accepted");
    assert_eq!((&accepted.namespace, &accepted.name), (&request.namespace, &request.name));
    assert_eq!(accepted.shape, request.shape);
    assert!(accepted.exit.is_none(), "{accepted:?}");
    let running = until(stage, &uid, |pod| pod.phase == RemotePhase::Running).await;
    assert_eq!(running.id, accepted.id, "the cloud's name for it stays");
    assert!(running.started_at.is_some_and(|started| started >= running.created_at), "{running:?}");
    assert!(running.stopped_at.is_none() && running.exit.is_none());
    stage.finish(&uid, 0).await;
    let stopped = until(stage, &uid, |pod| pod.phase == RemotePhase::Stopped).await;
    assert_eq!(stopped.exit, Some(Exit::Finished { code: 0 }));
    assert!(stopped.stopped_at >= stopped.started_at, "{stopped:?}");
    end(stage, &stopped.id).await;
}

async fn an_exit_code_comes_back(stage: &impl Stage) {
    let uid = uid("code");
    stage.provider().create(&stage.request(&uid)).await.expect("accepted");
    until(stage, &uid, |pod| pod.phase == RemotePhase::Running).await;
    stage.finish(&uid, 42).await;
    let stopped = until(stage, &uid, |pod| pod.phase == RemotePhase::Stopped).await;
    assert_eq!(stopped.exit, Some(Exit::Finished { code: 42 }));
    end(stage, &stopped.id).await;
}

async fn found_after_a_restart(stage: &impl Stage) {
    let uids: Vec<PodUid> = (0..3).map(|number| uid(&format!("restart-{number}"))).collect();
    for uid in &uids {
        stage.provider().create(&stage.request(uid)).await.expect("accepted");
    }
    // Clouds' lists are late, but not as late as a restart takes.
    stage.moment().await;
    let restarted = stage.restarted();
    for uid in &uids {
        assert_eq!(found(&*restarted, uid).await, 1);
        let pod = restarted.get(uid).await.expect("known");
        let request = stage.request(uid);
        assert_eq!((&pod.uid, &pod.namespace, &pod.name), (uid, &request.namespace, &request.name));
        let again = restarted.create(&request).await.expect("adopted");
        assert_eq!(again.id, pod.id, "not started a second time");
        assert_eq!(found(&*stage.stranger(), uid).await, 0, "not another virtual node's");
    }
    assert_eq!(restarted.list(2).await.expect("a list").len(), 2, "at most what was asked for");
    for uid in &uids {
        let id = restarted.get(uid).await.expect("known").id;
        end(stage, &id).await;
    }
}

async fn logs(stage: &impl Stage) {
    let (provider, uid) = (stage.provider(), uid("logs"));
    let id = provider.create(&stage.request(&uid)).await.expect("accepted").id;
    until(stage, &uid, |pod| pod.phase == RemotePhase::Running).await;
    let mut text = String::new();
    for _ in 0..PATIENCE {
        text = read(&*provider, &id, &LogQuery::all("main")).await;
        if text.contains(HELLO) {
            break;
        }
        stage.moment().await;
    }
    assert!(text.contains(HELLO), "{text:?}");
    let last = read(&*provider, &id, &LogQuery { tail_lines: Some(1), ..LogQuery::all("main") }).await;
    assert_eq!(last.lines().count(), 1, "{last:?}");
    let short = read(&*provider, &id, &LogQuery { limit_bytes: Some(5), ..LogQuery::all("main") }).await;
    assert_eq!(short, HELLO[..5]);
    let unknown = provider.logs(&id, &LogQuery::all("nobody")).await;
    assert!(matches!(unknown.err().map(|error| error.kind), Some(ErrorKind::NotFound | ErrorKind::Invalid)));
    end(stage, &id).await;
}

async fn delete_twice(stage: &impl Stage) {
    let (provider, uid) = (stage.provider(), uid("delete"));
    let id = provider.create(&stage.request(&uid)).await.expect("accepted").id;
    provider.delete(&id).await.expect("deleted");
    provider.delete(&id).await.expect("deleted already");
    let gone = async || match provider.get(&uid).await {
        Ok(pod) => pod.phase == RemotePhase::Stopped,
        Err(error) => error.kind == ErrorKind::NotFound,
    };
    for _ in 0..PATIENCE {
        if gone().await {
            break;
        }
        stage.moment().await;
    }
    assert!(gone().await, "still there");
    provider.delete(&id).await.expect("deleted long ago");
}

async fn unknown_pods(stage: &impl Stage) {
    let provider = stage.provider();
    let error = provider.get(&uid("nobody")).await.expect_err("never made");
    assert_eq!(error.kind, ErrorKind::NotFound, "{error:?}");
    // An identifier of the right form, whatever the form is.
    let uid = uid("gone");
    let id = provider.create(&stage.request(&uid)).await.expect("accepted").id;
    let unknown = RemoteId::new(flipped(id.as_str()));
    provider.delete(&unknown).await.expect("what is not there is gone");
    let error = provider.logs(&unknown, &LogQuery::all("main")).await.err().expect("no such pod");
    assert_eq!(error.kind, ErrorKind::NotFound, "{error:?}");
    assert_eq!(found(&*provider, &uid).await, 1, "its neighbour is still there");
    end(stage, &id).await;
}

async fn throttling(stage: &impl Stage) {
    stage.begin(Trouble::Throttling).await;
    let (provider, uid) = (stage.provider(), uid("throttled"));
    let kind = provider.create(&stage.request(&uid)).await.expect_err("too many calls").kind;
    assert!(matches!(kind, ErrorKind::Throttled { .. }), "{kind:?}");
    let kind = provider.list(10).await.expect_err("too many calls").kind;
    assert!(matches!(kind, ErrorKind::Throttled { .. }), "{kind:?}");
    stage.end_trouble().await;
    let id = patiently(stage, &uid).await.id;
    end(stage, &id).await;
}

async fn expired_credentials(stage: &impl Stage) {
    stage.begin(Trouble::ExpiredCredentials).await;
    let (provider, uid) = (stage.provider(), uid("expired"));
    let error = provider.create(&stage.request(&uid)).await.expect_err("no rights");
    assert_eq!(error.kind, ErrorKind::Denied, "{error:?}");
    let down = match provider.observe().await {
        Ok(observation) => matches!(observation.health, Health::Down { .. }),
        Err(error) => error.kind == ErrorKind::Denied,
    };
    assert!(down, "a backend that nobody may use is not healthy");
    stage.end_trouble().await;
    let id = patiently(stage, &uid).await.id;
    assert_eq!(provider.observe().await.expect("well again").health, Health::Healthy);
    end(stage, &id).await;
}

async fn partial_outage(stage: &impl Stage) {
    stage.begin(Trouble::PartialOutage).await;
    let uids: Vec<PodUid> = (0..4).map(|number| uid(&format!("outage-{number}"))).collect();
    for uid in &uids {
        patiently(stage, uid).await;
    }
    stage.end_trouble().await;
    for uid in &uids {
        assert_eq!(found(&*stage.provider(), uid).await, 1, "once each");
        let id = stage.provider().get(uid).await.expect("known").id;
        end(stage, &id).await;
    }
}

async fn lost_answer(stage: &impl Stage) {
    stage.begin(Trouble::LostAnswer).await;
    let (provider, uid) = (stage.provider(), uid("lost"));
    // A library that repeats the call by itself finds what it made.
    let kind = provider.create(&stage.request(&uid)).await.err().map(|error| error.kind);
    assert!(kind.is_none_or(|kind| kind == ErrorKind::Unavailable), "{kind:?}");
    stage.end_trouble().await;
    let id = provider.create(&stage.request(&uid)).await.expect("what is there").id;
    assert_eq!(found(&*provider, &uid).await, 1, "not started a second time");
    end(stage, &id).await;
}

/// Clouds refuse at once, or accept and say so later; both must be told apart from every other reason.
async fn refused(stage: &impl Stage, trouble: Trouble, kind: ErrorKind, cause: StartFailure) {
    stage.begin(trouble).await;
    let (provider, refused) = (stage.provider(), uid("refused"));
    match provider.create(&stage.request(&refused)).await {
        Err(error) => assert_eq!(error.kind, kind, "{error:?}"),
        Ok(pod) => {
            let stopped = until(stage, &refused, |pod| pod.phase == RemotePhase::Stopped).await;
            assert!(matches!(stopped.exit, Some(Exit::NotStarted { cause: told, .. }) if told == cause), "{stopped:?}");
            end(stage, &pod.id).await;
        }
    }
    stage.end_trouble().await;
    let uid = uid("room-again");
    let id = patiently(stage, &uid).await.id;
    until(stage, &uid, |pod| pod.phase == RemotePhase::Running).await;
    end(stage, &id).await;
}

async fn failure_after_acceptance(stage: &impl Stage) {
    stage.begin(Trouble::UnpullableImage).await;
    let uid = uid("image");
    let id = stage.provider().create(&stage.request(&uid)).await.expect("accepted").id;
    let stopped = until(stage, &uid, |pod| pod.phase == RemotePhase::Stopped).await;
    assert!(matches!(stopped.exit, Some(Exit::NotStarted { cause: StartFailure::Image, .. })), "{stopped:?}");
    assert!(stopped.started_at.is_none(), "{stopped:?}");
    stage.end_trouble().await;
    end(stage, &id).await;
}

async fn usage(stage: &impl Stage) {
    let (provider, uid) = (stage.provider(), uid("usage"));
    // Pods of earlier steps may still be ending, and count until they have.
    let ending = async || {
        let listed = provider.list(1000).await.expect("a list");
        listed.iter().filter(|pod| pod.phase != RemotePhase::Stopped).count()
    };
    for _ in 0..PATIENCE {
        if ending().await == 0 {
            break;
        }
        stage.moment().await;
    }
    assert_eq!(ending().await, 0, "deleted, and still there");
    let before = provider.observe().await.expect("well").usage;
    let request = stage.request(&uid);
    let id = provider.create(&request).await.expect("accepted").id;
    until(stage, &uid, |pod| pod.phase == RemotePhase::Running).await;
    let during = provider.observe().await.expect("well");
    assert_eq!(during.usage.pods - before.pods, 1);
    assert_eq!(during.usage.cpu_millis - before.cpu_millis, request.shape.cpu_millis);
    assert_eq!(during.health, Health::Healthy);
    end(stage, &id).await;
}

// === what steps have in common ===

/// A UID that no other step uses.
fn uid(name: &str) -> PodUid {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let hash = name.bytes().fold(count, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    PodUid::new(format!("{hash:08x}-0000-4000-8000-{:012x}", u64::from(count) << 20 | u64::from(std::process::id())))
}

/// How many pods of this UID a list shows that have not stopped.
async fn found(provider: &dyn Provider, uid: &PodUid) -> usize {
    let listed = provider.list(1000).await.expect("a list");
    listed.iter().filter(|pod| pod.uid == *uid && pod.phase != RemotePhase::Stopped).count()
}

async fn until(stage: &impl Stage, uid: &PodUid, reached: impl Fn(&RemotePod) -> bool) -> RemotePod {
    let mut last = None;
    for _ in 0..PATIENCE {
        match stage.provider().get(uid).await {
            Ok(pod) if reached(&pod) => return pod,
            Ok(pod) => last = Some(format!("{pod:?}")),
            // Clouds are eventually consistent.
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::NotFound, "{error:?}");
                last = Some(format!("{error:?}"));
            }
        }
        stage.moment().await;
    }
    panic!("{uid} did not get there: {last:?}")
}

/// Creates as a caller does that repeats what may be repeated.
async fn patiently(stage: &impl Stage, uid: &PodUid) -> RemotePod {
    let request = stage.request(uid);
    let mut last = None;
    for _ in 0..PATIENCE {
        match stage.provider().create(&request).await {
            Ok(pod) => return pod,
            Err(error) => {
                assert!(error.kind.is_transient() || error.kind == ErrorKind::QuotaExceeded, "{error:?}");
                last = Some(error);
            }
        }
        stage.moment().await;
    }
    panic!("never accepted: {last:?}")
}

async fn end(stage: &impl Stage, id: &RemoteId) {
    stage.provider().delete(id).await.expect("deleted");
}

async fn read(provider: &dyn Provider, id: &RemoteId, query: &LogQuery) -> String {
    let mut stream = match provider.logs(id, query).await {
        Ok(stream) => stream,
        // Nothing is written yet.
        Err(error) if error.kind == ErrorKind::NotFound => return String::new(),
        Err(error) => panic!("{error:?}"),
    };
    let mut text = Vec::new();
    while let Some(part) = stream.next().await {
        text.extend(part.expect("output"));
    }
    String::from_utf8(text).expect("text")
}

/// The same text with its last letter or digit changed.
fn flipped(text: &str) -> String {
    let place = text.rfind(|letter: char| letter.is_ascii_alphanumeric()).expect("letters or digits");
    let other = if text.as_bytes()[place] == b'1' { "2" } else { "1" };
    format!("{}{other}{}", &text[..place], &text[place + 1..])
}
