//! Commands in tasks, over a WebSocket.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, handshake};

use super::http::{Query, refuse};
use super::tasks;
use super::world::World;

/// How long a terminal waits for its size, or for its end.
const SETTLE: Duration = Duration::from_millis(100);

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

pub(super) fn exec(world: &Arc<World>, id: &str, query: &Query, mut request: Request) -> Response {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return refuse(500, "websocket connection not found in context");
    };
    if !world.state().allocations.contains_key(id) {
        return refuse(404, &format!("Unknown allocation {id:?}"));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let (world, id, query) = (world.clone(), id.to_owned(), query.clone());
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            session(socket, &world, &id, &query).await;
        }
    });
    Response::builder()
        .status(101)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, handshake::derive_accept_key(key.as_bytes()))
        .body(Body::empty())
        .expect("a response")
}

/// The next JSON message.
async fn receive(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await?.ok()? {
            // A heartbeat.
            Message::Text(text) if text.as_str() == "{}" => {}
            Message::Text(text) => return serde_json::from_str(text.as_str()).ok(),
            Message::Binary(bytes) => return serde_json::from_slice(&bytes).ok(),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

async fn fail(socket: &mut Socket, why: String) {
    close(socket, CloseCode::Error, &why).await;
}

/// Says goodbye and waits for the answer: a connection that is closed with something unread is reset, and what was sent last
/// is lost.
async fn close(socket: &mut Socket, code: CloseCode, reason: &str) {
    let _ = socket.close(Some(CloseFrame { code, reason: reason.to_owned().into() })).await;
    let answered = async { while let Some(Ok(_)) = socket.next().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), answered).await;
}

async fn session(mut socket: Socket, world: &World, id: &str, query: &Query) {
    if query.get("ws_handshake") == "true" {
        let Some(hello) = receive(&mut socket).await else { return };
        let token = hello["auth_token"].as_str().unwrap_or_default();
        if !world.tokens.is_empty() && !world.tokens.contains_key(token) {
            return fail(&mut socket, "Permission denied".to_owned()).await;
        }
    }
    let words: Vec<String> = serde_json::from_str(query.get("command")).unwrap_or_default();
    let tty = query.get("tty") == "true";
    let mut size = (24_u64, 80_u64);
    let mut first = None;
    if tty {
        first = tokio::time::timeout(SETTLE, receive(&mut socket)).await.ok().flatten();
        match &first {
            Some(message) if message["stdin"]["close"] == true => {
                // A terminal that is hung up: 128 + SIGHUP.
                return exited(&mut socket, 129).await;
            }
            Some(message) if message["tty_size"].is_object() => {
                let number = |name: &str| message["tty_size"][name].as_u64().unwrap_or(0);
                size = (number("height"), number("width"));
            }
            Some(_) | None => {}
        }
    }
    match start(world, id, query.get("task"), &words, tty.then_some(size)) {
        Err(why) => fail(&mut socket, why).await,
        Ok(child) => carry(socket, child, tty, first).await,
    }
}

fn start(world: &World, id: &str, task: &str, words: &[String], tty: Option<(u64, u64)>) -> Result<Child, String> {
    if !world.state().processes.contains_key(&(id.to_owned(), task.to_owned())) {
        return Err(format!("rpc error: code = Unknown desc = task {task:?} is not running."));
    }
    let program = words.first().ok_or("command is not present")?;
    let absent =
        || format!("rpc error: code = Unknown desc = failed to start command: fork/exec {program}: no such file or directory");
    if program.starts_with('/') && !std::path::Path::new(program).exists() {
        return Err(absent());
    }
    let mut command = match tty {
        None => {
            let mut command = Command::new(program);
            command.args(&words[1..]);
            command
        }
        Some((rows, columns)) => {
            let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
            let mut command = Command::new("script");
            command.args(["-qefc", &format!("stty rows {rows} cols {columns}; exec {}", quoted.join(" ")), "/dev/null"]);
            command.env("TERM", "dumb");
            command
        }
    };
    command.env_clear().envs(tasks::environment(world, id, task)).current_dir(world.home(id).join(task)).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|_| absent())
}

async fn carry(mut socket: Socket, mut child: Child, tty: bool, first: Option<Value>) {
    let mut stdin = child.stdin.take();
    let (sender, mut output) = mpsc::channel::<(&str, Vec<u8>)>(16);
    let pipes: [(&str, Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>); 2] = [
        ("stdout", child.stdout.take().map(|pipe| Box::new(pipe) as _)),
        ("stderr", child.stderr.take().map(|pipe| Box::new(pipe) as _)),
    ];
    for (name, pipe) in pipes {
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut pipe = pipe.expect("a pipe");
            let mut buffer = vec![0; 16 << 10];
            while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
                if sender.send((name, buffer[..length].to_vec())).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut waiting = first;
    loop {
        if let Some(message) = waiting.take() {
            if let Some(data) = message["stdin"]["data"].as_str().and_then(|data| BASE64.decode(data).ok())
                && let Some(stdin) = &mut stdin
            {
                let _ = stdin.write_all(&data).await;
            }
            if message["stdin"]["close"] == true {
                stdin = None;
            }
        }
        tokio::select! {
            message = receive(&mut socket) => match message {
                Some(message) => waiting = Some(message),
                None => return,
            },
            piece = output.recv() => match piece {
                Some((name, bytes)) => {
                    let message = json!({name: {"data": BASE64.encode(bytes)}});
                    if socket.send(Message::text(message.to_string())).await.is_err() {
                        return;
                    }
                }
                None => break,
            },
        }
    }
    let code = child.wait().await.ok().and_then(|status| status.code()).unwrap_or(137);
    for name in if tty { &["stdout"][..] } else { &["stderr", "stdout"] } {
        let _ = socket.send(Message::text(json!({*name: {"close": true}}).to_string())).await;
    }
    exited(&mut socket, code).await;
}

async fn exited(socket: &mut Socket, code: i32) {
    let result = if code == 0 { json!({}) } else { json!({"exit_code": code}) };
    let _ = socket.send(Message::text(json!({"exited": true, "result": result}).to_string())).await;
    close(socket, CloseCode::Normal, "").await;
}
