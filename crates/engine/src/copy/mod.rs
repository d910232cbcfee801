//! Copies of a database: checkpoints (hard links on the same disk) and backups (files elsewhere, incremental).
//!
//! Both begin in the same way: flush, then hold the current [`Version`]. Its files never change and stay as long as it is
//! held, so a copy is consistent without stopping anybody: it is the database at the version's flushed sequence number,
//! which is at or above everything that was acknowledged before the call. The log is not copied; whatever it holds above
//! that number came later.
//!
//! A database with streams (that of a served store) is refused: its streams live in the log, and a second store with the
//! same identity would vote twice. A lost replica is rebuilt from the others instead.
//!
//! docs/internals/copies.md has the reasons.

mod backup;
mod checkpoint;
mod files;
mod record;

pub use backup::{BackupInfo, BackupStore, CopyProgress};
pub use checkpoint::CheckpointReport;
pub use record::decode_record;

use crate::db::Core;
use crate::version::Version;
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// The version to copy.
fn version_to_copy(core: &Arc<Core>) -> Result<Arc<Version>> {
    if core.streams.lock().len() > 0 {
        let what = "the directory belongs to a served store, whose log cannot be copied; add a replica instead";
        return Err(Error::InvalidArgument(what.to_string()));
    }
    core.flush_all()?;
    Ok(core.context.versions.current())
}

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
