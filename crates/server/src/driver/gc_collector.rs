//! Finds regions with many dead versions, and has their tables compacted.
//!
//! Compactions happen where data are written; what was written once and is dead now would stay. So after the safe point
//! of a region was raised, its write records are read once, in the background, and if enough of them are dead, its part
//! of the families is compacted. A region of which nothing was applied since, and whose records were all at or below
//! the safe point then, is not read again.
//!
//! *Rejected:* to count, in the properties of a table, the records that a newer one of the same key follows: a merge of
//! several tables would know, but most dead records have their successor in another table.

use super::counters::Counters;
use crate::families::{META, TXN_DEFAULT, TXN_WRITE};
use bytes::Bytes;
use kontiki_engine::{Direction, Range, View};
use kontiki_env::Env;
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_raftstore::{Readers, Region, RegionId, Space, meta};
use kontiki_state::{StateEngine, StateView};
use kontiki_txn::{GcPass, SafePoints, TimeStamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Records that are read in one step of the job.
const PART_RECORDS: usize = 4_096;
/// The pause after it: at most 200,000 records are read in a second.
const PAUSE: Duration = Duration::from_millis(20);
/// A region is compacted if one record in so many is dead, or more: each record that is not is rewritten for so many
/// that are.
const DEAD_ONE_IN: u64 = 10;
/// How often regions are looked for whose safe point was raised.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The driver's side of the job.
pub(super) struct GcCollector {
    wanted: Arc<Mutex<bool>>,
    look_at: Duration,
    task: Option<Box<dyn TaskHandle>>,
}

impl GcCollector {
    pub(super) fn start(
        env: &Env,
        state: &Arc<dyn StateEngine>,
        readers: &Arc<Readers>,
        counters: &Arc<Counters>,
    ) -> GcCollector {
        let wanted = Arc::new(Mutex::new(false));
        if !state.filters() {
            tracing::warn!(engine = %state.choice(), "dead versions of keys stay on disk: this engine does not drop them");
            return GcCollector { wanted, look_at: Duration::ZERO, task: None };
        }
        let mut job = Job {
            state: state.clone(),
            readers: readers.clone(),
            counters: counters.clone(),
            wanted: wanted.clone(),
            threaded: env.tasks.threaded(),
            last: RegionId(0),
            rest: BTreeSet::new(),
            current: None,
            known: BTreeMap::new(),
        };
        let task = Some(env.tasks.spawn("gc", Box::new(move || job.step())));
        GcCollector { wanted, look_at: Duration::ZERO, task }
    }

    /// There may be regions with a higher safe point.
    pub(super) fn look(&mut self, now: Duration) {
        if now >= self.look_at {
            self.look_at = now + LOOK_INTERVAL;
            *self.wanted.lock() = true;
            if let Some(task) = &self.task {
                task.wake();
            }
        }
    }

    /// Stops the job: it is not running when this returns.
    pub(super) fn stop(&mut self) {
        self.task = None;
    }
}

/// What was found in a region when it was last read.
#[derive(Clone, Copy)]
struct Known {
    safe_point: u64,
    version: u64,
    applied: Option<u64>,
    /// Records above the safe point, which a higher one may kill.
    above: u64,
    /// What was dead was worth a compaction: it is read again after that.
    collected: bool,
}

/// A region that is being read.
struct Current {
    region: Arc<Region>,
    view: StateView,
    pass: GcPass<StateView>,
    next: Bytes,
    known: Known,
    records: u64,
    dead: u64,
}

struct Job {
    state: Arc<dyn StateEngine>,
    readers: Arc<Readers>,
    counters: Arc<Counters>,
    wanted: Arc<Mutex<bool>>,
    threaded: bool,
    last: RegionId,
    /// Regions that are to be looked at in this round.
    rest: BTreeSet<RegionId>,
    current: Option<Current>,
    known: BTreeMap<RegionId, Known>,
}

impl Job {
    fn step(&mut self) -> Progress {
        if let Some(current) = self.current.take() {
            self.read(current);
            // In a stepped world only a wake counts, and time does not pass.
            return if self.threaded { Progress::IdleFor(PAUSE) } else { Progress::Worked };
        }
        if self.rest.is_empty() {
            if !std::mem::take(&mut *self.wanted.lock()) {
                return Progress::Idle;
            }
            let regions = self.readers.regions();
            let due = regions.iter().map(|(region, _)| region).filter(|region| is_collected(region));
            self.rest = due.map(|region| region.id).collect();
            self.known.retain(|region, _| self.rest.contains(region));
        }
        let later = self.rest.range((Bound::Excluded(self.last), Bound::Unbounded)).next();
        if let Some(region) = later.or(self.rest.first()).copied() {
            self.rest.remove(&region);
            self.last = region;
            self.begin(region);
        }
        Progress::Worked
    }

    fn begin(&mut self, id: RegionId) {
        let Some((region, _)) = self.readers.region(id).filter(|(region, _)| is_collected(region)) else { return };
        let view = self.state.snapshot();
        let Ok(applied) = meta::applied_index(META, &view, id) else { return };
        let (safe_point, version) = (region.gc_safe_point, region.epoch.version);
        let now = Known { safe_point, version, applied, above: 0, collected: false };
        if self.known.get(&id).is_some_and(|before| !before.is_worth_reading(&now)) {
            return;
        }
        let range = Range::region(&region.start_key, &region.end_key);
        let pass = GcPass::over_all(TXN_WRITE, SafePoints::new([(range, TimeStamp(safe_point))]), view.clone());
        let next = region.start_key.clone();
        self.current = Some(Current { region, view, pass, next, known: now, records: 0, dead: 0 });
    }

    fn read(&mut self, mut current: Current) {
        match current.read_part() {
            Ok(false) => self.current = Some(current),
            Ok(true) => {
                let Current { region, mut known, records, dead, view, pass, .. } = current;
                drop((view, pass)); // A compaction waits for no view, but would keep what it holds.
                self.counters.gc_records_read.add(records);
                known.collected = dead > 0 && dead.saturating_mul(DEAD_ONE_IN) >= records;
                if known.collected {
                    self.compact(&region, dead);
                }
                self.known.insert(region.id, known);
            }
            Err(error) => {
                let region = current.region.id.0;
                tracing::warn!(region, %error, "the versions of a region cannot be read; it is tried again");
            }
        }
    }

    fn compact(&self, region: &Region, dead: u64) {
        tracing::debug!(region = region.id.0, dead, "dead versions are dropped");
        self.counters.gc_regions_collected.increment();
        // Long values first: which of them are dead does not depend on whether their records are still there.
        for family in [TXN_DEFAULT, TXN_WRITE] {
            if let Err(error) = self.state.compact_range(family, Range::region(&region.start_key, &region.end_key)) {
                tracing::warn!(region = region.id.0, %error, "a region was not compacted; it is tried again");
                return;
            }
        }
    }
}

impl Known {
    fn is_worth_reading(&self, now: &Known) -> bool {
        let is_same = (self.version, self.applied) == (now.version, now.applied);
        let may_have_died = now.safe_point > self.safe_point && self.above > 0;
        self.collected || may_have_died || !is_same && now.safe_point > self.safe_point
    }
}

impl Current {
    /// Returns whether all is read.
    fn read_part(&mut self) -> Result<bool, String> {
        let range = Range::region(&self.next, &self.region.end_key);
        let entries = self.view.entries(TXN_WRITE, range, Direction::Forward);
        let mut entries = entries.map_err(|error| error.to_string())?;
        for _ in 0..PART_RECORDS {
            let next = entries.next().transpose().map_err(|error| error.to_string())?;
            let Some((key, value)) = next else { return Ok(true) };
            self.records += 1;
            let dead = self.pass.is_dead(&key, Some(&value)).map_err(|error| error.to_string())?;
            self.dead += u64::from(dead);
            let ts = key.last_chunk::<8>().map_or(0, |suffix| !u64::from_be_bytes(*suffix));
            self.known.above += u64::from(ts > self.known.safe_point);
            self.next = [&key[..], b"\0"].concat().into();
        }
        Ok(false)
    }
}

fn is_collected(region: &Region) -> bool {
    region.space == Space::Data && region.gc_safe_point != 0
}
