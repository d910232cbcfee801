//! A checkpoint: a second directory with the same files.

use super::CopySource;
use super::files::files_of;
use crate::directory::copy_file::copy_file;
use crate::directory::{absolute, unfinished};
use crate::version::write_fresh;
use crate::{Db, Error, Result, SequenceNumber};
use std::collections::BTreeSet;
use std::path::Path;

/// The result of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Every write at or below it is in the checkpoint.
    pub sequence: SequenceNumber,
    /// Files that are linked: they take no space until the database drops them.
    pub linked: u64,
    /// Files that were copied, because the file system cannot link them there.
    pub copied: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Db {
    /// Makes `target` a separate database that holds everything that was acknowledged before this call. The files are
    /// hard links where the file system can (copies where not), so this takes about as long as a flush. Later changes
    /// of either directory do not show in the other.
    ///
    /// A checkpoint that was interrupted is refused by an open; remove it and try again.
    ///
    /// Of the directory of a served store it has the data, and not the state of the node
    /// ([`crate::Family::NODE_STATE`]).
    ///
    /// Errors: [`Error::InvalidArgument`] if `target` is not empty; those of [`Db::flush`]; [`Error::Busy`];
    /// [`Error::Io`] and [`Error::NoSpace`] of the target.
    pub fn checkpoint(&self, target: impl AsRef<Path>) -> Result<CheckpointReport> {
        let core = self.core();
        let env = &core.shared().env;
        let target = &absolute(env, target.as_ref())?;
        let _here = core.enter_foreground()?;
        let source = CopySource::of(core)?;
        unfinished::begin(env, target)?;
        let files = files_of(&source.edit);
        let mut report = CheckpointReport { sequence: source.sequence, ..CheckpointReport::default() };
        let mut directories = BTreeSet::new();
        for file in &files {
            // A close waits for this; it need not wait for all files.
            core.shared().health.check_open()?;
            let directory = file.kind.directory(target);
            if directories.insert(directory.clone()) {
                env.fs.create_dir_all(&directory).map_err(|error| Error::io(&directory, &error))?;
            }
            let (from, to) =
                (file.kind.path(&core.shared().directory, file.number), file.kind.path(target, file.number));
            match env.fs.link(&from, &to) {
                Ok(()) => report.linked += 1,
                // Another file system, or one without links.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::io(&from, &error)),
                Err(_) => {
                    copy_file(env, &from, &to, file.bytes, &mut |_| ())?;
                    report.copied += 1;
                }
            }
            report.bytes += file.bytes;
        }
        for directory in &directories {
            env.fs.sync_dir(directory).map_err(|error| Error::io(directory, &error))?;
        }
        // Last, since it is what makes the directory a database.
        write_fresh(env, target, &source.edit)?;
        unfinished::end(env, target)?;
        assert_eq!(report.linked + report.copied, files.len() as u64, "each file is there once");
        Ok(report)
    }
}
