//! What can be had: quota, what runs, whether the cluster takes tasks, prices.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ecs::types as sdk;
use policy::Timestamp;
use policy::virtual_node::{CapacityType, Limits, Prices, Usage};
use serde::Deserialize;
use serde_json::json;

use super::{Fargate, TASKS, failure, price_list, signed, status};
use crate::prices::{self, Offer};
use crate::{Architecture, Error, ErrorKind, Health, Observation, OperatingSystem, Operation, Platform};

/// Quotas change by a support case, prices a few times a year.
const QUOTA_AGE: Duration = Duration::from_secs(300);
const PRICES_AGE: Duration = Duration::from_secs(24 * 3600);
/// From one try to the next where a price list cannot be read.
const PRICES_RETRY: Duration = Duration::from_secs(600);

/// Answers that stay true for a while.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    quota: Mutex<Option<(Timestamp, Limits)>>,
    prices: Mutex<Published>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Published {
    asked_at: Option<Timestamp>,
    prices: Option<Prices>,
}

/// Answer of Service Quotas.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceQuota {
    quota: Quota,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Quota {
    value: Option<f64>,
}

impl Fargate {
    pub(super) async fn observation(&self) -> Result<Observation, Error> {
        let cluster = self.cluster_health().await?;
        let usage = self.usage().await?;
        let (quota, quota_health) = match self.quota().await {
            Ok(quota) => (quota, Health::Healthy),
            Err(error) => (
                Limits::default(),
                Health::Degraded { reason: format!("the quota cannot be read: {}", failure::display(&error)) },
            ),
        };
        let health = if cluster == Health::Healthy { quota_health } else { cluster };
        Ok(Observation { at: self.now(), quota, usage, largest_pod: Limits::default(), health, prices: self.prices().await })
    }

    /// A cluster that is gone, or lacks our capacity provider, refuses every task.
    async fn cluster_health(&self) -> Result<Health, Error> {
        let answer = self.clients.ecs.describe_clusters().clusters(&self.settings.cluster).send().await;
        let answer = answer.map_err(|error| failure::error(&error, Operation::Observe))?;
        let (cluster, provider) = (&self.settings.cluster, self.settings.capacity_provider());
        let down = |reason: String| Ok(Health::Down { reason });
        let Some(found) = answer.clusters().first() else {
            return down(format!("there is no ECS cluster {cluster} in {}", self.settings.region));
        };
        if found.status() != Some("ACTIVE") {
            return down(format!("ECS cluster {cluster} is {}", found.status().unwrap_or("in an unknown state")));
        }
        if !found.capacity_providers().iter().any(|known| known == provider) {
            return down(format!(
                "ECS cluster {cluster} has no capacity provider {provider}: see aws ecs put-cluster-capacity-providers"
            ));
        }
        Ok(Health::Healthy)
    }

    /// What runs in the cluster, whoever started it, of this capacity type.
    async fn usage(&self) -> Result<Usage, Error> {
        let arns = self.arns(&sdk::DesiredStatus::Running, false, TASKS, Operation::Observe).await?;
        let tasks = self.describe(&arns, Operation::Observe).await?;
        let spot = self.settings.capacity_type == CapacityType::Spot;
        let mut usage = Usage::default();
        for task in tasks.iter().filter(|task| !status::has_stopped(task)) {
            if (task.capacity_provider_name() == Some("FARGATE_SPOT")) == spot {
                usage.add(&status::shape(task).usage());
            }
        }
        Ok(usage)
    }

    /// The account's vCPUs in this region. Service Quotas counts them in fractions; memory and tasks it does not limit.
    async fn quota(&self) -> Result<Limits, Error> {
        let now = self.now();
        let remembered = *self.observed.quota.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, quota)) = remembered.filter(|(at, _)| now.since(*at) < QUOTA_AGE) {
            return Ok(quota);
        }
        let code = match self.settings.capacity_type {
            CapacityType::OnDemand => "L-3032A538",
            CapacityType::Spot => "L-36FBB829",
        };
        let request = json!({"ServiceCode": "fargate", "QuotaCode": code});
        let answer = self.clients.others.call(&signed::QUOTAS, "GetServiceQuota", &request, Operation::Observe).await;
        let vcpus = match answer {
            Ok(ServiceQuota { quota }) => quota.value,
            // An account without the quota has no limit that we could know.
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let quota = Limits { cpu_millis: vcpus.map(thousandths), ..Limits::default() };
        *self.observed.quota.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, quota));
        Ok(quota)
    }

    /// The price list's prices, else those that are built in. Spot is in no price list.
    async fn prices(&self) -> Option<Prices> {
        let offer = Offer {
            provider: policy::virtual_node::Provider::Fargate,
            region: &self.settings.region,
            capacity_type: self.settings.capacity_type,
            platform: Platform { os: OperatingSystem::Linux, architecture: self.settings.architecture },
        };
        if let Some(published) = self.published(self.settings.architecture).await {
            return Some(published);
        }
        match prices::embedded(&offer) {
            Ok(listed) => Some(listed.prices),
            Err(error) => {
                tracing::debug!(%error, "no prices");
                None
            }
        }
    }

    async fn published(&self, architecture: Architecture) -> Option<Prices> {
        let base = self.access.price_list.as_deref().filter(|_| self.settings.capacity_type == CapacityType::OnDemand)?;
        let now = self.now();
        let known = *self.observed.prices.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if known.prices.is_some() { PRICES_AGE } else { PRICES_RETRY };
        if known.asked_at.is_some_and(|asked| now.since(asked) < pause) {
            return known.prices;
        }
        let read = price_list::read(&self.clients.http, base, &self.settings.region, architecture, now).await;
        let prices = read.map_err(|error| tracing::warn!(%error, "AWS's price list was not read")).ok();
        // Old prices are better than none; their age tells.
        let prices = prices.or(known.prices);
        *self.observed.prices.lock().unwrap_or_else(PoisonError::into_inner) = Published { asked_at: Some(now), prices };
        prices
    }
}

/// A count with a fraction, as AWS gives it, in thousandths; rounded down, because it is a limit.
#[expect(clippy::cast_possible_truncation, reason = "clamped first")]
fn thousandths(count: f64) -> i64 {
    (count.clamp(0.0, 1e12) * 1000.0) as i64
}
