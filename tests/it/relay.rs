//! A network that can be cut: a TCP relay that passes bytes on, holds them back, or loses them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes that one read takes; what a peer has sent beyond that waits in the kernel.
const CHUNK: usize = 16 << 10;

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// They arrive.
    Passes,
    /// They arrive when the line is healed, however late, and so does the end of a connection.
    Held,
    /// The connection breaks instead of passing them on.
    Lost,
}

/// Both directions of all connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) requests: Flow,
    pub(crate) answers: Flow,
}

impl Line {
    pub(crate) const HEALTHY: Line = Line { requests: Flow::Passes, answers: Flow::Passes };
    /// Nothing arrives on either side.
    pub(crate) const CUT: Line = Line { requests: Flow::Held, answers: Flow::Held };
    /// Requests are carried out, and nobody learns what came of them.
    pub(crate) const DEAF: Line = Line { requests: Flow::Passes, answers: Flow::Held };
    /// Every answer breaks its connection; so does every event of a watch.
    pub(crate) const SWALLOWING: Line = Line { requests: Flow::Passes, answers: Flow::Lost };
}

/// A listener in front of some servers.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    line: watch::Sender<Line>,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// On this address, or on any free port of the loopback.
    pub(crate) async fn listen(at: Option<SocketAddr>, servers: &[SocketAddr]) -> Relay {
        let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(at).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (line, servers) = (watch::Sender::new(Line::HEALTHY), Arc::new(Mutex::new(servers.to_vec())));
        let (lines, known) = (line.clone(), servers.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let servers = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(connect(client, servers, lines.subscribe()));
            }
        });
        Relay { address, line, servers, accepting }
    }

    /// What happens from now on, to connections that exist, too.
    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Where new connections go: to the first of these that accepts them.
    pub(crate) fn route(&self, servers: &[SocketAddr]) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(client: TcpStream, servers: Vec<SocketAddr>, mut line: watch::Receiver<Line>) {
    // A new connection is a request, too.
    if line.wait_for(|line| line.requests != Flow::Held).await.is_err() {
        return;
    }
    for server in servers {
        if let Ok(server) = TcpStream::connect(server).await {
            // Small packets must not wait for one another, or the relay would be what is tested.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let requests = pass(from_client, to_server, line.clone(), |line| line.requests);
            let answers = pass(from_server, to_client, line, |line| line.answers);
            // Where one direction breaks, both do; where it ends, the other may go on.
            let _ = tokio::try_join!(requests, answers);
            return;
        }
    }
}

/// One direction. An error breaks the connection.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    flow: fn(&Line) -> Flow,
) -> std::io::Result<()> {
    let broken = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        let now = line.wait_for(|line| flow(line) != Flow::Held).await.map(|line| flow(&line)).map_err(|_| broken())?;
        if now == Flow::Lost {
            return Err(broken());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..read]).await?;
    }
}
