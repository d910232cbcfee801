//! Copies of a database: checkpoints (hard links on the same disk) and backups (files elsewhere, incremental).
//!
//! Both begin in the same way: flush, then hold the current [`Version`]. Its files never change and stay as long as it is
//! held, so a copy is consistent without stopping anybody: it is the database at the version's flushed sequence number,
//! which is at or above everything that was acknowledged before the call. The log is not copied; whatever it holds above
//! that number came later.
//!
//! Of the directory of a served store (it has streams) the data is copied, of all families but those that make it a node
//! ([`Family::NODE_STATE`]), and no log. So the copy is an embedded database: it can be read, and served as a new store of
//! its own, and cannot come up as a second node with the same identity, which would vote twice. A lost replica is rebuilt
//! from the others. *Rejected:* copying the log and the identity too; of the log's entries others have seen acknowledgements
//! that an older copy would not remember.
//!
//! docs/internals/copies.md has the reasons.

mod backup;
mod checkpoint;
mod files;
mod record;

pub use backup::{BackupInfo, BackupStore, CopyProgress};
pub use checkpoint::CheckpointReport;
pub(crate) use files::copy_file;
pub use record::decode_record;

use crate::db::Core;
use crate::version::{Version, VersionEdit, copy_edit, lost_a_segment};
use crate::{Error, Family, Result, SequenceNumber};
use std::path::Path;
use std::sync::Arc;

/// Rounds of flushing and sealing before a copy gives up. A round fails only if a writer was just then between its
/// values and their place in a memtable, which takes it microseconds.
const ROUNDS_MAX: usize = 1000;

/// What is copied.
struct Source {
    /// The whole version; its value segments are sealed.
    edit: VersionEdit,
    sequence: SequenceNumber,
    /// Keeps the files.
    _version: Arc<Version>,
}

impl Source {
    fn of(core: &Arc<Core>) -> Result<Source> {
        let is_served = core.streams.lock().len() > 0;
        if is_served
            && Family::NODE_STATE.iter().any(|family| core.context.versions.current().family(*family).is_none())
        {
            let what = "the directory belongs to a served store of an earlier version; start `kontiki serve` on it once, \
                        which converts it, stop it, and try again";
            return Err(Error::InvalidArgument(what.to_string()));
        }
        core.flush_all()?;
        Source::of_version(core, core.context.versions.current())
    }

    /// Of this version, or of a newer one if it cannot be.
    fn of_version(core: &Core, mut version: Arc<Version>) -> Result<Source> {
        let versions = &core.context.versions;
        for _ in 0..ROUNDS_MAX {
            core.seal_values(true)?;
            let later = versions.current();
            if let Some(mut edit) = copy_edit(&version, &later, versions.new_file_number()) {
                if core.streams.lock().len() > 0 {
                    edit.leave_out(&Family::NODE_STATE);
                }
                return Ok(Source { edit, sequence: version.flushed_sequence(), _version: version });
            }
            if lost_a_segment(&version, &later) {
                version = later;
            }
            std::thread::yield_now();
        }
        Err(Error::Bug("a value segment that tables refer to could not be sealed".to_string()))
    }
}

#[cfg(test)]
#[path = "source_test.rs"]
mod tests;

/// Refuses a directory that holds anything.
fn refuse_unless_empty(env: &kontiki_env::Env, dir: &Path) -> Result<()> {
    if !env.fs.exists(dir) {
        return Ok(());
    }
    let names = env.fs.list(dir).map_err(|error| Error::io(dir, &error))?;
    match names.first() {
        None => Ok(()),
        Some(name) => {
            let dir = dir.display();
            Err(Error::InvalidArgument(format!("{dir} is not empty (it holds {name}); name a new directory")))
        }
    }
}
