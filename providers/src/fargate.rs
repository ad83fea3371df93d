//! AWS Fargate: pods as tasks of an ECS cluster.
//!
//! ```text
//! pod ── translation ──► definition + overrides + secrets      status ──► RemotePod
//!                             │             │         │              ▲
//!                    RegisterTaskDefinition │   Secrets Manager      │ DescribeTasks
//!                        (once per content) └► RunTask ─────────► task
//! ```
//!
//! What ECS says can be late: a task that was just made may be missing from every answer for a while, and is then what RunTask
//! said it was. A stopped task loses its tags at once and can be seen for about an hour. So whose a task is stands in
//! `startedBy`, whose pod it is in `group`, and only the pod's names in tags.

mod definition;
mod failure;
mod logs;
mod observation;
mod price_list;
mod recent;
mod secrets;
mod settings;
mod signed;
mod status;
mod translation;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ecs::config::{Credentials, Region};
use aws_sdk_ecs::types as sdk;
use futures::{StreamExt, stream};
use policy::Timestamp;

use self::failure::told;
use self::recent::Recent;
use self::signed::Signed;
use crate::{
    Clock, Error, ErrorKind, Limiter, LogQuery, LogStream, Observation, Operation, PodRequest, PodUid, Provider, RemoteId,
    RemotePhase, RemotePod,
};

pub use self::definition::{ContainerDefinition, Definition, Overrides};
pub use self::settings::{Access, Credential, LAUNCHES, PRICE_LIST, Settings};
pub use self::translation::{PodSecret, Task, translate};

/// Name of the provider in errors, logs and metrics.
const NAME: &str = "fargate";
/// ECS takes so many tasks in one DescribeTasks, and gives so many in a page of ListTasks.
const BATCH: usize = 100;
/// DescribeTasks at the same time.
const PARALLEL: usize = 4;
/// Tasks that one listing looks at: more than any default quota lets run.
const TASKS: usize = 20_000;
/// How long ECS may not know what it has just made.
const CONSISTENCY: Duration = Duration::from_secs(120);
/// Pods and definitions remembered, to spare calls; what is forgotten is asked for again.
const REMEMBERED: usize = 20_000;
/// How long a launch may wait for its turn.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(5);
/// How often a call is tried, by the SDK or by [`signed`] and by nobody else: few times and soon, because whoever called has a
/// plan of his own.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long is waited for a connection, for the answer to one attempt, and for all of it.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(10);
const CALL_PATIENCE: Duration = Duration::from_secs(25);

/// An ECS cluster as a [`Provider`].
pub struct Fargate {
    settings: Settings,
    access: Access,
    clock: Clock,
    clients: Clients,
    launches: Limiter,
    /// Tasks by pod.
    known: Mutex<Recent<PodUid, Known>>,
    /// ARNs of definitions by family; held while one is registered, so that a fan-out registers it once.
    definitions: tokio::sync::Mutex<Recent<String, String>>,
    /// Essential containers by definition.
    essential: Mutex<Recent<String, Arc<[String]>>>,
    secrets: secrets::Sweep,
    observed: observation::Remembered,
}

#[derive(Clone)]
struct Clients {
    ecs: aws_sdk_ecs::Client,
    others: Arc<Signed>,
    http: reqwest::Client,
}

/// A task that was made or seen.
#[derive(Clone, Debug)]
struct Known {
    names: (Arc<str>, Arc<str>),
    seen: RemotePod,
    made_at: Timestamp,
}

// === impl Fargate ===

impl Fargate {
    /// Prepares calls; makes none, but for what finding credentials may take.
    pub async fn connect(settings: Settings, mut access: Access, clock: Clock) -> Result<Fargate, Error> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .operation_attempt_timeout(ATTEMPT_PATIENCE)
            .operation_timeout(CALL_PATIENCE);
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let retries = retries.with_initial_backoff(FIRST_PAUSE).with_max_backoff(LONGEST_PAUSE);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(settings.region.clone()))
            .retry_config(retries)
            .timeout_config(timeouts.build());
        if let Credential::AccessKey { id, secret, session_token } = &access.credential {
            let token = session_token.as_ref().map(|token| token.expose().to_owned());
            loader = loader.credentials_provider(Credentials::new(id, secret.expose(), token, None, "spillway"));
        }
        if let Some(endpoint) = &access.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let config = loader.load().await;
        let http = reqwest::Client::builder().connect_timeout(CONNECT_PATIENCE).build();
        let http = http.map_err(|error| Error::new(ErrorKind::Unavailable, NAME, Operation::Observe).because(error))?;
        // Whoever leads all calls somewhere else means the price list, too.
        access.price_list = access.price_list.map(|usual| signed::elsewhere(&config, "Pricing").unwrap_or(usual));
        let others = Arc::new(Signed::new(&config, http.clone(), clock.clone()).await?);
        let clients = Clients { ecs: aws_sdk_ecs::Client::new(&config), others, http };
        let launches = Limiter::new(settings.launches, clock.clone());
        Ok(Fargate {
            settings,
            access,
            clock,
            clients,
            launches,
            known: Mutex::new(Recent::new(REMEMBERED)),
            definitions: tokio::sync::Mutex::new(Recent::new(REMEMBERED)),
            essential: Mutex::new(Recent::new(REMEMBERED)),
            secrets: secrets::Sweep::default(),
            observed: observation::Remembered::default(),
        })
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn known(&self) -> MutexGuard<'_, Recent<PodUid, Known>> {
        // Nothing panics between lock and unlock but a programming error; what is remembered can be asked for again.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ARN of the definition with this content, registered if ECS has none.
    async fn definition(&self, definition: &Definition, family: &str) -> Result<String, Error> {
        let mut known = self.definitions.lock().await;
        if let Some(arn) = known.get(&family.to_owned()) {
            return Ok(arn.clone());
        }
        let arn = self.found_or_registered(definition, family).await?;
        known.insert(family.to_owned(), arn.clone());
        Ok(arn)
    }

    async fn found_or_registered(&self, definition: &Definition, family: &str) -> Result<String, Error> {
        match self.registered(family).await? {
            Some(arn) => Ok(arn),
            None => self.register(definition, family).await,
        }
    }

    async fn registered(&self, family: &str) -> Result<Option<String>, Error> {
        match self.clients.ecs.describe_task_definition().task_definition(family).send().await {
            Ok(answer) => {
                let definition = answer.task_definition();
                let active = definition.filter(|found| found.status() == Some(&sdk::TaskDefinitionStatus::Active));
                Ok(active.and_then(sdk::TaskDefinition::task_definition_arn).map(str::to_owned))
            }
            Err(error) => {
                let error = failure::error(&error, Operation::Create);
                // "Unable to describe task definition" is how ECS says that there is none.
                if error.kind == ErrorKind::Invalid { Ok(None) } else { Err(error) }
            }
        }
    }

    async fn register(&self, definition: &Definition, family: &str) -> Result<String, Error> {
        let unbuilt =
            |error: aws_sdk_ecs::error::BuildError| Error::new(ErrorKind::Invalid, NAME, Operation::Create).because(error);
        let call = self
            .clients
            .ecs
            .register_task_definition()
            .family(family)
            .network_mode(sdk::NetworkMode::Awsvpc)
            .requires_compatibilities(sdk::Compatibility::Fargate)
            .cpu(&definition.cpu)
            .memory(&definition.memory)
            .set_ephemeral_storage(definition.storage())
            .runtime_platform(definition.platform())
            .set_execution_role_arn(definition.execution_role_arn.clone())
            .set_task_role_arn(definition.task_role_arn.clone())
            .set_pid_mode(definition.pid_mode.map(sdk::PidMode::from))
            .set_volumes(Some(definition.volumes().map_err(unbuilt)?).filter(|volumes| !volumes.is_empty()))
            .set_container_definitions(Some(definition.containers().map_err(unbuilt)?))
            .tags(sdk::Tag::builder().key("spillway.dev/managed").value("true").build());
        let answer = call.send().await.map_err(|error| failure::error(&error, Operation::Create))?;
        let arn = answer.task_definition().and_then(sdk::TaskDefinition::task_definition_arn);
        arn.map(str::to_owned).ok_or_else(|| told(ErrorKind::Unavailable, Operation::Create, "no ARN of the task definition"))
    }

    /// Launches the task, or finds it launched.
    async fn run(&self, request: &PodRequest, task: &Task, definition: &str) -> Result<sdk::Task, Error> {
        let network = sdk::AwsVpcConfiguration::builder()
            .set_subnets(Some(self.settings.subnets.clone()))
            // Empty is the network's default group; moto wants the field all the same.
            .set_security_groups(Some(self.settings.security_groups.clone()))
            .assign_public_ip(match self.settings.assign_public_ip {
                true => sdk::AssignPublicIp::Enabled,
                false => sdk::AssignPublicIp::Disabled,
            });
        let provider =
            sdk::CapacityProviderStrategyItem::builder().capacity_provider(self.settings.capacity_provider()).weight(1);
        let unbuilt =
            |error: aws_sdk_ecs::error::BuildError| Error::new(ErrorKind::Invalid, NAME, Operation::Create).because(error);
        let network = sdk::NetworkConfiguration::builder().awsvpc_configuration(network.build().map_err(unbuilt)?).build();
        let answer = self
            .clients
            .ecs
            .run_task()
            .cluster(&self.settings.cluster)
            .task_definition(definition)
            .count(1)
            .client_token(request.uid.as_str())
            .started_by(self.settings.started_by())
            .group(status::group(&request.uid))
            .capacity_provider_strategy(provider.build().map_err(unbuilt)?)
            .platform_version(&self.settings.platform_version)
            .network_configuration(network)
            .set_overrides(task.overrides.to_sdk())
            .set_tags(Some(self.tags(request)))
            .send()
            .await;
        match answer {
            Ok(answer) => launched(answer.tasks(), answer.failures()),
            Err(error) => {
                // The same pod with another specification: settings changed since it was launched. It runs as it is.
                let conflict = error.as_service_error().and_then(|error| match error {
                    aws_sdk_ecs::operation::run_task::RunTaskError::ConflictException(conflict) => {
                        conflict.resource_ids().first()
                    }
                    _ => None,
                });
                match conflict {
                    Some(arn) => match self.describe(std::slice::from_ref(arn), Operation::Create).await?.pop() {
                        Some(task) => Ok(task),
                        None => Err(failure::error(&error, Operation::Create)),
                    },
                    None => Err(failure::error(&error, Operation::Create)),
                }
            }
        }
    }

    fn tags(&self, request: &PodRequest) -> Vec<sdk::Tag> {
        let tag = |key: &str, value: &str| sdk::Tag::builder().key(key).value(value).build();
        vec![
            tag("spillway.dev/cluster", &self.settings.ownership.cluster),
            tag("spillway.dev/virtual-node", &self.settings.ownership.virtual_node),
            tag(status::TAG_NAMESPACE, &request.namespace),
            tag(status::TAG_POD, &request.name),
            tag(status::TAG_UID, request.uid.as_str()),
        ]
    }

    /// What ECS knows of these tasks; those that it does not know are left out.
    async fn describe(&self, arns: &[String], operation: Operation) -> Result<Vec<sdk::Task>, Error> {
        let batches: Vec<Vec<String>> = arns.chunks(BATCH).map(<[String]>::to_vec).collect();
        let calls = batches.into_iter().map(|batch| async move {
            let call = self.clients.ecs.describe_tasks().cluster(&self.settings.cluster);
            let answer = call.set_tasks(Some(batch)).include(sdk::TaskField::Tags).send().await;
            answer.map(|answer| answer.tasks.unwrap_or_default()).map_err(|error| failure::error(&error, operation))
        });
        let mut tasks = Vec::with_capacity(arns.len());
        let mut answers = stream::iter(calls).buffered(PARALLEL);
        while let Some(answer) = answers.next().await {
            tasks.extend(answer?);
        }
        Ok(tasks)
    }

    /// ARNs of tasks, at most `limit`; of this virtual node only, or of everybody in the cluster.
    async fn arns(
        &self,
        wanted: &sdk::DesiredStatus,
        ours: bool,
        limit: usize,
        operation: Operation,
    ) -> Result<Vec<String>, Error> {
        let mut arns = Vec::new();
        let mut next = None;
        while arns.len() < limit {
            let answer = self
                .clients
                .ecs
                .list_tasks()
                .cluster(&self.settings.cluster)
                .desired_status(wanted.clone())
                .set_started_by(ours.then(|| self.settings.started_by()))
                .max_results(100)
                .set_next_token(next)
                .send()
                .await
                .map_err(|error| failure::error(&error, operation))?;
            next = answer.next_token().map(str::to_owned);
            arns.extend(answer.task_arns.unwrap_or_default());
            if next.is_none() {
                break;
            }
        }
        arns.truncate(limit);
        Ok(arns)
    }

    /// Pods of tasks, remembered.
    async fn pods(&self, tasks: &[sdk::Task]) -> Vec<RemotePod> {
        let mut pods = Vec::with_capacity(tasks.len());
        for task in tasks {
            let essential = self.essential_containers(task).await;
            pods.extend(self.remember(task, essential.as_deref()));
        }
        pods
    }

    fn remember(&self, task: &sdk::Task, essential: Option<&[String]>) -> Option<RemotePod> {
        let uid = status::uid(task)?;
        let now = self.now();
        let mut known = self.known();
        let remembered = known.get(&uid);
        let names = status::names(task).or_else(|| remembered.map(|known| known.names.clone()));
        let names = names.unwrap_or_else(|| ("".into(), "".into()));
        let seen = status::remote_pod(task, &names, essential, now)?;
        let made_at = remembered.map_or(seen.created_at, |known| known.made_at);
        known.insert(uid, Known { names, seen: seen.clone(), made_at });
        Some(seen)
    }

    /// The containers whose exit codes count, where it matters: several, and one of them did not end with zero.
    async fn essential_containers(&self, task: &sdk::Task) -> Option<Arc<[String]>> {
        let failed = task.containers().iter().any(|container| container.exit_code().is_some_and(|code| code != 0));
        if !status::has_stopped(task) || task.containers().len() < 2 || !failed {
            return None;
        }
        let arn = task.task_definition_arn()?.to_owned();
        let remembered = self.essential.lock().unwrap_or_else(PoisonError::into_inner).get(&arn).cloned();
        if remembered.is_some() {
            return remembered;
        }
        // Without an answer all containers count; the next look asks again.
        let answer = self.clients.ecs.describe_task_definition().task_definition(&arn).send().await.ok()?;
        let containers = answer.task_definition()?.container_definitions().iter();
        let essential: Arc<[String]> = containers
            .filter(|container| container.essential() != Some(false))
            .filter_map(|container| container.name().map(str::to_owned))
            .collect();
        self.essential.lock().unwrap_or_else(PoisonError::into_inner).insert(arn, essential.clone());
        Some(essential)
    }

    /// What was made so lately that ECS may not know it yet.
    fn just_made(&self, uid: &PodUid) -> Option<RemotePod> {
        let now = self.now();
        let known = self.known();
        known.get(uid).filter(|known| now.since(known.made_at) < CONSISTENCY).map(|known| known.seen.clone())
    }

    /// Every task of this virtual node, running ones first, at most `limit`.
    async fn own_tasks(&self, limit: usize, operation: Operation) -> Result<Vec<sdk::Task>, Error> {
        let mut arns = self.arns(&sdk::DesiredStatus::Running, true, limit, operation).await?;
        // The listing is late, too.
        let listed: HashSet<&String> = arns.iter().collect();
        let now = self.now();
        let late: Vec<String> = {
            let known = self.known();
            let late = known
                .iter()
                .map(|(_, known)| known)
                .filter(|known| known.seen.phase != RemotePhase::Stopped && now.since(known.made_at) < CONSISTENCY);
            late.map(|known| known.seen.id.as_str().to_owned()).filter(|arn| !listed.contains(arn)).collect()
        };
        arns.extend(late);
        if arns.len() < limit {
            let stopped = self.arns(&sdk::DesiredStatus::Stopped, true, limit - arns.len(), operation).await?;
            // Between the two calls a task may have moved from one list to the other.
            let listed: HashSet<String> = arns.iter().cloned().collect();
            arns.extend(stopped.into_iter().filter(|arn| !listed.contains(arn)));
        }
        arns.truncate(limit);
        self.describe(&arns, operation).await
    }

    async fn launch(&self, request: &PodRequest, task: &mut Task) -> Result<sdk::Task, Error> {
        let arns = self.put_secrets(request, &task.secrets).await?;
        task.definition.resolve(&arns);
        // With secrets in it a definition is one pod's own; its name says whose, so that it goes with the pod.
        let family = if arns.is_empty() { task.definition.family() } else { self.pod_family(&request.uid) };
        let definition = if arns.is_empty() {
            self.definition(&task.definition, &family).await?
        } else {
            self.found_or_registered(&task.definition, &family).await?
        };
        if let Err(wait) = self.launches.admit(LAUNCH_PATIENCE).await {
            return Err(Error::new(ErrorKind::Throttled { retry_after: Some(wait) }, NAME, Operation::Create));
        }
        match self.run(request, task, &definition).await {
            // Somebody deregistered it behind our back: forget it, and the next try registers it again.
            Err(error) if error.kind == ErrorKind::Invalid && mentions(&error, "taskdefinition") => {
                self.definitions.lock().await.remove(&family);
                let again = self.definition(&task.definition, &family).await?;
                if again == definition { Err(error) } else { self.run(request, task, &again).await }
            }
            answer => answer,
        }
    }
}

/// The task of an answer to RunTask, which is a success even when nothing was launched.
fn launched(tasks: &[sdk::Task], failures: &[sdk::Failure]) -> Result<sdk::Task, Error> {
    if let Some(task) = tasks.first() {
        return Ok(task.clone());
    }
    let Some(failure) = failures.first() else {
        return Err(told(ErrorKind::Unavailable, Operation::Create, "neither a task nor a failure"));
    };
    let (reason, detail) = (failure.reason().unwrap_or_default(), failure.detail().unwrap_or_default());
    Err(told(failure::refused(reason, detail), Operation::Create, &format!("{reason} {detail}")))
}

fn mentions(error: &Error, words: &str) -> bool {
    let source = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
    source.to_ascii_lowercase().replace(' ', "").contains(words)
}

#[async_trait]
impl Provider for Fargate {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn observe(&self) -> Result<Observation, Error> {
        self.observation().await
    }

    async fn create(&self, request: &PodRequest) -> Result<RemotePod, Error> {
        let mut task = translate(request, &self.settings)
            .map_err(|refusal| told(ErrorKind::Invalid, Operation::Create, &format!("{}: {}", refusal.rule, refusal.sentence)))?;
        match self.launch(request, &mut task).await {
            Ok(launched) => {
                let names = (request.namespace.clone(), request.name.clone());
                let now = self.now();
                let seen = status::remote_pod(&launched, &names, None, now);
                let seen = seen.ok_or_else(|| told(ErrorKind::Unavailable, Operation::Create, "a task without ARN or group"))?;
                self.known().insert(request.uid.clone(), Known { names, seen: seen.clone(), made_at: now });
                Ok(seen)
            }
            Err(error) => {
                // Refused for certain: nobody will ever delete this pod's task.
                if !task.secrets.is_empty() && !matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Throttled { .. }) {
                    self.forget_secrets(&request.uid).await;
                }
                Err(error)
            }
        }
    }

    async fn get(&self, uid: &PodUid) -> Result<RemotePod, Error> {
        let known = self.known().get(uid).map(|known| known.seen.id.as_str().to_owned());
        let tasks = match known {
            Some(arn) => self.describe(&[arn], Operation::Get).await?,
            None => self.own_tasks(TASKS, Operation::Get).await?,
        };
        let pods = self.pods(&tasks).await;
        if let Some(pod) = pods.into_iter().find(|pod| pod.uid == *uid) {
            return Ok(pod);
        }
        if let Some(pod) = self.just_made(uid) {
            return Ok(pod);
        }
        self.known().remove(uid);
        Err(Error::new(ErrorKind::NotFound, NAME, Operation::Get))
    }

    async fn list(&self, limit: usize) -> Result<Vec<RemotePod>, Error> {
        let tasks = self.own_tasks(limit.min(TASKS), Operation::List).await?;
        let mut pods = self.pods(&tasks).await;
        let listed: HashSet<PodUid> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let now = self.now();
        pods.extend({
            let known = self.known();
            let missing = known.iter().filter(|(uid, known)| {
                !listed.contains(uid) && known.seen.phase != RemotePhase::Stopped && now.since(known.made_at) < CONSISTENCY
            });
            missing.map(|(_, known)| known.seen.clone()).collect::<Vec<_>>()
        });
        pods.sort_by(|one, other| {
            let stopped = |pod: &RemotePod| pod.phase == RemotePhase::Stopped;
            (stopped(one), one.created_at, &one.uid).cmp(&(stopped(other), other.created_at, &other.uid))
        });
        // Only a listing of everything tells whose secrets are nobody's.
        if pods.len() < limit {
            let uids: HashSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
            self.sweep_secrets(&uids).await;
        }
        pods.truncate(limit);
        Ok(pods)
    }

    async fn delete(&self, id: &RemoteId) -> Result<(), Error> {
        let answer = self
            .clients
            .ecs
            .stop_task()
            .cluster(&self.settings.cluster)
            .task(id.as_str())
            .reason(status::STOPPED_BY_US)
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let task = answer.task();
                let own_definition = task.and_then(sdk::Task::task_definition_arn).is_some_and(|arn| self.is_pod_family(arn));
                if let Some(uid) = task.and_then(status::uid).filter(|_| own_definition) {
                    self.forget_secrets(&uid).await;
                }
                Ok(())
            }
            Err(error) => {
                let error = failure::error(&error, Operation::Delete);
                // ECS forgets stopped tasks; its secrets then go with the next listing.
                if error.kind == ErrorKind::Invalid && mentions(&error, "notfound") { Ok(()) } else { Err(error) }
            }
        }
    }

    async fn logs(&self, id: &RemoteId, query: &LogQuery) -> Result<LogStream, Error> {
        self.output(id, query).await
    }
}
