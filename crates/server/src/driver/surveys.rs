//! Queries of the driver about the disk, answered by a background job: a slow disk must not delay the driver's
//! heartbeats.
//!
//! Each query is repeated only when it has been answered, so a stalled disk causes one wait and no queue.

use super::entry_reads::EntryReads;
use super::inbox::{Inbox, Input};
use super::size_survey::{RegionSize, SizeLimits, survey};
use crate::families;
use crate::planted::{self, Bug};
use bytes::Bytes;
use kontiki_engine::{Direction, Error as EngineError, Range, SequenceNumber, View};
use kontiki_env::Env;
use kontiki_env::fs::Fs;
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_raftlog::RaftLog;
use kontiki_raftstore::{EntriesTask, Region, RegionId, meta};
use kontiki_state::{StateEngine, StateView};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Queries that wait.
#[derive(Default)]
struct Wanted {
    /// The applied indices that tables contain.
    flushed: bool,
    /// The free space of the volume.
    space: bool,
    /// Whether the directory is there and can be written to.
    directory: bool,
    /// The placement group's state, for the leader of this term.
    placement: Option<u64>,
}

/// Regions whose sizes are wanted. They have a task of their own: a large region has a large index.
type WantedSizes = Arc<Mutex<Sizes>>;

#[derive(Default)]
struct Sizes {
    wanted: BTreeMap<RegionId, (Arc<Region>, SizeLimits)>,
    /// The last one that was surveyed: the next one follows it, so that each gets its turn.
    last: RegionId,
}

impl Sizes {
    fn next(&mut self) -> Option<(Arc<Region>, SizeLimits)> {
        let later = self.wanted.range((Bound::Excluded(self.last), Bound::Unbounded)).next();
        self.last = *later.or(self.wanted.first_key_value())?.0;
        self.wanted.remove(&self.last)
    }
}

/// The size of a region with this descriptor.
pub(super) struct Surveyed {
    pub(super) region: Arc<Region>,
    pub(super) size: RegionSize,
    /// Where it should be divided; empty if it is not too large.
    pub(super) boundaries: Vec<Bytes>,
}

/// An answer.
pub(super) enum Found {
    /// Applied indices in tables, of the regions where they changed.
    Flushed(Vec<(RegionId, u64)>),
    /// Free bytes of the volume; 0 if they cannot be determined.
    Space(u64),
    /// The directory is gone, or the engine has stopped.
    Unusable(EngineError),
    /// A state with everything that is applied in `term`, or why it cannot be read. Its placement family was read once,
    /// so reading it again needs no disk access.
    Placement { term: u64, state: Result<StateView, String> },
    /// The size of a region.
    Size(Surveyed),
}

/// The driver's side of the job.
pub(super) struct Surveys {
    wanted: Arc<Mutex<Wanted>>,
    task: Option<Box<dyn TaskHandle>>,
    wanted_sizes: WantedSizes,
    sizes_task: Option<Box<dyn TaskHandle>>,
    entry_reads: EntryReads,
}

impl Surveys {
    pub(super) fn start(
        env: &Env,
        data_dir: &Path,
        (state, log): (&Arc<dyn StateEngine>, &Arc<dyn RaftLog>),
        inbox: &Arc<Inbox>,
    ) -> Surveys {
        let wanted: Arc<Mutex<Wanted>> = Arc::default();
        let job = Job {
            fs: env.fs.clone(),
            data_dir: data_dir.to_owned(),
            state: state.clone(),
            reported: Mutex::default(),
            inbox: inbox.clone(),
            wanted: wanted.clone(),
        };
        let task = Some(env.tasks.spawn("surveys", Box::new(move || job.step())));
        let wanted_sizes = WantedSizes::default();
        let entry_reads = EntryReads::start(env, log, inbox);
        let (sizes, state, inbox) = (wanted_sizes.clone(), state.clone(), inbox.clone());
        let step = move || survey_next(&*state, &sizes, &inbox);
        let sizes_task = Some(env.tasks.spawn("region-sizes", Box::new(step)));
        Surveys { wanted, task, wanted_sizes, sizes_task, entry_reads }
    }

    pub(super) fn flushed(&self) {
        self.ask(|wanted| wanted.flushed = true);
    }

    pub(super) fn space(&self) {
        self.ask(|wanted| wanted.space = true);
    }

    /// Answered only if it is not usable.
    pub(super) fn directory(&self) {
        self.ask(|wanted| wanted.directory = true);
    }

    pub(super) fn placement(&self, term: u64) {
        self.ask(|wanted| wanted.placement = Some(term));
    }

    pub(super) fn size(&self, region: Arc<Region>, limits: SizeLimits) {
        self.wanted_sizes.lock().wanted.insert(region.id, (region, limits));
        if let Some(task) = &self.sizes_task {
            task.wake();
        }
    }

    /// Reads entries of logs.
    pub(super) fn entries(&self, tasks: Vec<EntriesTask>) {
        self.entry_reads.begin(tasks);
    }

    fn ask(&self, question: impl FnOnce(&mut Wanted)) {
        question(&mut self.wanted.lock());
        if let Some(task) = &self.task {
            task.wake();
        }
    }

    /// Stops the jobs: they are not running when this returns.
    pub(super) fn stop(&mut self) {
        (self.task, self.sizes_task) = (None, None);
        self.entry_reads.stop();
    }
}

fn survey_next(state: &dyn StateEngine, wanted: &WantedSizes, inbox: &Inbox) -> Progress {
    let Some((region, limits)) = wanted.lock().next() else { return Progress::Idle };
    match survey(&state.snapshot(), &region, limits) {
        Ok((size, boundaries)) => inbox.push(Input::Found(Found::Size(Surveyed { region, size, boundaries }))),
        Err(error) => tracing::warn!(region = region.id.0, %error, "the size of a region cannot be determined"),
    }
    Progress::Worked
}

struct Job {
    fs: Arc<dyn Fs>,
    data_dir: PathBuf,
    state: Arc<dyn StateEngine>,
    /// The applied indices as last reported, and what tables contained then.
    reported: Mutex<(SequenceNumber, BTreeMap<RegionId, u64>)>,
    inbox: Arc<Inbox>,
    wanted: Arc<Mutex<Wanted>>,
}

impl Job {
    /// Answers one query, the urgent one first.
    fn step(&self) -> Progress {
        let mut wanted = self.wanted.lock();
        let found = if let Some(term) = wanted.placement.take() {
            drop(wanted);
            Found::Placement { term, state: self.placement() }
        } else if std::mem::take(&mut wanted.flushed) {
            drop(wanted);
            Found::Flushed(self.flushed())
        } else if std::mem::take(&mut wanted.directory) {
            drop(wanted);
            match self.state.check_directory() {
                // The driver closes it itself.
                Ok(()) | Err(EngineError::Closed) => return Progress::Worked,
                Err(error) => Found::Unusable(error),
            }
        } else if std::mem::take(&mut wanted.space) {
            drop(wanted);
            Found::Space(self.fs.free_bytes(&self.data_dir).unwrap_or(0))
        } else {
            return Progress::Idle;
        };
        self.inbox.push(Input::Found(found));
        Progress::Worked
    }

    fn placement(&self) -> Result<StateView, String> {
        let state = self.state.snapshot();
        let read = || {
            let mut entries = state.entries(families::PLACEMENT, Range::all(), Direction::Forward)?;
            while entries.next().transpose()?.is_some() {}
            Ok(())
        };
        read().map_err(|error: kontiki_engine::Error| error.to_string())?;
        Ok(state)
    }

    /// What changed since it was last reported: the driver has no work with the other regions.
    fn flushed(&self) -> Vec<(RegionId, u64)> {
        let mut reported = self.reported.lock();
        // Read before the view: what is flushed in between is reported twice, and not missed.
        let flushed = self.state.flushed_sequence();
        if reported.0 == flushed && !planted::is_set(Bug::ReportUnflushed) {
            return Vec::new();
        }
        let live = || Box::new(self.state.snapshot()) as Box<dyn View>;
        let view = if planted::is_set(Bug::ReportUnflushed) { live() } else { self.state.flushed_view() };
        let mut applied = match meta::applied_indices(families::META, &*view) {
            Ok(applied) => applied,
            Err(error) => {
                tracing::warn!(%error, "the flushed applied indices cannot be read");
                return Vec::new();
            }
        };
        let now: BTreeMap<RegionId, u64> = applied.iter().copied().collect();
        let (_, before) = std::mem::replace(&mut *reported, (flushed, now));
        applied.retain(|(region, index)| before.get(region) != Some(index));
        applied
    }
}
