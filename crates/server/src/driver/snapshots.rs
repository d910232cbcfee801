//! Snapshot files: building, installing and removing them, as one background job that does one of these a step.
//!
//! A file gets its final name only when it is whole and synced. Files with temporary names are removed at the next
//! start; so are whole files that nobody asks to install then, since a build or a transfer is simply begun anew.

use super::counters::Counters;
use super::error::OpenError;
use super::inbox::{Inbox, Input};
use super::lane::derived;
use super::{Driver, Outbound};
use bytes::Bytes;
use kontiki_engine::{Db, Error as EngineError};
use kontiki_env::Env;
use kontiki_env::fs::{File, Fs, OpenMode};
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_raftstore::snapshot::{SnapshotFile, SnapshotId, announced, build, install, verify};
use kontiki_raftstore::{BuildId, RegionId, SnapshotTask};
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The folder below the data directory.
const DIRECTORY: &str = "snapshots";
/// Bytes that a reader asks for at a time: a few per disk seek, small beside a memtable.
const READ_BYTES: usize = 256 << 10;

enum Work {
    Build { region: RegionId, build: BuildId },
    Install { region: RegionId, snapshot: SnapshotId },
    Remove { snapshot: SnapshotId },
}

/// The driver's side of the job.
pub(super) struct Snapshots {
    directory: PathBuf,
    fs: Arc<dyn Fs>,
    queue: Arc<Mutex<VecDeque<Work>>>,
    stopping: Arc<AtomicBool>,
    task: Option<Box<dyn TaskHandle>>,
}

impl Snapshots {
    pub(super) fn open(
        env: &Env,
        data_dir: &Path,
        db: &Db,
        inbox: &Arc<Inbox>,
        counters: &Arc<Counters>,
    ) -> Result<Snapshots, OpenError> {
        let directory = data_dir.join(DIRECTORY);
        let created = env.fs.create_dir_all(&directory).and_then(|()| env.fs.sync_dir(data_dir));
        created.map_err(|error| OpenError::Snapshots { path: directory.clone(), error })?;
        let queue: Arc<Mutex<VecDeque<Work>>> = Arc::default();
        let stopping: Arc<AtomicBool> = Arc::default();
        let job = Job {
            directory: directory.clone(),
            fs: env.fs.clone(),
            db: db.clone(),
            inbox: inbox.clone(),
            counters: counters.clone(),
            queue: queue.clone(),
            stopping: stopping.clone(),
        };
        let task = Some(env.tasks.spawn("snapshots", Box::new(move || job.step())));
        Ok(Snapshots { directory, fs: env.fs.clone(), queue, stopping, task })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes every file that is not in `needed`. Called before there is any work but the installs of these.
    pub(super) fn clean(&self, needed: &BTreeSet<SnapshotId>) -> io::Result<()> {
        let needed: BTreeSet<String> = needed.iter().map(SnapshotId::file_name).collect();
        for region in self.fs.list(&self.directory)? {
            let folder = self.directory.join(&region);
            for name in self.fs.list(&folder)? {
                if !needed.contains(&format!("{region}/{name}")) {
                    self.fs.remove(&folder.join(name))?;
                }
            }
        }
        Ok(())
    }

    fn push(&self, work: Work) {
        self.queue.lock().push_back(work);
        if let Some(task) = &self.task {
            task.wake();
        }
    }

    /// Stops the job: it is not running when this returns.
    pub(super) fn stop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.task = None;
    }
}

impl Driver {
    pub(super) fn start_snapshot_task(&mut self, task: SnapshotTask) {
        match task {
            SnapshotTask::Build { region, build } => self.snapshots.push(Work::Build { region, build }),
            SnapshotTask::Install { region, snapshot } => self.snapshots.push(Work::Install { region, snapshot }),
            SnapshotTask::Remove { snapshot } => self.snapshots.push(Work::Remove { snapshot }),
            SnapshotTask::Send { region, to, message, file } => {
                let path = self.snapshots.directory.join(file.id.file_name());
                self.outbound.push(Outbound::Snapshot { to, region, snapshot: file.id, message, path });
            }
        }
    }
}

struct Job {
    directory: PathBuf,
    fs: Arc<dyn Fs>,
    db: Db,
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    queue: Arc<Mutex<VecDeque<Work>>>,
    stopping: Arc<AtomicBool>,
}

impl Job {
    fn step(&self) -> Progress {
        let Some(work) = self.queue.lock().pop_front() else { return Progress::Idle };
        match work {
            Work::Build { region, build } => {
                let result = self.build(region);
                if result.is_ok() {
                    self.counters.snapshots_built.increment();
                }
                self.inbox.push(Input::SnapshotBuilt { region, build, result });
            }
            Work::Install { region, snapshot } => {
                let result = self.install(snapshot);
                if result.is_ok() {
                    self.counters.snapshots_installed.increment();
                }
                self.inbox.push(Input::SnapshotInstalled { region, snapshot, result });
            }
            Work::Remove { snapshot } => {
                let path = self.directory.join(snapshot.file_name());
                if self.fs.exists(&path)
                    && let Err(error) = self.fs.remove(&path)
                {
                    tracing::warn!(%error, path = %path.display(), "a snapshot file could not be removed");
                }
            }
        }
        Progress::Worked
    }

    fn build(&self, region: RegionId) -> Result<SnapshotFile, String> {
        let folder = self.directory.join(region.to_string());
        let temporary = folder.join("build.tmp");
        let result = self.build_into(&folder, &temporary, region);
        if result.is_err() {
            // If this fails too, the next build or the next start removes it.
            let _ = self.fs.remove(&temporary);
        }
        result
    }

    fn build_into(&self, folder: &Path, temporary: &Path, region: RegionId) -> Result<SnapshotFile, String> {
        let text = |error: io::Error| format!("{}: {error}", temporary.display());
        self.fs.create_dir_all(folder).map_err(text)?;
        if self.fs.exists(temporary) {
            self.fs.remove(temporary).map_err(text)?;
        }
        let output = self.fs.open(temporary, OpenMode::CreateNew).map_err(text)?;
        let mut written = 0;
        let mut write = |bytes: &[u8]| {
            self.check_stopping()?;
            output.write_at(bytes, written)?;
            written += bytes.len() as u64;
            Ok(())
        };
        let file = build(&self.db.snapshot(), region, &mut write).map_err(|error| error.to_string())?;
        output.sync().map_err(text)?;
        let path = self.directory.join(file.id.file_name());
        self.fs.rename(temporary, &path).map_err(text)?;
        sync_folders(&*self.fs, &path).map_err(text)?;
        Ok(file)
    }

    fn install(&self, snapshot: SnapshotId) -> Result<(), String> {
        let path = self.directory.join(snapshot.file_name());
        let mut open = || FileReader::open(&*self.fs, &path).map(|reader| Box::new(reader) as Box<dyn Read>);
        let mut write = |batch| {
            if self.stopping.load(Ordering::SeqCst) {
                return Err(EngineError::Closed);
            }
            self.db.commit(derived(batch)).map(|_| ())
        };
        let view = self.db.snapshot();
        install(&view, snapshot, &mut open, &mut write).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn check_stopping(&self) -> io::Result<()> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(io::Error::other("the node is stopping"));
        }
        Ok(())
    }
}

/// Checks a file that arrived for `message` and lies, synced, under its final name.
pub(super) fn check_received(
    fs: &dyn Fs,
    directory: &Path,
    id: SnapshotId,
    message: &Bytes,
) -> Result<SnapshotFile, String> {
    let announced = announced(message.clone()).ok_or("the message announces no snapshot")?;
    let path = directory.join(id.file_name());
    let mut reader = FileReader::open(fs, &path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found = verify(&mut reader).map_err(|error| format!("{}: {error}", path.display()))?;
    if found != announced || found.id != id {
        return Err(format!("{} is not the file that was announced", path.display()));
    }
    Ok(found)
}

/// Makes a file's name durable: its folder's entry for it, and the entry of the folder, which may be new.
fn sync_folders(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs.sync_dir(folder)?;
    fs.sync_dir(folder.parent().unwrap_or(Path::new(".")))
}

/// Reads a file front to back.
struct FileReader {
    file: Arc<dyn File>,
    offset: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl FileReader {
    fn open(fs: &dyn Fs, path: &Path) -> io::Result<FileReader> {
        Ok(FileReader { file: fs.open(path, OpenMode::Read)?, offset: 0, buffer: Vec::new(), taken: 0 })
    }
}

impl Read for FileReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len() {
            self.buffer.resize(READ_BYTES, 0);
            let count = self.file.read_at(&mut self.buffer, self.offset)?;
            self.buffer.truncate(count);
            self.offset += count as u64;
            self.taken = 0;
        }
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}
