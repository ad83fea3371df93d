//! Output of a container. Standard output and standard error are two files at the client; the first comes first.

use std::collections::VecDeque;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{mpsc, watch};

use super::client::{Bytes, Client};
use super::service::Jobs;
use super::status::has_ended;
use crate::{Change, Error, LogQuery, LogStream, Operation, RemoteId};

const STREAMS: [&str; 2] = ["stdout", "stderr"];
/// Pieces of output that wait for a slow reader.
const PIECES: usize = 16;
/// How often a container's state is read when no event says that it changed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Where the output of one container is.
#[derive(Clone)]
struct Output {
    client: Client,
    allocation: String,
    task: String,
}

/// The output that the query asks for.
pub(super) async fn logs(
    jobs: &Jobs,
    changes: BoxStream<'static, Change>,
    id: &RemoteId,
    query: &LogQuery,
) -> Result<LogStream, Error> {
    let allocation = jobs.latest(Operation::Logs, id).await?;
    let output = Output { client: jobs.client.clone(), allocation: allocation.id, task: query.container.to_string() };
    let bytes = if query.follow {
        // The first read also tells whether there is such a container and whether it has started.
        let mut starts = [0; 2];
        for (start, stream) in starts.iter_mut().zip(STREAMS) {
            let first = output.read(stream, 0).await?;
            if let Some(lines) = query.tail_lines {
                *start = skipped(first, lines).await?;
            }
        }
        followed(jobs.clone(), changes, id.clone(), output, starts)
    } else {
        let [stdout, stderr] = [output.read(STREAMS[0], 0).await?, output.read(STREAMS[1], 0).await?];
        let all = stdout.chain(stderr).boxed();
        match query.tail_lines {
            Some(lines) => stream::iter([Ok(last(all, lines).await?)]).boxed(),
            None => all,
        }
    };
    Ok(match query.limit_bytes {
        Some(most) => limited(bytes, most),
        None => bytes,
    })
}

impl Output {
    /// What has been written until now, from an offset on.
    async fn read(&self, stream: &str, offset: u64) -> Result<Bytes, Error> {
        self.open(stream, offset, "false").await
    }

    async fn open(&self, stream: &str, offset: u64, follow: &str) -> Result<Bytes, Error> {
        let path = format!("/v1/client/fs/logs/{}", self.allocation);
        let offset = offset.to_string();
        let query = [
            ("task", self.task.as_str()),
            ("type", stream),
            ("plain", "true"),
            ("origin", "start"),
            ("offset", &offset),
            ("follow", follow),
        ];
        self.client.stream(Operation::Logs, &path, &query, None).await
    }

    /// Sends what is written until the container has ended. Nomad itself never ends such a stream.
    async fn follow(
        self,
        stream: &str,
        mut offset: u64,
        mut ended: watch::Receiver<bool>,
        sender: mpsc::Sender<Result<Vec<u8>, Error>>,
    ) -> Result<(), Error> {
        let mut bytes = self.open(stream, offset, "true").await?;
        let over = async move { ended.wait_for(|ended| *ended).await.map(drop) };
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = sender.closed() => return Ok(()),
                // An error is a watcher that is gone.
                _ = &mut over => break,
                part = bytes.next() => {
                    let Some(part) = part.transpose()? else { break };
                    offset = offset.saturating_add(part.len() as u64);
                    if sender.send(Ok(part)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        drop(bytes);
        // What was written last may still be on its way: read it from where the stream was left.
        let mut rest = self.read(stream, offset).await?;
        while let Some(part) = rest.try_next().await? {
            if sender.send(Ok(part)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn followed(jobs: Jobs, mut changes: BoxStream<'static, Change>, id: RemoteId, output: Output, starts: [u64; 2]) -> LogStream {
    let (sender, receiver) = mpsc::channel(PIECES);
    let (end, ended) = watch::channel(false);
    for (stream, start) in STREAMS.into_iter().zip(starts) {
        let (output, ended, sender) = (output.clone(), ended.clone(), sender.clone());
        tokio::spawn(async move {
            if let Err(error) = output.follow(stream, start, ended, sender.clone()).await {
                let _ = sender.send(Err(error)).await;
            }
        });
    }
    drop((ended, sender));
    tokio::spawn(async move {
        // Both followers are gone when nobody watches for the end any more.
        while !end.is_closed() {
            match jobs.latest(Operation::Logs, &id).await {
                Ok(allocation) if !has_ended(&allocation, &output.task) => {}
                // Gone, or beyond reach: the followers say which.
                Ok(_) | Err(_) => break,
            }
            let changed = async {
                while let Some(change) = changes.next().await {
                    match change {
                        Change::Pod(uid) if jobs.settings.job_id(&uid) != id => {}
                        Change::Pod(_) | Change::Everything => return,
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = end.closed() => {}
            }
        }
        let _ = end.send(true);
    });
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }).boxed()
}

/// Where the last lines begin. Output is bounded by the job's `LogConfig`, so that all of it can be read.
async fn skipped(mut bytes: Bytes, lines: u32) -> Result<u64, Error> {
    let (mut begins, mut at, mut fresh) = (VecDeque::new(), 0_u64, true);
    while let Some(part) = bytes.try_next().await? {
        for byte in part {
            if fresh {
                begins.push_back(at);
                if begins.len() > lines as usize {
                    begins.pop_front();
                }
            }
            fresh = byte == b'\n';
            at += 1;
        }
    }
    Ok(begins.front().copied().unwrap_or(at))
}

/// The last lines of a stream that ends.
async fn last(mut bytes: LogStream, lines: u32) -> Result<Vec<u8>, Error> {
    let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
    let mut line = Vec::new();
    while let Some(part) = bytes.try_next().await? {
        for byte in part {
            line.push(byte);
            if byte == b'\n' {
                kept.push_back(std::mem::take(&mut line));
                if kept.len() > lines as usize {
                    kept.pop_front();
                }
            }
        }
    }
    if !line.is_empty() {
        kept.push_back(line);
        if kept.len() > lines as usize {
            kept.pop_front();
        }
    }
    Ok(kept.into_iter().flatten().collect())
}

/// At most so many bytes.
fn limited(bytes: LogStream, most: u64) -> LogStream {
    let cut = stream::unfold((bytes, most), |(mut bytes, left)| async move {
        if left == 0 {
            return None;
        }
        let part = bytes.next().await?;
        Some(match part {
            Ok(mut part) => {
                part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - part.len() as u64;
                (Ok(part), (bytes, left))
            }
            Err(error) => (Err(error), (bytes, 0)),
        })
    });
    cut.boxed()
}

#[cfg(test)]
mod tests;
