//! Wakes the background jobs. The parts that need work done know this alone, and not what the jobs do.

use crate::lock::{Rank, RwLock};
use kontiki_env::tasks::TaskHandle;

/// Wakes jobs; does nothing before they are started and after they have ended.
pub(crate) struct JobNotifier {
    handles: RwLock<Option<JobHandles>>,
}

/// The background jobs. Each owns the database's core in turn; to end them breaks the circle.
pub(crate) struct JobHandles {
    /// Leads groups that no waiting writer leads.
    pub(crate) commit: Box<dyn TaskHandle>,
    /// Makes log segments ahead.
    pub(crate) log: Box<dyn TaskHandle>,
    /// Flushes memtables and maintains the log.
    pub(crate) flush: Box<dyn TaskHandle>,
    /// Compacts, does full compactions, and removes obsolete files.
    pub(crate) compact: Box<dyn TaskHandle>,
    /// Maintains the value log.
    pub(crate) values: Box<dyn TaskHandle>,
    /// Further compactions, in parallel.
    pub(crate) more_compact: Vec<Box<dyn TaskHandle>>,
}

impl Default for JobNotifier {
    fn default() -> JobNotifier {
        JobNotifier { handles: RwLock::new(Rank::Jobs, None) }
    }
}

impl JobNotifier {
    /// Takes the jobs, once, at the end of open.
    pub(crate) fn set(&self, handles: JobHandles) {
        let before = self.handles.write().replace(handles);
        assert!(before.is_none(), "the jobs are started once");
    }

    /// The jobs, to be dropped: that waits for steps that may need to wake others, so it is not done under the lock.
    pub(crate) fn take(&self) -> Option<JobHandles> {
        self.handles.write().take()
    }

    /// Requests a group commit on the `commit` job.
    pub(crate) fn wake_commit(&self) {
        self.handles.read().iter().for_each(|jobs| jobs.commit.wake());
    }

    /// Requests the next log segment.
    pub(crate) fn wake_log(&self) {
        self.handles.read().iter().for_each(|jobs| jobs.log.wake());
    }

    /// Requests a check of memtables and the log.
    pub(crate) fn wake_flush(&self) {
        self.handles.read().iter().for_each(|jobs| jobs.flush.wake());
    }

    /// Requests a check of the levels.
    pub(crate) fn wake_compact(&self) {
        self.handles.read().iter().for_each(|jobs| {
            jobs.compact.wake();
            jobs.more_compact.iter().for_each(|job| job.wake());
        });
    }

    /// Requests the removal of obsolete files.
    pub(crate) fn wake_removal(&self) {
        self.handles.read().iter().for_each(|jobs| jobs.compact.wake());
    }

    /// Requests a check of the value log.
    pub(crate) fn wake_values(&self) {
        self.handles.read().iter().for_each(|jobs| jobs.values.wake());
    }
}
