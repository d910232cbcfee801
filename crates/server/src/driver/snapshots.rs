//! Snapshots: views that are retained for sending, and the files of arriving snapshots.
//!
//! A snapshot is sent from an engine view, which pins memory and disk space; at most [`VIEWS_MAX`] are therefore
//! retained, and other regions wait without a view.
//!
//! A file gets its final name only when it is complete and synced, and no other file ever has that name. Files that are
//! not needed are removed: at the start, when raftstore or an arrival requests it, and periodically by a survey of the
//! folder. The driver checks again immediately before a queued removal is carried out. Installs have separate jobs, so
//! that small work does not wait for a large region; one of them at a time builds tables, and the other one installs
//! small regions meanwhile.

use super::arrivals::Arrivals;
use super::counters::Counters;
use super::error::OpenError;
use super::inbox::{Inbox, Input};
use super::install::{FileReader, Installer};
use super::snapshot_space::SnapshotSpace;
use super::{Driver, Outbound};
use crate::families::FAMILIES;
use bytes::Bytes;
use kontiki_engine::{Family, PartSize, Range};
use kontiki_env::Env;
use kontiki_env::fs::{Fs, OpenMode};
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_raftstore::snapshot::{
    Content, FileId, FileNumbers, InstallError, SnapshotError, SnapshotFile, SnapshotHead, announced, describe, verify,
    write,
};
use kontiki_raftstore::{Event, RegionId, SnapshotTask, ViewId};
use kontiki_state::{StateEngine, StateView};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The folder below the data directory.
pub(super) const DIRECTORY: &str = "snapshots";
/// The maximum number of views retained for sending: each pins tables that a compaction has replaced, and the region's
/// log.
pub(super) const VIEWS_MAX: usize = 4;
/// The maximum number of concurrent installs: enough to keep a disk busy while one of them waits for memory, few enough
/// that foreground work makes progress.
const INSTALLS_MAX: usize = 2;

enum Work {
    Prepare {
        region: RegionId,
        view: ViewId,
    },
    /// Asks the driver whether the file may be removed.
    Remove {
        file: FileId,
    },
    /// The driver has agreed.
    Unlink {
        path: SnapshotPath,
    },
    /// Reports all files to the driver.
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
    /// What the name says; `None` for other files.
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
    installs: Arc<Mutex<Installs>>,
    installer: Installer,
    task: Option<Box<dyn TaskHandle>>,
    install_tasks: Vec<Box<dyn TaskHandle>>,
    views: Views,
}

/// Files to be installed.
#[derive(Default)]
pub(super) struct Installs {
    waiting: VecDeque<FileId>,
    /// Of these, those that are known to need tables, and found a job that builds some. They are the next ones for
    /// which tables are built.
    waiting_for_tables: VecDeque<FileId>,
    /// The disk was full, and memory that waits to be flushed, too: tried again by [`Snapshots::retry_installs`].
    without_space: VecDeque<FileId>,
    /// Tried again, without tables.
    repeated: VecDeque<FileId>,
    /// A job builds tables.
    building: bool,
    /// The number of files that are being installed.
    running: usize,
}

impl Installs {
    /// The number of files that wait.
    pub(super) fn waiting(&self) -> usize {
        [&self.waiting, &self.waiting_for_tables, &self.without_space, &self.repeated].map(VecDeque::len).iter().sum()
    }

    /// The number of files that are being installed.
    pub(super) fn running(&self) -> usize {
        self.running
    }
}

/// The views that are retained for sending.
#[derive(Default)]
struct Views {
    /// `None` while the job has not taken it.
    kept: BTreeMap<ViewId, Option<SnapshotSource>>,
    waiting: VecDeque<(RegionId, ViewId)>,
}

/// The data of a region in a view, for a receiver's [`super::NodeHandle::snapshot_arrives`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SnapshotSource {
    view: StateView,
    region: RegionId,
    estimated_bytes: u64,
    left_out: Option<Family>,
    /// The receiver's version does not know entries that expire.
    without_expiry: bool,
}

impl SnapshotSource {
    fn take(state: &dyn StateEngine, region: RegionId) -> Result<(SnapshotSource, SnapshotHead), SnapshotError> {
        let view = state.snapshot();
        let head = describe(&FAMILIES, &view, region)?;
        let range = Range::region(&head.region.start_key, &head.region.end_key);
        let families = FAMILIES.of(head.region.space);
        let mut estimated_bytes = 0;
        for family in families {
            let parts = view.range_parts(*family, range.clone(), PartSize::WHOLE).map_err(SnapshotError::Engine)?;
            estimated_bytes += parts.iter().map(|part| part.bytes).sum::<u64>();
        }
        Ok((SnapshotSource { view, region, estimated_bytes, left_out: None, without_expiry: false }, head))
    }

    /// For a receiver that does not know entries that expire: writing ends at one with an error.
    pub fn without_expiry(self) -> SnapshotSource {
        SnapshotSource { without_expiry: true, ..self }
    }

    /// Writes all of it through `write`, front to back. Blocks; ends with the first error of `write`, or with
    /// [`kontiki_engine::Error::Closed`] when the node has stopped.
    pub fn write(&self, write_part: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), SnapshotError> {
        let content = Content { left_out: self.left_out, without_expiry: self.without_expiry };
        write(&FAMILIES, &self.view, self.region, content, write_part).map(|_| ())
    }

    /// The approximate number of bytes: it counts files, so it is too high if much of them is garbage, and too low if
    /// much is in memory.
    pub fn estimated_bytes(&self) -> u64 {
        self.estimated_bytes
    }
}

impl Snapshots {
    pub(super) fn open(
        env: &Env,
        data_dir: &Path,
        (inbox, counters, numbers): (&Arc<Inbox>, &Arc<Counters>, FileNumbers),
        installer: Installer,
        reserve_bytes: u64,
    ) -> Result<Snapshots, OpenError> {
        let directory = data_dir.join(DIRECTORY);
        let created = env.fs.create_dir_all(&directory).and_then(|()| env.fs.sync_dir(data_dir));
        created.map_err(|error| OpenError::Snapshots { path: directory.clone(), error })?;
        let space = Arc::new(SnapshotSpace::new(env.fs.clone(), &directory, reserve_bytes));
        let job = Job {
            directory: directory.clone(),
            space: space.clone(),
            env: env.clone(),
            state: installer.state().clone(),
            inbox: inbox.clone(),
            counters: counters.clone(),
            queue: Arc::default(),
            installs: Arc::default(),
            installer: installer.clone(),
        };
        let (queue, installs) = (job.queue.clone(), job.installs.clone());
        let install_tasks = (1..=INSTALLS_MAX).map(|number| {
            let job = job.clone();
            env.tasks.spawn(&format!("snapshot-install-{number}"), Box::new(move || job.install_step()))
        });
        let install_tasks = install_tasks.collect();
        let task = Some(env.tasks.spawn("snapshots", Box::new(move || job.step())));
        let (fs, arrivals, views) = (env.fs.clone(), Arc::new(Arrivals::new(space)), Views::default());
        Ok(Snapshots { directory, fs, numbers, arrivals, queue, installs, installer, task, install_tasks, views })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn installs(&self) -> Arc<Mutex<Installs>> {
        self.installs.clone()
    }

    pub(super) fn arrivals(&self) -> Arc<Arrivals> {
        self.arrivals.clone()
    }

    /// Removes every file that is not in `needed`, and makes sure that no name is used again. Called before any other
    /// work.
    pub(super) fn clean(&self, needed: &[FileId]) -> io::Result<()> {
        for path in list(&*self.fs, &self.directory)? {
            let file = path.file();
            self.numbers.skip_through(file.map_or(0, |file| file.number));
            let path = path.below(&self.directory);
            match file.filter(|file| needed.contains(file)) {
                // It may have to be installed again; if not, it is soon removed.
                Some(file) => self.arrivals.space.set(file, self.fs.open(&path, OpenMode::Read)?.len()?),
                None => self.fs.remove(&path)?,
            }
        }
        self.installer.remove_tables()
    }

    /// Orders a survey of all files.
    pub(super) fn sweep(&self) {
        self.push(Work::List);
    }

    fn push(&self, work: Work) {
        self.queue.lock().push_back(work);
        if let Some(task) = &self.task {
            task.wake();
        }
    }

    fn push_install(&self, file: FileId) {
        self.installs.lock().waiting.push_back(file);
        self.install_tasks.iter().for_each(|task| task.wake());
    }

    /// Installs that found no space begin again. Called on ticks, as often as the engine tries to flush by itself.
    pub(super) fn retry_installs(&self) {
        let mut installs = self.installs.lock();
        let again = std::mem::take(&mut installs.without_space);
        if !again.is_empty() {
            installs.repeated.extend(again);
            drop(installs);
            self.install_tasks.iter().for_each(|task| task.wake());
        }
    }

    /// Orders views for the waiting regions, up to the maximum.
    fn feed_views(&mut self) {
        while self.views.kept.len() < VIEWS_MAX {
            let Some((region, view)) = self.views.waiting.pop_front() else { return };
            self.views.kept.insert(view, None);
            self.push(Work::Prepare { region, view });
        }
    }

    fn release(&mut self, view: ViewId) {
        self.views.kept.remove(&view);
        self.feed_views();
    }

    /// The number of retained views.
    pub(super) fn view_count(&self) -> usize {
        self.views.kept.len()
    }

    /// Stops the jobs: they are not running when this returns, and no view is retained.
    pub(super) fn stop(&mut self) {
        self.installer.stop();
        self.task = None;
        self.install_tasks.clear();
        self.views = Views::default();
    }
}

impl Driver {
    pub(super) fn start_snapshot_task(&mut self, task: SnapshotTask) {
        match task {
            SnapshotTask::Prepare { region, view } => {
                self.snapshots.views.waiting.push_back((region, view));
                self.snapshots.feed_views();
            }
            SnapshotTask::Install { file, .. } => self.snapshots.push_install(file),
            SnapshotTask::Remove { file } => self.snapshots.push(Work::Remove { file }),
            SnapshotTask::Send { to, message, view, snapshot, left_out } => {
                let kept = self.snapshots.views.kept.get(&view).and_then(Option::as_ref);
                let kept = kept.expect("raftstore sends from a view that it was given and has not released").clone();
                let source = SnapshotSource { left_out, ..kept };
                self.outbound.push(Outbound::Snapshot { to, snapshot, view, message, source });
            }
            SnapshotTask::Release { view } => self.snapshots.release(view),
        }
        self.shared.counters.snapshot_views.set(self.snapshots.view_count() as u64);
        self.shared.counters.snapshot_views_waiting.set(self.snapshots.views.waiting.len() as u64);
    }

    /// A view was taken for sending, or could not be.
    pub(super) fn snapshot_prepared(
        &mut self,
        region: RegionId,
        view: ViewId,
        result: Result<(SnapshotSource, SnapshotHead), String>,
        now: Duration,
    ) {
        let result = match result {
            Ok((source, head)) => {
                self.shared.counters.snapshots_prepared.increment();
                self.snapshots.views.kept.insert(view, Some(source));
                Ok(head)
            }
            Err(error) => {
                self.snapshots.release(view);
                Err(error)
            }
        };
        self.store.handle(Event::SnapshotPrepared { region, view, result }, now);
    }

    /// A removal is about to be carried out: this is the moment to check whether the file is needed.
    pub(super) fn remove_snapshot(&mut self, file: FileId) {
        if self.store.may_remove(&file) {
            let (folder, name) = (file.snapshot.region.to_string(), file.base_name());
            self.snapshots.push(Work::Unlink { path: SnapshotPath { folder, name } });
        } else {
            tracing::error!(
                file = file.file_name(),
                "removal of a needed snapshot file was requested; the file is kept"
            );
        }
    }

    /// The snapshot files whose data is not in tables yet: they must be kept.
    pub fn needed_snapshot_files(&self) -> Vec<PathBuf> {
        let files = self.store.needed_files().into_iter();
        files.map(|file| self.snapshots.directory().join(file.file_name())).collect()
    }

    /// Removes those of these files that are neither needed nor arriving. Names are used once, so a file found here
    /// cannot become needed before it is removed.
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

#[derive(Clone)]
struct Job {
    directory: PathBuf,
    env: Env,
    state: Arc<dyn StateEngine>,
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    queue: Arc<Mutex<VecDeque<Work>>>,
    installs: Arc<Mutex<Installs>>,
    installer: Installer,
    space: Arc<SnapshotSpace>,
}

impl Job {
    fn step(&self) -> Progress {
        let Some(work) = self.queue.lock().pop_front() else { return Progress::Idle };
        match work {
            Work::Prepare { region, view } => {
                let result = SnapshotSource::take(&*self.state, region).map_err(|error| error.to_string());
                self.inbox.push(Input::SnapshotPrepared { region, view, result });
            }
            Work::Remove { file } => self.inbox.push(Input::SnapshotRemoval { file }),
            Work::List => match list(&*self.env.fs, &self.directory) {
                Ok(paths) => self.inbox.push(Input::SnapshotFiles { paths }),
                Err(error) => tracing::warn!(%error, "the snapshot files could not be listed"),
            },
            Work::Unlink { path } => {
                path.file().into_iter().for_each(|file| self.space.release(file));
                let path = path.below(&self.directory);
                if self.env.fs.exists(&path)
                    && let Err(error) = self.env.fs.remove(&path)
                {
                    tracing::warn!(%error, path = %path.display(), "a snapshot file could not be removed");
                }
            }
        }
        Progress::Worked
    }

    fn install_step(&self) -> Progress {
        let Some((file, as_tables)) = self.next_install() else { return Progress::Idle };
        let Some(as_tables) = as_tables else { return Progress::Worked };
        let region = file.snapshot.region;
        let began = self.env.clock.monotonic();
        let result = self.installer.install(&self.path(file), file.snapshot, as_tables);
        {
            let mut installs = self.installs.lock();
            installs.running -= 1;
            installs.building &= !as_tables;
            if let Err(InstallError::NoSpace(error)) = &result {
                tracing::warn!("a snapshot waits for free space: {error}");
                installs.without_space.push_back(file);
                return Progress::Worked;
            }
        }
        self.space.release(file);
        let took_ms = self.env.clock.monotonic().saturating_sub(began).as_millis();
        self.counters.snapshot_install_ms.add(u64::try_from(took_ms).unwrap_or(u64::MAX));
        if let Ok(installed) = &result {
            self.counters.snapshots_installed.increment();
            self.counters.snapshot_installed_bytes.add(installed.file_bytes);
            if installed.table_bytes > 0 {
                self.counters.snapshots_installed_as_tables.increment();
                self.counters.snapshot_table_bytes.add(installed.table_bytes);
            }
        }
        self.inbox.push(Input::SnapshotInstalled { region, file, result: result.map(|_| ()) });
        Progress::Worked
    }

    /// The next file, and whether it is taken in as tables. It is not to be installed now if that is not decided: it
    /// waits for another job that builds tables, which takes it then.
    fn next_install(&self) -> Option<(FileId, Option<bool>)> {
        let file = {
            let mut installs = self.installs.lock();
            if let Some(file) = installs.repeated.pop_front() {
                installs.running += 1;
                return Some((file, Some(false)));
            }
            if !installs.building
                && let Some(file) = installs.waiting_for_tables.pop_front()
            {
                (installs.building, installs.running) = (true, installs.running + 1);
                return Some((file, Some(true)));
            }
            let file = installs.waiting.pop_front()?;
            installs.running += 1;
            file
        };
        // Reads the disk: not under the lock, which the driver takes.
        if !self.installer.is_for_tables(&self.path(file)) {
            return Some((file, Some(false)));
        }
        let mut installs = self.installs.lock();
        if std::mem::replace(&mut installs.building, true) {
            installs.waiting_for_tables.push_back(file);
            installs.running -= 1;
            return Some((file, None));
        }
        Some((file, Some(true)))
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.directory.join(file.file_name())
    }
}

/// Checks a file that arrived for `message` and is synced under its final name.
pub(super) fn check_received(
    fs: &dyn Fs,
    directory: &Path,
    file: FileId,
    message: &Bytes,
) -> Result<SnapshotFile, String> {
    let announced = announced(message.clone()).ok_or("the message announces no snapshot")?;
    let path = directory.join(file.file_name());
    let mut reader = FileReader::open(fs, &path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found = verify(&FAMILIES, &mut reader).map_err(|error| format!("{}: {error}", path.display()))?;
    if found.head() != announced || found.id != file.snapshot {
        return Err(format!("{} is not the file that was announced", path.display()));
    }
    Ok(found.numbered(file.number))
}
