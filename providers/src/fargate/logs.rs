//! Output of containers, from CloudWatch Logs.
//!
//! CloudWatch cannot be waited on: following is asking again, until the container has ended and nothing more comes.

use std::collections::VecDeque;
use std::time::Duration;

use aws_sdk_ecs::types as sdk;
use futures::{StreamExt, stream};
use policy::Timestamp;
use serde::{Deserialize, Serialize};

use super::failure::{self, told};
use super::{Clients, Fargate, signed, status};
use crate::{Error, ErrorKind, LogQuery, LogStream, Operation, RemoteId};

/// `awslogs-stream-prefix`; streams are named prefix/container/task.
pub(super) const STREAM_PREFIX: &str = "spillway";
/// Pages read backwards for the last lines; a page has up to 10,000 events.
const TAIL_PAGES: usize = 20;
/// Empty pages in a row that CloudWatch may give in the middle of a stream.
const EMPTY_PAGES: usize = 100;
/// What a container wrote last may come seconds after its end.
const STRAGGLERS: Duration = Duration::from_secs(10);

/// A stream of one container's output that is being read.
struct Reader {
    clients: Clients,
    cluster: String,
    task: String,
    group: String,
    stream: String,
    container: String,
    query: LogQuery,
    pace: Duration,
    token: Option<String>,
    /// Bytes that may still be given out.
    left: u64,
    ready: VecDeque<Vec<u8>>,
    /// Reads after the container's end.
    last_reads: u32,
    done: bool,
}

/// The request `GetLogEvents`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GetLogEvents<'r> {
    log_group_name: &'r str,
    log_stream_name: &'r str,
    start_from_head: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// Its answer: a page of a stream.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogEvents {
    #[serde(default)]
    events: Vec<LogEvent>,
    next_forward_token: Option<String>,
    next_backward_token: Option<String>,
}

#[derive(Deserialize)]
struct LogEvent {
    timestamp: Option<i64>,
    message: Option<String>,
}

impl Fargate {
    pub(super) async fn output(&self, id: &RemoteId, query: &LogQuery) -> Result<LogStream, Error> {
        let Some(group) = &self.settings.log_group else {
            let words = "spec.fargate.logGroup of the virtual node names no log group, so no output is kept";
            return Err(told(ErrorKind::Unsupported, Operation::Logs, words));
        };
        let task = self.describe(&[id.as_str().to_owned()], Operation::Logs).await?.pop();
        let unknown = |what: &str| told(ErrorKind::NotFound, Operation::Logs, what);
        let task = task.ok_or_else(|| unknown("no such task"))?;
        if !task.containers().iter().any(|container| container.name() == Some(&query.container)) {
            return Err(unknown("no such container"));
        }
        let number = id.as_str().rsplit('/').next().unwrap_or_default();
        let mut reader = Reader {
            clients: self.clients.clone(),
            cluster: self.settings.cluster.clone(),
            task: id.as_str().to_owned(),
            group: group.clone(),
            stream: format!("{STREAM_PREFIX}/{}/{number}", query.container),
            container: query.container.to_string(),
            query: query.clone(),
            pace: self.access.log_pace,
            token: None,
            left: query.limit_bytes.unwrap_or(u64::MAX),
            ready: VecDeque::new(),
            last_reads: 0,
            done: false,
        };
        if let Some(lines) = query.tail_lines {
            reader.tail(lines as usize).await?;
        }
        Ok(stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(part)) => Some((Ok(part), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }
}

// === impl Reader ===

impl Reader {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut empty = 0;
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            if let Some(mut part) = self.ready.pop_front() {
                part.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= part.len() as u64;
                return Ok(Some(part));
            }
            if self.done {
                return Ok(None);
            }
            let came = self.page().await?;
            // The same token twice is the end of what there is.
            if came == Page::End {
                if !self.query.follow || self.ended().await? {
                    self.done = true;
                } else {
                    tokio::time::sleep(self.pace).await;
                }
                empty = 0;
            } else if self.ready.is_empty() {
                empty += 1;
                if empty > EMPTY_PAGES {
                    self.done = true;
                }
            }
        }
    }

    /// Reads on from the token.
    async fn page(&mut self) -> Result<Page, Error> {
        let Some(answer) = self.read(true, self.token.clone()).await? else { return Ok(Page::End) };
        let next = answer.next_forward_token;
        let end = answer.events.is_empty() && (next.is_none() || next == self.token);
        self.token = next.or_else(|| self.token.take());
        for event in &answer.events {
            self.ready.push_back(self.line(event));
        }
        Ok(if end { Page::End } else { Page::More })
    }

    /// The last lines, read backwards; what comes later is read forwards from there.
    async fn tail(&mut self, lines: usize) -> Result<(), Error> {
        let mut last: VecDeque<Vec<u8>> = VecDeque::new();
        let mut token: Option<String> = None;
        for page in 0..TAIL_PAGES {
            let Some(answer) = self.read(false, token.clone()).await? else { break };
            if page == 0 {
                self.token.clone_from(&answer.next_forward_token);
            }
            for event in answer.events.iter().rev() {
                if last.len() < lines {
                    last.push_front(self.line(event));
                }
            }
            let next = answer.next_backward_token;
            if last.len() >= lines || next.is_none() || next == token {
                break;
            }
            token = next;
        }
        self.ready = last;
        // Without a follower there is nothing more to come; without a stream everything is yet to come.
        self.done = !self.query.follow;
        Ok(())
    }

    /// `None` where nothing was written yet: the stream is made with its first line.
    async fn read(&self, from_head: bool, token: Option<String>) -> Result<Option<LogEvents>, Error> {
        let request = GetLogEvents {
            log_group_name: &self.group,
            log_stream_name: &self.stream,
            start_from_head: from_head,
            start_time: self.query.since.map(Timestamp::millis),
            next_token: token,
        };
        match self.clients.others.call(&signed::LOGS, "GetLogEvents", &request, Operation::Logs).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn line(&self, event: &LogEvent) -> Vec<u8> {
        let mut line = String::new();
        if self.query.timestamps
            && let Some(at) = event.timestamp.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        {
            line = format!("{at:.3} ");
        }
        line.push_str(event.message.as_deref().unwrap_or_default());
        line.push('\n');
        line.into_bytes()
    }

    /// Whether the container has ended and CloudWatch had time for its last words.
    async fn ended(&mut self) -> Result<bool, Error> {
        if self.last_reads > 0 {
            self.last_reads -= 1;
            return Ok(self.last_reads == 0);
        }
        let call = self.clients.ecs.describe_tasks().cluster(&self.cluster).tasks(&self.task);
        let answer = call.send().await.map_err(|error| failure::error(&error, Operation::Logs))?;
        let ended = answer.tasks().first().is_none_or(|task| {
            let container = task.containers().iter().find(|container| container.name() == Some(&self.container));
            status::has_stopped(task) || container.and_then(sdk::Container::last_status) == Some("STOPPED")
        });
        if ended {
            let reads = STRAGGLERS.as_millis() / self.pace.as_millis().max(1);
            self.last_reads = u32::try_from(reads).unwrap_or(u32::MAX).clamp(1, 10);
        }
        Ok(false)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    More,
    End,
}
