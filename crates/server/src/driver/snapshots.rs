//! Snapshot files: building, installing and removing them, as one background job that does one of these a step.
//!
//! A file gets its final name only when it is whole and synced, and no other file ever has that name. What is not needed
//! is removed: at the start, when raftstore or an arrival says so, and now and then whatever else lies there. A removal
//! that waited for its turn is looked at once more by the driver before it is carried out.

use super::arrivals::Arrivals;
use super::counters::Counters;
use super::error::OpenError;
use super::inbox::{Inbox, Input};
use super::lane::derived;
use super::{Driver, Outbound};
use bytes::Bytes;
use kontiki_engine::{Db, Error as EngineError, Family};
use kontiki_env::Env;
use kontiki_env::fs::{File, Fs, OpenMode};
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_raftstore::snapshot::{
    FileId, FileNumbers, InstallError, SnapshotError, SnapshotFile, announced, build, install, verify,
};
use kontiki_raftstore::{BuildId, RegionId, SnapshotTask};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The folder below the data directory.
const DIRECTORY: &str = "snapshots";
/// Bytes that a reader asks for at a time: a few per disk seek, small beside a memtable.
const READ_BYTES: usize = 256 << 10;

enum Work {
    Build {
        region: RegionId,
        build: BuildId,
        left_out: Option<Family>,
    },
    Install {
        region: RegionId,
        file: FileId,
    },
    /// Asks the driver whether the file may go.
    Remove {
        file: FileId,
    },
    /// The driver has said so.
    Unlink {
        path: SnapshotPath,
    },
    /// Tells the driver of all files.
    List,
}

/// A file below the folder of snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotPath {
    /// A region's folder.
    folder: String,
    name: String,
}

impl SnapshotPath {
    /// What the name says; `None` if it is none of ours.
    fn file(&self) -> Option<FileId> {
        FileId::parse(&self.folder, &self.name)
    }

    fn below(&self, directory: &Path) -> PathBuf {
        directory.join(&self.folder).join(&self.name)
    }
}

/// The driver's side of the job.
pub(super) struct Snapshots {
    directory: PathBuf,
    fs: Arc<dyn Fs>,
    numbers: FileNumbers,
    arrivals: Arc<Arrivals>,
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
        numbers: FileNumbers,
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
            numbers: numbers.clone(),
            queue: queue.clone(),
            stopping: stopping.clone(),
        };
        let task = Some(env.tasks.spawn("snapshots", Box::new(move || job.step())));
        let (fs, arrivals) = (env.fs.clone(), Arc::default());
        Ok(Snapshots { directory, fs, numbers, arrivals, queue, stopping, task })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn arrivals(&self) -> Arc<Arrivals> {
        self.arrivals.clone()
    }

    /// Removes every file that is not in `needed`, and sees to it that no name is used again. Called before there is any
    /// work.
    pub(super) fn clean(&self, needed: &[FileId]) -> io::Result<()> {
        for path in list(&*self.fs, &self.directory)? {
            let file = path.file();
            self.numbers.skip_through(file.map_or(0, |file| file.number));
            if !file.is_some_and(|file| needed.contains(&file)) {
                self.fs.remove(&path.below(&self.directory))?;
            }
        }
        Ok(())
    }

    /// Has all files looked at.
    pub(super) fn sweep(&self) {
        self.push(Work::List);
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
            SnapshotTask::Build { region, build, left_out } => {
                self.snapshots.push(Work::Build { region, build, left_out });
            }
            SnapshotTask::Install { region, file } => self.snapshots.push(Work::Install { region, file }),
            SnapshotTask::Remove { file } => self.snapshots.push(Work::Remove { file }),
            SnapshotTask::Send { region, to, message, file } => {
                let path = self.snapshots.directory.join(file.name().file_name());
                self.outbound.push(Outbound::Snapshot { to, region, snapshot: file.id, message, path });
            }
        }
    }

    /// A removal's turn has come: now is when it counts whether the file is needed.
    pub(super) fn remove_snapshot(&mut self, file: FileId) {
        if self.store.may_remove(&file) {
            let (folder, name) = (file.snapshot.region.to_string(), file.base_name());
            self.snapshots.push(Work::Unlink { path: SnapshotPath { folder, name } });
        } else {
            tracing::error!(file = file.file_name(), "a snapshot file that is needed was to be removed; it stays");
        }
    }

    /// Removes what of these files is neither needed nor about to arrive. Names are used once, so what is found here
    /// cannot become needed before it is gone.
    pub(super) fn remove_unneeded_snapshots(&mut self, paths: Vec<SnapshotPath>) {
        for path in paths {
            let needed = |file: FileId| self.snapshots.arrivals.contains(&file) || !self.store.may_remove(&file);
            if !path.file().is_some_and(needed) {
                self.snapshots.push(Work::Unlink { path });
            }
        }
    }
}

/// Every file in the folders below `directory`.
fn list(fs: &dyn Fs, directory: &Path) -> io::Result<Vec<SnapshotPath>> {
    let mut paths = Vec::new();
    for folder in fs.list(directory)? {
        for name in fs.list(&directory.join(&folder))? {
            paths.push(SnapshotPath { folder: folder.clone(), name });
        }
    }
    Ok(paths)
}

struct Job {
    directory: PathBuf,
    fs: Arc<dyn Fs>,
    db: Db,
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    numbers: FileNumbers,
    queue: Arc<Mutex<VecDeque<Work>>>,
    stopping: Arc<AtomicBool>,
}

impl Job {
    fn step(&self) -> Progress {
        let Some(work) = self.queue.lock().pop_front() else { return Progress::Idle };
        match work {
            Work::Build { region, build, left_out } => {
                let result = self.build(region, left_out);
                if result.is_ok() {
                    self.counters.snapshots_built.increment();
                }
                self.inbox.push(Input::SnapshotBuilt { region, build, result });
            }
            Work::Install { region, file } => {
                let result = self.install(file);
                if result.is_ok() {
                    self.counters.snapshots_installed.increment();
                }
                self.inbox.push(Input::SnapshotInstalled { region, file, result });
            }
            Work::Remove { file } => self.inbox.push(Input::SnapshotRemoval { file }),
            Work::List => match list(&*self.fs, &self.directory) {
                Ok(paths) => self.inbox.push(Input::SnapshotFiles { paths }),
                Err(error) => tracing::warn!(%error, "the snapshot files could not be listed"),
            },
            Work::Unlink { path } => {
                let path = path.below(&self.directory);
                if self.fs.exists(&path)
                    && let Err(error) = self.fs.remove(&path)
                {
                    tracing::warn!(%error, path = %path.display(), "a snapshot file could not be removed");
                }
            }
        }
        Progress::Worked
    }

    fn build(&self, region: RegionId, left_out: Option<Family>) -> Result<SnapshotFile, String> {
        let folder = self.directory.join(region.to_string());
        let temporary = folder.join("build.tmp");
        let result = self.build_into(&folder, &temporary, region, left_out);
        if result.is_err() {
            // If this fails too, the next build or the next start removes it.
            let _ = self.fs.remove(&temporary);
        }
        result
    }

    fn build_into(
        &self,
        folder: &Path,
        temporary: &Path,
        region: RegionId,
        left_out: Option<Family>,
    ) -> Result<SnapshotFile, String> {
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
        let file = build(&self.db.snapshot(), region, left_out, &mut write).map_err(|error| error.to_string())?;
        let file = file.numbered(self.numbers.next());
        output.sync().map_err(text)?;
        let path = self.directory.join(file.name().file_name());
        self.fs.rename(temporary, &path).map_err(text)?;
        sync_folders(&*self.fs, &path).map_err(text)?;
        Ok(file)
    }

    fn install(&self, file: FileId) -> Result<(), InstallError> {
        let path = self.directory.join(file.file_name());
        let mut open = || FileReader::open(&*self.fs, &path).map(|reader| Box::new(reader) as Box<dyn Read>);
        let mut write = |batch| {
            if self.stopping.load(Ordering::SeqCst) {
                return Err(EngineError::Closed);
            }
            self.db.commit(derived(batch)).map(|_| ())
        };
        let view = self.db.snapshot();
        let installed = install(&view, file.snapshot, &mut open, &mut write);
        installed.map_err(|error: SnapshotError| error.of_install(&path.display().to_string()))
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
    file: FileId,
    message: &Bytes,
) -> Result<SnapshotFile, String> {
    let announced = announced(message.clone()).ok_or("the message announces no snapshot")?;
    let path = directory.join(file.file_name());
    let mut reader = FileReader::open(fs, &path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found = verify(&mut reader).map_err(|error| format!("{}: {error}", path.display()))?;
    if found != announced || found.id != file.snapshot {
        return Err(format!("{} is not the file that was announced", path.display()));
    }
    Ok(found.numbered(file.number))
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
