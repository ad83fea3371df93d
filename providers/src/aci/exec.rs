//! A command in a container, over the WebSocket that Azure names.
//!
//! The password goes first, as a text; then bytes, both ways. Azure merges both outputs, always gives a terminal, tells no exit
//! code and has no way to close the input.

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::wire::ExecAnswer;
use crate::{Error, ErrorKind, ExecInput, ExecOutput, ExecRequest, ExecSession, Operation};

/// Messages that wait for who reads them; a command that talks faster has to wait.
const MESSAGES: usize = 16;
/// End of transmission: what Ctrl-D sends, and a terminal takes for the end of the input.
const END_OF_INPUT: &[u8] = &[4];
/// Larger messages are refused; Azure sends what a terminal shows.
const MESSAGE_BYTES: usize = 1 << 20;

/// The one line that Azure takes. It is split at blanks there, so an argument that has one cannot be given.
pub(super) fn command_line(request: &ExecRequest) -> Result<String, Error> {
    let refuse = |problem: &str| Err(super::error(ErrorKind::Invalid, Operation::Exec).because(problem));
    if request.command.is_empty() || request.command.iter().any(String::is_empty) {
        return refuse("the command and its arguments must not be empty");
    }
    let split = |letter: char| letter.is_whitespace() || letter == '"' || letter == '\'';
    if request.command.iter().any(|part| part.contains(split)) {
        return refuse("Azure splits a command at blanks: arguments must have no blanks and no quotation marks");
    }
    Ok(request.command.join(" "))
}

/// Talks to a command that has been started.
pub(super) async fn attach(answer: ExecAnswer, stdin: bool) -> Result<ExecSession, Error> {
    let unavailable = |source: tungstenite::Error| super::error(ErrorKind::Unavailable, Operation::Exec).because(source);
    if !safe(&answer.web_socket_uri) {
        let refused = super::error(ErrorKind::Unavailable, Operation::Exec);
        return Err(refused.because("Azure named a WebSocket without TLS; the password is not sent there"));
    }
    let limits = tungstenite::protocol::WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES));
    let (mut socket, _) = tokio_tungstenite::connect_async_with_config(answer.web_socket_uri.as_str(), Some(limits), true)
        .await
        .map_err(unavailable)?;
    socket.send(Message::text(answer.password)).await.map_err(unavailable)?;
    let (input, from_caller) = mpsc::channel(MESSAGES);
    let (to_caller, output) = mpsc::channel(MESSAGES);
    tokio::spawn(carry(socket, from_caller, to_caller, stdin));
    Ok(ExecSession { input, output })
}

/// The password must not be read by others; a test's loopback has none.
fn safe(uri: &str) -> bool {
    let loopback = ["ws://127.0.0.1:", "ws://[::1]:"].iter().any(|prefix| uri.starts_with(prefix));
    uri.starts_with("wss://") || loopback
}

/// Carries bytes until the command ends or nobody listens any more; dropping the socket then ends the command.
async fn carry(
    mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    mut input: mpsc::Receiver<ExecInput>,
    output: mpsc::Sender<Result<ExecOutput, Error>>,
    stdin: bool,
) {
    let mut open = true;
    let last = loop {
        tokio::select! {
            more = input.recv(), if open => {
                let message = match more {
                    Some(ExecInput::Stdin(bytes)) if stdin => Message::binary(bytes),
                    // The size of the terminal is said once, at the start.
                    Some(ExecInput::Stdin(_) | ExecInput::Resize { .. }) => continue,
                    None => {
                        open = false;
                        if !stdin {
                            continue;
                        }
                        Message::binary(END_OF_INPUT)
                    }
                };
                if let Err(source) = socket.send(message).await {
                    break Err(super::error(ErrorKind::Unavailable, Operation::Exec).because(source));
                }
            }
            message = socket.next() => {
                let bytes = match message {
                    Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                    Some(Ok(Message::Text(text))) => text.as_str().as_bytes().to_vec(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_))) | None | Some(Err(tungstenite::Error::ConnectionClosed)) => {
                        break Ok(ExecOutput::Exited { code: None });
                    }
                    Some(Err(source)) => break Err(super::error(ErrorKind::Unavailable, Operation::Exec).because(source)),
                };
                if output.send(Ok(ExecOutput::Stdout(bytes))).await.is_err() {
                    return;
                }
            }
            () = output.closed() => return,
        }
    };
    // Who no longer listens need not know.
    let _ = output.send(last).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: &[&str]) -> ExecRequest {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        ExecRequest { container: "main".into(), command, tty: true, stdin: true }
    }

    #[test]
    fn a_command_is_one_line_or_refused() {
        assert_eq!(command_line(&request(&["ls", "-l", "/tmp"])).expect("plain"), "ls -l /tmp");
        for command in [&["sh", "-c", "echo a"][..], &[][..], &["echo", ""][..], &["echo", "it's"][..]] {
            assert_eq!(command_line(&request(command)).expect_err("unreliable").kind, ErrorKind::Invalid, "{command:?}");
        }
    }

    #[test]
    fn a_password_is_sent_over_tls_only() {
        assert!(safe("wss://bridge.eastus.azurecontainer.io/exec/1"));
        assert!(safe("ws://127.0.0.1:8080/exec"));
        for uri in ["ws://bridge.eastus.azurecontainer.io/exec", "ws://127.0.0.1.example.com/", "http://x"] {
            assert!(!safe(uri), "{uri}");
        }
    }
}
