//! What the agent knows, and who hears when it changes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::shapes;
use super::tasks::{self, Kill};

/// What the one client has.
pub(super) const MHZ: i64 = 8000;
pub(super) const MEMORY_MB: i64 = 16384;
pub(super) const NODE: &str = "ed54a91c-defd-98d0-dbaf-fbb9aea99883";

pub(super) struct World {
    /// Between a change and what the scheduler or the client makes of it.
    pub(super) beat: Duration,
    state: Mutex<State>,
    index: watch::Sender<u64>,
    pub(super) events: broadcast::Sender<Value>,
    pub(super) directory: tempfile::TempDir,
    /// Secret IDs, and whether each may do everything.
    pub(super) tokens: HashMap<String, bool>,
}

pub(super) struct State {
    pub(super) index: u64,
    pub(super) jobs: BTreeMap<String, Value>,
    pub(super) evaluations: BTreeMap<String, Value>,
    pub(super) allocations: BTreeMap<String, Value>,
    pub(super) variables: BTreeMap<String, Value>,
    /// Events since the beginning.
    pub(super) past: Vec<Value>,
    /// How the tasks of an allocation are told to end.
    pub(super) kills: HashMap<String, watch::Sender<Kill>>,
    /// Processes by allocation and task.
    pub(super) processes: HashMap<(String, String), u32>,
    ids: u64,
}

impl World {
    pub(super) fn new(tokens: &[(&str, bool)], beat: Duration) -> Arc<World> {
        let state = State {
            index: 10,
            jobs: BTreeMap::new(),
            evaluations: BTreeMap::new(),
            allocations: BTreeMap::new(),
            variables: BTreeMap::new(),
            past: Vec::new(),
            kills: HashMap::new(),
            processes: HashMap::new(),
            ids: 0,
        };
        Arc::new(World {
            beat,
            state: Mutex::new(state),
            index: watch::channel(10).0,
            events: broadcast::channel(4096).0,
            directory: tempfile::tempdir().expect("a directory"),
            tokens: tokens.iter().map(|(token, all)| ((*token).to_owned(), *all)).collect(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the stand-in has not panicked")
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    /// Changes something under a new index and tells everybody.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        state.index += 1;
        let out = change(&mut state);
        let index = state.index;
        drop(state);
        self.index.send_replace(index);
        out
    }

    /// Tells of an allocation as it is now.
    pub(super) fn tell(&self, state: &mut State, id: &str, kind: &str) {
        let Some(allocation) = state.allocations.get(id) else { return };
        let payload = shapes::sparse(&shapes::without(allocation, &["Job", "JobType", "JobVersion"]));
        let event = json!({"Events": [{
            "FilterKeys": [allocation["JobID"], ""], "Index": state.index, "Key": id, "Namespace": allocation["Namespace"],
            "Payload": {"Allocation": payload}, "Topic": "Allocation", "Type": kind,
        }], "Index": state.index});
        state.past.push(event.clone());
        let _ = self.events.send(event);
    }

    /// Where an allocation lives.
    pub(super) fn home(&self, allocation: &str) -> PathBuf {
        self.directory.path().join(allocation)
    }

    pub(super) fn logs(&self, allocation: &str) -> PathBuf {
        self.home(allocation).join("alloc/logs")
    }

    /// Ends every process.
    pub(super) fn end(&self) {
        let processes: Vec<u32> = self.state().processes.values().copied().collect();
        for process in processes {
            tasks::signal(process, "KILL");
        }
    }
}

impl State {
    /// A new UUID; never the same twice, the same in every run.
    pub(super) fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", self.ids.wrapping_mul(0x9e37_79b1) & 0xffff_ffff, self.ids)
    }
}

/// Whether a path stays below another.
pub(super) fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let mut out = root.to_path_buf();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            out.pop();
        } else {
            out.push(part);
        }
    }
    out.starts_with(root.parent()?).then_some(out)
}

pub(super) fn nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

pub(super) fn now() -> String {
    jiff::Timestamp::now().to_string()
}
