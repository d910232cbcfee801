//! The write path: from a [`Commit`](crate::Commit) to a version that is visible and as durable as its writer requires.
//!
//! - `blocking_commit` and `submit`, which does not block: the two entries; `queue`: submitted commits that wait;
//! - `prepare`: a commit is checked; `large_values`: what is large in it goes to the value log;
//! - `throttle`, `pressure`: writers are slowed as background work falls behind; `stalls`: what they wait for;
//! - `pipeline`: one commit gets its number and its place in the log, and is inserted; `group_commit`: many of them;
//! - `commit_log`: the append to the log, and its sync;
//! - `memtables` (with `memtable_slot`, `capacity`, `read_states`, `memtable_replay`): sequence numbers, memtables, and
//!   what readers see;
//! - `visibility`: the order in which commits become visible and durable; `completion`: their answers;
//! - `conditions`: what must not have been written since a sequence number; `family_check`: families that are dropped;
//! - `stop`: the end of writes.
//!
//! It does not know the jobs: it wakes them (`JobNotifier` in `db/shared/job_notifier.rs`) and waits for what they have
//! achieved (`Progress` in `db/shared/progress.rs`).

mod blocking_commit;
pub(super) mod capacity;
pub(super) mod commit_log;
pub(super) mod completion;
pub(super) mod conditions;
mod family_check;
mod group_commit;
pub(super) mod large_values;
mod memtable_replay;
pub(super) mod memtable_slot;
pub(super) mod memtables;
pub(super) mod pipeline;
mod prepare;
pub(super) mod pressure;
mod queue;
mod read_states;
mod stalls;
mod stop;
mod submit;
mod sync;
pub(super) mod throttle;
pub(super) mod visibility;

use self::commit_log::CommitLog;
use self::family_check::FamilyDrops;
use self::memtables::Memtables;
use self::queue::Queue;
use self::throttle::Throttle;
use super::shared::Shared;
use crate::Result;
use crate::version::VersionEdit;

/// See the head of this file.
pub(crate) struct WritePath {
    /// What the other parts use, too.
    pub(crate) shared: Shared,
    pub(crate) log: CommitLog,
    pub(crate) memtables: Memtables,
    pub(crate) queue: Queue,
    pub(crate) throttle: Throttle,
    pub(crate) family_drops: FamilyDrops,
}

impl WritePath {
    /// Over what recovery has read.
    pub(crate) fn new(shared: Shared, log: CommitLog, memtables: Memtables) -> WritePath {
        let throttle = Throttle::new(&shared.options);
        let (queue, family_drops) = (Queue::default(), FamilyDrops::default());
        WritePath { shared, log, memtables, queue, throttle, family_drops }
    }

    /// Makes an edit durable and shows it to readers. Errors that leave the manifest's state unknown stop writes.
    pub(crate) fn apply_edit(&self, edit: VersionEdit) -> Result<()> {
        match self.shared.context.versions.apply(edit) {
            Ok(_) => {
                self.install_version();
                Ok(())
            }
            Err(error) => {
                if self.shared.context.versions.is_stopped() {
                    self.stop(&error);
                }
                Err(error)
            }
        }
    }

    /// Shows the newest version to readers.
    pub(crate) fn install_version(&self) {
        self.memtables.install(&self.shared.context.versions, None);
    }

    /// See [`Db::flush`](crate::Db::flush).
    pub(crate) fn flush_all(&self) -> Result<()> {
        let Shared { health, jobs, progress, .. } = &self.shared;
        health.check_writable()?;
        self.sync_log()?;
        let through = self.memtables.freeze_active();
        let failed_before = progress.get().failed_flushes;
        jobs.wake_flush();
        self.shared.wait_for(|progress| {
            if progress.flushed_id >= through {
                return Some(Ok(()));
            }
            if let (Some(error), true) = (&progress.flush_error, progress.failed_flushes > failed_before) {
                return Some(Err(error.clone()));
            }
            health.check_writable().err().map(Err)
        })
    }
}

#[cfg(test)]
mod visibility_model_test;
