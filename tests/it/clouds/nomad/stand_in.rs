//! A stand-in for a Nomad agent that really runs the tasks of its jobs, as processes of this machine (`raw_exec`).
//!
//! One server and one client. What it answers was recorded from a real agent; the recording is replayed against it. It does not
//! know Nomad's CLI, deployments, services, volumes, devices, CSI, Vault, Consul or more than one client.

mod exec;
mod http;
mod jobs;
mod logs;
mod shapes;
mod tasks;
mod templates;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::world::World;

/// Between a change and what the scheduler or the client makes of it.
const BEAT: Duration = Duration::from_millis(40);

/// A running stand-in. Ends, and its tasks with it, when dropped.
pub(crate) struct StandIn {
    address: SocketAddr,
    world: Arc<World>,
    server: JoinHandle<()>,
}

impl StandIn {
    /// An agent with these tokens, each with whether it may do everything; without tokens ACLs are off.
    pub(crate) async fn start(tokens: &[(&str, bool)]) -> StandIn {
        StandIn::at_a_beat_of(BEAT, tokens).await
    }

    /// One whose states last so long before the next one comes, so that whoever wants to see each of them does.
    pub(crate) async fn at_a_beat_of(beat: Duration, tokens: &[(&str, bool)]) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let world = World::new(tokens, beat);
        let server = tokio::spawn(http::serve(listener, world.clone()));
        StandIn { address, world, server }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
        self.world.end();
    }
}
