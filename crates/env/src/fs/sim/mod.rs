//! A file system in memory that fails the way disks do, deterministically from a seed.
//!
//! Every file keeps two images: *live*, what processes read, and *durable*, what the disk holds, with the
//! ordered changes between them. Every directory does the same with its entries. A sync moves changes to the
//! durable side; [`SimFs::crash`] discards a random, legal part of what was not moved. So the model grants
//! what the contract of durability (the parent module) promises, and nothing more:
//!
//! - unsynced writes survive as a prefix (the next one torn), or page by page, each page as of any moment; the
//!   length may outrun the data, which then reads as zeros or, where blocks were not reserved, as garbage;
//! - unsynced operations of a directory survive as a prefix, in order, independently of other directories and of
//!   the files' content: a synced file whose entry was not synced can be missing;
//! - a failed sync leaves some pages on disk, drops the others and marks them clean: the next sync succeeds
//!   without them.
//!
//! Not modelled: renames between directories (refused), renames and removals of directories, misdirected writes.
//!
//! The copy of a file system ([`SimFs::fork`]) lets a test try many outcomes of one crash.

mod directory;
mod fault;
mod file;
mod image;
mod inode;
mod state;

pub use fault::{Op, TraceEntry};

use super::{File, FileLock, Fs, OpenMode};
use crate::rng::Rng;
use parking_lot::Mutex;
use state::State;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// The process is killed, the machine continues: nothing is lost, unsynced changes stay unsynced.
    Kill,
    /// Power loss that takes everything that was not synced.
    LoseUnsynced,
    /// Power loss just after everything reached the disk by itself.
    KeepUnsynced,
    /// Power loss: a random prefix of each file's changes.
    Prefix,
    /// Power loss: random pages of each file.
    Pages,
    /// Power loss: for each file a prefix or pages, at random.
    Random,
}

/// The simulated file system. Cheap to clone; clones are the same file system.
#[derive(Clone)]
pub struct SimFs {
    state: Arc<Mutex<State>>,
}

impl SimFs {
    /// An empty file system: one directory, `/`. Relative paths start there too.
    pub fn new(rng: Rng) -> SimFs {
        SimFs { state: Arc::new(Mutex::new(State::new(rng))) }
    }

    /// Ends the running process: every earlier handle and lock is void. A power loss also decides what survived;
    /// that is durable from then on. Power is on again; armed faults and the quota stay.
    pub fn crash(&self, mode: CrashMode) {
        self.state.lock().crash(mode);
    }

    /// Permits `ops` more mutating operations; the one after fails, its effect in flight, and so does every
    /// operation after that, reads too, until [`SimFs::crash`].
    pub fn power_off_after(&self, ops: u64) {
        self.state.lock().faults.power_off_after(ops);
    }

    /// Cuts the power between two operations: all fail from now on until [`SimFs::crash`]. For ending a simulated
    /// process without a clean shutdown.
    pub fn power_off(&self) {
        self.state.lock().faults.power_off();
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.state.lock().faults.is_off()
    }

    /// Fails the next `times` operations of kind `op` on paths that satisfy `predicate` with an I/O error. A write
    /// that fails may have written a part. A failed sync drops pages (see the module).
    pub fn fail_next(&self, op: Op, times: u64, predicate: impl Fn(&Path) -> bool + Send + 'static) {
        self.state.lock().faults.arm(op, times, Box::new(predicate));
    }

    /// Disarms what [`SimFs::fail_next`] and [`SimFs::power_off_after`] armed and has not happened yet.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Operations that have failed because of [`SimFs::fail_next`], since the file system was made.
    pub fn faults_injected(&self) -> u64 {
        self.state.lock().faults.injected
    }

    /// Limits the sum of the lengths of all files, `None` for no limit. At the limit, creating files and whatever
    /// extends them fails with `StorageFull`; overwriting does not. Shrinking below the use is allowed.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.state.lock().quota_bytes = bytes;
    }

    /// Whether files can be mapped from now on; not at first. Each write of a mapping is a separate operation, which
    /// may fail, and what it wrote is lost, page by page, until a sync of the file.
    pub fn set_maps(&self, maps: bool) {
        self.state.lock().maps = maps;
    }

    /// Limits the handles and locks that the running process may have at once, `None` for no limit. At the limit,
    /// opening, listing, locking and syncing of directories fail as with EMFILE. Below what is open now: nothing is
    /// closed.
    pub fn set_descriptors_max(&self, max: Option<u64>) {
        self.state.lock().descriptors_max = max;
    }

    /// Handles that the running process has.
    pub fn open_files(&self) -> u64 {
        self.state.lock().open_files
    }

    /// The sum of the lengths of all files that have a name or a handle.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes
    }

    /// Flips bit `bit` (0 to 7) of the byte at `offset`, for readers and on the disk.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        assert!(bit < 8, "a byte has eight bits");
        self.state.lock().flip_bit(path, offset, bit)
    }

    /// Mutating operations since the file system was made, refused ones included (but not with the power off).
    pub fn ops(&self) -> u64 {
        self.state.lock().faults.ops
    }

    /// Starts (or restarts) recording operations.
    pub fn start_trace(&self) {
        self.state.lock().faults.trace = Some(Default::default());
    }

    /// The operations recorded so far, oldest first; the last 100,000 of them.
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.state.lock().faults.trace.iter().flatten().cloned().collect()
    }

    /// An independent copy, as if the disk had been cloned just now: without handles, locks, faults, and
    /// with the power as it is. `rng` decides the copy's later faults.
    pub fn fork(&self, rng: Rng) -> SimFs {
        SimFs { state: Arc::new(Mutex::new(self.state.lock().fork(rng))) }
    }
}

impl std::fmt::Debug for SimFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SimFs").field("ops", &state.faults.ops).field("used_bytes", &state.used_bytes).finish()
    }
}

struct SimLock {
    state: Arc<Mutex<State>>,
    id: u64,
}

impl FileLock for SimLock {
    fn is_at(&self, path: &Path) -> bool {
        self.state.lock().exists(path)
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.state.lock().unlock(self.id);
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        let inode = state.open(path, mode)?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(file::SimFile::new(Arc::clone(&self.state), &mut state, inode, path, writable)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state.lock().create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.state.lock().list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.state.lock().exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.lock().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state.lock().remove(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.lock().link(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.state.lock().sync_dir(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn FileLock>> {
        let id = self.state.lock().take_lock(path, holder)?;
        Ok(Box::new(SimLock { state: Arc::clone(&self.state), id }))
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        let id = self.state.lock().take_read_lock(path)?;
        Ok(id.map(|id| Box::new(SimLock { state: Arc::clone(&self.state), id }) as Box<dyn FileLock>))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        if !state.exists(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(state.free_bytes())
    }

    fn descriptors_max(&self) -> Option<u64> {
        self.state.lock().descriptors_max
    }
}

#[cfg(test)]
#[path = "sim_test.rs"]
mod tests;
