//! A database that is open for reading only.
//!
//! It is built by the same code as any other, on a file system that permits every read and no change
//! (`directory/dry_fs.rs`): the log's torn tail is cut in memory alone, and what the log holds stays in one memtable,
//! however large. No lock is taken, no job is started, and each write is refused before it touches anything.

use super::descriptors::DescriptorFs;
use super::open::build;
use crate::Result;
use crate::db::family_numbers::{missing_families, with_numbers};
use crate::db::{Core, Db, Handle, Options};
use crate::directory::{DryFs, absolute};
use crate::version::{ManifestOptions, VersionSet, no_database};
use kontiki_env::Env;
use std::path::Path;
use std::sync::Arc;

impl Db {
    /// Opens the database in the directory `path` of this machine to be read only: not a byte of the directory is
    /// changed, and this process needs no write permission for it. Reads are those of [`Db::open`];
    /// every write returns [`Error::ReadOnly`](crate::Error::ReadOnly).
    ///
    /// For directories that no process writes to meanwhile: a checkpoint of a running database, a copy, what a crashed
    /// process has left. It takes no lock, and so does not notice a writer; next to a writer it may find files missing,
    /// and then returns [`Error::Corruption`](crate::Error::Corruption). Several processes may have a directory open in
    /// this way at once. What is in the log is held in memory, up to `log_bytes_max` of the options that it was written
    /// with.
    ///
    /// Families that the options name and the directory does not have are not created.
    ///
    /// Errors: [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is no database, and as [`Db::open`].
    pub fn open_read_only(path: impl AsRef<Path>, options: Options) -> Result<Db> {
        Db::open_read_only_in(&Env::real(), path.as_ref(), options)
    }

    /// As [`Db::open_read_only`], on a machine given by `env`.
    pub fn open_read_only_in(env: &Env, path: &Path, options: Options) -> Result<Db> {
        options.validate()?;
        let path = &absolute(env, path)?;
        if !env.fs.exists(&path.join("CURRENT")) {
            return Err(no_database(env, path));
        }
        let (env, descriptors) = DescriptorFs::around(env, path.join("CURRENT"));
        let env = Env { fs: Arc::new(DryFs(env.fs)), ..env };
        let versions = VersionSet::open(&env, path, ManifestOptions::default())?;
        let options = with_numbers(&versions.current(), options);
        missing_families(&versions, &options)?;
        let core: Arc<Core> = Arc::new(build(&env, path, options, versions, None, descriptors.refused().clone())?);
        descriptors.may_close_files_of(&core.shared().context);
        Ok(Db { handle: Arc::new(Handle { core }) })
    }
}
