//! Every exchange that was recorded from a real agent, against the stand-in, in the order of the recording.
//!
//! Status, headers, text and shape must be equal; identifiers, indexes and times are what they are. What the recording did
//! without recording it (some jobs were registered between two exchanges) is done here, too.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::stand_in::StandIn;

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Values that differ from run to run.
const VOLATILE: [&str; 18] = [
    "AccessorID",
    "AllocationTime",
    "CreateTime",
    "FinishedAt",
    "Hash",
    "ModifyTime",
    "NormScore",
    "Scores",
    "SecretID",
    "SigningKeyID",
    "StartedAt",
    "StatusUpdatedAt",
    "SubmitTime",
    "Time",
    "Timestamp",
    "binpack",
    "UpdateTime",
    "AllocModifyIndex",
];
/// What describes the recording's own machine, which the stand-in does not play.
const MACHINE: [&str; 2] = ["Attributes", "Meta"];

struct Replay {
    http: reqwest::Client,
    url: String,
    /// Identifiers of the recording and what they are here.
    ids: HashMap<String, String>,
    /// The last index of the recording and of the stand-in.
    index: (u64, u64),
}

fn recording(name: &str) -> Vec<Value> {
    let path = format!("{}/../../shared/fixtures/nomad/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).expect("a recording")
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.matches('-').count() == 4
}

/// The first difference.
fn difference(path: &str, recorded: &Value, here: &Value) -> Option<String> {
    let differs = || Some(format!("{path}: recorded {recorded}, here {here}"));
    match (recorded, here) {
        (Value::Object(recorded), Value::Object(here)) => {
            let names = |of: &serde_json::Map<String, Value>| of.keys().cloned().collect::<std::collections::BTreeSet<_>>();
            let node = recorded.contains_key("SchedulingEligibility");
            if names(recorded) != names(here) {
                let (recorded, here) = (names(recorded), names(here));
                let (missing, more): (Vec<_>, Vec<_>) =
                    (recorded.difference(&here).collect(), here.difference(&recorded).collect());
                return Some(format!("{path}: missing {missing:?}, too many {more:?}"));
            }
            recorded.iter().find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                if VOLATILE.contains(&name.as_str()) || (node && MACHINE.contains(&name.as_str())) {
                    let same = std::mem::discriminant(value) == std::mem::discriminant(&here[name]);
                    return (!same).then(|| format!("{path}: recorded {value}, here {}", here[name]));
                }
                if name.ends_with("Index") {
                    let zero = |value: &Value| value.as_u64().map(|index| index == 0);
                    return (zero(value) != zero(&here[name])).then(|| format!("{path}: recorded {value}, here {}", here[name]));
                }
                difference(&path, value, &here[name])
            })
        }
        (Value::Array(recorded), Value::Array(here)) => {
            if recorded.len() != here.len() {
                return Some(format!("{path}: {} recorded, {} here", recorded.len(), here.len()));
            }
            // Nomad sorts by random identifiers.
            let sorted = |items: &[Value]| {
                let mut items = items.to_vec();
                if items.iter().all(|item| item["CreateIndex"].is_u64()) && !path.ends_with("Events") {
                    items.sort_by_key(|item| (item["Name"].as_str().map(str::to_owned), item["CreateIndex"].as_u64()));
                }
                items
            };
            let (recorded, here) = (sorted(recorded), sorted(here));
            let mut pairs = recorded.iter().zip(&here).enumerate();
            pairs.find_map(|(place, (recorded, here))| difference(&format!("{path}[{place}]"), recorded, here))
        }
        (Value::String(recorded), Value::String(here)) if is_uuid(recorded) && is_uuid(here) => None,
        (recorded, here) if recorded == here => None,
        _ => differs(),
    }
}

impl Replay {
    fn new(url: String) -> Replay {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Replay { http, url, ids: HashMap::new(), index: (0, 0) }
    }

    /// A path of the recording as it is here.
    fn path(&self, path: &str) -> String {
        let mut path = path.to_owned();
        for (recorded, here) in &self.ids {
            path = path.replace(recorded, here);
        }
        if let Some(place) = path.find("index=").filter(|_| path.contains("wait=")) {
            let digits: String = path[place + 6..].chars().take_while(char::is_ascii_digit).collect();
            let recorded: u64 = digits.parse().expect("an index");
            let here = (self.index.1 + recorded).saturating_sub(self.index.0);
            path = path.replace(&format!("index={digits}"), &format!("index={here}"));
        }
        path
    }

    /// Remembers what identifiers of the recording are here.
    fn learn(&mut self, recorded: &Value, here: &Value) {
        match (recorded, here) {
            (Value::Object(recorded), Value::Object(here)) => {
                for (name, value) in recorded {
                    self.learn(value, here.get(name).unwrap_or(&Value::Null));
                }
            }
            (Value::Array(recorded), Value::Array(here)) => {
                for (recorded, here) in recorded.iter().zip(here) {
                    self.learn(recorded, here);
                }
            }
            (Value::String(recorded), Value::String(here)) if is_uuid(recorded) && is_uuid(here) => {
                self.ids.insert(recorded.clone(), here.clone());
            }
            _ => {}
        }
    }

    async fn send(&self, request: &Value) -> (u16, reqwest::header::HeaderMap, String) {
        let method = request["method"].as_str().expect("a method").parse().expect("a method");
        let url = format!("{}{}", self.url, self.path(request["path"].as_str().expect("a path")));
        let mut call = self.http.request(method, url);
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            call = call.header(name, value.as_str().expect("a header"));
        }
        if let Some(body) = request["rawBody"].as_str() {
            call = call.body(body.to_owned());
        } else if !request["body"].is_null() {
            call = call.body(request["body"].to_string());
        }
        let answer = call.send().await.expect("an answer");
        (answer.status().as_u16(), answer.headers().clone(), answer.text().await.expect("a body"))
    }

    /// One exchange; a state that takes its time is waited for.
    async fn exchange(&mut self, exchange: &Value) -> Result<(), String> {
        let (request, response) = (&exchange["request"], &exchange["response"]);
        let started = Instant::now();
        loop {
            let (status, headers, text) = self.send(request).await;
            let here: Value = serde_json::from_str(&text)
                .ok()
                .filter(|_| !response["body"].is_string() || text.starts_with('"'))
                .unwrap_or(json!(text));
            let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let mut found =
                (response["status"] != status).then(|| format!("status: recorded {}, here {status}", response["status"]));
            for name in ["Content-Type", "X-Nomad-Knownleader", "X-Nomad-Index"] {
                let recorded = response["headers"][name].as_str().map(str::to_owned);
                let same =
                    if name == "X-Nomad-Index" { recorded.is_some() == header(name).is_some() } else { recorded == header(name) };
                found = found.or_else(|| (!same).then(|| format!("{name}: recorded {recorded:?}, here {:?}", header(name))));
            }
            found = found.or_else(|| difference("", &response["body"], &here));
            let patient = request["method"] == "GET" && started.elapsed() < PATIENCE;
            match found {
                None => {
                    self.learn(&response["body"], &here);
                    let index = |value: Option<String>| value.and_then(|value| value.parse().ok()).filter(|index| *index > 0);
                    let recorded = response["headers"]["X-Nomad-Index"].as_str().map(str::to_owned);
                    if let (Some(recorded), Some(here)) = (index(recorded), index(header("X-Nomad-Index"))) {
                        self.index = (recorded, here);
                    }
                    return Ok(());
                }
                Some(_) if patient => tokio::time::sleep(Duration::from_millis(5)).await,
                Some(found) => return Err(found),
            }
        }
    }

    /// What the recording did in between: a job is registered; its allocation and evaluation are known by the recorded names.
    async fn register(&mut self, job: &Value, allocation: Option<&str>, evaluation: Option<&str>) {
        let request = json!({"method": "PUT", "path": "/v1/jobs", "body": {"Job": job}});
        let (status, _, text) = self.send(&request).await;
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        if let Some(evaluation) = evaluation {
            self.ids.insert(evaluation.to_owned(), answer["EvalID"].as_str().expect("an evaluation").to_owned());
        }
        if let Some(allocation) = allocation {
            self.allocation(job["ID"].as_str().expect("a job"), allocation).await;
        }
    }

    /// Waits for the allocation of a job.
    async fn allocation(&mut self, job: &str, recorded: &str) {
        let request = json!({"method": "GET", "path": format!("/v1/job/{job}/allocations")});
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let all: Value = serde_json::from_str(&self.send(&request).await.2).expect("JSON");
            if let Some(id) = all[0]["ID"].as_str() {
                self.ids.insert(recorded.to_owned(), id.to_owned());
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{job} was not placed");
    }

    /// A session of messages: what each stream said, and how it ended. Streams overtake each other.
    async fn session(&self, exchange: &Value) -> Result<(), String> {
        let url =
            format!("{}{}", self.url.replacen("http", "ws", 1), self.path(exchange["request"]["path"].as_str().expect("a path")));
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.map_err(|error| error.to_string())?;
        let frames = exchange["frames"].as_array().expect("frames");
        for frame in frames.iter().filter(|frame| frame.get("sent").is_some()) {
            socket.send(Message::text(frame["sent"].to_string())).await.map_err(|error| error.to_string())?;
        }
        let mut here = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Text(text) => {
                    here.push(json!({"received": serde_json::from_str::<Value>(text.as_str()).expect("JSON")}));
                }
                Message::Close(Some(close)) if u16::from(close.code) != 1000 => {
                    here.push(json!({"close": {"code": u16::from(close.code), "reason": close.reason.as_str()}}));
                }
                _ => {}
            }
        }
        let (recorded, here) = (told(frames), told(&here));
        if recorded == here { Ok(()) } else { Err(format!("recorded {recorded:?}, here {here:?}")) }
    }
}

/// Data of each stream, and every other message.
fn told(frames: &[Value]) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut streams, mut others) = (BTreeMap::<String, String>::new(), Vec::new());
    for frame in frames.iter().filter(|frame| frame.get("sent").is_none()) {
        let data = ["stdout", "stderr"].into_iter().find_map(|name| Some((name, frame["received"][name]["data"].as_str()?)));
        match data {
            Some((name, data)) => {
                let bytes = BASE64.decode(data).expect("base64");
                streams.entry(name.to_owned()).or_default().push_str(&String::from_utf8_lossy(&bytes));
            }
            None => others.push(frame.to_string()),
        }
    }
    others.sort();
    (streams, others)
}

/// Followed output: frames of the same form, and heartbeats between them.
async fn followed(replay: &Replay, exchange: &Value) -> Result<(), String> {
    let url = format!("{}{}", replay.url, replay.path(exchange["request"]["path"].as_str().expect("a path")));
    let mut bytes = replay.http.get(url).send().await.map_err(|error| error.to_string())?.bytes_stream();
    let read =
        |text: &str| serde_json::Deserializer::from_str(text).into_iter::<Value>().filter_map(Result::ok).collect::<Vec<Value>>();
    let names = |frames: &[Value]| {
        frames.iter().map(|frame| frame.as_object().map(|it| it.keys().cloned().collect::<Vec<_>>())).collect::<Vec<_>>()
    };
    let recorded = read(exchange["response"]["stream"].as_str().expect("a stream"));
    let (mut text, started) = (String::new(), Instant::now());
    loop {
        let here = read(&text);
        let forms = |frames: &[Value]| names(frames).into_iter().collect::<std::collections::BTreeSet<_>>();
        if forms(&here) == forms(&recorded) && here[0]["File"] == recorded[0]["File"] {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("recorded {recorded:?}, here {here:?}"));
        }
        match tokio::time::timeout(PATIENCE, bytes.next()).await {
            Ok(Some(Ok(part))) => text.push_str(&String::from_utf8_lossy(&part)),
            other => return Err(format!("{other:?} after {text}")),
        }
    }
}

/// Events of a job that runs: for each state of its allocation one of the same form.
async fn events(replay: &Replay, exchange: &Value) -> Result<(), String> {
    let url = format!("{}{}", replay.url, replay.path(exchange["request"]["path"].as_str().expect("a path")));
    let mut bytes = replay.http.get(url).send().await.map_err(|error| error.to_string())?.bytes_stream();
    let of_job = |line: &Value| line["Events"][0]["Payload"]["Allocation"]["JobID"] == "spw-ev";
    let status = |line: &Value| line["Events"][0]["Payload"]["Allocation"]["ClientStatus"].clone();
    let recorded: Vec<Value> =
        exchange["response"]["lines"].as_array().expect("lines").iter().filter(|line| of_job(line)).cloned().collect();
    let mut wanted: Vec<&Value> = recorded.iter().rev().take(3).collect();
    let (mut text, mut last) = (String::new(), String::new());
    while !wanted.is_empty() {
        match tokio::time::timeout(PATIENCE, bytes.next()).await {
            Ok(Some(Ok(part))) => text.push_str(&String::from_utf8_lossy(&part)),
            other => return Err(format!("{other:?}; last difference: {last}")),
        }
        while let Some(end) = text.find('\n') {
            let line: Value = serde_json::from_str(&text[..end]).map_err(|error| error.to_string())?;
            text.drain(..=end);
            if of_job(&line) {
                wanted.retain(|recorded| {
                    let found = difference("", recorded, &line);
                    if let (Some(found), true) = (&found, status(recorded) == status(&line)) {
                        last.clone_from(found);
                    }
                    found.is_some()
                });
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recording_replays() {
    // The recording holds states that pass, and other tests keep the machine busy meanwhile.
    let stand_in = StandIn::at_a_beat_of(Duration::from_millis(400), &[]).await;
    let mut replay = Replay::new(stand_in.url());
    let all = recording("open");
    let named = |name: &str| all.iter().find(|exchange| exchange["name"] == name).expect("an exchange");
    let mut differences = Vec::new();
    for exchange in &all {
        let name = exchange["name"].as_str().expect("a name");
        let path = exchange["request"]["path"].as_str().expect("a path");
        let body = &exchange["response"]["body"];
        match name {
            "allocation-failed-exit-3" | "allocation-driver-failure" | "allocation-killed-signal-9" => {
                replay.register(&body["Job"], body["ID"].as_str(), None).await;
            }
            "evaluation-with-failed-placement" => {
                let mut job = named("register-that-will-block")["request"]["body"]["Job"].clone();
                replay.allocation("spw-blocked", "").await;
                replay.ids.remove("");
                (job["ID"], job["Name"]) = (json!("spw-blocked2"), json!("spw-blocked2"));
                replay.register(&job, None, body["ID"].as_str()).await;
            }
            "logs-follow-framed" => {
                let long = &named("allocation-stopped-by-us")["response"]["body"];
                replay.register(&long["Job"], long["ID"].as_str(), None).await;
                let running = json!({"request": {"method": "GET", "path": format!("/v1/client/fs/logs/{}?task=main&type=stdout&plain=true", long["ID"].as_str().expect("an ID"))}});
                let started = Instant::now();
                while replay.send(&running["request"]).await.0 != 200 && started.elapsed() < PATIENCE {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            "register-unknown-node-pool" => {
                let purge = json!({"method": "DELETE", "path": "/v1/job/spw-bad?purge=true"});
                assert_eq!(replay.send(&purge).await.0, 200);
            }
            "allocation-with-variable" => replay.allocation("spw-secret", body["ID"].as_str().expect("an ID")).await,
            "allocation-init-and-sidecar-complete" => replay.allocation("spw-multi", body["ID"].as_str().expect("an ID")).await,
            "event-stream-allocation" => {
                let mut job = named("register")["request"]["body"]["Job"].clone();
                (job["ID"], job["Name"]) = (json!("spw-ev"), json!("spw-ev"));
                let events = exchange["response"]["lines"].as_array().expect("lines");
                let recorded = events.iter().rev().find_map(|line| line["Events"][0]["Payload"]["Allocation"]["ID"].as_str());
                replay.register(&job, recorded, None).await;
            }
            _ => {}
        }
        let found = if exchange.get("frames").is_some_and(Value::is_array) {
            replay.session(exchange).await
        } else if path.starts_with("/v1/event/stream") {
            events(&replay, exchange).await
        } else if exchange["response"]["stream"].is_string() {
            followed(&replay, exchange).await
        } else {
            replay.exchange(exchange).await
        };
        if let Err(found) = found {
            differences.push(format!("{name}: {found}"));
        }
    }
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), all.len(), differences.join("\n"));
}

#[tokio::test]
async fn the_recording_with_tokens_replays() {
    let scoped = "aaaaaaaa-0000-4000-8000-000000000002";
    let stand_in = StandIn::start(&[(scoped, false)]).await;
    let mut replay = Replay::new(stand_in.url());
    for exchange in &recording("acl") {
        if let Err(found) = replay.exchange(exchange).await {
            panic!("{}: {found}", exchange["name"]);
        }
    }
}
