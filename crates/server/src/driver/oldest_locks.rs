//! Searches regions for their oldest locks, in the background: a large transaction leaves many.
//!
//! *Rejected:* a table of all locks of the regions that are led here, kept up to date from what is applied. It needs
//! memory for each lock, a scan when leadership begins, and care at splits, merges and snapshots; and a region of which
//! nothing was applied since it was last searched needs no search at all.

use super::inbox::{Inbox, Input};
use crate::driver::counters::Counters;
use crate::families;
use crate::planted::{self, Bug};
use kontiki_engine::Range;
use kontiki_env::Env;
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_raftstore::{RegionId, SafeTsClaim, SafeTsTask, meta};
use kontiki_state::StateView;
use kontiki_txn::{OldestLock, TimeStamp};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Locks that are read in one step of the job.
const PART_LOCKS: usize = 4_096;
/// Claims that are passed on at once.
const CLAIMS_MAX: usize = 1_024;
/// Regions whose last result is kept; beyond it all are searched once more.
const KNOWN_MAX: usize = 16 << 10;

type Waiting = BTreeMap<RegionId, (SafeTsTask, StateView)>;

/// The driver's side of the job.
pub(super) struct OldestLocks {
    waiting: Arc<Mutex<Waiting>>,
    task: Option<Box<dyn TaskHandle>>,
}

impl OldestLocks {
    pub(super) fn start(env: &Env, inbox: &Arc<Inbox>, counters: &Arc<Counters>) -> OldestLocks {
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let (inbox, counters) = (inbox.clone(), counters.clone());
        let mut job = Job {
            inbox,
            counters,
            waiting: waiting.clone(),
            last: RegionId(0),
            current: None,
            claims: Vec::new(),
            known: BTreeMap::new(),
        };
        let task = Some(env.tasks.spawn("oldest-locks", Box::new(move || job.step())));
        OldestLocks { waiting, task }
    }

    /// `view` contains what the tasks need. A region that still waits is searched in the later view only.
    pub(super) fn begin(&self, tasks: Vec<SafeTsTask>, view: StateView) {
        self.waiting.lock().extend(tasks.into_iter().map(|task| (task.region.id, (task, view.clone()))));
        if let Some(task) = &self.task {
            task.wake();
        }
    }

    /// Stops the job: it is not running when this returns.
    pub(super) fn stop(&mut self) {
        self.task = None;
        self.waiting.lock().clear();
    }
}

/// A search.
struct Current {
    task: SafeTsTask,
    view: StateView,
    /// The applied index in the view.
    index: u64,
    search: OldestLock,
}

/// What was found in a view of a region: its version and applied index, and the oldest lock.
type Known = (u64, u64, Option<TimeStamp>);

struct Job {
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    waiting: Arc<Mutex<Waiting>>,
    /// The last region that was begun: the next one follows it, so that each gets its turn.
    last: RegionId,
    current: Option<Current>,
    claims: Vec<SafeTsClaim>,
    known: BTreeMap<RegionId, Known>,
}

impl Job {
    /// Reads one part, or passes on what was found.
    fn step(&mut self) -> Progress {
        match self.current.take() {
            Some(current) => self.search(current),
            None => match self.next() {
                Some((task, view)) => self.begin(task, view),
                None if self.claims.is_empty() => return Progress::Idle,
                None => self.pass_on(),
            },
        }
        if self.claims.len() >= CLAIMS_MAX {
            self.pass_on();
        }
        Progress::Worked
    }

    fn pass_on(&mut self) {
        self.inbox.push(Input::SafeTs { claims: std::mem::take(&mut self.claims) });
    }

    fn next(&mut self) -> Option<(SafeTsTask, StateView)> {
        let mut waiting = self.waiting.lock();
        let later = waiting.range((Bound::Excluded(self.last), Bound::Unbounded)).next();
        self.last = *later.or(waiting.first_key_value())?.0;
        waiting.remove(&self.last)
    }

    fn begin(&mut self, task: SafeTsTask, view: StateView) {
        let (id, version) = (task.region.id, task.region.epoch.version);
        let found = meta::region(families::META, &view, id).and_then(|region| {
            let is_it = region.is_some_and(|region| region.epoch.version == version && region.merging().is_none());
            Ok(meta::applied_index(families::META, &view, id)?.filter(|_| is_it))
        });
        let index = match found {
            Ok(Some(index)) => index,
            // It was split or merged meanwhile: the next round is about what it is now.
            Ok(None) => return,
            Err(error) => return tracing::warn!(region = id.0, %error, "the applied position cannot be read"),
        };
        let is_current =
            |known: &&Known| (known.0, known.1) == (version, index) || planted::is_set(Bug::SafeTsOfEarlierLocks);
        if let Some((_, _, oldest)) = self.known.get(&id).filter(is_current).copied() {
            self.found(&task, index, oldest);
            if !planted::is_set(Bug::SafeTsOfEarlierLocks) {
                return;
            }
        }
        let search = OldestLock::new(Range::region(&task.region.start_key, &task.region.end_key));
        self.current = Some(Current { task, view, index, search });
    }

    fn search(&mut self, mut current: Current) {
        match current.search.advance(&current.view, PART_LOCKS) {
            Ok(None) => self.current = Some(current),
            Ok(Some(oldest)) => {
                let Current { task, index, search, .. } = current;
                self.counters.safe_ts_locks_read.add(search.locks_read());
                if self.known.len() >= KNOWN_MAX {
                    self.known.clear();
                }
                let before = self.known.insert(task.region.id, (task.region.epoch.version, index, oldest));
                if before.is_none() || !planted::is_set(Bug::SafeTsOfEarlierLocks) {
                    self.found(&task, index, oldest);
                }
            }
            Err(error) => {
                tracing::warn!(region = current.task.region.id.0, %error, "the locks of a region cannot be read");
            }
        }
    }

    fn found(&mut self, task: &SafeTsTask, index: u64, oldest: Option<TimeStamp>) {
        let oldest = oldest.filter(|_| !planted::is_set(Bug::SafeTsPastLocks));
        let safe_ts = oldest.map_or(task.ts, |oldest| task.ts.min(oldest.0.saturating_sub(1)));
        if safe_ts != 0 {
            let (region, version) = (task.region.id, task.region.epoch.version);
            self.claims.push(SafeTsClaim { region, version, index, safe_ts });
        }
    }
}
