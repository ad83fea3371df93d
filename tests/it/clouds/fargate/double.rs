//! ECS, and as much of CloudWatch Logs, Service Quotas and Secrets Manager as Fargate tasks need, with state, a clock passed in
//! and faults on demand.
//!
//! Tasks take their way by the clock. An answer about what is new is late, as AWS's are.

mod ecs;
mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use providers::Clock;
use serde_json::{Value, json};

use self::ecs::{Definition, Task};
use super::exchanges::{Exchange, Signed};

/// A double that listens on a free loopback port until it is dropped.
pub(super) struct Double {
    shared: Arc<Shared>,
    endpoint: String,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    clock: Clock,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Every call is one too many.
    Throttling,
    /// No signature is accepted.
    ExpiredCredentials,
    /// Every second call fails without effect.
    PartialOutage,
    /// Tasks are launched, and nobody hears of it.
    LostAnswer,
    /// No room for tasks.
    NoCapacity,
    /// The quota is used up.
    Quota,
    /// New tasks find no image.
    UnpullableImage,
    /// Tasks are known to nobody for ever.
    Forgetful,
    /// The cluster has lost its capacity providers.
    NoClusterProviders,
}

/// Everything that AWS knows.
#[derive(Default)]
struct State {
    fault: Option<Fault>,
    calls: u64,
    definitions: Vec<Definition>,
    tasks: Vec<Task>,
    secrets: BTreeMap<String, store::Secret>,
    recording: Vec<Exchange>,
}

/// An error as the JSON protocol writes it.
struct Refusal {
    status: u16,
    body: Value,
}

type Answer = Result<Value, Refusal>;

const ACCOUNT: &str = "123456789012";
const CLUSTER: &str = "burst";
/// Where the public price lists are.
const PRICE_LISTS: &str = "/offers/v1.0/aws/AmazonECS/current/{region}/index.json";
/// vCPU that may run at once.
const QUOTA_VCPU: i64 = 100;

// === impl Double ===

impl Double {
    pub(super) async fn start(clock: Clock) -> Double {
        let shared = Arc::new(Shared { state: Mutex::default(), clock });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().route(PRICE_LISTS, get(price_list)).fallback(serve).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("served") });
        Double { shared, endpoint, server }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test has failed in it")
    }

    fn now(&self) -> i64 {
        (self.shared.clock)().millis()
    }

    pub(super) fn inject(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    pub(super) fn heal(&self) {
        self.state().fault = None;
    }

    pub(super) fn recording(&self) -> Vec<Exchange> {
        self.state().recording.clone()
    }

    /// Containers end by themselves.
    pub(super) fn finish(&self, uid: &str, codes: &[(&str, i32)]) {
        let now = self.now();
        let mut state = self.state();
        let task = state.task_of(uid);
        let codes = codes.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect();
        task.end(now, "EssentialContainerExited", "Essential container in task exited", codes);
    }

    /// Spot takes a machine back.
    pub(super) fn interrupt(&self, uid: &str) {
        let now = self.now();
        self.state().task_of(uid).end(now, "SpotInterruption", "Your Spot Task was interrupted.", BTreeMap::new());
    }

    /// UIDs of the pods whose containers are at work.
    pub(super) fn running(&self) -> Vec<String> {
        let now = self.now();
        let state = self.state();
        let running = state.tasks.iter().filter(|task| task.has_started(now) && task.stopped_at(now).is_none());
        running.filter_map(|task| Some(task.group.strip_prefix("spillway:")?.to_owned())).collect()
    }

    /// A task turns out never to have run.
    pub(super) fn fail_to_start(&self, uid: &str, words: &str) {
        self.state().task_of(uid).fail(words);
    }

    /// A container writes a line.
    pub(super) fn write(&self, uid: &str, container: &str, line: &str) {
        let now = self.now();
        self.state().task_of(uid).lines.push((container.to_owned(), now, line.to_owned()));
    }

    /// A task is gone as if it had stopped long ago.
    pub(super) fn lose(&self, uid: &str) {
        let group = format!("spillway:{uid}");
        self.state().tasks.retain(|task| task.group != group);
    }

    /// Names of all secrets.
    pub(super) fn secrets(&self) -> Vec<String> {
        self.state().secrets.keys().cloned().collect()
    }

    /// ARNs of all definitions that tasks can be launched from.
    pub(super) fn definitions(&self) -> Vec<String> {
        let state = self.state();
        state.definitions.iter().filter(|definition| definition.active).map(|definition| definition.arn.clone()).collect()
    }

    /// Somebody deregisters everything.
    pub(super) fn deregister_all(&self) {
        self.state().definitions.iter_mut().for_each(|definition| definition.active = false);
    }

    /// A variable as the container sees it.
    pub(super) fn environment_of(&self, uid: &str, container: &str, variable: &str) -> Option<String> {
        let mut state = self.state();
        let task = state.task_of(uid).clone();
        let definition = state.definition(&task.definition).expect("launched from it").clone();
        let of = |containers: &Value, field: &str, value: &str| {
            let found = containers.as_array()?.iter().find(|found| found["name"] == container)?;
            let pair = found[field].as_array()?.iter().find(|pair| pair["name"] == variable)?;
            pair[value].as_str().map(str::to_owned)
        };
        let containers = &definition.body["containerDefinitions"];
        of(&task.overrides["containerOverrides"], "environment", "value")
            .or_else(|| of(containers, "environment", "value"))
            .or_else(|| state.read_secret(&of(containers, "secrets", "valueFrom")?))
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The price list of one region.
async fn price_list(Path(region): Path<String>) -> impl IntoResponse {
    let known =
        (region == "eu-central-1").then_some(include_str!("../../../../providers/src/fargate/price_list/eu-central-1.json"));
    known.ok_or(StatusCode::NOT_FOUND)
}

async fn serve(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default().to_owned();
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let mut state = shared.state.lock().expect("no test has failed in it");
    let answer = state.answer(&target, &request, (shared.clock)().millis());
    let (status, answer) = answer.map_or_else(|refusal| (refusal.status, refusal.body), |answer| (200, answer));
    let signed = Some(Signed::of(&headers, &body));
    state.recording.push(Exchange { target, request, status, answer: answer.clone(), signed });
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("content-type", "application/x-amz-json-1.1")], answer.to_string())
}

// === impl Refusal ===

impl Refusal {
    fn new(kind: &str, message: &str) -> Refusal {
        Refusal { status: 400, body: json!({"__type": kind, "message": message}) }
    }

    fn server() -> Refusal {
        Refusal { status: 500, body: json!({"__type": "InternalFailure", "message": "internal failure"}) }
    }
}

// === impl State ===

impl State {
    fn answer(&mut self, target: &str, request: &Value, now: i64) -> Answer {
        self.calls += 1;
        match self.fault {
            Some(Fault::Throttling) => return Err(Refusal::new("ThrottlingException", "Rate exceeded")),
            Some(Fault::ExpiredCredentials) => {
                let message = "The security token included in the request is expired";
                return Err(Refusal::new("ExpiredTokenException", message));
            }
            Some(Fault::PartialOutage) if self.calls.is_multiple_of(2) => return Err(Refusal::server()),
            _ => {}
        }
        self.forget_old_tasks(now);
        let (service, operation) = target.rsplit_once('.').expect("a target");
        match service {
            "AmazonEC2ContainerServiceV20141113" => self.ecs(operation, request, now),
            "secretsmanager" => self.secrets_manager(operation, request, now),
            "Logs_20140328" => self.logs(operation, request, now),
            "ServiceQuotasV20190624" => {
                assert_eq!(operation, "GetServiceQuota");
                assert_eq!((&request["ServiceCode"], &request["QuotaCode"]), (&json!("fargate"), &json!("L-3032A538")));
                Ok(
                    json!({"Quota": {"ServiceCode": "fargate", "QuotaCode": "L-3032A538", "Value": QUOTA_VCPU, "Adjustable": true}}),
                )
            }
            other => panic!("{other} is not doubled"),
        }
    }

    fn task_of(&mut self, uid: &str) -> &mut Task {
        let group = format!("spillway:{uid}");
        self.tasks.iter_mut().find(|task| task.group == group).expect("a task of the pod")
    }
}

/// Epoch seconds, as the JSON protocol writes times.
fn seconds(millis: i64) -> Value {
    json!(millis as f64 / 1000.0)
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// One page of a list, and the token of the next.
fn page<T: Clone>(all: &[T], request: &Value, field: &str) -> (Vec<T>, Option<String>) {
    let from: usize = text(request, field).parse().unwrap_or(0);
    let most = request["maxResults"].as_u64().or(request["MaxResults"].as_u64()).unwrap_or(100);
    let to = all.len().min(from + usize::try_from(most).expect("small"));
    (all[from.min(to)..to].to_vec(), (to < all.len()).then(|| to.to_string()))
}
