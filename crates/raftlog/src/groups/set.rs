//! The files of all regions: which of them are open, and what a commit does to each.

use super::base::NewFile;
use super::error::{failed, fatal};
use super::format::{FileId, encode_record, record_bytes};
use super::group::Group;
use super::read::Located;
use crate::ops::{Bounds, put_append, put_state, put_truncate};
use crate::planted::{self, Bug};
use crate::{FileOptions, LogUsage, ops};
use kontiki_engine::{Result, StreamContents, StreamHead, StreamId, StreamOp};
use kontiki_env::fs::{File, Fs, OpenMode};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file is allocated ahead by a quarter of its length, within these bounds: so that a write cannot meet a full disk,
/// and a sync has no new length to record; and ten thousand idle regions take 40 MiB.
const AHEAD_BYTES: Range<u64> = (4 << 10)..(1 << 20);
/// Bytes of entries in one record of a file that is written again.
const PIECE_BYTES: usize = 1 << 20;

/// A group, its file and the path of that.
type Opened<'a> = (&'a mut Group, Arc<dyn File>, PathBuf);

/// What a commit does to one region's log.
pub struct Change {
    id: StreamId,
    /// What was there ends.
    removes: bool,
    /// What is written then; empty: nothing.
    body: Vec<u8>,
    /// The file that is made for it.
    new: Option<NewFile>,
}

/// The changes of a commit, by region.
pub fn changes(streams: &[StreamOp]) -> Vec<Change> {
    let mut changes: BTreeMap<StreamId, Change> = BTreeMap::new();
    for op in streams {
        let id = op.stream();
        let change = changes.entry(id).or_insert(Change { id, removes: false, body: Vec::new(), new: None });
        match op {
            // What the same commit has written before does not matter any more.
            StreamOp::Remove { .. } => (change.removes, change.body) = (true, Vec::new()),
            op => ops::encode(&mut change.body, op),
        }
    }
    changes.into_values().collect()
}

/// All files. The writer holds it for as long as a write takes.
pub struct GroupSet {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    groups: BTreeMap<StreamId, Group>,
    /// Open files by their last use.
    open: BTreeMap<u64, StreamId>,
    uses: u64,
    options: FileOptions,
    usage: LogUsage,
}

impl GroupSet {
    pub fn new(
        fs: Arc<dyn Fs>,
        directory: PathBuf,
        groups: BTreeMap<StreamId, Group>,
        options: FileOptions,
    ) -> GroupSet {
        let bytes = groups.values().map(|group| group.allocated).sum();
        let usage = LogUsage { bytes, ..LogUsage::default() };
        GroupSet { fs, directory, groups, open: BTreeMap::new(), uses: 0, options, usage }
    }

    pub fn ids(&self) -> Vec<StreamId> {
        self.groups.keys().copied().collect()
    }

    /// What is known without a read.
    pub fn heads(&self) -> Vec<(StreamId, StreamHead)> {
        let head = |group: &Group| {
            let Bounds { truncated_through, last_index } = group.bounds();
            StreamHead { truncated_through, state: group.state.clone(), last_index }
        };
        self.groups.iter().map(|(id, group)| (*id, head(group))).collect()
    }

    pub fn bounds(&self, id: StreamId) -> Bounds {
        self.groups.get(&id).map(Group::bounds).unwrap_or_default()
    }

    pub fn usage(&self) -> LogUsage {
        LogUsage { files: self.groups.len() as u64, open_files: self.open.len() as u64, ..self.usage }
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.directory.join(id.name())
    }

    /// The group, with its file open for writing.
    fn opened(&mut self, id: StreamId) -> Result<Option<Opened<'_>>> {
        let Some(group) = self.groups.get(&id) else { return Ok(None) };
        let path = self.path(group.id);
        if group.handle.is_none() {
            let file = self.fs.open(&path, OpenMode::ReadWrite).map_err(|error| failed(&path, &error))?;
            self.keep_open(id, file);
        }
        self.uses += 1;
        let uses = self.uses;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(None) };
        self.open.remove(&group.used);
        self.open.insert(uses, id);
        group.used = uses;
        let handle = group.handle.clone();
        Ok(handle.map(|file| (group, file, path)))
    }

    /// Keeps a file open, and closes another one if there are too many.
    fn keep_open(&mut self, id: StreamId, file: Arc<dyn File>) {
        while self.open.len() >= self.options.open_files_max.max(1) {
            let Some((_, oldest)) = self.open.pop_first() else { break };
            if let Some(group) = self.groups.get_mut(&oldest) {
                claim(group);
                group.handle = None;
            }
        }
        self.uses += 1;
        if let Some(group) = self.groups.get_mut(&id) {
            (group.handle, group.used) = (Some(file), self.uses);
            self.open.insert(self.uses, id);
        }
    }

    /// Gets the space for changes. An error means that nothing has happened.
    pub fn reserve(&mut self, changes: &mut [Change]) -> Result<()> {
        for change in changes.iter_mut().filter(|change| !change.body.is_empty()) {
            let number = self.groups.get(&change.id).map(|group| group.id.number);
            if number.is_none() || change.removes {
                let id = FileId { region: change.id, number: number.unwrap_or(0) + 1 };
                let mut new = NewFile::create(&self.fs, &self.directory, id)?;
                new.add(&change.body)?;
                new.sync()?;
                self.usage.syncs += 1;
                change.new = Some(new);
                continue;
            }
            let Some((group, file, path)) = self.opened(change.id)? else { continue };
            let needed = group.end + record_bytes(change.body.len()) as u64;
            if needed > group.allocated {
                let ahead = (needed / 4).clamp(AHEAD_BYTES.start, AHEAD_BYTES.end);
                let length = (needed + ahead).next_multiple_of(AHEAD_BYTES.start);
                file.allocate(length).map_err(|error| failed(&path, &error))?;
                let more = length - std::mem::replace(&mut group.allocated, length);
                self.usage.bytes += more;
            }
        }
        Ok(())
    }

    /// Performs changes for which space was reserved; they are durable at return. After an error it is not known what
    /// has happened.
    pub fn perform(&mut self, changes: Vec<Change>) -> Result<()> {
        let mut outdated = Vec::new();
        let mut changes_names = false;
        for change in changes {
            if change.removes
                && let Some(group) = self.forget(change.id)
            {
                outdated.push(self.path(group.id));
                changes_names = true;
            }
            if let Some(new) = change.new {
                let group = new.name()?;
                self.add(group);
                changes_names = true;
            } else if !change.body.is_empty() {
                self.append(change.id, &change.body)?;
            }
        }
        if changes_names {
            // New names first: the last file of a region is not removed before the next one has its name.
            self.sync_directory()?;
            for path in &outdated {
                self.fs.remove(path).map_err(|error| fatal(path, "removal failed", &error))?;
            }
            if !outdated.is_empty() {
                self.sync_directory()?;
            }
        }
        Ok(())
    }

    fn sync_directory(&self) -> Result<()> {
        if planted::is_set(Bug::NoDirectorySync) {
            return Ok(());
        }
        self.fs.sync_dir(&self.directory).map_err(|error| fatal(&self.directory, "sync failed", &error))
    }

    fn append(&mut self, id: StreamId, body: &[u8]) -> Result<()> {
        let Some((group, file, path)) = self.opened(id)? else { return Ok(()) };
        let at = group.end;
        let record = encode_record(group.id, at, group.durable, body);
        file.write_at(&record, at).map_err(|error| fatal(&path, "write failed", &error))?;
        if !planted::is_set(Bug::FilesNotSynced) {
            file.sync().map_err(|error| fatal(&path, "sync failed", &error))?;
        }
        group.end += record.len() as u64;
        (group.durable, group.is_claimed) = (group.end, false);
        let items = ops::decode(body).expect("it was encoded here");
        group.apply(at, body, items).expect("operations are checked before they are written");
        self.usage.syncs += 1;
        Ok(())
    }

    fn add(&mut self, mut group: Group) {
        self.usage.bytes += group.allocated;
        let (id, file) = (group.id.region, group.handle.take());
        self.groups.insert(id, group);
        if let Some(file) = file {
            self.keep_open(id, file);
        }
    }

    fn forget(&mut self, id: StreamId) -> Option<Group> {
        let group = self.groups.remove(&id)?;
        self.open.remove(&group.used);
        self.usage.bytes -= group.allocated;
        Some(group)
    }

    /// Whether the file has much that is truncated.
    pub fn is_worth_a_rewrite(&self, id: StreamId) -> bool {
        let bytes_min = self.options.rewrite_bytes_min;
        let is = |group: &Group| group.end >= bytes_min && 2 * group.live_bytes() < group.end;
        self.groups.get(&id).is_some_and(is)
    }

    /// Writes a file again without what is truncated. A retryable error means that the old one is still in use.
    pub fn rewrite(&mut self, id: StreamId) -> Result<()> {
        let (mut contents, located) = self.locate_all(id)?;
        contents.entries = located.read()?;
        let Some(group) = self.groups.get(&id) else { return Ok(()) };
        let next = FileId { number: group.id.number + 1, ..group.id };
        let new = write_contents(&self.fs, &self.directory, next, &contents)?.name()?;
        self.sync_directory()?;
        let (bytes, before) = (new.end, self.forget(id));
        self.add(new);
        self.usage.syncs += 1;
        self.usage.rewrites += 1;
        self.usage.rewritten_bytes += bytes;
        if let Some(before) = before {
            // If it stays, the next start removes it.
            let path = self.path(before.id);
            self.fs.remove(&path).map_err(|error| fatal(&path, "removal failed", &error))?;
        }
        Ok(())
    }

    /// A log and its state, and where its entries are.
    pub fn locate_all(&self, id: StreamId) -> Result<(StreamContents, Located)> {
        let Some(group) = self.groups.get(&id) else { return Ok(Default::default()) };
        let (truncated_through, state) = (group.truncated_through, group.state.clone());
        let located = self.locate(id, truncated_through + 1..u64::MAX)?;
        Ok((StreamContents { truncated_through, state, entries: Vec::new() }, located))
    }

    /// Where the entries in a range are.
    pub fn locate(&self, id: StreamId, range: Range<u64>) -> Result<Located> {
        let Some(group) = self.groups.get(&id) else { return Ok(Located::default()) };
        let positions = group.positions(range);
        if positions.is_empty() {
            return Ok(Located::default());
        }
        let path = self.path(group.id);
        let file = match &group.handle {
            Some(file) => file.clone(),
            None => self.fs.open(&path, OpenMode::Read).map_err(|error| failed(&path, &error))?,
        };
        Ok(Located { file: Some((file, path, group.id)), positions })
    }

    /// Closes all files: each says then that it is durable.
    pub fn close(&mut self) {
        for id in std::mem::take(&mut self.open).into_values() {
            if let Some(group) = self.groups.get_mut(&id) {
                claim(group);
                group.handle = None;
            }
        }
    }
}

/// Writes a record that says that everything before it is durable, if the last one that says so is older. It need not
/// be durable itself: what it says was true when it was written. Only as far as it costs nothing; without it, damage to
/// the last record of an idle region would be taken for a torn end.
fn claim(group: &mut Group) {
    let record = encode_record(group.id, group.end, group.durable, &[]);
    let end = group.end + record.len() as u64;
    let Some(file) = group.handle.as_ref().filter(|_| !group.is_claimed && end <= group.allocated) else { return };
    if file.write_at(&record, group.end).is_ok() {
        (group.end, group.is_claimed) = (end, true);
    }
}

/// A new, synced file with these contents.
pub fn write_contents(fs: &Arc<dyn Fs>, directory: &Path, id: FileId, contents: &StreamContents) -> Result<NewFile> {
    let mut new = NewFile::create(fs, directory, id)?;
    let mut body = Vec::new();
    put_truncate(&mut body, contents.truncated_through);
    put_state(&mut body, &contents.state);
    let mut first_index = contents.truncated_through + 1;
    let mut rest = &contents.entries[..];
    while !rest.is_empty() {
        let (mut bytes, mut count) = (0, 0);
        while bytes < PIECE_BYTES && count < rest.len() {
            bytes += rest[count].len();
            count += 1;
        }
        let (piece, behind) = rest.split_at(count);
        put_append(&mut body, first_index, piece.len(), piece.iter().map(AsRef::as_ref));
        new.add(&std::mem::take(&mut body))?;
        first_index += piece.len() as u64;
        rest = behind;
    }
    if !body.is_empty() {
        new.add(&body)?;
    }
    new.sync()?;
    Ok(new)
}
