//! Files: the trait, and its contract of durability.
//!
//! What survives a power loss:
//! - bytes of a file up to its last successful [`File::sync`] that were written before that call began;
//! - directory entries (create, rename, remove, link) up to the last successful [`Fs::sync_dir`] of that directory.
//!
//! Nothing else is promised: unsynced writes may survive wholly, partly, out of order, or as garbage. After a
//! failed sync the content of the file is unknown; callers never retry a sync.

#[cfg(target_os = "linux")]
mod bus_error;
#[cfg(target_os = "linux")]
mod map;
mod real;
mod sim;

pub use real::RealFs;
pub use sim::{CrashMode, Op, SimFs, TraceEntry};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, reads only.
    Read,
    /// Existing file, reads and writes.
    ReadWrite,
    /// New file, reads and writes; fails with `AlreadyExists` if it is there.
    CreateNew,
}

/// How a file will be read. See [`File::advise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The system decides.
    Normal,
    /// At random offsets: no read-ahead, which would read megabytes for one block on some disks.
    Random,
    /// From the beginning to the end.
    Sequential,
}

/// One open file. All access is positional, so readers and the writer share a handle without a cursor.
#[allow(clippy::len_without_is_empty)] // no caller needs it; a cheap-looking call that does I/O misleads
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, extending the file if needed.
    /// On an error any part of `bytes` may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable, with the metadata needed to read it back (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Reserves blocks for `[0, length)` so that later writes there cannot fail for lack of space. The file's
    /// length becomes at least `length`; new bytes read as zero.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Declares how the file will be read, so that the system reads ahead as it should. A hint: it changes no content.
    fn advise(&self, access: Access) -> io::Result<()> {
        let _ = access;
        Ok(())
    }
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Number of names that the file has now. A caller that wants to reuse a file for something else checks it, because
    /// a hard link may still refer to the content.
    fn links(&self) -> io::Result<u64>;
    /// Whether blocks that are allocated stay where they are when they are written, so that such a write cannot fail
    /// for lack of space. Not so on copy-on-write file systems, and where it is not known.
    fn writes_in_place(&self) -> bool {
        false
    }
    /// A mapping of the first `length` bytes, which must be allocated: the cheapest way to write a little at a time.
    /// `None` where that is not possible, or where a write there could fail for lack of space. Reads, writes and syncs
    /// of the file see what is written there as if [`File::write_at`] had written it, but that a killed process may
    /// leave a part of one write. The file must not be cut while it is mapped.
    fn map(&self, length: u64) -> io::Result<Option<Box<dyn MappedFile>>> {
        let _ = length;
        Ok(None)
    }
}

/// See [`File::map`].
pub trait MappedFile: Send {
    /// Copies `bytes` to `offset`, within the mapping. On an error any part of `bytes` may have been written, and all
    /// later writes may fail.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

/// Holds an exclusive lock until dropped.
pub trait FileLock: Send + Sync {
    /// Whether `path`, by which the lock was taken, still names the locked file: not if that was removed or moved,
    /// alone or with its directory. A path that cannot be read counts as unchanged.
    fn is_at(&self, path: &Path) -> bool;
}

/// A file system.
pub trait Fs: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and its parents; no error if it exists. New directories are durable at return (their
    /// parents are synced): this is rare, so it is not worth a rule that callers can forget.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// File and directory names directly under `path`, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Whether the path exists.
    fn exists(&self, path: &Path) -> bool;
    /// The absolute path. A path that is kept is resolved once: a relative one would name
    /// another file after the process has changed its working directory. The path need not exist. The default is for
    /// file systems without a working directory.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }
    /// Atomically renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Handles that are open keep working.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a hard link.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on `path`, creating it, and writes `holder` (such as "process 123") into it. If
    /// it is held already, the error is `WouldBlock` and its text names the holder that the file records. Released
    /// by dropping the lock and by the end of the process; the file stays, because its removal would race.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn FileLock>>;
    /// Takes a shared lock on the file `path`, for readers: any number of them hold it at once, and none
    /// holds it together with a lock of [`Fs::lock`]. Changes nothing, so it works on read-only media and on files of
    /// another user. `None` if there is no such file. If the exclusive lock is held, the error is as that of
    /// [`Fs::lock`].
    fn lock_to_read(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>>;
    /// Free bytes of the volume that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// How many descriptors this process may have at once, for all purposes; `None` where there is no
    /// bound. See [`is_out_of_descriptors`].
    fn descriptors_max(&self) -> Option<u64> {
        None
    }
}

/// Whether an operation failed because the process (EMFILE) or the machine (ENFILE) has no descriptor left: nothing has
/// happened, and the same may succeed once some are closed.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let found = rustix::io::Errno::from_io_error(error);
    found.is_some_and(|errno| errno == rustix::io::Errno::MFILE || errno == rustix::io::Errno::NFILE)
}

/// Reads a whole file.
pub fn read_all(fs: &dyn Fs, path: &Path) -> io::Result<Vec<u8>> {
    let file = fs.open(path, OpenMode::Read)?;
    let length = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < bytes.len() {
        let count = file.read_at(&mut bytes[filled..], filled as u64)?;
        if count == 0 {
            bytes.truncate(filled);
            break;
        }
        filled += count;
    }
    Ok(bytes)
}

/// The names in a directory; none if it is missing.
pub fn list_if_there(fs: &dyn Fs, directory: &Path) -> io::Result<Vec<String>> {
    match fs.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

/// Replaces `directory/name` with `bytes` so that after any crash the old or the new content is there whole:
/// temporary name, write, sync, rename, sync of the directory.
pub fn replace_file(fs: &dyn Fs, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let target = directory.join(name);
    let temporary = directory.join(format!("{name}.tmp"));
    if fs.exists(&temporary) {
        fs.remove(&temporary)?;
    }
    let file = fs.open(&temporary, OpenMode::CreateNew)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    fs.rename(&temporary, &target)?;
    fs.sync_dir(directory)?;
    Ok(target)
}

/// The error of a lock that is taken, from what its file records.
fn held_by(recorded: &str) -> io::Error {
    let holder = match recorded.trim() {
        "" => "an unknown process",
        holder => holder,
    };
    io::Error::new(io::ErrorKind::WouldBlock, format!("held by {holder}"))
}

#[cfg(test)]
#[path = "conformance_test.rs"]
mod conformance;
