//! A command in a container, over a WebSocket of JSON messages.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::NAME;
use super::client::failure;
use super::service::Jobs;
use crate::{Error, ErrorKind, ExecInput, ExecOutput, ExecRequest, ExecSession, Operation, RemoteId};

/// Messages that wait in each direction.
const MESSAGES: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A session without traffic is kept alive.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Close code of a server that failed, with its words.
const INTERNAL_ERROR: u16 = 1011;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Frame {
    stdout: Option<Data>,
    stderr: Option<Data>,
    exited: bool,
    result: Option<Ended>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    data: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ended {
    /// Absent means zero.
    exit_code: i32,
}

/// Starts a command.
pub(super) async fn exec(jobs: &Jobs, id: &RemoteId, request: &ExecRequest) -> Result<ExecSession, Error> {
    let allocation = jobs.latest(Operation::Exec, id).await?;
    let connection = jobs.client.connection(Operation::Exec)?;
    let command = serde_json::Value::from(request.command.clone()).to_string();
    let query = [
        ("task", &*request.container),
        ("command", &command),
        ("tty", if request.tty { "true" } else { "false" }),
        // The token goes into the first message: a header of an upgrade may end in the log of a proxy.
        ("ws_handshake", "true"),
    ];
    let path = format!("/v1/client/allocation/{}/exec", allocation.id);
    let url = jobs.client.websocket_url(&path, &query).ok_or_else(|| error(ErrorKind::Invalid, "not a URL"))?;
    let connector = jobs.client.authorities().map(Connector::Rustls);
    let connecting = connect_async_tls_with_config(url, None, true, connector);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    let (mut socket, _) = match connected {
        Err(_) => return Err(error(ErrorKind::Unavailable, "no answer in time")),
        Ok(Err(refused)) => return Err(refusal(refused)),
        Ok(Ok(connected)) => connected,
    };
    let hello = json!({"version": 1, "auth_token": jobs.client.token()});
    socket.send(text(&hello)).await.map_err(refusal)?;
    // Closing the input of a terminal hangs it up.
    if !request.stdin && !request.tty {
        socket.send(text(&json!({"stdin": {"close": true}}))).await.map_err(refusal)?;
    }
    let (input, receiver) = mpsc::channel(MESSAGES);
    let (sender, output) = mpsc::channel(MESSAGES);
    tokio::spawn(session(socket, receiver, sender, request.stdin, connection));
    Ok(ExecSession { input, output })
}

/// Carries messages until the command has ended or nobody listens any more.
async fn session(
    mut socket: Socket,
    mut input: mpsc::Receiver<ExecInput>,
    output: mpsc::Sender<Result<ExecOutput, Error>>,
    stdin: bool,
    connection: OwnedSemaphorePermit,
) {
    let mut open = true;
    // Not at once: an agent that reads a message when a short command has just ended hangs up without telling its exit code.
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    loop {
        let sent = tokio::select! {
            () = output.closed() => break,
            _ = heartbeat.tick() => socket.send(Message::text("{}")).await,
            next = input.recv(), if open => match next {
                Some(ExecInput::Stdin(bytes)) => socket.send(text(&json!({"stdin": {"data": BASE64.encode(bytes)}}))).await,
                Some(ExecInput::Resize { width, height }) => {
                    socket.send(text(&json!({"tty_size": {"height": height, "width": width}}))).await
                }
                None => {
                    open = false;
                    if stdin { socket.send(text(&json!({"stdin": {"close": true}}))).await } else { Ok(()) }
                }
            },
            received = socket.next() => {
                match understood(received) {
                    Ok(outputs) => {
                        let mut ended = false;
                        for one in outputs {
                            ended |= matches!(one, ExecOutput::Exited { .. });
                            if output.send(Ok(one)).await.is_err() {
                                ended = true;
                            }
                        }
                        if ended {
                            break;
                        }
                    }
                    Err(error) => {
                        let _ = output.send(Err(error)).await;
                        break;
                    }
                }
                Ok(())
            }
        };
        if let Err(broken) = sent {
            // What the server said last explains it better than a broken pipe does.
            let why = match understood(socket.next().await) {
                Err(told) => told,
                Ok(_) => refusal(broken),
            };
            let _ = output.send(Err(why)).await;
            break;
        }
    }
    let _ = socket.close(None).await;
    drop(connection);
}

/// What a message says.
fn understood(received: Option<Result<Message, tungstenite::Error>>) -> Result<Vec<ExecOutput>, Error> {
    let message = match received {
        None => return Err(error(ErrorKind::Unavailable, "the connection ended before the command")),
        Some(Err(broken)) => return Err(refusal(broken)),
        Some(Ok(message)) => message,
    };
    let bytes = match &message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => &bytes[..],
        Message::Close(Some(close)) if u16::from(close.code) == INTERNAL_ERROR => {
            return Err(failed(close.reason.as_str()));
        }
        Message::Close(_) => return Err(error(ErrorKind::Unavailable, "closed before the command ended")),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(Vec::new()),
    };
    let unreadable = |why: String| error(ErrorKind::Unavailable, &why);
    let frame: Frame = serde_json::from_slice(bytes).map_err(|why| unreadable(why.to_string()))?;
    let decode = |data: Data| data.data.map(|data| BASE64.decode(data)).transpose();
    let mut outputs = Vec::new();
    if let Some(bytes) = frame.stdout.map(decode).transpose().map_err(|why| unreadable(why.to_string()))?.flatten() {
        outputs.push(ExecOutput::Stdout(bytes));
    }
    if let Some(bytes) = frame.stderr.map(decode).transpose().map_err(|why| unreadable(why.to_string()))?.flatten() {
        outputs.push(ExecOutput::Stderr(bytes));
    }
    if frame.exited {
        outputs.push(ExecOutput::Exited { code: Some(frame.result.unwrap_or_default().exit_code) });
    }
    Ok(outputs)
}

/// A command that could not be started, in the driver's words.
fn failed(reason: &str) -> Error {
    let kind = if reason.contains("Permission denied") { ErrorKind::Denied } else { ErrorKind::Invalid };
    error(kind, reason)
}

fn refusal(refused: tungstenite::Error) -> Error {
    match refused {
        tungstenite::Error::Http(response) => {
            let words = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            let status = reqwest::StatusCode::from_u16(response.status().as_u16()).unwrap_or_default();
            failure(Operation::Exec, status, None, &words)
        }
        other => Error::new(ErrorKind::Unavailable, NAME, Operation::Exec).because(other),
    }
}

fn text(message: &serde_json::Value) -> Message {
    Message::text(message.to_string())
}

fn error(kind: ErrorKind, words: &str) -> Error {
    Error::new(kind, NAME, Operation::Exec).because(words.to_owned())
}
