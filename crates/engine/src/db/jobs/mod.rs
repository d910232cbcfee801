//! Background jobs, and the same work on a caller's thread. They use the write path, which does not know them.
//!
//! - `failure`: what jobs do when their work fails;
//! - `flush_job`: memtables become tables; `compaction_job`: tables are merged; `value_gc`: the value log is collected;
//! - `log_maintenance`: old log segments are deleted, new ones made; `log_watch`: what holds the log;
//! - `dead_range_requests`: compactions that scans request; `compact_range`: one on its caller's thread;
//! - `idle`: what is freed when there are no writes.

mod compact_range;
mod compaction_job;
pub(super) mod dead_range_requests;
mod failure;
mod flush_job;
mod idle;
pub(crate) mod log_maintenance;
mod log_watch;
mod value_gc;

use self::compaction_job::CompactionJob;
use self::flush_job::FlushJob;
use self::idle::IdleWatch;
use self::log_maintenance::LogMaintenance;
use self::value_gc::ValueCollector;
use super::write::WritePath;

/// What the jobs remember from one step to the next.
#[derive(Default)]
pub(crate) struct Background {
    pub(crate) log: LogMaintenance,
    idle: IdleWatch,
}

/// One step of each job; each returns whether to call it again.
impl Background {
    pub(super) fn flush_step(&self, write: &WritePath) -> bool {
        FlushJob::new(write, &self.log).step()
    }

    pub(super) fn compact_step(&self, write: &WritePath) -> bool {
        CompactionJob::new(write, &self.idle).step()
    }

    /// Of the jobs that compact in parallel to the first.
    pub(super) fn more_compact_step(&self, write: &WritePath) -> bool {
        CompactionJob::new(write, &self.idle).further_step()
    }

    pub(super) fn values_step(&self, write: &WritePath) -> bool {
        ValueCollector::new(write).step()
    }
}
