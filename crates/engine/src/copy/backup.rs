//! Backups: any number of them in one directory, each file kept once.
//!
//! ```text
//! BACKUPS/
//!   files/IDENTITY-NUMBER-CHECKSUM.sst     a file of a database; the identity is that of the backup that copied it
//!   backups/000001-IDENTITY                one backup: which files it needs (record.rs)
//! ```
//!
//! A backup copies only files that no earlier one of the same history has (directory/lineage.rs). What it copies is
//! read back from end to end (verify.rs): damage of the database does not get into a backup. A file gets its name once
//! it is whole and synced, and a backup's record is written after all its files; so what a crash leaves is at worst a
//! file that no record names, which the next [`BackupStore::delete`] or [`BackupStore::create`] removes.
//!
//! Any number of calls may run at once. One lock is held while records are read or written, never while files are
//! copied; what calls under way need is noted, and a deletion leaves it.

use super::CopySource;
use super::files::{FileKind, LiveFile, files_of};
use super::record::{Record, StoredFile};
use super::verify::Verifier;
use crate::directory::copy_file::{checksum_file, copy_file};
use crate::directory::lineage::{self, Ancestor};
use crate::directory::{absolute, lock_directory, lock_to_read, unfinished};
use crate::version::write_fresh;
use crate::{Db, Error, Result, SequenceNumber};
use kontiki_env::Env;
use kontiki_env::fs::{FileLock, OpenMode, read_all, replace_file};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const FILES: &str = "files";
const BACKUPS: &str = "backups";

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Bytes that making it has copied; `None` of a backup of an early version, which did not record it.
    pub copied_bytes: Option<u64>,
    /// What is wrong with its record: then nothing but its number is known, and it can only be deleted.
    pub damage: Option<String>,
}

/// A directory of backups, held by this process. See the head of this file.
pub struct BackupStore {
    env: Env,
    dir: PathBuf,
    _lock: Option<Box<dyn FileLock>>,
    /// Why nothing can be changed, if so: the directory is on read-only media, or belongs to another user.
    read_only: Option<Error>,
    uses: Mutex<Uses>,
}

/// What calls under way need.
#[derive(Default)]
struct Uses {
    next_id: u64,
    by_id: BTreeMap<u64, Use>,
}

struct Use {
    /// Files that are there already.
    names: BTreeSet<String>,
    /// All files with this identity in their name.
    identity: Option<u64>,
}

impl Uses {
    fn covers(&self, name: &str) -> bool {
        let of = |identity: u64| name.starts_with(&format!("{identity:016x}-"));
        self.by_id.values().any(|one| one.names.contains(name) || one.identity.is_some_and(of))
    }

    fn has_identity(&self, identity: u64) -> bool {
        self.by_id.values().any(|one| one.identity == Some(identity))
    }
}

/// Notes a use until it is dropped. Not to be dropped under the lock.
struct InUse<'a> {
    store: &'a BackupStore,
    id: u64,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.store.uses.lock().by_id.remove(&self.id);
    }
}

/// The records of a store.
#[derive(Default)]
struct Records {
    /// By number, with the identity of the name.
    sound: BTreeMap<u64, (u64, Record)>,
    damaged: BTreeMap<u64, Error>,
}

impl BackupStore {
    /// Opens a directory of backups, or makes one. One that this process cannot write to, but read, is opened to list,
    /// verify and restore.
    ///
    /// Errors: [`Error::InUse`] if another process works on it; [`Error::InvalidArgument`] for a directory that holds a
    /// database; [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<BackupStore> {
        BackupStore::open_in(&Env::real(), dir.as_ref())
    }

    /// As [`BackupStore::open`], on a machine given by `env`.
    pub fn open_in(env: &Env, dir: &Path) -> Result<BackupStore> {
        let dir = &absolute(env, dir)?;
        if env.fs.exists(&dir.join("CURRENT")) {
            let message = format!("{} holds a database; backups need a directory of their own", dir.display());
            return Err(Error::InvalidArgument(message));
        }
        let (lock, read_only) = match Self::lock(env, dir) {
            Ok(lock) => (Some(lock), None),
            Err(error) if is_unwritable(&error) && env.fs.exists(&dir.join(BACKUPS)) => {
                (lock_to_read(env, dir)?, Some(error))
            }
            Err(error) => return Err(error),
        };
        Ok(BackupStore { env: env.clone(), dir: dir.to_path_buf(), _lock: lock, read_only, uses: Mutex::default() })
    }

    fn lock(env: &Env, dir: &Path) -> Result<Box<dyn FileLock>> {
        for name in [FILES, BACKUPS] {
            env.fs.create_dir_all(&dir.join(name)).map_err(|error| Error::io(dir.join(name), &error))?;
        }
        lock_directory(env, dir)
    }

    /// Backs up everything that was acknowledged before this call, copying only what no earlier backup of the same
    /// history holds. What is copied is verified. A close of the database waits until this has noticed it, so
    /// `progress` must not call the database.
    ///
    /// Errors: those of [`Db::flush`]; [`Error::InvalidArgument`] for a served store; [`Error::Corruption`] that names
    /// the damaged file of the database; [`Error::Busy`]; [`Error::Io`] and [`Error::NoSpace`] of the backup's disk:
    /// then there is no new backup, and the earlier ones are as they were.
    pub fn create(&self, db: &Db, progress: &mut dyn FnMut(CopyProgress)) -> Result<BackupInfo> {
        self.check_writable()?;
        let core = db.core();
        let _here = core.enter_foreground()?;
        let source = CopySource::of(core)?;
        let wanted = files_of(&source.edit);
        let next_file = wanted.iter().map(|file| file.number).max().map_or(1, |largest| largest + 1);
        let past = lineage::ancestors(&core.shared().env, &core.shared().directory)?;
        let (identity, held, _in_use) = self.begin_create(core, &source, next_file, &past)?;
        let made = self.copy_in(core, &source, (identity, &held), Meter::new(&wanted, progress), &wanted);
        let made = made.and_then(|record| Ok((self.write_record(identity, &record)?, record)));
        let (number, record) = match made {
            Ok(made) => made,
            Err(error) => {
                self.abandon(identity);
                return Err(error);
            }
        };
        // Without it the next backup only copies more.
        if let Err(error) = lineage::add(&core.shared().env, &core.shared().directory, Ancestor { identity, next_file })
        {
            tracing::warn!(%error, "the directory does not know of its backup: the next one copies everything");
        }
        Ok(info(number, &record))
    }

    /// Chooses an identity, and the files that need not be copied.
    fn begin_create(
        &self,
        core: &crate::db::Core,
        source: &CopySource,
        next_file: u64,
        past: &[Ancestor],
    ) -> Result<(u64, Held, InUse<'_>)> {
        let mut uses = self.uses.lock();
        let records = self.records()?;
        self.sweep(&uses, &records)?;
        let taken =
            |identity: u64| uses.has_identity(identity) || records.sound.values().any(|(there, _)| *there == identity);
        let identity = lineage::new_identity(&core.shared().env, &core.shared().directory, next_file, taken);
        let held = self.held_files(&records, source, past);
        let names = held.values().map(name_of).collect();
        let in_use = self.note(&mut uses, Use { names, identity: Some(identity) });
        Ok((identity, held, in_use))
    }

    fn copy_in(
        &self,
        core: &crate::db::Core,
        source: &CopySource,
        (identity, held): (u64, &Held),
        mut meter: Meter<'_>,
        wanted: &[LiveFile],
    ) -> Result<Record> {
        let mut record = Record {
            made_at_ms: core.shared().env.clock.wall_ms(),
            sequence: source.sequence,
            copied_bytes: Some(0),
            version: source.edit.clone(),
            files: Vec::with_capacity(wanted.len()),
        };
        let mut verifier = Verifier::new(core, source);
        let mut copied_bytes = 0;
        for &file in wanted {
            // A close waits for this; it need not wait for all files.
            core.shared().health.check_open()?;
            let stored = match held.get(&(file.kind, file.number)) {
                Some(stored) => {
                    meter.add(file.bytes);
                    *stored
                }
                None => {
                    copied_bytes += file.bytes;
                    let from = file.kind.path(&core.shared().directory, file.number);
                    self.take_in(identity, file, &from, &mut verifier, &mut meter)?
                }
            };
            record.files.push(stored);
            meter.end_file();
        }
        verifier.finish()?;
        record.copied_bytes = Some(copied_bytes);
        self.sync_dir(FILES)?;
        Ok(record)
    }

    /// Makes the backup one of the store; returns its number.
    fn write_record(&self, identity: u64, record: &Record) -> Result<u64> {
        let _uses = self.uses.lock();
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        let name = format!("{number:06}-{identity:016x}");
        replace_file(&*self.env.fs, &self.dir.join(BACKUPS), &name, &record.encode())
            .map_err(|error| Error::io(self.dir.join(BACKUPS).join(&name), &error))?;
        Ok(number)
    }

    /// Removes what a failed backup has copied, so that a full disk gets its space back. What stays goes with the next
    /// backup.
    fn abandon(&self, identity: u64) {
        // The record may have got its name although writing it failed: it must be gone before its files.
        let _uses = self.uses.lock();
        let Ok(names) = self.names() else { return };
        if let Some((_, _, name)) = names.iter().find(|(_, of, _)| *of == identity) {
            let removed = self.env.fs.remove(&self.dir.join(BACKUPS).join(name));
            if removed.is_err() || self.sync_dir(BACKUPS).is_err() {
                return;
            }
        }
        let files = self.dir.join(FILES);
        let of_it = format!("{identity:016x}-");
        let names = self.env.fs.list(&files).unwrap_or_default();
        for name in names.iter().filter(|name| name.starts_with(&of_it)) {
            let _ = self.env.fs.remove(&files.join(name));
        }
    }

    /// The backups, oldest first, those with a damaged record too.
    pub fn list(&self) -> Result<Vec<BackupInfo>> {
        let _uses = self.uses.lock();
        let records = self.records()?;
        let sound = records.sound.iter().map(|(number, (_, record))| info(*number, record));
        let damaged = records.damaged.iter().map(|(number, error)| BackupInfo {
            number: *number,
            damage: Some(error.to_string()),
            ..BackupInfo::default()
        });
        let mut all: Vec<BackupInfo> = sound.chain(damaged).collect();
        all.sort_by_key(|info| info.number);
        Ok(all)
    }

    /// Reads every byte of a backup and compares the checksums.
    ///
    /// Errors: [`Error::Corruption`] with the first file that is not as it was written.
    pub fn verify(&self, number: u64, progress: &mut dyn FnMut(CopyProgress)) -> Result<BackupInfo> {
        let (record, _in_use) = self.begin_read(number)?;
        let mut meter = Meter::new(&record.files.iter().map(|stored| stored.file).collect::<Vec<_>>(), progress);
        for stored in &record.files {
            let path = self.path_of(stored);
            let found = checksum_file(&self.env, &path, stored.file.bytes, &mut |bytes| meter.add(bytes))?;
            check(&path, found, stored.checksum)?;
            meter.end_file();
        }
        Ok(info(number, &record))
    }

    /// Makes `target` a database with the contents of a backup; every byte is checked on the way.
    ///
    /// Errors: [`Error::InvalidArgument`] if there is no such backup or `target` is not empty; [`Error::Corruption`]
    /// for a damaged backup; `target` is then refused by an open, and has to be removed.
    pub fn restore(&self, number: u64, target: &Path, progress: &mut dyn FnMut(CopyProgress)) -> Result<BackupInfo> {
        let target = &absolute(&self.env, target)?;
        let (record, _in_use) = self.begin_read(number)?;
        unfinished::begin(&self.env, target)?;
        let mut meter = Meter::new(&record.files.iter().map(|stored| stored.file).collect::<Vec<_>>(), progress);
        let mut directories = BTreeSet::new();
        for stored in &record.files {
            let file = stored.file;
            let directory = file.kind.directory(target);
            if directories.insert(directory.clone()) {
                self.env.fs.create_dir_all(&directory).map_err(|error| Error::io(&directory, &error))?;
            }
            let from = self.path_of(stored);
            let to = file.kind.path(target, file.number);
            let found = copy_file(&self.env, &from, &to, file.bytes, &mut |bytes| meter.add(bytes))?;
            check(&from, found, stored.checksum)?;
            meter.end_file();
        }
        for directory in &directories {
            self.env.fs.sync_dir(directory).map_err(|error| Error::failed_sync(directory, &error))?;
        }
        write_fresh(&self.env, target, &record.version)?;
        unfinished::end(&self.env, target)?;
        Ok(info(number, &record))
    }

    /// Reads a record and keeps its files.
    fn begin_read(&self, number: u64) -> Result<(Record, InUse<'_>)> {
        let mut uses = self.uses.lock();
        let (_, record) = self.read(number)?;
        let names = record.files.iter().map(name_of).collect();
        let in_use = self.note(&mut uses, Use { names, identity: None });
        Ok((record, in_use))
    }

    /// Removes a backup, and the files that no other one needs, nor a call under way. While the record of another
    /// backup is damaged, it is unknown what that one needs: then all files stay until the damaged ones are deleted
    /// too.
    pub fn delete(&self, number: u64) -> Result<()> {
        self.check_writable()?;
        let uses = self.uses.lock();
        let (path, _) = self.named(number)?;
        self.env.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
        // The record must be gone before its files.
        self.sync_dir(BACKUPS)?;
        let records = self.records()?;
        self.sweep(&uses, &records)
    }

    /// Removes the files that no record names and no call uses.
    fn sweep(&self, uses: &Uses, records: &Records) -> Result<()> {
        if let Some((number, error)) = records.damaged.first_key_value() {
            tracing::warn!(number, %error, "the record of a backup is damaged; files stay until that backup is deleted");
            return Ok(());
        }
        let needed: BTreeSet<String> =
            records.sound.values().flat_map(|(_, record)| record.files.iter().map(name_of)).collect();
        let files = self.dir.join(FILES);
        let names = self.env.fs.list(&files).map_err(|error| Error::io(&files, &error))?;
        let mut removed = false;
        for name in names.iter().filter(|name| !needed.contains(*name) && !uses.covers(name)) {
            let path = files.join(name);
            self.env.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
            removed = true;
        }
        if removed { self.sync_dir(FILES) } else { Ok(()) }
    }

    /// Copies a file in, reads it back, and names it by its checksum.
    fn take_in(
        &self,
        identity: u64,
        file: LiveFile,
        from: &Path,
        verifier: &mut Verifier<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<StoredFile> {
        let extension = file.kind.extension();
        let temporary = self.dir.join(FILES).join(format!("{identity:016x}-{}.{extension}.tmp", file.number));
        let checksum = copy_file(&self.env, from, &temporary, file.bytes, &mut |bytes| meter.add(bytes))?;
        verifier.verify(file, &temporary, from)?;
        let stored = StoredFile { file, checksum, home: identity };
        let path = self.path_of(&stored);
        self.env.fs.rename(&temporary, &path).map_err(|error| Error::io(&path, &error))?;
        Ok(stored)
    }

    fn path_of(&self, stored: &StoredFile) -> PathBuf {
        self.dir.join(FILES).join(name_of(stored))
    }

    /// The files of `source` that backups of its past hold. By what both versions say of a table they are the same;
    /// that is a check, for within one history a number has one meaning.
    fn held_files(&self, records: &Records, source: &CopySource, past: &[Ancestor]) -> Held {
        let wanted = source.edit.described_tables();
        let mut held = Held::new();
        for ancestor in past {
            let of_it =
                |(identity, record): &&(u64, Record)| *identity == ancestor.identity && record.copied_bytes.is_some();
            let Some((_, record)) = records.sound.values().find(of_it) else { continue };
            let described = record.version.described_tables();
            for stored in &record.files {
                let number = stored.file.number;
                let alike = stored.file.kind == FileKind::Values || wanted.get(&number) == described.get(&number);
                if alike && self.is_there(stored) {
                    held.entry((stored.file.kind, number)).or_insert(*stored);
                }
            }
        }
        let sizes: BTreeMap<_, _> =
            files_of(&source.edit).iter().map(|file| ((file.kind, file.number), file.bytes)).collect();
        held.retain(|key, stored| sizes.get(key) == Some(&stored.file.bytes));
        held
    }

    fn is_there(&self, stored: &StoredFile) -> bool {
        let length = self.env.fs.open(&self.path_of(stored), OpenMode::Read).and_then(|file| file.len());
        length.is_ok_and(|length| length == stored.file.bytes)
    }

    fn note(&self, uses: &mut MutexGuard<'_, Uses>, one: Use) -> InUse<'_> {
        uses.next_id += 1;
        let id = uses.next_id;
        uses.by_id.insert(id, one);
        InUse { store: self, id }
    }

    fn check_writable(&self) -> Result<()> {
        self.read_only.clone().map_or(Ok(()), Err)
    }

    /// All records. What is damaged is noted; an error is one of the disk.
    fn records(&self) -> Result<Records> {
        let mut records = Records::default();
        for number in self.numbers()? {
            match self.read(number) {
                Ok(found) => drop(records.sound.insert(number, found)),
                Err(error @ (Error::Corruption { .. } | Error::UnsupportedFormat { .. })) => {
                    records.damaged.insert(number, error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records)
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

    /// The record's path and its identity.
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
        Ok((identity, Record::decode(&bytes, identity, &path)?))
    }

    fn sync_dir(&self, name: &str) -> Result<()> {
        let dir = self.dir.join(name);
        self.env.fs.sync_dir(&dir).map_err(|error| Error::failed_sync(&dir, &error))
    }
}

/// Stored files that need not be copied.
type Held = BTreeMap<(FileKind, u64), StoredFile>;

/// The name of a stored file.
fn name_of(stored: &StoredFile) -> String {
    let StoredFile { file, checksum, home } = stored;
    format!("{home:016x}-{}-{checksum:08x}.{}", file.number, file.kind.extension())
}

/// Whether nothing can be written there, though it may be read.
fn is_unwritable(error: &Error) -> bool {
    matches!(error, Error::Io { kind: ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied, .. })
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
        bytes: record.files.iter().map(|stored| stored.file.bytes).sum(),
        copied_bytes: record.copied_bytes,
        damage: None,
    }
}

fn check(path: &Path, found: u32, expected: u32) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let what = format!("the backup's file has checksum {found:08x}; {expected:08x} was recorded");
    Err(Error::Corruption { file: path.to_path_buf(), offset: 0, what })
}

/// Reports progress.
struct Meter<'a> {
    state: CopyProgress,
    notify: &'a mut dyn FnMut(CopyProgress),
}

impl<'a> Meter<'a> {
    fn new(files: &[LiveFile], notify: &'a mut dyn FnMut(CopyProgress)) -> Meter<'a> {
        let bytes = files.iter().map(|file| file.bytes).sum();
        Meter { state: CopyProgress { files: files.len() as u64, bytes, ..CopyProgress::default() }, notify }
    }

    fn add(&mut self, bytes: u64) {
        self.state.bytes_done += bytes;
        debug_assert!(self.state.bytes_done <= self.state.bytes, "no byte is counted twice");
        (self.notify)(self.state);
    }

    fn end_file(&mut self) {
        self.state.files_done += 1;
        (self.notify)(self.state);
    }
}
