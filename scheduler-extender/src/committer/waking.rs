//! Pods that the extender kept from dedicated nodes and that are left to these after all.
//!
//! kube-scheduler looks at such a pod again only when something happens in the cluster, and after five minutes. Where a budget
//! or a right was lost between its question and our Binding, a quiet cluster would leave the pod waiting beside a free node.

use std::time::Duration;

use policy::Timestamp;
use policy::line::Evidence;
use policy::workload::Feature;

use super::{Committer, Intent};

/// Between the first two times; then twice as long each time. The published state is much younger than this.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// kube-scheduler's own patience; nothing is gained by waiting longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// When it is time to wake kube-scheduler.
#[derive(Default)]
pub(super) struct Waking {
    next: Option<(Timestamp, Duration)>,
}

impl Committer {
    /// Touches a virtual node's Node while pods are stranded, more and more rarely.
    pub(super) fn wake(&mut self, now: Timestamp) {
        if !self.has_stranded() {
            self.waking.next = None;
            return;
        }
        let (due, pause) = self.waking.next.unwrap_or((now + FIRST_PAUSE, FIRST_PAUSE));
        self.waking.next = Some((due, pause));
        if now < due {
            return;
        }
        let Some(node) = self.virtual_nodes.present() else { return };
        let pause = (pause * 2).min(LONGEST_PAUSE);
        self.waking.next = Some((now + pause, pause));
        self.intents.push(Intent::Wake { node });
    }

    /// Whether pods wait that the extender has refused, and would not refuse any more.
    fn has_stranded(&self) -> bool {
        let left_to_its_scheduler = |class: &super::lines::Class| {
            class.evidence != Evidence::Refused
                && class.workload.features.contains(Feature::Marked)
                && class.prefers_to_burst()
                && class.line.waiting_with_room() > 0
                && class.line.has_refused()
        };
        !self.wave.unbindable().is_empty() || self.lines.iter().any(|(_, class)| left_to_its_scheduler(class))
    }
}
