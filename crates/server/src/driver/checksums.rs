//! Checksums of regions, computed in the background from views of the engine.
//!
//! One at a time, in parts with pauses between them: they are not urgent, and reading a large region at full speed
//! would slow down everything else on this disk.

use super::error::NoChecksum;
use super::gc_filter::LiveEntries;
use super::inbox::{Inbox, Input};
use crate::families::FAMILIES;
use kontiki_env::Env;
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_raftstore::{Checksum, ChecksumTask, RegionId};
use kontiki_state::{StateEngine, StateView};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of keys and values that are read between two pauses.
const PART_BYTES: u64 = 1 << 20;
/// The pause: at most 50 MiB are read in a second.
const PAUSE: Duration = Duration::from_millis(20);
/// The maximum number of checksums that wait, each with a view: above it, a check does without this replica. By their
/// schedules the stores of a cluster begin one check each at a time.
const WAITING_MAX: usize = 16;

struct Waiting {
    region: RegionId,
    index: u64,
    view: StateView,
    checksum: Checksum,
    /// On the monotonic clock: then the leader waits no more.
    deadline: Duration,
}

/// The driver's side of the job.
pub(super) struct Checksums {
    state: Arc<dyn StateEngine>,
    env: Env,
    waiting: Arc<Mutex<VecDeque<Waiting>>>,
    task: Option<Box<dyn TaskHandle>>,
    time_max: Duration,
}

impl Checksums {
    /// A checksum that takes longer than `time_max` is given up.
    pub(super) fn start(env: &Env, state: &Arc<dyn StateEngine>, inbox: &Arc<Inbox>, time_max: Duration) -> Checksums {
        let waiting: Arc<Mutex<VecDeque<Waiting>>> = Arc::default();
        let (queue, inbox, env_of_job) = (waiting.clone(), inbox.clone(), env.clone());
        let mut current = None;
        let step = move || {
            current = current.take().or_else(|| queue.lock().pop_front());
            advance(&mut current, &env_of_job, &inbox)
        };
        let task = Some(env.tasks.spawn("region-checksums", Box::new(step)));
        Checksums { state: state.clone(), env: env.clone(), waiting, task, time_max }
    }

    /// Takes the view now, or says why there is no checksum.
    pub(super) fn begin(&self, task: ChecksumTask, now: Duration) -> Result<(), &'static str> {
        let (ChecksumTask { region, index, expires_after_ms }, deadline) = (task, now + self.time_max);
        let view = self.state.snapshot();
        // The clock is read after the view was taken, so the view's own time is not later.
        if expires_after_ms != 0 && self.env.clock.wall_ms() >= expires_after_ms {
            return Err("keys that count may have expired here: the clock of this store has passed the command's time");
        }
        let mut waiting = self.waiting.lock();
        // An earlier state of the region is not compared any more.
        waiting.retain(|earlier| earlier.region != region.id);
        if waiting.len() >= WAITING_MAX {
            return Err("too many checksums wait");
        }
        let live = LiveEntries::new(&region, view.clone());
        let id = region.id;
        let checksum = Checksum::new(&FAMILIES, region, expires_after_ms).of_those(Box::new(live));
        waiting.push_back(Waiting { region: id, index, view, checksum, deadline });
        drop(waiting);
        if let Some(task) = &self.task {
            task.wake();
        }
        Ok(())
    }

    /// Stops the job: it is not running when this returns.
    pub(super) fn stop(&mut self) {
        self.task = None;
        self.waiting.lock().clear();
    }
}

/// Reads one part.
fn advance(current: &mut Option<Waiting>, env: &Env, inbox: &Inbox) -> Progress {
    let Some(Waiting { region, index, view, checksum, deadline }) = current else { return Progress::Idle };
    let result = match checksum.advance(view, PART_BYTES) {
        Ok(None) if env.clock.monotonic() >= *deadline => Err(NoChecksum::Late),
        // In a stepped world only a wake counts, and time does not pass.
        Ok(None) if env.tasks.threaded() => return Progress::IdleFor(PAUSE),
        Ok(None) => return Progress::Worked,
        Ok(Some(value)) => Ok(value),
        Err(error) => Err(error.into()),
    };
    inbox.push(Input::Checksummed { region: *region, index: *index, result });
    *current = None;
    Progress::Worked
}
