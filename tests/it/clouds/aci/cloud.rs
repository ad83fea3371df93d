//! The double's state: container groups that live in virtual time. Pure; [`super::server`] puts HTTP around it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::contract::{HELLO, Trouble};

/// From the PUT on, in milliseconds: not visible yet, image pull, running.
const VISIBLE: i64 = 1_500;
const PULLING: i64 = 4_000;
const RUNNING: i64 = 9_000;
/// How long a group still lists after its deletion was accepted.
const DELETING: i64 = 8_000;
/// Groups that have no room fail after they were accepted, now and then.
const FAILING: i64 = 6_000;

/// What Azure answers: a status, a body unless there is none, and advice on when to come back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Option<Value>,
    pub(super) retry_after: Option<u64>,
}

/// One subscription with one resource group in one location.
#[derive(Default)]
pub(super) struct Cloud {
    pub(super) now: i64,
    groups: BTreeMap<String, Group>,
    troubles: Vec<Trouble>,
    /// Calls by method, for faults that hit every second one.
    calls: BTreeMap<String, u64>,
    pub(super) quota_cores: i64,
    pub(super) quota_spot_cores: i64,
    pub(super) page: usize,
    /// Where commands can be talked to.
    pub(super) web_socket: String,
    /// The password of each command that was started, and the command.
    pub(super) commands: BTreeMap<String, String>,
    /// Answers what Azure never would.
    pub(super) nonsense: bool,
    /// GETs that were answered.
    pub(super) reads: usize,
}

struct Group {
    body: Value,
    made_at: i64,
    end: Option<(i64, i32)>,
    deleted_at: Option<i64>,
    evicted_at: Option<i64>,
    image_fails: bool,
    output: Vec<(i64, String)>,
}

// === impl Cloud ===

impl Cloud {
    pub(super) fn new(now: i64, web_socket: String) -> Cloud {
        Cloud { now, quota_cores: 100, quota_spot_cores: 10, page: 50, web_socket, ..Cloud::default() }
    }

    pub(super) fn begin(&mut self, trouble: Trouble) {
        self.troubles.push(trouble);
    }

    pub(super) fn end_trouble(&mut self) {
        self.troubles.clear();
    }

    /// The containers of a pod's group end.
    pub(super) fn finish(&mut self, uid: &str, code: i32) {
        let now = self.now;
        let group = self.of(uid);
        assert!(now - group.made_at >= RUNNING, "it does not run");
        group.end = Some((now, code));
    }

    /// Azure takes the machine of a Spot group back.
    pub(super) fn evict(&mut self, uid: &str) {
        self.of(uid).evicted_at = Some(self.now);
    }

    /// The container writes a line.
    pub(super) fn write(&mut self, uid: &str, line: &str) {
        let now = self.now;
        self.of(uid).output.push((now, line.to_owned()));
    }

    /// The first lines of a container's output are dropped, as Azure does with more than 4 MB.
    pub(super) fn drop_output(&mut self, uid: &str, lines: usize) {
        self.of(uid).output.drain(..lines);
    }

    /// Somebody changes a tag.
    pub(super) fn tag(&mut self, uid: &str, key: &str, value: &str) {
        self.of(uid).body["tags"][key] = json!(value);
    }

    fn of(&mut self, uid: &str) -> &mut Group {
        let mut groups = self.groups.values_mut();
        groups.find(|group| group.body["tags"]["spillway-uid"] == uid).expect("a group of that pod")
    }

    /// Answers a call. `path` begins after the subscription's identifier.
    pub(super) fn answer(&mut self, method: &str, path: &str, query: &BTreeMap<String, String>, body: &[u8]) -> Answer {
        let now = self.now;
        self.groups.retain(|_, group| group.deleted_at.is_none_or(|at| now < at + DELETING));
        if let Some(refusal) = self.trouble(method) {
            return refusal;
        }
        self.reads += usize::from(method == "GET");
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["providers", _, "locations", _, "usages"]) => Answer::ok(self.usages()),
            ("GET", ["providers", _, "locations", location, "capabilities"]) => Answer::ok(capabilities(location)),
            ("GET", ["resourceGroups", "bursts", "providers", _, "containerGroups"]) => self.list(query),
            ("PUT", ["resourceGroups", "bursts", "providers", _, "containerGroups", name]) => self.put(name, body),
            ("GET", ["resourceGroups", "bursts", "providers", _, "containerGroups", name]) => self.get(name),
            ("DELETE", ["resourceGroups", "bursts", "providers", _, "containerGroups", name]) => self.delete(name),
            ("GET", ["resourceGroups", "bursts", .., name, "containers", container, "logs"]) => self.logs(name, container, query),
            ("POST", ["resourceGroups", "bursts", .., name, "containers", container, "exec"]) => self.exec(name, container, body),
            (_, ["resourceGroups", group, ..]) => {
                Answer::error(404, "ResourceGroupNotFound", &format!("Resource group '{group}' could not be found."))
            }
            _ => Answer::error(404, "InvalidResourceType", "no such operation"),
        }
    }

    /// What goes wrong before a call is looked at.
    fn trouble(&mut self, method: &str) -> Option<Answer> {
        let calls = self.calls.entry(method.to_owned()).or_default();
        *calls += 1;
        let second = calls.is_multiple_of(2);
        self.troubles.iter().find_map(|trouble| match trouble {
            Trouble::Throttling => {
                let mut answer = Answer::error(429, "TooManyRequests", "Number of requests exceeded the limit.");
                answer.retry_after = Some(7);
                Some(answer)
            }
            Trouble::ExpiredCredentials => {
                Some(Answer::error(401, "ExpiredAuthenticationToken", "The access token has expired."))
            }
            Trouble::PartialOutage if second => Some(Answer::error(503, "ServerTimeout", "The request timed out.")),
            Trouble::PartialOutage
            | Trouble::LostAnswer
            | Trouble::NoCapacity
            | Trouble::QuotaExceeded
            | Trouble::UnpullableImage => None,
        })
    }

    fn has(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble)
    }

    fn put(&mut self, name: &str, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(refusal) = refuse(name, &body).or_else(|| self.refuse_size(&body)) {
            return refusal;
        }
        if let Some(group) = self.groups.get(name) {
            if group.deleted_at.is_some() || group.body != body {
                return Answer::error(
                    409,
                    "ContainerGroupTransitioning",
                    "The container group is still transitioning, please retry later.",
                );
            }
            return Answer::ok(group.view(name, self.now, true));
        }
        let image_fails = self.has(Trouble::UnpullableImage);
        let group = Group {
            body,
            made_at: self.now,
            end: None,
            deleted_at: None,
            evicted_at: None,
            image_fails,
            output: vec![(self.now + RUNNING, HELLO.to_owned())],
        };
        let view = group.view(name, self.now, true);
        self.groups.insert(name.to_owned(), group);
        if self.has(Trouble::LostAnswer) {
            return Answer::error(504, "GatewayTimeout", "The gateway did not receive a response in time.");
        }
        Answer { status: 201, ..Answer::ok(view) }
    }

    fn refuse_size(&self, body: &Value) -> Option<Answer> {
        let (cpu, memory) = (total(body, "cpu"), total(body, "memoryInGB"));
        let location = body["location"].as_str().unwrap_or_default();
        if self.has(Trouble::NoCapacity) || cpu > 4.0 || memory > 16.0 {
            let message = format!(
                "The requested resource is not available in the location '{location}' at this moment. Please retry with a different \
                 resource request or in another location. Resource requested: '{cpu}' CPU '{memory}' GB memory 'Linux' OS"
            );
            return Some(Answer::error(409, "ServiceUnavailable", &message));
        }
        let spot = body["properties"]["priority"] == "Spot";
        let (name, limit) = if spot { ("StandardSpotCores", self.quota_spot_cores) } else { ("StandardCores", self.quota_cores) };
        let limit = if self.has(Trouble::QuotaExceeded) { 0 } else { limit };
        let (used, wanted) = (self.cores(spot), whole(cpu));
        (used + wanted > limit).then(|| {
            let message = format!(
                "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota '{name}' exceeded in region \
                 '{location}'. Limit: '{limit}', Usage: '{used}' Requested: '{wanted}'."
            );
            Answer::error(409, "ContainerGroupQuotaReached", &message)
        })
    }

    /// Groups whose deletion was accepted no longer count.
    fn cores(&self, spot: bool) -> i64 {
        let counted = self.groups.values().filter(|group| group.deleted_at.is_none() && group.end.is_none());
        counted
            .filter(|group| (group.body["properties"]["priority"] == "Spot") == spot)
            .map(|group| whole(total(&group.body, "cpu")))
            .sum()
    }

    fn get(&self, name: &str) -> Answer {
        match self.groups.get(name) {
            Some(group) if self.now >= group.made_at + VISIBLE => {
                let mut view = group.view(name, self.now, true);
                if self.nonsense {
                    view["properties"]["containers"] = json!("none");
                }
                Answer::ok(view)
            }
            _ => missing(name),
        }
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Answer {
        let from: usize = query.get("$skipToken").and_then(|token| token.parse().ok()).unwrap_or(0);
        let visible: Vec<_> = self.groups.iter().filter(|(_, group)| self.now >= group.made_at + 2 * VISIBLE).collect();
        let page = visible.iter().skip(from).take(self.page);
        let value: Vec<Value> = page.map(|(name, group)| group.view(name, self.now, false)).collect();
        let mut body = json!({ "value": value });
        if from + self.page < visible.len() {
            let version = query.get("api-version").map_or("", String::as_str);
            let next = format!(
                "https://management.azure.com/subscriptions/{}/resourceGroups/bursts/providers/Microsoft.ContainerInstance/\
                 containerGroups?api-version={version}&%24skipToken={}",
                query.get("subscription").map_or("", String::as_str),
                from + self.page
            );
            body["nextLink"] = json!(next);
        }
        Answer::ok(body)
    }

    fn delete(&mut self, name: &str) -> Answer {
        let now = self.now;
        match self.groups.get_mut(name) {
            None => Answer { status: 204, body: None, retry_after: None },
            Some(group) => {
                group.deleted_at.get_or_insert(now);
                Answer { status: 202, body: None, retry_after: Some(5) }
            }
        }
    }

    fn logs(&self, name: &str, container: &str, query: &BTreeMap<String, String>) -> Answer {
        let Some(group) = self.groups.get(name) else { return missing(name) };
        if !group.names().any(|found| found == container) {
            return Answer::error(404, "ContainerNotFound", &format!("The container '{container}' is not found."));
        }
        let dated = query.get("timestamps").is_some_and(|value| value == "true");
        let written = group.output.iter().filter(|(at, _)| *at <= self.now);
        let lines: Vec<String> =
            written.map(|(at, line)| if dated { format!("{} {line}\n", time(*at)) } else { format!("{line}\n") }).collect();
        let tail = query.get("tail").and_then(|tail| tail.parse().ok()).unwrap_or(lines.len());
        Answer::ok(json!({ "content": lines[lines.len().saturating_sub(tail)..].concat() }))
    }

    fn exec(&mut self, name: &str, container: &str, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(group) = self.groups.get(name) else { return missing(name) };
        if !group.names().any(|found| found == container) || group.state(self.now) != "Running" {
            return Answer::error(400, "ContainerNotRunning", "The container is not running.");
        }
        let password = format!("password-{}-{}", name, self.commands.len());
        self.commands.insert(password.clone(), body["command"].as_str().unwrap_or_default().to_owned());
        Answer::ok(json!({ "webSocketUri": format!("{}/exec/{container}", self.web_socket), "password": password }))
    }

    fn usages(&self) -> Value {
        let groups = self.groups.values().filter(|group| group.deleted_at.is_none() && group.end.is_none()).count();
        let entry = |name: &str, used: i64, limit: i64| json!({ "unit": "Count", "currentValue": used, "limit": limit, "name": { "value": name, "localizedValue": name } });
        json!({ "value": [
            entry("ContainerGroups", i64::try_from(groups).expect("few"), 100),
            entry("StandardCores", self.cores(false), self.quota_cores),
            entry("StandardSpotCores", self.cores(true), self.quota_spot_cores),
        ] })
    }
}

// === impl Group ===

impl Group {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.body["properties"]["containers"].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str())
    }

    fn provisioning(&self, now: i64) -> &'static str {
        match now - self.made_at {
            _ if self.deleted_at.is_some() => "Deleting",
            age if self.image_fails && age >= FAILING => "Failed",
            age if age < PULLING => "Pending",
            age if age < RUNNING => "Creating",
            _ => "Succeeded",
        }
    }

    fn state(&self, now: i64) -> &'static str {
        match self.end {
            _ if self.image_fails || now - self.made_at < RUNNING => "Pending",
            Some((_, 0)) => "Succeeded",
            Some(_) => "Failed",
            None if self.evicted_at.is_some() => "Pending",
            None => "Running",
        }
    }

    /// As Azure shows it: without secrets, and in lists without what goes on.
    fn view(&self, name: &str, now: i64, whole: bool) -> Value {
        let mut view = self.body.clone();
        view["name"] = json!(name);
        view["type"] = json!("Microsoft.ContainerInstance/containerGroups");
        let properties = &mut view["properties"];
        hide_secrets(properties);
        properties["provisioningState"] = json!(self.provisioning(now));
        let state = self.state(now);
        if properties.get("ipAddress").is_some() && state == "Running" {
            properties["ipAddress"]["ip"] = json!("10.240.0.17");
        }
        if whole {
            properties["instanceView"] = json!({ "state": state, "events": [] });
            for container in properties["containers"].as_array_mut().into_iter().flatten() {
                container["properties"]["instanceView"] = self.container_view(now);
            }
        }
        view
    }

    fn container_view(&self, now: i64) -> Value {
        let age = now - self.made_at;
        let event = |name: &str, kind: &str, message: &str, at: i64| json!({ "name": name, "type": kind, "message": message, "count": 1, "firstTimestamp": time(at), "lastTimestamp": time(at) });
        let mut events = Vec::new();
        if age >= PULLING {
            events.push(event("Pulling", "Normal", "pulling image \"hello\"", self.made_at + PULLING));
        }
        if self.image_fails && age >= PULLING {
            let message = "Failed to pull image \"hello\": manifest unknown";
            events.push(event("Failed", "Warning", message, self.made_at + PULLING + 100));
        }
        let started = self.made_at + RUNNING;
        let ran = !self.image_fails && age >= RUNNING;
        if ran {
            events.push(event("Started", "Normal", "Started container", started));
        }
        let state = match self.end {
            Some((at, code)) if ran => json!({
                "state": "Terminated", "exitCode": code, "startTime": time(started), "finishTime": time(at),
                "detailStatus": if code == 0 { "Completed" } else { "Error" },
            }),
            _ if ran && self.evicted_at.is_none() => {
                json!({ "state": "Running", "startTime": time(started), "detailStatus": "" })
            }
            _ => json!({ "state": "Waiting", "detailStatus": "" }),
        };
        json!({ "restartCount": 0, "currentState": state, "events": events })
    }
}

// === impl Answer ===

impl Answer {
    fn ok(body: Value) -> Answer {
        Answer { status: 200, body: Some(body), retry_after: None }
    }

    pub(super) fn error(status: u16, code: &str, message: &str) -> Answer {
        let body = json!({ "error": { "code": code, "message": message } });
        Answer { status, body: Some(body), retry_after: None }
    }
}

fn missing(name: &str) -> Answer {
    let message =
        format!("The Resource 'Microsoft.ContainerInstance/containerGroups/{name}' under resource group 'bursts' was not found.");
    Answer::error(404, "ResourceNotFound", &message)
}

/// What Azure refuses whatever else happens.
fn refuse(name: &str, body: &Value) -> Option<Answer> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let named = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| letter(*byte) || *byte == b'-')
        && letter(bytes[0])
        && letter(bytes[bytes.len() - 1]);
    if !named {
        return Some(Answer::error(400, "InvalidContainerGroupName", "The container group name is not valid."));
    }
    let properties = &body["properties"];
    let spot = properties["priority"] == "Spot";
    if spot && (properties.get("ipAddress").is_some() || properties.get("subnetIds").is_some()) {
        let code = "SpotPriorityContainerGroupNotSupportedForInboundConnectivity";
        return Some(Answer::error(400, code, "Spot Priority is not supported for container groups with inbound connectivity."));
    }
    if properties["priority"] != "Regular" && !spot {
        return Some(Answer::error(400, "PriorityNotSpecified", "The 'Priority' must be one of 'Regular,Spot'."));
    }
    let limit = |container: &Value, what: &str| container["properties"]["resources"]["limits"][what].as_f64().unwrap_or(0.0);
    let above = |container: &Value, what: &str| limit(container, what) > total(body, what) + 1e-9;
    let mut containers = properties["containers"].as_array().into_iter().flatten();
    if containers.any(|container| above(container, "cpu") || above(container, "memoryInGB")) {
        let code = "ContainerLimitGreaterThanContainerGroupTotalRequest";
        return Some(Answer::error(400, code, "A limit is greater than the total request of the group."));
    }
    if total(body, "cpu") < 1.0 || total(body, "memoryInGB") < 1.0 {
        return Some(Answer::error(400, "InvalidResourceRequests", "A container group has at least one vCPU and one GB."));
    }
    None
}

fn hide_secrets(properties: &mut Value) {
    for container in ["containers", "initContainers"] {
        for container in properties[container].as_array_mut().into_iter().flatten() {
            for variable in container["properties"]["environmentVariables"].as_array_mut().into_iter().flatten() {
                variable.as_object_mut().expect("a variable").remove("secureValue");
            }
        }
    }
    for list in ["containers", "initContainers"] {
        // Indexing has put a null where there was nothing.
        if properties[list].is_null() {
            properties.as_object_mut().expect("properties").remove(list);
        }
    }
    if let Some(credentials) = properties.get_mut("imageRegistryCredentials").and_then(Value::as_array_mut) {
        credentials.iter_mut().filter_map(Value::as_object_mut).for_each(|credential| drop(credential.remove("password")));
    }
    for volume in properties.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(files) = volume.get_mut("secret") {
            *files = json!({});
        }
        if let Some(share) = volume.get_mut("azureFile").and_then(Value::as_object_mut) {
            share.remove("storageAccountKey");
        }
    }
    for container in properties["containers"].as_array_mut().into_iter().flatten() {
        // The same null, one level deeper.
        let own = container["properties"].as_object_mut().expect("properties");
        own.retain(|_, value| !value.is_null());
    }
    for container in properties.get_mut("initContainers").and_then(Value::as_array_mut).into_iter().flatten() {
        container["properties"].as_object_mut().expect("properties").retain(|_, value| !value.is_null());
    }
}

fn total(body: &Value, what: &str) -> f64 {
    let containers = body["properties"]["containers"].as_array().into_iter().flatten();
    containers.filter_map(|container| container["properties"]["resources"]["requests"][what].as_f64()).sum()
}

fn whole(cores: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "at most a few thousand cores")]
    let whole = cores.ceil() as i64;
    whole
}

fn capabilities(location: &str) -> Value {
    let entry = |os: &str, kind: &str, cpu: f64, memory: f64| {
        json!({
            "resourceType": "containerGroups", "osType": os, "location": location, "ipAddressType": kind, "gpu": "None",
            "capabilities": { "maxMemoryInGB": memory, "maxCpu": cpu, "maxGpuCount": 0 },
        })
    };
    json!({ "value": [entry("Linux", "Public", 4.0, 16.0), entry("Linux", "Private", 4.0, 16.0), entry("Windows", "Public", 4.0, 16.0)] })
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).expect("a time").to_string()
}
