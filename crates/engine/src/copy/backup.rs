//! Backups: any number of them in one directory, each file kept once.
//!
//! ```text
//! BACKUPS/
//!   files/IDENTITY-NUMBER-CHECKSUM.sst     a file of a database; the identity tells databases apart
//!   backups/000001                         one backup: which files it needs (record.rs)
//! ```
//!
//! A backup copies only files that no earlier one has: tables never change, so the same identity and number mean the same
//! bytes. A file gets its name once it is whole and synced, and a backup's record is written after all its files; so what
//! a crash leaves is at worst a file that no record names, which the next [`BackupStore::delete`] or
//! [`BackupStore::create`] of it clears up or takes over.

use super::files::{FileKind, LiveFile, checksum_file, copy_file, files_of};
use super::record::Record;
use super::{Source, refuse_unless_empty};
use crate::db::open::absolute;
use crate::version::{sync_error, write_fresh};
use crate::{Db, Error, Result, SequenceNumber};
use kontiki_env::Env;
use kontiki_env::codec::hash64;
use kontiki_env::fs::{FileLock, read_all, replace_file};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FILES: &str = "files";
const BACKUPS: &str = "backups";
/// In a database's directory: 16 hexadecimal digits that no other database has. Made by its first backup.
const IDENTITY: &str = "IDENTITY";

/// How far a copy has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Files copied or found there already.
    pub files_done: u64,
    /// Files in all.
    pub files: u64,
    /// Bytes copied or found there already.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// One backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// Its number: counts up, names it.
    pub number: u64,
    /// When it was made: milliseconds of the wall clock since 1970.
    pub made_at_ms: u64,
    /// Every write at or below it is in it.
    pub sequence: SequenceNumber,
    /// Files it needs.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Bytes that making it has copied; 0 when it is only listed.
    pub copied_bytes: u64,
}

/// A directory of backups, held by this process. See the head of this file.
pub struct BackupStore {
    env: Env,
    dir: PathBuf,
    _lock: Box<dyn FileLock>,
}

impl BackupStore {
    /// Opens a directory of backups, or makes one.
    ///
    /// Errors: [`Error::InUse`] if another process works on it; [`Error::InvalidArgument`] for a directory that holds a
    /// database; [`Error::Io`].
    pub fn open(env: &Env, dir: &Path) -> Result<BackupStore> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |error: std::io::Error| Error::io(path, &error)
        };
        let dir = &absolute(env, dir)?;
        if env.fs.exists(&dir.join("CURRENT")) {
            let message = format!("{} holds a database; backups need a directory of their own", dir.display());
            return Err(Error::InvalidArgument(message));
        }
        for name in [FILES, BACKUPS] {
            env.fs.create_dir_all(&dir.join(name)).map_err(io(&dir.join(name)))?;
        }
        let lock = crate::db::open::lock_directory(env, dir)?;
        Ok(BackupStore { env: env.clone(), dir: dir.to_path_buf(), _lock: lock })
    }

    /// Backs up everything that was acknowledged before this call, copying only what no earlier backup holds. A close of the
    /// database waits until this has noticed it, so `progress` must not call the database.
    ///
    /// Errors: those of [`Db::flush`]; [`Error::InvalidArgument`] for a served store; [`Error::Io`] and
    /// [`Error::NoSpace`] of the backup's disk: then there is no new backup, and the earlier ones are as they were.
    pub fn create(&self, db: &Db, progress: &mut dyn FnMut(CopyProgress)) -> Result<BackupInfo> {
        let core = db.core();
        let _here = core.foreground()?;
        let source = Source::of(core)?;
        let identity = identity_of(&core.env, &core.directory)?;
        let wanted = files_of(&source.edit);
        let mut meter = Meter::new(&wanted, progress);
        let held = self.held_files()?;
        let mut record = Record {
            made_at_ms: core.env.clock.wall_ms(),
            sequence: source.sequence,
            version: source.edit.clone(),
            files: Vec::with_capacity(wanted.len()),
        };
        let mut copied_bytes = 0;
        for file in wanted {
            // A close waits for this; it need not wait for all files.
            core.check_open()?;
            let checksum = match held.get(&(identity, file.kind, file.number)) {
                Some(checksum) => {
                    meter.add(file.bytes);
                    *checksum
                }
                None => {
                    copied_bytes += file.bytes;
                    self.take_in(identity, file, &file.kind.path(&core.directory, file.number), &mut meter)?
                }
            };
            record.files.push((file, checksum));
            meter.end_file();
        }
        self.sync_dir(FILES)?;
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        // The identity goes into the record's directory entry: see `named`.
        let name = format!("{number:06}-{identity:016x}");
        replace_file(&*self.env.fs, &self.dir.join(BACKUPS), &name, &record.encode())
            .map_err(|error| Error::io(self.dir.join(BACKUPS).join(&name), &error))?;
        Ok(BackupInfo { copied_bytes, ..info(number, &record) })
    }

    /// The backups, oldest first.
    pub fn list(&self) -> Result<Vec<BackupInfo>> {
        self.numbers()?.into_iter().map(|number| Ok(info(number, &self.read(number)?.1))).collect()
    }

    /// Reads every byte of a backup and compares the checksums.
    ///
    /// Errors: [`Error::Corruption`] with the first file that is not as it was written.
    pub fn verify(&self, number: u64, progress: &mut dyn FnMut(CopyProgress)) -> Result<BackupInfo> {
        let (identity, record) = self.read(number)?;
        let mut meter = Meter::new(&record.files.iter().map(|(file, _)| *file).collect::<Vec<_>>(), progress);
        for (file, checksum) in &record.files {
            let path = self.path_of(identity, *file, *checksum);
            let found = checksum_file(&self.env, &path, file.bytes, &mut |bytes| meter.add(bytes))?;
            check(&path, found, *checksum)?;
            meter.end_file();
        }
        Ok(info(number, &record))
    }

    /// Makes `target` a database with the contents of a backup; every byte is checked on the way.
    ///
    /// Errors: [`Error::InvalidArgument`] if there is no such backup or `target` is not empty; [`Error::Corruption`] for
    /// a damaged backup; `target` then has no `CURRENT` file and is refused by an open.
    pub fn restore(&self, number: u64, target: &Path, progress: &mut dyn FnMut(CopyProgress)) -> Result<BackupInfo> {
        let target = &absolute(&self.env, target)?;
        refuse_unless_empty(&self.env, target)?;
        let (identity, record) = self.read(number)?;
        let mut meter = Meter::new(&record.files.iter().map(|(file, _)| *file).collect::<Vec<_>>(), progress);
        let mut directories = BTreeSet::new();
        for (file, checksum) in &record.files {
            let directory = file.kind.directory(target);
            if directories.insert(directory.clone()) {
                self.env.fs.create_dir_all(&directory).map_err(|error| Error::io(&directory, &error))?;
            }
            let from = self.path_of(identity, *file, *checksum);
            let to = file.kind.path(target, file.number);
            let found = copy_file(&self.env, &from, &to, file.bytes, &mut |bytes| meter.add(bytes))?;
            check(&from, found, *checksum)?;
            meter.end_file();
        }
        for directory in &directories {
            self.env.fs.sync_dir(directory).map_err(|error| sync_error(directory, &error))?;
        }
        write_fresh(&self.env, target, &record.version)?;
        Ok(info(number, &record))
    }

    /// Removes a backup, and the files that no other one needs.
    pub fn delete(&self, number: u64) -> Result<()> {
        let (path, _) = self.named(number)?;
        self.env.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
        // The record must be gone before its files.
        self.sync_dir(BACKUPS)?;
        let mut needed = BTreeSet::new();
        for number in self.numbers()? {
            let (identity, record) = self.read(number)?;
            needed.extend(record.files.iter().map(|(file, checksum)| self.path_of(identity, *file, *checksum)));
        }
        let files = self.dir.join(FILES);
        for name in self.env.fs.list(&files).map_err(|error| Error::io(&files, &error))? {
            let path = files.join(name);
            if !needed.contains(&path) {
                self.env.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
            }
        }
        self.sync_dir(FILES)
    }

    /// Copies a file in and names it by its checksum.
    fn take_in(&self, identity: u64, file: LiveFile, from: &Path, meter: &mut Meter<'_>) -> Result<u32> {
        let extension = file.kind.extension();
        let temporary = self.dir.join(FILES).join(format!("{identity:016x}-{}.{extension}.tmp", file.number));
        if self.env.fs.exists(&temporary) {
            self.env.fs.remove(&temporary).map_err(|error| Error::io(&temporary, &error))?;
        }
        let checksum = match copy_file(&self.env, from, &temporary, file.bytes, &mut |bytes| meter.add(bytes)) {
            Ok(checksum) => checksum,
            Err(error) => {
                let _ = self.env.fs.remove(&temporary); // so that a full disk gets its space back
                return Err(error);
            }
        };
        let path = self.path_of(identity, file, checksum);
        self.env.fs.rename(&temporary, &path).map_err(|error| Error::io(&path, &error))?;
        Ok(checksum)
    }

    fn path_of(&self, identity: u64, file: LiveFile, checksum: u32) -> PathBuf {
        let extension = file.kind.extension();
        self.dir.join(FILES).join(format!("{identity:016x}-{}-{checksum:08x}.{extension}", file.number))
    }

    /// The files that some backup names, and so are whole; by identity, kind and number, with their checksums.
    fn held_files(&self) -> Result<BTreeMap<(u64, FileKind, u64), u32>> {
        let mut held = BTreeMap::new();
        for number in self.numbers()? {
            let (identity, record) = self.read(number)?;
            held.extend(record.files.iter().map(|(file, checksum)| ((identity, file.kind, file.number), *checksum)));
        }
        Ok(held)
    }

    fn names(&self) -> Result<Vec<(u64, u64, String)>> {
        let dir = self.dir.join(BACKUPS);
        let names = self.env.fs.list(&dir).map_err(|error| Error::io(&dir, &error))?;
        let mut parsed: Vec<(u64, u64, String)> = names.into_iter().filter_map(parse_name).collect();
        parsed.sort_unstable();
        Ok(parsed)
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        Ok(self.names()?.into_iter().map(|(number, _, _)| number).collect())
    }

    /// The record's path and the database's identity.
    fn named(&self, number: u64) -> Result<(PathBuf, u64)> {
        let names = self.names()?;
        match names.iter().find(|(found, _, _)| *found == number) {
            Some((_, identity, name)) => Ok((self.dir.join(BACKUPS).join(name), *identity)),
            None => {
                let there: Vec<String> = names.iter().map(|(number, _, _)| number.to_string()).collect();
                let (dir, there) = (self.dir.display(), there.join(", "));
                Err(Error::InvalidArgument(format!("{dir} has no backup {number}; there are: {there}")))
            }
        }
    }

    fn read(&self, number: u64) -> Result<(u64, Record)> {
        let (path, identity) = self.named(number)?;
        let bytes = read_all(&*self.env.fs, &path).map_err(|error| Error::io(&path, &error))?;
        Ok((identity, Record::decode(&bytes, &path)?))
    }

    fn sync_dir(&self, name: &str) -> Result<()> {
        let dir = self.dir.join(name);
        self.env.fs.sync_dir(&dir).map_err(|error| sync_error(&dir, &error))
    }
}

/// `NNNNNN-IDENTITY` of a record's file.
fn parse_name(name: String) -> Option<(u64, u64, String)> {
    let (number, identity) = name.split_once('-')?;
    let parsed = (number.parse().ok()?, u64::from_str_radix(identity, 16).ok()?);
    (format!("{:06}-{:016x}", parsed.0, parsed.1) == name).then_some((parsed.0, parsed.1, name))
}

fn info(number: u64, record: &Record) -> BackupInfo {
    BackupInfo {
        number,
        made_at_ms: record.made_at_ms,
        sequence: record.sequence,
        files: record.files.len() as u64,
        bytes: record.files.iter().map(|(file, _)| file.bytes).sum(),
        copied_bytes: 0,
    }
}

fn check(path: &Path, found: u32, expected: u32) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let what = format!("the backup's file has checksum {found:08x}; {expected:08x} was recorded");
    Err(Error::Corruption { file: path.to_path_buf(), offset: 0, what })
}

/// The identity of a database, made if there is none. It need not be secret, only different from all others: it comes
/// from the time and the place.
fn identity_of(env: &Env, dir: &Path) -> Result<u64> {
    let path = dir.join(IDENTITY);
    if env.fs.exists(&path) {
        let bytes = read_all(&*env.fs, &path).map_err(|error| Error::io(&path, &error))?;
        let text = String::from_utf8_lossy(&bytes);
        return u64::from_str_radix(text.trim(), 16).map_err(|_| Error::Corruption {
            file: path.clone(),
            offset: 0,
            what: "the database's identity is not 16 hexadecimal digits".to_string(),
        });
    }
    let origin = format!("{} {:?} {}", env.clock.wall_ms(), env.clock.monotonic(), dir.display());
    let identity = hash64(origin.as_bytes());
    replace_file(&*env.fs, dir, IDENTITY, format!("{identity:016x}\n").as_bytes())
        .map_err(|error| Error::io(&path, &error))?;
    Ok(identity)
}

/// Tells of progress.
struct Meter<'a> {
    state: CopyProgress,
    tell: &'a mut dyn FnMut(CopyProgress),
}

impl<'a> Meter<'a> {
    fn new(files: &[LiveFile], tell: &'a mut dyn FnMut(CopyProgress)) -> Meter<'a> {
        let bytes = files.iter().map(|file| file.bytes).sum();
        Meter { state: CopyProgress { files: files.len() as u64, bytes, ..CopyProgress::default() }, tell }
    }

    fn add(&mut self, bytes: u64) {
        self.state.bytes_done += bytes;
        debug_assert!(self.state.bytes_done <= self.state.bytes, "no byte is counted twice");
        (self.tell)(self.state);
    }

    fn end_file(&mut self) {
        self.state.files_done += 1;
        (self.tell)(self.state);
    }
}
