//! The state behind all handles: the tree of directories, locks, quota and faults.

use super::CrashMode;
use super::directory::{Directory, Entry, Operation};
use super::fault::{Faults, Op, Outcome, injected, no_space, out_of_descriptors, power_is_off};
use super::inode::{Change, Content, Inode};
use crate::fs::OpenMode;
use crate::rng::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Free space of a file system without a quota: 1 TiB, more than any test writes.
const FREE_BYTES_DEFAULT: u64 = 1 << 40;

pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) quota_bytes: Option<u64>,
    /// Whether files can be mapped.
    pub(super) maps: bool,
    /// How many handles and locks the running process may have at once.
    pub(super) descriptors_max: Option<u64>,
    /// Handles that the running process has.
    pub(super) open_files: u64,
    /// The sum of all files' [`Content::charge`].
    pub(super) used_bytes: u64,
    /// Counts the processes that have run: a handle of an earlier one is void.
    pub(super) generation: u64,
    /// By path without a leading slash; the root is the empty path.
    directories: BTreeMap<PathBuf, Directory>,
    locks: BTreeMap<PathBuf, u64>,
    /// Shared locks, by the number of the handle.
    read_locks: BTreeMap<u64, PathBuf>,
    next_id: u64,
}

impl State {
    pub(super) fn new(rng: Rng) -> State {
        State {
            rng,
            faults: Faults::default(),
            quota_bytes: None,
            maps: false,
            descriptors_max: None,
            open_files: 0,
            used_bytes: 0,
            generation: 0,
            directories: BTreeMap::from([(PathBuf::new(), Directory::default())]),
            locks: BTreeMap::new(),
            read_locks: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// Changes a file and updates the used bytes.
    pub(super) fn update<T>(&mut self, inode: &Inode, change: impl FnOnce(&mut Content) -> T) -> T {
        self.update_with_rng(inode, |content, _| change(content))
    }

    pub(super) fn update_with_rng<T>(&mut self, inode: &Inode, change: impl FnOnce(&mut Content, &mut Rng) -> T) -> T {
        let mut content = inode.lock();
        let before = content.charge();
        let result = change(&mut content, &mut self.rng);
        assert!(self.used_bytes >= before, "what a file uses is part of what all files use");
        self.used_bytes = self.used_bytes - before + content.charge();
        result
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.quota_bytes.unwrap_or(FREE_BYTES_DEFAULT).saturating_sub(self.used_bytes)
    }

    /// An error if the running process may not have one more handle.
    pub(super) fn check_descriptor(&self) -> io::Result<()> {
        let used = self.open_files + self.locks.len() as u64;
        match self.descriptors_max {
            Some(max) if used >= max => Err(out_of_descriptors()),
            _ => Ok(()),
        }
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<Inode> {
        self.check_power()?;
        self.check_descriptor()?;
        let (parent, name) = split(path)?;
        let found = self.directory(&parent)?.live.get(&name).cloned();
        match (mode, found) {
            (OpenMode::CreateNew, Some(_)) => Err(ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, None) => {
                let outcome = self.check_names(Op::Create, path)?;
                if outcome == Outcome::Proceed && self.free_bytes() == 0 {
                    return Err(no_space());
                }
                let inode = self.create(&parent, name)?;
                finish(outcome)?;
                Ok(inode)
            }
            (_, Some(Entry::File(inode))) => Ok(inode),
            (_, Some(Entry::Directory)) => Err(ErrorKind::IsADirectory.into()),
            (_, None) => Err(not_found(path)),
        }
    }

    fn create(&mut self, parent: &Path, name: String) -> io::Result<Inode> {
        self.next_id += 1;
        let inode = Arc::new(Mutex::new(Content::new(self.next_id)));
        let entry = Entry::File(Arc::clone(&inode));
        self.directory(parent)?.change(Operation::Add { name, entry });
        Ok(inode)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.check_power()?;
        let path = normal(path)?;
        if self.directories.contains_key(&path) {
            return Ok(());
        }
        let outcome = self.check_names(Op::CreateDir, &path)?;
        let mut made = PathBuf::new();
        for component in path.components() {
            let parent = made.clone();
            made.push(component);
            if self.directories.contains_key(&made) {
                continue;
            }
            let (_, name) = split(&made)?;
            let directory = self.directory(&parent)?;
            if directory.live.contains_key(&name) {
                return Err(ErrorKind::NotADirectory.into());
            }
            directory.change(Operation::Add { name, entry: Entry::Directory });
            if outcome == Outcome::Proceed {
                directory.sync();
            }
            self.directories.insert(made.clone(), Directory::default());
        }
        finish(outcome)
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.check_power()?;
        self.check_descriptor()?;
        let directory = self.directories.get(&normal(path)?).ok_or_else(|| not_found(path))?;
        Ok(directory.live.keys().cloned().collect())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        let found = normal(path).is_ok_and(|path| self.directories.contains_key(&path)) || self.file(path).is_ok();
        found && !self.faults.is_off()
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_power()?;
        let ((parent, from_name), (to_parent, to_name)) = (split(from)?, split(to)?);
        let moved = self.file(from)?;
        if parent != to_parent {
            return Err(io::Error::new(ErrorKind::Unsupported, "simulated: rename between directories"));
        }
        let replaced = self.file(to).ok();
        if replaced.is_none() && self.exists(to) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let outcome = self.check_names(Op::Rename, to)?;
        if replaced.as_ref().is_none_or(|replaced| !Arc::ptr_eq(replaced, &moved)) {
            self.directory(&parent)?.change(Operation::Rename { from: from_name, to: to_name });
            if let Some(replaced) = replaced {
                self.update(&replaced, |content| content.links -= 1);
            }
        } // Two names of one file: POSIX says that a rename between them does nothing.
        finish(outcome)
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.check_power()?;
        let (parent, name) = split(path)?;
        let inode = self.file(path)?;
        let outcome = self.check_names(Op::Remove, path)?;
        self.directory(&parent)?.change(Operation::Remove { name });
        self.update(&inode, |content| content.links -= 1);
        finish(outcome)
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_power()?;
        let (parent, name) = split(to)?;
        let inode = self.file(from)?;
        if self.exists(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.directory(&parent)?;
        let outcome = self.check_names(Op::Link, to)?;
        self.update(&inode, |content| content.links += 1);
        self.directory(&parent)?.change(Operation::Add { name, entry: Entry::File(inode) });
        finish(outcome)
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.check_power()?;
        self.check_descriptor()?;
        let path = normal(path)?;
        self.directory(&path)?;
        let outcome = self.check_names(Op::SyncDir, &path)?;
        if outcome == Outcome::Proceed {
            self.directory(&path)?.sync();
        }
        finish(outcome)
    }

    pub(super) fn take_lock(&mut self, path: &Path, holder: &str) -> io::Result<u64> {
        self.check_power()?;
        self.check_descriptor()?;
        let (parent, name) = split(path)?;
        let key = normal(path)?;
        if self.locks.contains_key(&key) || self.read_locks.values().any(|held| *held == key) {
            return Err(self.held_by(path)?);
        }
        self.directory(&parent)?;
        let outcome = self.check_names(Op::Lock, path)?;
        let inode = match self.file(path) {
            Ok(inode) => inode,
            Err(_) if self.free_bytes() == 0 => return Err(no_space()),
            Err(_) => self.create(&parent, name)?,
        };
        let bytes = holder.as_bytes().to_vec();
        self.update(&inode, |content| {
            content.change(Change::Resize { length: 0 });
            content.change(Change::Write { offset: 0, bytes });
        });
        finish(outcome)?;
        self.next_id += 1;
        self.locks.insert(key, self.next_id);
        Ok(self.next_id)
    }

    pub(super) fn take_read_lock(&mut self, path: &Path) -> io::Result<Option<u64>> {
        self.check_power()?;
        let key = normal(path)?;
        if self.locks.contains_key(&key) {
            return Err(self.held_by(path)?);
        }
        if !self.exists(path) {
            return Ok(None);
        }
        self.next_id += 1;
        self.read_locks.insert(self.next_id, key);
        Ok(Some(self.next_id))
    }

    /// The error of a lock that is taken.
    fn held_by(&self, path: &Path) -> io::Result<io::Error> {
        let live = self.file(path)?.lock().live.clone();
        let mut recorded = vec![0; live.len() as usize];
        live.read(&mut recorded, 0);
        Ok(crate::fs::held_by(&String::from_utf8_lossy(&recorded)))
    }

    pub(super) fn unlock(&mut self, id: u64) {
        self.read_locks.remove(&id);
        self.locks.retain(|_, held| *held != id);
    }

    pub(super) fn flip_bit(&mut self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        self.file(path)?.lock().flip_bit(offset, bit);
        Ok(())
    }

    pub(super) fn crash(&mut self, mode: CrashMode) {
        self.generation += 1;
        self.open_files = 0;
        self.locks.clear();
        self.read_locks.clear();
        self.faults.power_on();
        if mode != CrashMode::Kill {
            self.lose_entries(mode);
            self.drop_unreachable_directories();
        }
        let files = self.files();
        self.used_bytes = 0;
        for (inode, links) in files.values() {
            let mut content = inode.lock();
            if mode != CrashMode::Kill {
                content.lose_power(mode, &mut self.rng);
            }
            content.links = *links;
            content.handles = 0;
            self.used_bytes += content.charge();
        }
    }

    fn lose_entries(&mut self, mode: CrashMode) {
        for directory in self.directories.values_mut() {
            let pending = directory.pending_count();
            let kept = match mode {
                CrashMode::LoseUnsynced => 0,
                CrashMode::KeepUnsynced => pending,
                _ => self.rng.below(pending as u64 + 1) as usize,
            };
            directory.lose_power(kept);
        }
    }

    fn drop_unreachable_directories(&mut self) {
        let paths: Vec<PathBuf> = self.directories.keys().cloned().collect();
        for path in paths {
            // Parents sort before children, so a lost parent removes its children too.
            let Ok((parent, name)) = split(&path) else { continue }; // the root
            let entry = self.directories.get(&parent).and_then(|parent| parent.live.get(&name));
            if !matches!(entry, Some(Entry::Directory)) {
                self.directories.remove(&path);
            }
        }
    }

    /// Every file with a live name, and how many names it has, in an order that depends on ids alone.
    fn files(&self) -> BTreeMap<u64, (Inode, u32)> {
        let mut files: BTreeMap<u64, (Inode, u32)> = BTreeMap::new();
        for entry in self.directories.values().flat_map(|directory| directory.live.values()) {
            if let Entry::File(inode) = entry {
                let id = inode.lock().id;
                files.entry(id).or_insert_with(|| (Arc::clone(inode), 0)).1 += 1;
            }
        }
        files
    }

    pub(super) fn fork(&self, rng: Rng) -> State {
        let mut copies: BTreeMap<u64, Inode> = BTreeMap::new();
        let mut directories = self.directories.clone();
        for directory in directories.values_mut() {
            directory.map_files(|inode| {
                let content = inode.lock();
                let copy = copies.entry(content.id).or_insert_with(|| Arc::new(Mutex::new(content.cloned())));
                Arc::clone(copy)
            });
        }
        let mut fork = State::new(rng);
        fork.directories = directories;
        fork.next_id = self.next_id;
        fork.quota_bytes = self.quota_bytes;
        fork.maps = self.maps;
        fork.used_bytes = copies.values().map(|inode| inode.lock().charge()).sum();
        fork
    }

    fn check_power(&self) -> io::Result<()> {
        if self.faults.is_off() { Err(power_is_off()) } else { Ok(()) }
    }

    /// Checks an operation on names: one that fails has no effect.
    fn check_names(&mut self, op: Op, path: &Path) -> io::Result<Outcome> {
        match self.faults.check(op, path, 0, 0)? {
            Outcome::Fail => Err(injected()),
            outcome => Ok(outcome),
        }
    }

    fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        self.directories.get_mut(path).ok_or_else(|| not_found(path))
    }

    fn file(&self, path: &Path) -> io::Result<Inode> {
        let (parent, name) = split(path)?;
        match self.directories.get(&parent).and_then(|directory| directory.live.get(&name)) {
            Some(Entry::File(inode)) => Ok(Arc::clone(inode)),
            Some(Entry::Directory) => Err(ErrorKind::IsADirectory.into()),
            None => Err(not_found(path)),
        }
    }
}

/// The result of an operation whose effect is in the live state: an error if the power went off meanwhile.
fn finish(outcome: Outcome) -> io::Result<()> {
    if outcome == Outcome::PowerOff { Err(power_is_off()) } else { Ok(()) }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("simulated: no such file or directory: {}", path.display()))
}

/// The path from the root, without `/` and `.`; `..` is refused.
fn normal(path: &Path) -> io::Result<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => normal.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(ErrorKind::InvalidInput.into()),
        }
    }
    Ok(normal)
}

/// Directory and name.
fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let path = normal(path)?;
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) => Ok((parent.to_path_buf(), name.to_owned())),
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}
