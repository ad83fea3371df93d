//! Ending a pod: stop its job, let its tasks have their grace period, then purge it.
//!
//! A purge removes the allocation at once, and with it the output and every trace of tasks that still run. So a job is only
//! stopped as long as something runs, and purged when the event stream says that nothing does. A job that was stopped and is
//! not purged, because the process ended in between, is listed as deleted; deleting it again purges it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;

use super::events::Changes;
use super::service::Jobs;
use super::status::is_terminal;
use super::translation::META_VARIABLES;
use crate::{Change, Error, ErrorKind, Operation, RemoteId};

/// Jobs that were stopped and wait for their tasks to end.
#[derive(Clone, Default)]
pub(super) struct Stopping {
    jobs: Arc<Mutex<BTreeSet<RemoteId>>>,
}

// === impl Stopping ===

impl Stopping {
    fn jobs(&self) -> std::sync::MutexGuard<'_, BTreeSet<RemoteId>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes a job: `Ok` if it is gone, or on its way.
    pub(super) async fn delete(&self, jobs: &Jobs, id: &RemoteId) -> Result<(), Error> {
        let job = match jobs.job(Operation::Delete, id).await {
            Ok(job) => job,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        // Nothing is started any more, so nothing reads them any more.
        for path in job.meta.get(META_VARIABLES).iter().flat_map(|paths| paths.split(' ')).filter(|path| !path.is_empty()) {
            jobs.client.delete(Operation::Delete, &format!("/v1/var/{path}"), &[]).await?;
        }
        let allocations = jobs.allocations(Operation::Delete, id).await?;
        if allocations.iter().all(is_terminal) {
            return purge(jobs, id).await;
        }
        if !job.stop {
            jobs.client.delete(Operation::Delete, &path(id), &[]).await?;
        }
        self.jobs().insert(id.clone());
        // It may have ended before it was waited for.
        self.purge_if_ended(jobs, id).await
    }

    /// Purges what has ended, for ever.
    pub(super) async fn follow(self, jobs: Jobs, changes: Changes) {
        let mut changes = changes.listen();
        while let Some(change) = changes.next().await {
            let ended: Vec<RemoteId> = match change {
                Change::Pod(uid) => Some(jobs.settings.job_id(&uid)).filter(|id| self.jobs().contains(id)).into_iter().collect(),
                Change::Everything => self.jobs().iter().cloned().collect(),
            };
            for id in ended {
                if let Err(error) = self.purge_if_ended(&jobs, &id).await {
                    // The next change, or the next deletion, tries again.
                    tracing::debug!(%error, job = %id, "stopped job not purged yet");
                }
            }
        }
    }

    async fn purge_if_ended(&self, jobs: &Jobs, id: &RemoteId) -> Result<(), Error> {
        let allocations = jobs.allocations(Operation::Delete, id).await?;
        if allocations.iter().all(is_terminal) {
            purge(jobs, id).await?;
            self.jobs().remove(id);
        }
        Ok(())
    }
}

fn path(id: &RemoteId) -> String {
    format!("/v1/job/{id}")
}

async fn purge(jobs: &Jobs, id: &RemoteId) -> Result<(), Error> {
    jobs.client.delete(Operation::Delete, &path(id), &[("purge", "true")]).await
}
