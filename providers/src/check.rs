//! Trying a provider out on a real account: the part of the contract that costs nothing, and one small pod if wanted.

use std::time::Duration;

use futures::StreamExt;

use policy::virtual_node::Prices;

use crate::prices::{CURRENCY, ListPrices, UnknownPrice};
use crate::{
    Error, ErrorKind, Exit, Health, LogQuery, Observation, Operation, PodRequest, PodUid, Provider, RemoteId, RemotePhase,
};

/// What was tried, and what came of it.
#[derive(Debug)]
pub struct Step {
    /// What was tried; constant.
    pub name: &'static str,
    /// What was seen, for people, or why it failed.
    pub outcome: Result<String, Error>,
}

/// A UID that no pod has.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";
/// Between two looks at the pod.
const LOOK: Duration = Duration::from_secs(2);
/// How much of its output is shown.
const OUTPUT_BYTES: u64 = 4096;

/// Quota, usage and health; prices; what Spillway has running there; a pod that does not exist. Nothing is made.
///
/// `built_in` are the prices where the cloud publishes none; `None` where they are the admin's own business.
pub async fn look(provider: &dyn Provider, built_in: Option<Result<ListPrices, UnknownPrice>>) -> Vec<Step> {
    let observed = provider.observe().await;
    let published = observed.as_ref().ok().and_then(|observation| observation.prices);
    let priced = priced(published, built_in).map_err(|unknown| unexpected(provider, Operation::Observe, unknown.to_string()));
    let observed = observed.map(|observation| described(&observation));
    let listed = provider.list(1000).await.map(|pods| format!("{} pods of this virtual node", pods.len()));
    let unknown = match provider.get(&PodUid::new(NOBODY)).await {
        Err(error) if error.kind == ErrorKind::NotFound => Ok("not found, as it should be".to_owned()),
        Err(error) => Err(error),
        Ok(pod) => Err(unexpected(provider, Operation::Get, format!("there is one: {}", pod.id))),
    };
    vec![
        Step { name: "quota, usage, health", outcome: observed },
        Step { name: "prices", outcome: priced },
        Step { name: "list", outcome: listed },
        Step { name: "get an unknown pod", outcome: unknown },
    ]
}

/// Starts a pod twice, which must make one; waits until its container has ended, at most `patience`; reads its output; deletes
/// it twice. What was started is deleted whatever happens.
pub async fn run(provider: &dyn Provider, request: &PodRequest, patience: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    let created = provider.create(request).await;
    let id = created.as_ref().ok().map(|pod| pod.id.clone());
    steps.push(Step { name: "create", outcome: created.map(|pod| pod.id.to_string()) });
    let Some(id) = id else { return steps };
    let again = provider.create(request).await.and_then(|pod| same(provider, &id, &pod.id));
    steps.push(Step { name: "create again is the same", outcome: again });
    steps.push(Step { name: "run to its end", outcome: ended(provider, &request.uid, patience).await });
    let container = request.containers.first().map(|container| container.name.clone()).unwrap_or_default();
    let query = LogQuery { limit_bytes: Some(OUTPUT_BYTES), ..LogQuery::all(container) };
    steps.push(Step { name: "logs", outcome: kept(output(provider, &id, &query).await) });
    for name in ["delete", "delete again"] {
        steps.push(Step { name, outcome: provider.delete(&id).await.map(|()| "gone".to_owned()) });
    }
    steps
}

/// What a pod costs there, and who says so. Where no list can be read, providers give what is built in as published.
fn priced(published: Option<Prices>, built_in: Option<Result<ListPrices, UnknownPrice>>) -> Result<String, UnknownPrice> {
    let (prices, source) = match (published, built_in) {
        (Some(prices), Some(Ok(list))) if list.prices == prices => (prices, list.source),
        (Some(prices), _) => (prices, "published"),
        (None, Some(list)) => {
            let list = list?;
            (list.prices, list.source)
        }
        (None, None) => return Ok("none published: set spec.pricing of the virtual node".to_owned()),
    };
    let Prices { vcpu, gb, ephemeral_gb, .. } = prices;
    let [vcpu, gb, disk] = [vcpu, gb, ephemeral_gb].map(|rate| rate.hourly().to_string());
    Ok(format!("{CURRENCY} {vcpu} per vCPU, {gb} per GB, {disk} per GB of disk an hour; {source}"))
}

/// Output that nobody was to keep is not missing.
fn kept(output: Result<String, Error>) -> Result<String, Error> {
    match output {
        Err(Error { kind: ErrorKind::Unsupported, source, .. }) => {
            Ok(source.map_or_else(|| "cannot be read there".to_owned(), |words| words.to_string()))
        }
        output => output,
    }
}

fn described(observation: &Observation) -> String {
    let health = match &observation.health {
        Health::Healthy => "healthy".to_owned(),
        Health::Degraded { reason } => format!("degraded: {reason}"),
        Health::Down { reason } => format!("down: {reason}"),
    };
    let of = |limit: Option<i64>| limit.map_or_else(|| "no known limit".to_owned(), |limit| limit.to_string());
    let (quota, usage) = (&observation.quota, &observation.usage);
    let cores = |millis: i64| millis / 1000;
    format!(
        "{health}; {} pods of {}, {} vCPUs of {} in use",
        usage.pods,
        of(quota.pods),
        cores(usage.cpu_millis),
        of(quota.cpu_millis.map(cores))
    )
}

fn same(provider: &dyn Provider, one: &RemoteId, other: &RemoteId) -> Result<String, Error> {
    if one == other {
        Ok(one.to_string())
    } else {
        Err(unexpected(provider, Operation::Create, format!("a second one: {other}")))
    }
}

async fn ended(provider: &dyn Provider, uid: &PodUid, patience: Duration) -> Result<String, Error> {
    let looks = patience.as_secs() / LOOK.as_secs();
    for _ in 0..looks {
        match provider.get(uid).await {
            Ok(pod) if pod.phase == RemotePhase::Stopped => {
                let start = pod.started_at.map(|started| started.since(pod.created_at));
                let start = start.map_or_else(String::new, |start| format!(", started after {} s", start.as_secs()));
                return match pod.exit {
                    Some(Exit::Finished { code }) => Ok(format!("exit code {code}{start}")),
                    other => Err(unexpected(provider, Operation::Get, format!("it did not run: {other:?}"))),
                };
            }
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::NotFound || error.kind.is_transient() => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(unexpected(provider, Operation::Get, format!("not at its end after {} s", patience.as_secs())))
}

async fn output(provider: &dyn Provider, id: &RemoteId, query: &LogQuery) -> Result<String, Error> {
    let mut stream = provider.logs(id, query).await?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend(part?);
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn unexpected(provider: &dyn Provider, operation: Operation, words: String) -> Error {
    Error::new(ErrorKind::Invalid, provider.name(), operation).because(words)
}
