//! Secrets and output.

use serde_json::{Value, json};

use super::{ACCOUNT, Answer, Refusal, State, page, seconds, text};

/// A secret.
#[derive(Clone)]
pub(super) struct Secret {
    arn: String,
    content: String,
    tags: Value,
    created_at: i64,
}

// === impl State ===

impl State {
    pub(super) fn secrets_manager(&mut self, operation: &str, request: &Value, now: i64) -> Answer {
        let refuse = |kind: &str, message: &str| Refusal { status: 400, body: json!({"__type": kind, "Message": message}) };
        let missing = || refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret.");
        match operation {
            "CreateSecret" => {
                let name = text(request, "Name").to_owned();
                assert!((32..=64).contains(&text(request, "ClientRequestToken").len()), "AWS wants one");
                if self.secrets.contains_key(&name) {
                    return Err(refuse("ResourceExistsException", "The operation failed because the secret already exists."));
                }
                let arn = format!("arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:{name}-AbCdEf");
                let content = text(request, "SecretString").to_owned();
                let secret = Secret { arn: arn.clone(), content, tags: request["Tags"].clone(), created_at: now };
                self.secrets.insert(name.clone(), secret);
                Ok(json!({"ARN": arn, "Name": name}))
            }
            "DescribeSecret" => {
                let (name, secret) = self.find_secret(text(request, "SecretId")).ok_or_else(missing)?;
                Ok(json!({"ARN": secret.arn, "Name": name}))
            }
            "DeleteSecret" => {
                assert_eq!(request["ForceDeleteWithoutRecovery"], true, "its name must be free again");
                let (name, secret) = self.find_secret(text(request, "SecretId")).ok_or_else(missing)?;
                self.secrets.remove(&name);
                Ok(json!({"ARN": secret.arn, "Name": name, "DeletionDate": seconds(now)}))
            }
            "ListSecrets" => Ok(self.list_secrets(request)),
            other => panic!("{other} is not doubled"),
        }
    }

    fn find_secret(&self, id: &str) -> Option<(String, Secret)> {
        let found = self.secrets.iter().find(|(name, secret)| *name == id || secret.arn == id);
        found.map(|(name, secret)| (name.clone(), secret.clone()))
    }

    fn list_secrets(&self, request: &Value) -> Value {
        let matches = |secret: &Secret| {
            request["Filters"].as_array().into_iter().flatten().all(|filter| {
                let field = if filter["Key"] == "tag-key" { "Key" } else { "Value" };
                secret.tags.as_array().into_iter().flatten().any(|tag| tag[field] == filter["Values"][0])
            })
        };
        let found = self.secrets.iter().filter(|(_, secret)| matches(secret));
        let shown: Vec<Value> = found
            .map(|(name, secret)| json!({"ARN": secret.arn, "Name": name, "CreatedDate": seconds(secret.created_at)}))
            .collect();
        let (shown, next) = page(&shown, request, "NextToken");
        let mut answer = json!({"SecretList": shown});
        if let Some(next) = next {
            answer["NextToken"] = json!(next);
        }
        answer
    }

    /// What ECS puts into a variable for `arn:key::`.
    pub(super) fn read_secret(&self, value_from: &str) -> Option<String> {
        let secret = self.secrets.values().find(|secret| value_from.starts_with(&secret.arn))?;
        let key = value_from[secret.arn.len()..].trim_matches(':');
        let content: Value = serde_json::from_str(&secret.content).ok()?;
        content[key].as_str().map(str::to_owned)
    }

    /// A container writes its arguments when it starts, and whatever it is made to write.
    pub(super) fn logs(&mut self, operation: &str, request: &Value, now: i64) -> Answer {
        assert_eq!(operation, "GetLogEvents");
        let missing = || Refusal::new("ResourceNotFoundException", "The specified log stream does not exist.");
        let mut stream = text(request, "logStreamName").split('/');
        let (_, container, number) = (stream.next(), stream.next().unwrap_or_default(), stream.next().unwrap_or_default());
        let task = self.tasks.iter().find(|task| task.arn.ends_with(&format!("/{number}")) && task.has_started(now));
        let task = task.ok_or_else(missing)?;
        let overrides = task.overrides["containerOverrides"].as_array().into_iter().flatten();
        let hello = overrides.filter(|found| found["name"] == container).flat_map(|found| found["command"].as_array());
        let hello: Vec<&str> = hello.flatten().filter_map(Value::as_str).collect();
        let written = task.lines.iter().filter(|(name, _, _)| name == container).map(|(_, at, line)| (*at, line.as_str()));
        let events: Vec<Value> = std::iter::once((now, hello.join(" ").as_str()))
            .chain([(now, "ready")])
            .chain(written)
            .map(|(at, line)| json!({"timestamp": at, "message": line, "ingestionTime": at}))
            .collect();
        // Tokens are numbers of events; a page has one, so that reading takes several.
        let token = text(request, "nextToken");
        let place = |prefix: &str| token.strip_prefix(prefix).and_then(|place| place.parse::<usize>().ok());
        let (from, to) = match (place("f/"), place("b/")) {
            (Some(from), _) => (from.min(events.len()), events.len().min(from + 1)),
            (_, Some(to)) => (to.saturating_sub(1), to),
            _ if request["startFromHead"] == true => (0, events.len().min(1)),
            _ => (events.len() - 1, events.len()),
        };
        Ok(json!({
            "events": events[from..to], "nextForwardToken": format!("f/{to}"), "nextBackwardToken": format!("b/{from}"),
        }))
    }
}
