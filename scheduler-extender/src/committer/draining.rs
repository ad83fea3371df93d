//! `stopPolicy: HoldAndDrain`: pods on virtual nodes are evicted, so that their controllers make them again for dedicated nodes.
//!
//! Through the Eviction API, which keeps PodDisruptionBudgets; a few per second, the youngest first, as they lose the least. A
//! pod without a controller stays: nobody would make it again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use policy::Timestamp;
use policy::burst_policy::StopPolicy;

use super::pods::{Burst, Phase, PodRecord};
use super::{Committer, EvictionAnswer, Intent};

/// Evictions whose answer is awaited, and evictions in one tick, at most.
const AT_A_TIME: usize = 5;
/// A disruption budget has room again when a replacement is ready; asking more often helps nobody. `kubectl drain` asks every
/// five seconds.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Evictions under way and evictions that were refused.
#[derive(Default)]
pub(super) struct Draining {
    under_way: HashSet<Arc<str>>,
    /// Not before this moment, and the pause after which that was.
    refused: BTreeMap<Arc<str>, (Timestamp, Duration)>,
}

// === impl Committer ===

impl Committer {
    /// Evicts pods whose policy says so.
    pub(super) fn drain(&mut self, now: Timestamp) {
        let drained = |policy: &super::PolicyObject| {
            policy.compiled.as_ref().is_some_and(|compiled| compiled.policy.stop == StopPolicy::HoldAndDrain)
        };
        let policies: BTreeSet<&Arc<str>> =
            self.policies.iter().filter(|(_, policy)| drained(policy)).map(|(name, _)| name).collect();
        if policies.is_empty() {
            self.draining.refused.clear();
            return;
        }
        let evictable = |uid: &Arc<str>, burst: &Burst| {
            burst.finished.is_none()
                && !burst.deleting
                && policies.contains(&burst.record.policy)
                && !self.draining.under_way.contains(uid)
                && self.draining.refused.get(uid).is_none_or(|(due, _)| *due <= now)
        };
        let mut chosen: Vec<_> = self
            .pods
            .iter()
            .filter_map(|(uid, record)| match &record.phase {
                Phase::Burst(burst) if evictable(uid, burst) => {
                    Some((Reverse(burst.record.at), record.key.clone(), burst.owner.is_some()))
                }
                _ => None,
            })
            .collect();
        chosen.sort_unstable_by(|(one, key, _), (other, other_key, _)| (one, &key.uid).cmp(&(other, &other_key.uid)));
        for (_, key, has_controller) in chosen {
            if !has_controller {
                let text = "stays on its virtual node: it has no controller that would make it again".to_owned();
                self.notes.once(&key, "NotReturned", false, "Drain", text, &mut self.intents);
            } else if self.draining.under_way.len() < AT_A_TIME {
                self.draining.under_way.insert(key.uid.clone());
                self.intents.push(Intent::Evict { pod: key });
            }
        }
    }

    /// What the API server said to an eviction.
    pub(super) fn eviction_answered(&mut self, uid: &Arc<str>, answer: EvictionAnswer, now: Timestamp) {
        self.draining.under_way.remove(uid);
        let Some(PodRecord { key, phase: Phase::Burst(burst) }) = self.pods.get_mut(uid) else {
            self.draining.refused.remove(uid);
            return;
        };
        let asked = match answer {
            EvictionAnswer::Evicted => {
                burst.deleting = true;
                self.draining.refused.remove(uid);
                let text = "returned to dedicated nodes: the policy is drained (spec.stopPolicy)".to_owned();
                self.notes.once(key, "BurstReturned", false, "Drain", text, &mut self.intents);
                return;
            }
            EvictionAnswer::Gone => {
                burst.deleting = true;
                self.draining.refused.remove(uid);
                return;
            }
            EvictionAnswer::Blocked { retry_after } => {
                let text = "is not evicted yet: the API server refuses for now, as for a PodDisruptionBudget; it is tried again";
                self.notes.once(key, "EvictionBlocked", false, "Drain", text.to_owned(), &mut self.intents);
                retry_after
            }
            EvictionAnswer::Failed => None,
        };
        let pause = self.draining.refused.get(uid).map_or(FIRST_PAUSE, |(_, pause)| (*pause * 2).min(LONGEST_PAUSE));
        self.draining.refused.insert(uid.clone(), (now + pause.max(asked.unwrap_or_default()), pause));
    }

    pub(super) fn forget_eviction(&mut self, uid: &Arc<str>) {
        self.draining.under_way.remove(uid);
        self.draining.refused.remove(uid);
    }
}
