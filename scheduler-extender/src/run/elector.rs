//! The election beside an API server: reads and writes the Lease, and says where this replica stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::fence::Fence;
use super::lease::{Election, Move, Position, Times, Written};

/// How long writing the Lease back may take when the process stops.
const RELEASING: Duration = Duration::from_secs(2);

/// Which Lease, and for how long it is held.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who this replica is; no two processes may have the same.
    pub identity: Arc<str>,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// See [`Times`].
    pub times: Times,
}

/// Where a replica stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It leads, as long as the fence is open.
    Leads {
        /// What it writes through.
        fence: Fence,
        /// Counts its tenures.
        tenure: u64,
    },
    /// It stands by.
    Follows {
        /// Who leads, if anybody has renewed the Lease lately.
        leader: Option<Arc<str>>,
    },
}

// === impl Standing ===

impl Standing {
    /// The tenure; `None` while it stands by.
    pub(super) fn tenure(&self) -> Option<u64> {
        match self {
            Standing::Leads { tenure, .. } => Some(*tenure),
            Standing::Follows { .. } => None,
        }
    }

    /// Whether this replica leads now.
    pub fn leads(&self) -> bool {
        matches!(self, Standing::Leads { fence, .. } if fence.left().is_some())
    }

    /// Whether some replica leads, as far as this one knows.
    pub fn is_led(&self) -> bool {
        self.leads() || matches!(self, Standing::Follows { leader: Some(_) })
    }
}

/// The part that talks to the API server.
pub(super) struct Elector {
    election: Election,
    leases: Api<Lease>,
    settings: Settings,
    standing: Arc<watch::Sender<Standing>>,
    /// Whether the last request failed: said once, not every second.
    complained: bool,
}

// === impl Elector ===

impl Elector {
    pub(super) fn new(client: Client, settings: Settings, standing: Arc<watch::Sender<Standing>>) -> Elector {
        let place = (settings.namespace.clone(), settings.name.clone());
        let election = Election::new(settings.identity.clone(), place, settings.times, Instant::now());
        let leases = Api::namespaced(client, &settings.namespace);
        Elector { election, leases, settings, standing, complained: false }
    }

    /// Acquires, renews, acquires again, until told to release the Lease; answers when that is done.
    pub(super) async fn run(mut self, mut release: oneshot::Receiver<oneshot::Sender<()>>) {
        let released = loop {
            let now = Instant::now();
            let next = self.election.next(now, jiff::Timestamp::now());
            self.publish(now);
            tokio::select! {
                released = &mut release => break released,
                () = self.make(next) => {}
            }
        };
        // Closed first: whoever reads the released Lease may begin at once.
        let lease = self.election.release(Instant::now(), jiff::Timestamp::now());
        self.publish(Instant::now());
        if let Some(lease) = lease {
            let replaced = timeout(RELEASING, self.leases.replace(&self.settings.name, &PostParams::default(), &lease)).await;
            match replaced {
                Ok(Ok(_)) => tracing::info!("the Lease is released"),
                Ok(Err(error)) => tracing::warn!(%error, "the Lease was not released; a successor waits until it runs out"),
                Err(_) => tracing::warn!("the Lease was not released in time; a successor waits until it runs out"),
            }
        }
        if let Ok(released) = released {
            // Whoever asked may have gone.
            let _ = released.send(());
        }
    }

    async fn make(&mut self, next: Move) {
        match next {
            Move::Rest(until) => tokio::time::sleep_until(until.into()).await,
            Move::Read => {
                let patience = self.election.patience(Instant::now());
                let answer = timeout(patience, self.leases.get_opt(&self.settings.name)).await;
                let now = Instant::now();
                match answer {
                    Ok(Ok(lease)) => {
                        self.complained = false;
                        self.election.read(lease, now);
                    }
                    Ok(Err(error)) => {
                        self.complain(&error, "the Lease cannot be read");
                        self.election.not_read(now);
                    }
                    Err(_) => {
                        self.complain(&"no answer in time", "the Lease cannot be read");
                        self.election.not_read(now);
                    }
                }
            }
            Move::Write(lease) => {
                // Before anything is sent: the deadline counts from here.
                let sent = Instant::now();
                let patience = self.election.patience(sent);
                let is_new = lease.metadata.resource_version.is_none();
                let answer = if is_new {
                    timeout(patience, self.leases.create(&PostParams::default(), &lease)).await
                } else {
                    timeout(patience, self.leases.replace(&self.settings.name, &PostParams::default(), &lease)).await
                };
                let written = match answer {
                    Ok(Ok(lease)) => {
                        self.complained = false;
                        Written::Done(Box::new(lease))
                    }
                    Ok(Err(kube::Error::Api(status))) if status.code == 409 || (status.code == 404 && !is_new) => {
                        Written::Conflict
                    }
                    Ok(Err(error)) => {
                        self.complain(&error, "the Lease cannot be written");
                        Written::Unknown
                    }
                    Err(_) => {
                        self.complain(&"no answer in time", "the Lease cannot be written");
                        Written::Unknown
                    }
                };
                self.election.written(written, sent, Instant::now());
            }
        }
    }

    fn complain(&mut self, error: &dyn std::fmt::Display, what: &str) {
        let (namespace, name) = (&*self.settings.namespace, &*self.settings.name);
        if std::mem::replace(&mut self.complained, true) {
            tracing::debug!(namespace, name, %error, "{what}");
        } else {
            tracing::warn!(namespace, name, %error, "{what}; it is tried again");
        }
    }

    /// Tells everybody, if it is news.
    fn publish(&self, now: Instant) {
        let position = self.election.position(now);
        self.standing.send_if_modified(|standing| match (&position, &*standing) {
            (Position::Leads { tenure, until }, Standing::Leads { fence, tenure: known }) if tenure == known => {
                fence.renew(*until);
                false
            }
            (Position::Leads { tenure, until }, _) => {
                tracing::info!(identity = &*self.settings.identity, tenure, "this replica leads");
                let fence = Fence::until(*until, self.settings.times.margin());
                *standing = Standing::Leads { fence, tenure: *tenure };
                true
            }
            (Position::Follows { leader }, Standing::Follows { leader: known }) if leader == known => false,
            (Position::Follows { leader }, before) => {
                if let Standing::Leads { fence, .. } = before {
                    fence.close();
                    tracing::warn!(?leader, "this replica does not lead any more");
                } else {
                    tracing::info!(?leader, "this replica stands by");
                }
                *standing = Standing::Follows { leader: leader.clone() };
                true
            }
        });
    }
}
