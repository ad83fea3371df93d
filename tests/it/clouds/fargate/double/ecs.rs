//! Clusters, task definitions and tasks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ACCOUNT, Answer, CLUSTER, Fault, QUOTA_VCPU, Refusal, State, page, seconds, text};

/// How long nobody but RunTask knows a task.
const LATE: i64 = 400;
/// From the launch: image pull, then running.
const PULLS_AFTER: i64 = 1_000;
const RUNS_AFTER: i64 = 2_000;
/// From the end of the containers to the end of the task.
const STOPS_AFTER: i64 = 1_000;
/// How long a stopped task can be seen.
const REMEMBERED: i64 = 3_600_000;
const OVERRIDE_CHARACTERS: usize = 8192;

/// A revision of a family.
#[derive(Clone)]
pub(super) struct Definition {
    pub(super) arn: String,
    pub(super) family: String,
    revision: usize,
    pub(super) active: bool,
    registered_at: i64,
    pub(super) body: Value,
}

/// A task.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) arn: String,
    pub(super) group: String,
    pub(super) definition: String,
    pub(super) overrides: Value,
    pub(super) lines: Vec<(String, i64, String)>,
    started_by: String,
    request: Value,
    tags: Value,
    capacity_provider: String,
    launched_at: i64,
    /// It never gets to run.
    failure: Option<String>,
    end: Option<End>,
}

#[derive(Clone)]
struct End {
    at: i64,
    code: &'static str,
    reason: String,
    exit_codes: BTreeMap<String, i32>,
}

// === impl Task ===

impl Task {
    pub(super) fn end(&mut self, now: i64, code: &'static str, reason: &str, exit_codes: BTreeMap<String, i32>) {
        self.end.get_or_insert(End { at: now, code, reason: reason.to_owned(), exit_codes });
    }

    pub(super) fn fail(&mut self, words: &str) {
        self.failure = Some(words.to_owned());
    }

    fn settle(&mut self, now: i64) {
        if self.failure.is_some() && now >= self.launched_at + RUNS_AFTER {
            let reason = self.failure.clone().unwrap_or_default();
            self.end(self.launched_at + RUNS_AFTER, "TaskFailedToStart", &reason, BTreeMap::new());
        }
    }

    fn ran(&self) -> bool {
        let until = self.end.as_ref().map_or(i64::MAX, |end| end.at);
        self.failure.is_none() && self.launched_at + RUNS_AFTER <= until
    }

    pub(super) fn stopped_at(&self, now: i64) -> Option<i64> {
        self.end.as_ref().map(|end| end.at + STOPS_AFTER).filter(|at| *at <= now)
    }

    /// Whether a container is at work, or was.
    pub(super) fn has_started(&self, now: i64) -> bool {
        self.ran() && now >= self.launched_at + RUNS_AFTER
    }

    fn last_status(&self, now: i64) -> &'static str {
        if self.stopped_at(now).is_some() {
            "STOPPED"
        } else if self.end.is_some() {
            "DEPROVISIONING"
        } else if now >= self.launched_at + RUNS_AFTER {
            "RUNNING"
        } else if now >= self.launched_at + PULLS_AFTER {
            "PENDING"
        } else {
            "PROVISIONING"
        }
    }

    fn desired_status(&self) -> &'static str {
        if self.end.is_some() { "STOPPED" } else { "RUNNING" }
    }

    fn shown(&self, definition: &Definition, now: i64) -> Value {
        let number = self.arn.rsplit('/').next().expect("a number");
        let running = self.has_started(now);
        let mut task = json!({
            "taskArn": self.arn,
            "clusterArn": format!("arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/{CLUSTER}"),
            "taskDefinitionArn": self.definition,
            "group": self.group,
            "startedBy": self.started_by,
            "lastStatus": self.last_status(now),
            "desiredStatus": self.desired_status(),
            "cpu": definition.body["cpu"],
            "memory": definition.body["memory"],
            "ephemeralStorage": {"sizeInGiB": definition.body["ephemeralStorage"]["sizeInGiB"].as_i64().unwrap_or(20)},
            "launchType": "FARGATE",
            "capacityProviderName": self.capacity_provider,
            "platformVersion": "1.4.0",
            "availabilityZone": "us-east-1a",
            "createdAt": seconds(self.launched_at),
            "overrides": self.overrides,
            "tags": self.tags,
            "version": 1,
            "attachments": [{"id": number, "type": "ElasticNetworkInterface", "status": "ATTACHED",
                "details": [{"name": "privateIPv4Address", "value": "10.0.0.7"}]}],
            "containers": definition.containers().map(|container| self.container(container, now)).collect::<Vec<_>>(),
        });
        if now >= self.launched_at + PULLS_AFTER {
            task["pullStartedAt"] = seconds(self.launched_at + PULLS_AFTER);
        }
        if running {
            task["startedAt"] = seconds(self.launched_at + RUNS_AFTER);
        }
        if let Some(end) = &self.end {
            task["stopCode"] = json!(end.code);
            task["stoppedReason"] = json!(end.reason);
            task["stoppingAt"] = seconds(end.at);
            task["executionStoppedAt"] = seconds(end.at);
        }
        if let Some(at) = self.stopped_at(now) {
            task["stoppedAt"] = seconds(at);
        }
        task
    }

    fn container(&self, definition: &Value, now: i64) -> Value {
        let name = text(definition, "name");
        let mut container = json!({
            "name": name, "image": definition["image"], "taskArn": self.arn, "cpu": definition["cpu"].to_string(),
            "containerArn": format!("{}/{name}", self.arn.replace(":task/", ":container/")),
            "healthStatus": "UNKNOWN", "lastStatus": "PENDING",
            "networkInterfaces": [{"attachmentId": "eni", "privateIpv4Address": "10.0.0.7"}],
        });
        if self.has_started(now) {
            container["lastStatus"] = json!("RUNNING");
        }
        if let Some(end) = self.end.as_ref().filter(|_| self.stopped_at(now).is_some()) {
            container["lastStatus"] = json!("STOPPED");
            if let Some(code) = end.exit_codes.get(name) {
                container["exitCode"] = json!(code);
            } else if self.ran() {
                container["exitCode"] = json!(143);
            }
            if let Some(failure) = &self.failure {
                container["reason"] = json!(failure);
            }
        }
        container
    }
}

// === impl Definition ===

impl Definition {
    fn containers(&self) -> impl Iterator<Item = &Value> {
        self.body["containerDefinitions"].as_array().into_iter().flatten()
    }

    fn shown(&self) -> Value {
        let mut shown = self.body.clone();
        shown.as_object_mut().expect("an object").remove("tags");
        shown["taskDefinitionArn"] = json!(self.arn);
        shown["revision"] = json!(self.revision);
        shown["status"] = json!(if self.active { "ACTIVE" } else { "INACTIVE" });
        shown["registeredAt"] = seconds(self.registered_at);
        shown
    }
}

// === impl State ===

impl State {
    pub(super) fn ecs(&mut self, operation: &str, request: &Value, now: i64) -> Answer {
        if !matches!(text(request, "cluster"), "" | CLUSTER) {
            return Err(Refusal::new("ClusterNotFoundException", "Cluster not found."));
        }
        match operation {
            "DescribeClusters" => {
                let providers =
                    if self.fault == Some(Fault::NoClusterProviders) { vec![] } else { vec!["FARGATE", "FARGATE_SPOT"] };
                Ok(
                    json!({"clusters": [{"clusterName": CLUSTER, "status": "ACTIVE", "capacityProviders": providers}], "failures": []}),
                )
            }
            "RegisterTaskDefinition" => self.register(request, now),
            "DescribeTaskDefinition" => match self.definition(text(request, "taskDefinition")) {
                Some(definition) => Ok(json!({"taskDefinition": definition.shown(), "tags": []})),
                None => Err(Refusal::new("ClientException", "Unable to describe task definition.")),
            },
            "DeregisterTaskDefinition" => {
                let arn = text(request, "taskDefinition").to_owned();
                let found = self.definitions.iter_mut().find(|definition| definition.arn == arn);
                let found =
                    found.ok_or_else(|| Refusal::new("ClientException", "The specified task definition does not exist."))?;
                found.active = false;
                Ok(json!({"taskDefinition": found.shown()}))
            }
            "DeleteTaskDefinitions" => {
                let wanted = request["taskDefinitions"].as_array().expect("a list").clone();
                self.definitions.retain(|definition| definition.active || !wanted.contains(&json!(definition.arn)));
                Ok(json!({"taskDefinitions": [], "failures": []}))
            }
            "ListTaskDefinitions" => {
                let family = text(request, "familyPrefix");
                let active = self.definitions.iter().filter(|definition| definition.active && definition.family == family);
                Ok(json!({"taskDefinitionArns": active.map(|definition| definition.arn.clone()).collect::<Vec<_>>()}))
            }
            "ListTaskDefinitionFamilies" => {
                let prefix = text(request, "familyPrefix");
                let active =
                    self.definitions.iter().filter(|definition| definition.active && definition.family.starts_with(prefix));
                Ok(json!({"families": active.map(|definition| definition.family.clone()).collect::<Vec<_>>()}))
            }
            "RunTask" => self.run(request, now),
            "DescribeTasks" => Ok(self.describe(request, now)),
            "ListTasks" => Ok(self.list(request, now)),
            "StopTask" => self.stop(request, now),
            other => panic!("{other} is not doubled"),
        }
    }

    /// By ARN, by family and revision, or the newest active one of a family.
    pub(super) fn definition(&self, name: &str) -> Option<&Definition> {
        let exact = self.definitions.iter().find(|definition| definition.arn == name);
        exact.or_else(|| self.definitions.iter().rev().find(|definition| definition.active && definition.family == name))
    }

    fn register(&mut self, request: &Value, now: i64) -> Answer {
        let family = text(request, "family").to_owned();
        let revision = self.definitions.iter().filter(|definition| definition.family == family).count() + 1;
        let arn = format!("arn:aws:ecs:us-east-1:{ACCOUNT}:task-definition/{family}:{revision}");
        if !sold(text(request, "cpu"), text(request, "memory")) {
            return Err(Refusal::new("ClientException", "No Fargate configuration exists for given values."));
        }
        let definition = Definition { arn, family, revision, active: true, registered_at: now, body: request.clone() };
        let answer = json!({"taskDefinition": definition.shown(), "tags": request["tags"]});
        self.definitions.push(definition);
        Ok(answer)
    }

    fn run(&mut self, request: &Value, now: i64) -> Answer {
        let invalid = |message: &str| Err(Refusal::new("InvalidParameterException", message));
        let Some(definition) = self.definition(text(request, "taskDefinition")).cloned() else {
            return Err(Refusal::new("ClientException", "TaskDefinition not found."));
        };
        if !definition.active {
            return Err(Refusal::new("ClientException", "TaskDefinition is inactive"));
        }
        if request["overrides"].is_object() && request["overrides"].to_string().chars().count() > OVERRIDE_CHARACTERS {
            return invalid("Container Overrides length must be at most 8192");
        }
        let token = text(request, "clientToken");
        if token.is_empty() || token.len() > 64 || request["count"] != 1 {
            return invalid("a token of 1 to 64 characters and a count of 1 are what Spillway sends");
        }
        if let Some(task) = self.tasks.iter().find(|task| text(&task.request, "clientToken") == token) {
            if task.request != *request {
                let message = "The same client token was used with other parameters";
                let body = json!({"__type": "ConflictException", "message": message, "resourceIds": [task.arn]});
                return Err(Refusal { status: 400, body });
            }
            return Ok(json!({"tasks": [task.shown(&definition, now)], "failures": []}));
        }
        let vcpu = |cpu: &Value| cpu.as_str().and_then(|cpu| cpu.parse::<i64>().ok()).unwrap_or(0);
        let used: i64 = self
            .tasks
            .iter()
            .filter(|task| task.stopped_at(now).is_none())
            .map(|task| self.definition(&task.definition).map_or(0, |definition| vcpu(&definition.body["cpu"])))
            .sum();
        let full = used + vcpu(&definition.body["cpu"]) > QUOTA_VCPU * 1024;
        if full || self.fault == Some(Fault::Quota) {
            let message = "You've reached the limit on the number of vCPUs you can run concurrently";
            return Err(Refusal::new("ClientException", message));
        }
        if self.fault == Some(Fault::NoCapacity) {
            let reason = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
            return Ok(json!({"tasks": [], "failures": [{"reason": reason}]}));
        }
        let task = Task {
            arn: format!(
                "arn:aws:ecs:us-east-1:{ACCOUNT}:task/{CLUSTER}/{:032x}",
                self.calls.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ),
            group: text(request, "group").to_owned(),
            definition: definition.arn.clone(),
            overrides: if request["overrides"].is_object() { request["overrides"].clone() } else { json!({}) },
            lines: Vec::new(),
            started_by: text(request, "startedBy").to_owned(),
            request: request.clone(),
            tags: request["tags"].clone(),
            capacity_provider: text(&request["capacityProviderStrategy"][0], "capacityProvider").to_owned(),
            launched_at: now,
            failure: (self.fault == Some(Fault::UnpullableImage)).then(|| "CannotPullContainerError: not found".to_owned()),
            end: None,
        };
        let answer = json!({"tasks": [task.shown(&definition, now)], "failures": []});
        self.tasks.push(task);
        if self.fault == Some(Fault::LostAnswer) { Err(Refusal::server()) } else { Ok(answer) }
    }

    fn knows(&self, task: &Task, now: i64) -> bool {
        self.fault != Some(Fault::Forgetful) && now >= task.launched_at + LATE
    }

    fn describe(&mut self, request: &Value, now: i64) -> Value {
        self.tasks.iter_mut().for_each(|task| task.settle(now));
        let arns = request["tasks"].as_array().expect("a list");
        assert!(arns.len() <= 100, "ECS takes 100");
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for arn in arns {
            match self.tasks.iter().find(|task| *arn == task.arn).filter(|task| self.knows(task, now)) {
                Some(task) => tasks.push(task.shown(self.definition(&task.definition).unwrap_or(&gone()), now)),
                None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
            }
        }
        json!({"tasks": tasks, "failures": failures})
    }

    fn list(&mut self, request: &Value, now: i64) -> Value {
        self.tasks.iter_mut().for_each(|task| task.settle(now));
        let wanted = if request["desiredStatus"].is_string() { text(request, "desiredStatus") } else { "RUNNING" };
        let found = self.tasks.iter().filter(|task| {
            let ours = !request["startedBy"].is_string() || task.started_by == text(request, "startedBy");
            ours && task.desired_status() == wanted && self.knows(task, now)
        });
        let arns: Vec<String> = found.map(|task| task.arn.clone()).collect();
        let (arns, next) = page(&arns, request, "nextToken");
        let mut answer = json!({"taskArns": arns});
        if let Some(next) = next {
            answer["nextToken"] = json!(next);
        }
        answer
    }

    fn stop(&mut self, request: &Value, now: i64) -> Answer {
        let arn = text(request, "task").to_owned();
        let Some(place) = self.tasks.iter().position(|task| task.arn == arn) else {
            return Err(Refusal::new("InvalidParameterException", "The referenced task was not found."));
        };
        let task = &mut self.tasks[place];
        task.settle(now);
        task.end(now, "UserInitiated", text(request, "reason"), BTreeMap::new());
        task.tags = json!([]);
        let task = task.clone();
        Ok(json!({"task": task.shown(self.definition(&task.definition).unwrap_or(&gone()), now)}))
    }

    pub(super) fn forget_old_tasks(&mut self, now: i64) {
        self.tasks.retain(|task| task.stopped_at(now).is_none_or(|at| now < at + REMEMBERED));
    }
}

/// A definition that was deleted under its task.
fn gone() -> Definition {
    let body = json!({"cpu": "0", "memory": "0", "containerDefinitions": []});
    Definition { arn: String::new(), family: String::new(), revision: 0, active: false, registered_at: 0, body }
}

/// Fargate's sizes: units of 1/1024 vCPU, MiB.
fn sold(cpu: &str, memory: &str) -> bool {
    let (Ok(cpu), Ok(memory)) = (cpu.parse::<i64>(), memory.parse::<i64>()) else { return false };
    let within = |first: i64, last: i64, step: i64| (first..=last).contains(&memory) && (memory - first) % step == 0;
    match cpu {
        256 => [512, 1024, 2048].contains(&memory),
        512 => within(1024, 4096, 1024),
        1024 => within(2048, 8192, 1024),
        2048 => within(4096, 16_384, 1024),
        4096 => within(8192, 30_720, 1024),
        8192 => within(16_384, 61_440, 4096),
        16_384 => within(32_768, 122_880, 8192),
        _ => false,
    }
}
