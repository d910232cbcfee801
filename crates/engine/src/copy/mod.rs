//! Copies of a database: checkpoints (hard links on the same disk) and backups (files elsewhere, incremental).
//!
//! Both begin in the same way: flush, then hold the current `Version`. Its files never change and stay as long as it
//! is held, so a copy is consistent without stopping writers: it is the database at the version's flushed sequence
//! number, which is at or above everything that was acknowledged before the call. The log is not copied; whatever it
//! holds above that number came later.
//!
//! Of the directory of a served store (it has streams) the data is copied, of all families but those that make it a
//! node ([`Family::NODE_STATE`]), and no log. So the copy is an embedded database: it can be read, and served as a new
//! store of its own, and cannot come up as a second node with the same identity, which would vote twice. A lost replica
//! is rebuilt from the others. *Rejected:* copying the log and the identity too; of the log's entries others have seen
//! acknowledgements that an older copy would not remember.
//!
//! Only an ingest puts tables above the flushed number into a version, so ingests are kept out from before the flush
//! until the version is chosen: the copy then holds the writes up to one number, and no table of it is above that
//! number.
//!
//! docs/internals/copies.md has the reasons.

mod backup;
mod checkpoint;
mod files;
mod record;
mod verify;

pub use backup::{BackupInfo, BackupStore, CopyProgress};
pub use checkpoint::CheckpointReport;
#[cfg(test)]
pub(crate) use files::files_of_version;
#[doc(hidden)]
pub use record::decode_record;

use crate::db::Core;
use crate::version::{Version, VersionEdit, copy_edit, lost_a_segment};
use crate::{Error, Family, Result, SequenceNumber};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A value segment cannot be sealed while a batch that refers to it is on its way to a memtable. That takes
/// microseconds, or as long as writers are held up; a copy waits for it so long and then gives up.
const SEAL_WAIT_MAX: Duration = Duration::from_secs(300);
/// Between two looks.
const SEAL_PAUSE: Duration = Duration::from_millis(1);

/// What is copied.
struct CopySource {
    /// The whole version; its value segments are sealed.
    edit: VersionEdit,
    sequence: SequenceNumber,
    /// Keeps the files.
    version: Arc<Version>,
}

impl CopySource {
    fn of(core: &Arc<Core>) -> Result<CopySource> {
        let is_served = core.write.log.streams.lock().len() > 0;
        if is_served
            && Family::NODE_STATE
                .iter()
                .any(|family| core.shared().context.versions.current().family(*family).is_none())
        {
            let what = "the directory belongs to a served store of an earlier version; start `kontiki serve` on it once, \
                        which converts it, stop it, and try again";
            return Err(Error::InvalidArgument(what.to_string()));
        }
        let _no_ingest = core.foreground.ingest.lock();
        core.write.flush_all()?;
        CopySource::of_version(core, core.shared().context.versions.current())
    }

    /// Of this version, or of a newer one if it cannot be. No ingest runs.
    fn of_version(core: &Core, mut version: Arc<Version>) -> Result<CopySource> {
        let versions = &core.shared().context.versions;
        let began = core.shared().env.clock.monotonic();
        loop {
            core.write.seal_values(true)?;
            let later = versions.current();
            if let Some(mut edit) = copy_edit(&version, &later, versions.new_file_number()) {
                if core.write.log.streams.lock().len() > 0 {
                    edit.leave_out(&Family::NODE_STATE);
                }
                let sequence = version.flushed_sequence();
                if version.newest_sequence() > sequence {
                    let newest = version.newest_sequence();
                    return Err(Error::Bug(format!("a copy at {sequence} of tables that go to {newest}")));
                }
                return Ok(CopySource { edit, sequence, version });
            }
            if lost_a_segment(&version, &later) {
                version = later;
            }
            core.shared().health.check_writable()?;
            CopySource::wait_for_batches(core, began)?;
        }
    }

    /// Lets batches in progress make progress.
    fn wait_for_batches(core: &Core, began: Duration) -> Result<()> {
        let waited = core.shared().env.clock.monotonic().saturating_sub(began);
        let stuck = match core.shared().env.tasks.threaded() {
            true => waited >= SEAL_WAIT_MAX,
            // A stepped world has no time to let pass.
            false => !core.shared().env.tasks.step(),
        };
        if stuck {
            let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            core.shared().counters.copies_refused.fetch_add(1, Ordering::Relaxed);
            return Err(Error::Busy { what: "writes whose values a copy has to wait for".to_string(), waited_ms });
        }
        if core.shared().env.tasks.threaded() {
            core.shared().progress.wait_for_end(SEAL_PAUSE, || core.shared().health.check_writable().is_err());
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "source_test.rs"]
mod tests;
