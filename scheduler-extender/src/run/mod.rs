//! `spillway run`: the committer connected to an API server.
//!
//! ```text
//!   elector ── Standing ──► run: one Driver at a time
//!                             leading:   watches ► Committer ► Intents ► Writer ► Fence ► API server
//!                             following: watches ► Committer (looks on)
//!                           both: published state ► extender, admin pages
//! ```
//!
//! Watches feed one bounded queue; one task owns the committer and empties it; every intent is carried out by a task of its
//! own, which puts the answer back into the queue. What is published for the extender is at most 20 ms old.
//!
//! A replica that begins to lead, or stops, drops everything and rebuilds it from the API server: nothing that an earlier
//! standing has known is acted on. Until the new state is complete the extender answers from the old one.

mod admission;
mod client;
mod daemon_sets;
mod driver;
mod elector;
mod fence;
mod guarding;
mod lease;
mod marking;
pub mod observing;
mod watches;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use policy::Timestamp;
use tokio::sync::{oneshot, watch};

use crate::committer::{Published, Settings};
use crate::metrics::Metrics;

use driver::Driver;
use elector::Elector;

pub use admission::AdmissionPolicies;
pub use client::connect;
pub use elector::{Settings as Election, Standing};
pub use fence::{Fence, Fenced};
pub use lease::Times;
pub use writes::Writer;

/// Between two rebuildings of the books that somebody else writes into.
const REBUILD: Duration = Duration::from_millis(500);

/// What other parts of the process see of a running committer.
#[derive(Clone)]
pub struct Handle {
    /// The state that the extender answers from.
    pub published: Arc<ArcSwap<Published>>,
    /// Raised by the extender when kube-scheduler has asked.
    pub extender_asked: Arc<AtomicBool>,
    /// Whether the guards have been in force once, if this process keeps them.
    pub guarded: Arc<AtomicBool>,
    /// Whether the DaemonSets that existed are kept off virtual nodes, if this process does that.
    pub kept_off: Arc<AtomicBool>,
    standing: Arc<watch::Sender<Standing>>,
}

impl Default for Handle {
    fn default() -> Handle {
        Handle {
            published: Arc::new(ArcSwap::from_pointee(Published::default())),
            extender_asked: Arc::default(),
            guarded: Arc::default(),
            kept_off: Arc::default(),
            standing: Arc::new(watch::Sender::new(Standing::Follows { leader: None })),
        }
    }
}

impl Handle {
    /// Whether this replica leads, or who does.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether everything that exists has been seen once.
    pub fn is_synced(&self) -> bool {
        self.published.load().synced
    }

    fn has_been_asked(&self) -> bool {
        self.extender_asked.load(Ordering::Relaxed)
    }
}

/// How a running committer is stopped.
pub struct Stop {
    /// Ends, or is sent, when it should.
    pub asked: oneshot::Receiver<()>,
    /// Told when the books are closed and another replica may lead; the state goes on being published.
    pub closed: oneshot::Sender<()>,
}

/// The wall clock, the only one in the process.
pub fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// Leads when it is this replica's turn, looks on while it is not, for ever; closes the books when told to stop, and goes on
/// looking on. `None` for the election: there are no other replicas.
///
/// # Errors
/// When a task dies that should not: a defect.
pub async fn run(
    client: kube::Client,
    settings: Settings,
    election: Option<Election>,
    metrics: Arc<Metrics>,
    handle: Handle,
    stop: Stop,
) -> anyhow::Result<()> {
    let (release, released) = oneshot::channel();
    let mut electing = tokio::task::JoinSet::new();
    match election {
        Some(election) => {
            let elector = Elector::new(client.clone(), election, handle.standing.clone());
            electing.spawn(elector.run(released));
        }
        None => {
            handle.standing.send_replace(Standing::Leads { fence: Fence::without_rivals(), tenure: 1 });
        }
    }
    let Stop { mut asked, closed } = stop;
    let mut standings = handle.standing.subscribe();
    let mut terms = 0_u64;
    loop {
        let standing = standings.borrow_and_update().clone();
        let mut driver = match &standing {
            Standing::Leads { fence, .. } => {
                terms += 1;
                // A name that no committer has had before, in this process or another.
                let settings = Settings { keeper: Arc::from(format!("{}/{terms}", settings.keeper)), ..settings.clone() };
                Driver::leading(&client, settings, fence, metrics.clone(), handle.clone())
            }
            Standing::Follows { .. } => Driver::following(&client, settings.clone(), metrics.clone(), handle.clone()),
        };
        tokio::select! {
            () = changed(&mut standings, &standing) => {}
            superseded = driver.run() => {
                superseded?;
                drop(driver);
                tokio::time::sleep(REBUILD).await;
            }
            // A sender that is gone means the same: stop.
            _ = &mut asked => {
                tokio::select! {
                    done = driver.close() => done?,
                    () = changed(&mut standings, &standing) => {}
                }
                let (done, is_done) = oneshot::channel();
                if release.send(done).is_ok() {
                    // The elector answers always, unless it has died.
                    let _ = is_done.await;
                }
                // Whoever told us to stop may not wait.
                let _ = closed.send(());
                return driver.look_on().await;
            }
            _ = electing.join_next(), if !electing.is_empty() => anyhow::bail!("the elector ended"),
        }
    }
}

/// Ends when a replica does not stand any more where it stood. Another leader is no change for one that follows.
async fn changed(standings: &mut watch::Receiver<Standing>, before: &Standing) {
    // An error cannot be: the sender is in the handle.
    let _ = standings.wait_for(|now| now.tenure() != before.tenure()).await;
}
