//! Closing a database.
//!
//! 1. Every call is refused from now on, and waiters are woken.
//! 2. The jobs end, and so do callers that change files on their own threads.
//! 3. What has its place in the log is inserted and answered; what waits is refused.
//! 4. Value segments and the log are sealed; then the directory's lock is released.

use crate::db::Core;
use crate::directory::LOCK;
use crate::lock::check_wait;
use crate::{Error, Result};
use std::sync::atomic::Ordering;

impl Core {
    /// See [`Db::close`](crate::Db::close). `None` when it was called before; that call may be under way.
    pub(in crate::db) fn close(&self) -> Option<Result<()>> {
        let shared = self.shared();
        let first = shared.health.set_closed();
        shared.progress.notify_end();
        shared.subscribers.notify();
        self.transactions.close();
        if !first {
            return None;
        }
        let _done = self.close_state.closing.end_when_dropped();
        Some(self.end())
    }

    fn end(&self) -> Result<()> {
        let (shared, write) = (self.shared(), &self.write);
        self.end_jobs();
        self.foreground.wait_for_all();
        // Blocking callers may be writing values, or inserting what has its place in the log already: that is waited
        // for here, and answered as usual. No commit gets a place any more.
        {
            let _no_more = write.log.writer.lock();
            write.memtables.visibility.wait_all_inserted();
        }
        shared.context.values.close();
        write.refuse_all(&Error::Closed);
        if shared.health.read_only {
            shared.context.values.store.ownership().end();
            return Ok(());
        }
        let sealed = if shared.health.why_stopped().is_none() { write.seal_values(true).map(drop) } else { Ok(()) };
        let result = sealed.and_then(|()| write.close_log());
        let lost = self.lost_directory();
        write.memtables.completions.run();
        // Before the lock is released: a reader that opens a file by its name checks after it has opened it.
        shared.context.values.store.ownership().end();
        self.close_state.directory_lock.lock().take();
        match lost.map_or(result, Err) {
            // Writes had stopped before, and their callers have the error.
            Err(Error::Stopped(_)) => Ok(()),
            result => result,
        }
    }

    /// Whether the directory is not the one that was opened any more.
    fn lost_directory(&self) -> Option<Error> {
        let directory = &self.shared().directory;
        let is_there =
            self.close_state.directory_lock.lock().as_ref().is_none_or(|lock| lock.is_at(&directory.join(LOCK)));
        (!is_there).then(|| Error::DirectoryLost { directory: directory.clone() })
    }

    /// See [`Db::check_directory`](crate::Db::check_directory).
    pub(in crate::db) fn check_directory(&self) -> Result<()> {
        if let Some(lost) = self.lost_directory() {
            // An operation may have failed for it before, with an error that does not say so.
            self.write.stop(&lost);
            return Err(lost);
        }
        self.shared().health.check_writable()
    }

    /// When this returns none of the jobs runs, and none runs later.
    fn end_jobs(&self) {
        self.shared().context.stop.store(true, Ordering::Relaxed);
        let jobs = self.shared().jobs.take();
        check_wait();
        drop(jobs); // It waits for steps that may need to wake others, so not under the lock.
    }
}
