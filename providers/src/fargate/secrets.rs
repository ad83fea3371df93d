//! Secrets of pods in AWS Secrets Manager.
//!
//! Their names are `spillway/<owner>/<pod UID>/<which>`, so that a repeated create finds them, a delete needs to remember
//! nothing, and what is left over is found by its tag. A task definition that refers to them is one pod's own and is named
//! `spillway-<owner>-<pod UID>`.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ecs::types::{ContainerDefinition, TaskDefinition, TaskDefinitionFamilyStatus, TaskDefinitionStatus};
use policy::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::settings::hex;
use super::{Fargate, PodSecret, failure, signed};
use crate::{Error, ErrorKind, Operation, PodRequest, PodUid};

const TAG_OWNER: &str = "spillway.dev/owner";
/// From one search for leftovers to the next.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Younger secrets may belong to a pod that is being made.
const SWEEP_AGE: Duration = Duration::from_secs(3600);
/// Secrets looked at in one search; the rest is found by the next.
const SWEEP_MOST: usize = 1000;

/// When leftovers were last searched for.
#[derive(Debug, Default)]
pub(super) struct Sweep(Mutex<Option<Timestamp>>);

/// What is read of the answers to `CreateSecret` and `DescribeSecret`.
#[derive(Deserialize)]
struct Arn {
    #[serde(rename = "ARN")]
    arn: String,
}

/// The answer to `ListSecrets`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretsPage {
    #[serde(default)]
    secret_list: Vec<ListedSecret>,
    next_token: Option<String>,
}

/// A secret without what is in it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedSecret {
    name: Option<String>,
    /// Seconds since the epoch.
    created_date: Option<f64>,
}

impl Fargate {
    fn secret_prefix(&self, uid: &PodUid) -> String {
        format!("spillway/{}/{uid}/", self.settings.owner())
    }

    /// Family of a definition that refers to one pod's secrets.
    pub(super) fn pod_family(&self, uid: &PodUid) -> String {
        format!("spillway-{}-{uid}", self.settings.owner())
    }

    pub(super) fn is_pod_family(&self, definition_arn: &str) -> bool {
        definition_arn.contains(&format!("task-definition/spillway-{}-", self.settings.owner()))
    }

    /// Makes the secrets of a pod, or finds them made; ARNs by their short names.
    pub(super) async fn put_secrets(
        &self,
        request: &PodRequest,
        secrets: &[PodSecret],
    ) -> Result<BTreeMap<String, String>, Error> {
        let mut arns = BTreeMap::new();
        for secret in secrets {
            let name = format!("{}{}", self.secret_prefix(&request.uid), secret.name);
            let arn = self.put_secret(&name, secret).await?;
            arns.insert(secret.name.clone(), arn);
        }
        Ok(arns)
    }

    async fn put_secret(&self, name: &str, secret: &PodSecret) -> Result<String, Error> {
        let others = &self.clients.others;
        // Libraries of AWS make one up; whoever calls without them must give one.
        let token = hex(Sha256::digest(name.as_bytes()).as_slice(), 64);
        let request = json!({"Name": name, "ClientRequestToken": token, "SecretString": secret.content.expose(), "Tags": [
            {"Key": TAG_OWNER, "Value": self.settings.owner()},
            {"Key": "spillway.dev/virtual-node", "Value": self.settings.ownership.virtual_node},
        ]});
        let answer: Result<Arn, Error> = others.call(&signed::SECRETS, "CreateSecret", &request, Operation::Create).await;
        let answer = match answer {
            // By an earlier try.
            Err(error) if error.kind == ErrorKind::Conflict => {
                others.call(&signed::SECRETS, "DescribeSecret", &json!({"SecretId": name}), Operation::Create).await
            }
            answer => answer,
        };
        Ok(answer?.arn)
    }

    /// Takes away what a pod had in the secret store, and the definition that refers to it. What cannot be taken away now is
    /// found by [`Fargate::sweep_secrets`].
    pub(super) async fn forget_secrets(&self, uid: &PodUid) {
        let family = self.pod_family(uid);
        for name in self.secret_names(uid).await {
            self.delete_secret(&name).await;
        }
        self.delete_definitions(&family).await;
    }

    /// Names of a pod's secrets, from the definition that refers to them: lists of secrets are late.
    async fn secret_names(&self, uid: &PodUid) -> Vec<String> {
        let prefix = self.secret_prefix(uid);
        let mut names = vec![format!("{prefix}environment"), format!("{prefix}registry-0")];
        let family = self.pod_family(uid);
        if let Ok(answer) = self.clients.ecs.describe_task_definition().task_definition(family).send().await {
            let containers = answer.task_definition().map(TaskDefinition::container_definitions).unwrap_or_default();
            let logins = containers.iter().filter_map(|container| container.repository_credentials());
            names = logins.map(|login| login.credentials_parameter().to_owned()).collect();
            let variables = containers.iter().flat_map(ContainerDefinition::secrets);
            names.extend(variables.filter_map(|secret| secret_arn(secret.value_from())));
            names.sort();
            names.dedup();
            // Nobody else's, whatever the definition says.
            names.retain(|arn| arn.contains(&prefix));
        }
        names
    }

    async fn delete_secret(&self, id: &str) {
        // At once: its name must be free if the pod is tried again, and nobody wants it back.
        let request = json!({"SecretId": id, "ForceDeleteWithoutRecovery": true});
        let answer: Result<IgnoredAny, Error> =
            self.clients.others.call(&signed::SECRETS, "DeleteSecret", &request, Operation::Delete).await;
        if let Err(error) = answer
            && error.kind != ErrorKind::NotFound
        {
            tracing::warn!(secret = id, error = failure::display(&error), "a pod's secret is left for the next search");
        }
    }

    async fn delete_definitions(&self, family: &str) {
        let ecs = &self.clients.ecs;
        let listed =
            ecs.list_task_definitions().family_prefix(family).status(TaskDefinitionStatus::Active).max_results(10).send().await;
        let arns = listed.map(|answer| answer.task_definition_arns.unwrap_or_default()).unwrap_or_default();
        for arn in &arns {
            if let Err(error) = ecs.deregister_task_definition().task_definition(arn).send().await {
                tracing::warn!(
                    definition = arn,
                    error = failure::display(&failure::error(&error, Operation::Delete)),
                    "a pod's task definition is left"
                );
            }
        }
        if !arns.is_empty() {
            // Deregistered is as good as gone for us; deleting it tidies the account.
            let _ = ecs.delete_task_definitions().set_task_definitions(Some(arns)).send().await;
        }
    }

    /// Now and then takes away the secrets of pods that are not there any more. `pods` is everything that there is.
    pub(super) async fn sweep_secrets(&self, pods: &HashSet<&str>) {
        let now = self.now();
        {
            let mut last = self.secrets.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now.since(last) < SWEEP_EVERY) {
                return;
            }
            *last = Some(now);
        }
        if self.settings.execution_role_arn.is_none() {
            return;
        }
        match self.own_secrets().await {
            Ok(secrets) => {
                for uid in leftovers(&secrets, &format!("spillway/{}/", self.settings.owner()), pods, now) {
                    tracing::info!(%uid, "taking away secrets of a pod that is gone");
                    self.forget_secrets(&uid).await;
                }
            }
            Err(error) => tracing::warn!(error = failure::display(&error), "secrets of pods that are gone were not searched for"),
        }
        self.sweep_definitions(pods).await;
    }

    async fn own_secrets(&self) -> Result<Vec<ListedSecret>, Error> {
        let mut request = json!({"MaxResults": 100, "Filters": [
            {"Key": "tag-key", "Values": [TAG_OWNER]},
            {"Key": "tag-value", "Values": [self.settings.owner()]},
        ]});
        let mut secrets = Vec::new();
        while secrets.len() < SWEEP_MOST {
            let page: SecretsPage = self.clients.others.call(&signed::SECRETS, "ListSecrets", &request, Operation::List).await?;
            secrets.extend(page.secret_list);
            let Some(next) = page.next_token else { break };
            request["NextToken"] = json!(next);
        }
        Ok(secrets)
    }

    /// Definitions of pods whose secrets are gone already.
    async fn sweep_definitions(&self, pods: &HashSet<&str>) {
        let prefix = format!("spillway-{}-", self.settings.owner());
        let call = self.clients.ecs.list_task_definition_families().family_prefix(&prefix);
        let Ok(answer) = call.status(TaskDefinitionFamilyStatus::Active).max_results(100).send().await else { return };
        for family in answer.families() {
            let Some(uid) = family.strip_prefix(&prefix) else { continue };
            let remembered = self.known().get(&PodUid::new(uid)).is_some();
            if !pods.contains(uid) && !remembered && self.definition_age(family).await.is_some_and(|age| age > SWEEP_AGE) {
                self.delete_definitions(family).await;
            }
        }
    }

    async fn definition_age(&self, family: &str) -> Option<Duration> {
        let answer = self.clients.ecs.describe_task_definition().task_definition(family).send().await.ok()?;
        let registered = answer.task_definition()?.registered_at()?.to_millis().ok()?;
        Some(self.now().since(Timestamp::from_millis(registered)))
    }
}

/// The secret's ARN without the key in it: `arn:aws:secretsmanager:region:account:secret:name:key::`.
fn secret_arn(value_from: &str) -> Option<String> {
    let parts: Vec<&str> = value_from.splitn(8, ':').collect();
    (parts.len() >= 7).then(|| parts[..7].join(":"))
}

/// Pods whose secrets are old and who are not there.
fn leftovers(secrets: &[ListedSecret], prefix: &str, pods: &HashSet<&str>, now: Timestamp) -> Vec<PodUid> {
    let old = secrets.iter().filter(|secret| {
        let made = secret.created_date.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        made.is_some_and(|made| now.since(Timestamp::EPOCH + made) > SWEEP_AGE)
    });
    let uids = old.filter_map(|secret| secret.name.as_deref()?.strip_prefix(prefix)?.split('/').next());
    let mut uids: Vec<PodUid> = uids.filter(|uid| !pods.contains(uid)).map(PodUid::new).collect();
    uids.sort();
    uids.dedup();
    uids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_secrets_of_pods_that_are_gone_are_leftovers() {
        let now = Timestamp::from_millis(100_000_000);
        let listed = |name: &str, created_date: Option<f64>| ListedSecret { name: Some(name.to_owned()), created_date };
        let secret = |name: &str, seconds_ago: f64| listed(name, Some(100_000.0 - seconds_ago));
        let secrets = [
            secret("spillway/me/gone/environment", 4000.0),
            secret("spillway/me/gone/registry-0", 4000.0),
            secret("spillway/me/new/environment", 3000.0),
            secret("spillway/me/there/environment", 4000.0),
            secret("spillway/other/gone/environment", 4000.0),
            listed("spillway/me/undated/environment", None),
        ];
        let pods = HashSet::from(["there"]);
        assert_eq!(leftovers(&secrets, "spillway/me/", &pods, now), [PodUid::new("gone")]);
    }

    #[test]
    fn the_key_is_not_part_of_the_secrets_arn() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:spillway/a/b/environment-AbCdEf";
        assert_eq!(secret_arn(&format!("{arn}:v0::")).as_deref(), Some(arn));
        assert_eq!(secret_arn("v0"), None);
    }
}
