//! Raft logs in files of their own, one for each region: `raft-groups/REGION-NUMBER.log`.
//!
//! A commit is a record in the file of each of its regions, and a sync of each; what is truncated leaves a file when it
//! is written again under the next number. A region's record is whole or torn off, so each region has its part of a
//! commit or not; several regions of one commit do not depend on each other.
//!
//! **A commit that concerns the engine, too** (the end of a replica: its data, descriptor and log) or removes a log is
//! performed in three steps, so that all of it happens or nothing: (1) one synced commit of the state has the batch
//! and the operations on files, as an *intent*; (2) the files are changed; (3) the intent is removed. An open that
//! finds an intent does it again: the result is the same, because nothing else is written before the third step.
//!
//! **A full disk.** Space for records is allocated before anything is written, and new files are complete before one of
//! them gets its name. So a commit without space has no effect, and may be repeated; whatever fails later is final.
//!
//! One caller writes at a time. Reads wait for it to find their place, and then read without holding anything; it does
//! not hold the files while it waits for the engine.

mod base;
mod error;
mod format;
mod group;
mod read;
mod scan;
mod set;
mod stopped;

pub(crate) use format::FileId;
pub(crate) use set::write_contents;
pub(crate) use stopped::StoppedFiles;
pub use stopped::{FilesChecked, LogFileProblem};

use crate::ops::check;
use crate::planted::{self, Bug};
use crate::record::Place;
use crate::{Done, FileOptions, LogChoice, LogUsage, RaftLog};
use bytes::Bytes;
use error::failed;
use kontiki_engine::{Commit, Durability, Error, ErrorKind, Result, StreamContents, StreamHead, StreamId, StreamOp};
use kontiki_env::Env;
use kontiki_env::fs::Fs;
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_state::StateEngine;
use parking_lot::Mutex;
use set::{GroupSet, changes};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of the files, below the data directory.
pub const DIRECTORY: &str = "raft-groups";

/// For fuzzing: the end of the log in the content of a file of region 1, number 1.
pub fn read_file(content: &[u8]) -> Result<u64> {
    let id = FileId { region: StreamId(1), number: 1 };
    scan::scan_bytes(content, Path::new("fuzzed"), id).map(|found| found.group.bounds().last_index)
}

/// For fuzzing: the content of such a file, with one record.
pub fn file_of(body: &[u8]) -> Vec<u8> {
    let id = FileId { region: StreamId(1), number: 1 };
    let mut file = format::encode_header(id, format::HEADER_BYTES);
    file.extend(format::encode_record(id, format::HEADER_BYTES, format::HEADER_BYTES, body));
    file
}

/// Raft logs in files. See the module.
pub(crate) struct GroupLogs {
    inner: Arc<Inner>,
    task: Mutex<Option<Box<dyn TaskHandle>>>,
}

struct Inner {
    state: Arc<dyn StateEngine>,
    place: Place,
    queue: Mutex<VecDeque<(Commit, Done)>>,
    writer: Mutex<Writer>,
    set: Mutex<GroupSet>,
    /// A copy for readers that must not wait for a disk.
    usage: Mutex<LogUsage>,
}

/// Of the one that writes.
#[derive(Default)]
struct Writer {
    /// Why nothing is written any more.
    stopped: Option<Error>,
    /// An intent is done, and could not be removed for lack of space: nothing else is written before it is.
    has_left_intent: bool,
    /// Regions whose files are worth writing again.
    rewrites: BTreeSet<StreamId>,
}

impl GroupLogs {
    /// Opens the files of a directory, and does what an intent asks for.
    pub(crate) fn open(
        env: &Env,
        data_dir: &Path,
        state: &Arc<dyn StateEngine>,
        place: Place,
        options: FileOptions,
    ) -> Result<GroupLogs> {
        let directory = data_dir.join(DIRECTORY);
        env.fs.create_dir_all(&directory).map_err(|error| failed(&directory, &error))?;
        make_names_durable(&*env.fs, data_dir, &directory)?;
        let mut groups = BTreeMap::new();
        for id in remove_leftovers(&*env.fs, &directory)? {
            let path = directory.join(id.name());
            let found = scan::scan(&*env.fs, &path, id)?;
            groups.insert(id.region, scan::make_final(&*env.fs, &path, found)?);
        }
        let set = GroupSet::new(env.fs.clone(), directory, groups, options);
        let inner = Arc::new(Inner {
            state: state.clone(),
            place,
            queue: Mutex::default(),
            writer: Mutex::default(),
            usage: Mutex::new(set.usage()),
            set: Mutex::new(set),
        });
        let intent = place.intent(&**state, data_dir)?;
        if !intent.is_empty() {
            tracing::warn!(
                operations = intent.len(),
                "a commit to raft logs is completed that a crash has interrupted"
            );
            inner.change_files(&intent)?;
            place.end_intent(&**state)?;
        }
        let job = inner.clone();
        let task = Mutex::new(Some(env.tasks.spawn("raft-log", Box::new(move || job.step()))));
        Ok(GroupLogs { inner, task })
    }
}

/// What an open reads is relied on from then on, and older files are removed because of it. A process that was killed,
/// or whose sync failed, may have left names that a power loss would take away.
fn make_names_durable(fs: &dyn Fs, data_dir: &Path, directory: &Path) -> Result<()> {
    for folder in [data_dir, directory] {
        fs.sync_dir(folder).map_err(|error| failed(folder, &error))?;
    }
    Ok(())
}

/// Removes files that are not complete and those with a lower number than another one of their region; the others.
fn remove_leftovers(fs: &dyn Fs, directory: &Path) -> Result<Vec<FileId>> {
    let names = fs.list(directory).map_err(|error| failed(directory, &error))?;
    let mut files: BTreeMap<StreamId, FileId> = BTreeMap::new();
    let mut leftovers: Vec<PathBuf> = Vec::new();
    for name in names {
        match FileId::parse(&name) {
            // Names are sorted, and so are the numbers of a region.
            Some(id) => leftovers.extend(files.insert(id.region, id).map(|old| directory.join(old.name()))),
            None if name.ends_with(format::TEMPORARY) => leftovers.push(directory.join(name)),
            None => tracing::warn!(name, "a file in the folder of raft logs is none of them"),
        }
    }
    for path in leftovers {
        fs.remove(&path).map_err(|error| failed(&path, &error))?;
    }
    Ok(files.into_values().collect())
}

impl Inner {
    /// One commit, and a file that is written again.
    fn step(&self) -> Progress {
        let Some(mut writer) = self.writer.try_lock() else {
            return Progress::Idle; // A blocking commit, which wakes the job at its end.
        };
        let next = self.queue.lock().pop_front();
        let has_commit = next.is_some();
        if let Some((commit, done)) = next {
            done(self.write(&mut writer, commit));
        }
        let has_rewritten = self.rewrite_one(&mut writer);
        if has_commit || has_rewritten { Progress::Worked } else { Progress::Idle }
    }

    fn write(&self, writer: &mut Writer, commit: Commit) -> Result<()> {
        if let Some(error) = &writer.stopped {
            return Err(error.clone());
        }
        let result = self.try_write(writer, commit);
        *self.usage.lock() = self.set.lock().usage();
        if let Err(error) = &result
            && !error.is_retryable()
            && error.kind() != ErrorKind::InvalidArgument
        {
            writer.stopped = Some(Error::Stopped(error.to_string()));
        }
        result
    }

    fn try_write(&self, writer: &mut Writer, Commit { mut batch, streams, .. }: Commit) -> Result<()> {
        if writer.has_left_intent {
            self.place.end_intent(&*self.state)?;
            writer.has_left_intent = false;
        }
        let mut changes = changes(&streams);
        {
            let mut set = self.set.lock();
            check(&streams, |id| set.bounds(id))?;
            set.reserve(&mut changes)?;
        }
        let removes = streams.iter().any(|op| matches!(op, StreamOp::Remove { .. }));
        let has_intent = !streams.is_empty() && (removes || !batch.is_empty()) && !planted::is_set(Bug::NoIntent);
        if has_intent {
            self.place.put_intent(&mut batch, &streams);
        }
        if !batch.is_empty() {
            self.state.commit(batch, Durability::Sync)?;
        }
        {
            let mut set = self.set.lock();
            set.perform(changes).map_err(final_error)?;
            writer.rewrites.extend(streams.iter().map(StreamOp::stream).filter(|id| set.is_worth_a_rewrite(*id)));
        }
        if has_intent && let Err(error) = self.place.end_intent(&*self.state) {
            if !error.is_retryable() {
                return Err(error);
            }
            writer.has_left_intent = true;
        }
        Ok(())
    }

    /// Does operations that may be done already, in whole or in part.
    fn change_files(&self, streams: &[StreamOp]) -> Result<()> {
        let mut changes = changes(streams);
        let mut set = self.set.lock();
        set.reserve(&mut changes)?;
        set.perform(changes)
    }

    /// Writes a file again if one is worth it. Returns whether there was one.
    fn rewrite_one(&self, writer: &mut Writer) -> bool {
        let Some(id) = writer.rewrites.pop_first().filter(|_| writer.stopped.is_none()) else { return false };
        let mut set = self.set.lock();
        if !set.is_worth_a_rewrite(id) {
            return true; // Its log was removed meanwhile.
        }
        match set.rewrite(id) {
            Ok(()) => {}
            // Its next commit tries again.
            Err(error) if error.is_retryable() => tracing::warn!(region = id.0, %error, "a raft log stays as it is"),
            Err(error) => writer.stopped = Some(Error::Stopped(error.to_string())),
        }
        *self.usage.lock() = set.usage();
        true
    }
}

/// Of an error after the point at which a commit could be refused.
fn final_error(error: Error) -> Error {
    if error.is_retryable() { Error::Stopped(error.to_string()) } else { error }
}

impl GroupLogs {
    fn wake(&self) {
        if let Some(task) = &*self.task.lock() {
            task.wake();
        }
    }
}

impl RaftLog for GroupLogs {
    fn choice(&self) -> LogChoice {
        LogChoice::PerGroup
    }

    fn ids(&self) -> Vec<StreamId> {
        self.inner.set.lock().ids()
    }

    fn read(&self, id: StreamId) -> Result<StreamContents> {
        let (mut contents, located) = self.inner.set.lock().locate_all(id)?;
        contents.entries = located.read()?;
        Ok(contents)
    }

    fn entries(&self, id: StreamId, range: Range<u64>) -> Result<Vec<Bytes>> {
        let located = self.inner.set.lock().locate(id, range)?;
        located.read()
    }

    fn heads(&self) -> Result<Vec<(StreamId, StreamHead)>> {
        Ok(self.inner.set.lock().heads())
    }

    fn submit(&self, commit: Commit, done: Done) {
        self.inner.queue.lock().push_back((commit, done));
        self.wake();
    }

    fn commit(&self, commit: Commit) -> Result<()> {
        let result = self.inner.write(&mut self.inner.writer.lock(), commit);
        self.wake();
        result
    }

    fn usage(&self) -> LogUsage {
        *self.inner.usage.lock()
    }

    fn stop(&self) {
        let task = self.task.lock().take();
        drop(task); // It is not running any more.
        self.inner.queue.lock().clear();
    }

    fn close(&self) {
        self.stop();
        self.inner.set.lock().close();
    }
}
