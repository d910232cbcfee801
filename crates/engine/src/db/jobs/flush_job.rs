//! The `flush` job: memtables become tables.

use super::failure::{background_failed, wait_after_failure};
use super::log_maintenance::LogMaintenance;
use crate::Result;
use crate::compaction;
use crate::db::shared::Shared;
use crate::db::write::WritePath;
use crate::db::write::memtable_slot::MemtableSlot;
use std::sync::Arc;

/// One step of the job.
pub(super) struct FlushJob<'a> {
    write: &'a WritePath,
    shared: &'a Shared,
    log: &'a LogMaintenance,
}

impl<'a> FlushJob<'a> {
    pub(super) fn new(write: &'a WritePath, log: &'a LogMaintenance) -> FlushJob<'a> {
        FlushJob { write, shared: &write.shared, log }
    }

    /// Flushes the oldest frozen memtable, or maintains the log. Returns whether to
    /// call it again.
    pub(crate) fn step(&self) -> bool {
        if self.shared.health.check_writable().is_err() || self.shared.is_stopping() {
            return false;
        }
        let outcome = match self.flush_one() {
            Ok(false) => self.log.maintain(self.write),
            flushed => flushed,
        };
        let error = outcome.as_ref().err().cloned();
        if let Some(error) = &error {
            background_failed(self.write, error);
        }
        if error.is_some() || self.shared.progress.get().flush_error.is_some() {
            // Writers that wait for memory must be woken; the next write tries again.
            let failed = error.is_some();
            self.shared.progress.update(|state| {
                state.failed_flushes += u64::from(failed);
                state.flush_error = error;
            });
            self.shared.jobs.wake_commit();
            if failed {
                return wait_after_failure(self.shared);
            }
        }
        outcome.unwrap_or(false)
    }

    /// Writes the oldest frozen memtable to tables, if its batches have all finished. If there is no space for it, all
    /// frozen memtables are flushed together: what newer ones delete then takes none.
    fn flush_one(&self) -> Result<bool> {
        let Some(slot) = self.write.memtables.flushable() else { return Ok(false) };
        let mut slots = vec![slot];
        let began = self.shared.env.clock.monotonic();
        match self.flush_slots(&slots) {
            Ok(()) => {}
            Err(error) if error.is_retryable() => {
                slots = self.write.memtables.flushable_together();
                if slots.len() < 2 {
                    return Err(error);
                }
                self.flush_slots(&slots)?;
            }
            Err(error) => return Err(error),
        }
        let bytes = slots.iter().map(|slot| slot.memtable.approximate_bytes() as u64).sum();
        self.shared.counters.note_flush(bytes);
        self.write.throttle.note_flush(bytes, self.shared.env.clock.monotonic().saturating_sub(began));
        self.write.memtables.install(&self.shared.context.versions, &slots);
        self.write.note_compaction_debt();
        self.shared.progress.update(|state| {
            for slot in &slots {
                assert_eq!(state.flushed_id + 1, slot.id, "memtables are flushed one after the other");
                state.flushed_id = slot.id;
            }
        });
        self.shared.jobs.wake_commit();
        self.shared.jobs.wake_compact();
        self.shared.jobs.wake_values();
        Ok(true)
    }

    /// Writes the oldest frozen memtables, which have finished, to tables.
    fn flush_slots(&self, slots: &[Arc<MemtableSlot>]) -> Result<()> {
        // A buffered commit's batch must not become durable in a table while the stream operations of the same
        // commit, or earlier commits, are still unsynced in the log: that would tear it, or reorder history.
        self.write.sync_log()?;
        let through = slots.last().map_or(0, |slot| slot.last_sequence());
        assert!(through <= self.write.memtables.visible(), "a finished memtable is visible as a whole");
        let mut memtables: Vec<_> = slots.iter().map(|slot| slot.memtable.clone()).collect();
        if memtables.len() > 1 {
            // One may hold nothing but the number of an ingest.
            memtables.retain(|memtable| !memtable.is_empty());
        }
        let flush = || compaction::flush(&self.shared.context, &memtables, through, None);
        self.shared.recorder.time(&self.shared.recorder.flush, flush).map(drop)
    }
}
