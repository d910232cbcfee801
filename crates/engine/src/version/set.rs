//! The set of versions: the current one, and the only function that changes it.

use super::edit::AddedTable;
use super::files::ObsoleteFiles;
use super::legacy::LegacyRanges;
use super::manifest::{
    AppendError, FORMAT_FORGETS_RANGES, FORMAT_VERSION, ManifestContents, ManifestWriter, current_number,
    manifest_path, parse_manifest_name, read_current, read_current_as_it_is, write_current,
};
use super::{Horizon, Table, ValueSegments, Version, VersionEdit, remains};
use crate::extent::Extent;
use crate::lock::{Mutex, MutexGuard, Rank};
use crate::table::{FileNumber, TABLES_DIR, parse_table_name, sync_tables_dir, table_path};
use crate::version::TableCache;
use crate::vlog::{VALUES_DIR, ValueStore, parse_value_file_name, value_file_path};
use crate::{Error, Result};
use arc_swap::ArcSwap;
use kontiki_env::Env;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the manifest is kept.
#[derive(Clone, Debug)]
pub struct ManifestOptions {
    /// Beyond this many bytes, and twice what it began with, a manifest is replaced by a new one that starts with
    /// the whole version. Default 4 MiB: some 40,000 table records, read in milliseconds at open.
    pub rewrite_bytes: u64,
}

impl Default for ManifestOptions {
    fn default() -> ManifestOptions {
        ManifestOptions { rewrite_bytes: 4 << 20 }
    }
}

/// The current version and its manifest. Shared by threads; edits are applied one at a time.
pub struct VersionSet {
    env: Env,
    dir: PathBuf,
    tables_dir: PathBuf,
    options: ManifestOptions,
    current: ArcSwap<Version>,
    next_file: AtomicU64,
    /// The next file number of the manifest at open: a backup with files from there on was made of a later state.
    next_file_at_open: FileNumber,
    obsolete: Arc<ObsoleteFiles>,
    horizon: Arc<Horizon>,
    extent: Arc<Extent>,
    log: Mutex<Log>,
}

struct Log {
    writer: ManifestWriter,
    /// For the next manifest. Each number is used once, also after a failure: a manifest that an earlier attempt left
    /// is on the list of obsolete files, and any file with its name will be removed.
    next_manifest: u64,
    /// Bytes of the manifest when it was started or recovered.
    first_bytes: u64,
    /// Set for good by a failed sync.
    stopped: Option<String>,
}

/// The manifest while an edit is applied. If that panics, what is in the manifest and what is in memory may differ, so
/// no edit follows.
struct StopsOnPanic<'a> {
    log: MutexGuard<'a, Log>,
    /// The thread was panicking already: the caller is in a destructor.
    before: bool,
}

impl<'a> StopsOnPanic<'a> {
    fn new(log: MutexGuard<'a, Log>) -> StopsOnPanic<'a> {
        StopsOnPanic { log, before: std::thread::panicking() }
    }
}

impl Drop for StopsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.before {
            self.log.stopped.get_or_insert_with(|| "an edit of the manifest panicked".to_string());
        }
    }
}

impl VersionSet {
    /// Opens the database in `dir`, or starts an empty one if there is none. The caller holds the directory's lock.
    ///
    /// Errors: `Corruption` for a damaged manifest, for a table that it names and that is missing, and for what is
    /// left of a database without its `CURRENT`, before anything is changed; `UnsupportedFormat` for a manifest of a
    /// newer build.
    pub fn open(env: &Env, dir: &Path, options: ManifestOptions) -> Result<VersionSet> {
        let found = read_current(env, dir)?;
        if found.is_none() {
            remains::lost_current(env, dir)?.map_or(Ok(()), Err)?;
        }
        let tables_dir = dir.join(TABLES_DIR);
        env.fs.create_dir_all(&tables_dir).map_err(|error| Error::io(&tables_dir, &error))?;
        env.fs.sync_dir(dir).map_err(|error| Error::io(dir, &error))?;
        let obsolete = Arc::new(ObsoleteFiles::default());
        let values_dir = dir.join(VALUES_DIR);
        env.fs.create_dir_all(&values_dir).map_err(|error| Error::io(&values_dir, &error))?;
        let values =
            ValueSegments::new(Arc::new(ValueStore::new(env.fs.clone(), values_dir.clone())), obsolete.clone());
        let (version, next_file, writer) = match found {
            Some(contents) => {
                let (version, next_file) = replay(&contents, dir, &obsolete, values)?;
                check_tables_exist(env, &version, &tables_dir)?;
                check_value_files_exist(env, &version, &values_dir)?;
                (version, next_file, ManifestWriter::reopen(env, dir, &contents)?)
            }
            None => {
                let version = Version { values, ..Version::default() };
                let edit = VersionEdit { next_file: Some(1), ..version.as_edit() };
                let writer = ManifestWriter::create(env, dir, 1, &edit)?;
                env.fs.sync_dir(dir).map_err(|error| Error::io(dir, &error))?;
                write_current(env, dir, 1)?;
                (version, 1, writer)
            }
        };
        let largest = find_orphans(env, dir, &tables_dir, &version, writer.number, &obsolete)?;
        let largest_values = find_orphan_value_files(env, &values_dir, &version, &obsolete)?;
        let next_manifest = largest.manifest.saturating_add(1);
        let kept = writer.format == FORMAT_VERSION;
        let extent = Extent::new(env.fs.clone(), dir, writer.number, writer.synced_bytes(), kept);
        let log = Log { first_bytes: writer.bytes(), writer, next_manifest, stopped: None };
        Ok(VersionSet {
            env: env.clone(),
            dir: dir.to_path_buf(),
            tables_dir,
            options,
            current: ArcSwap::from_pointee(version),
            next_file_at_open: next_file,
            next_file: AtomicU64::new(next_file.max(largest.table.max(largest_values).saturating_add(1))),
            obsolete,
            horizon: Arc::default(),
            extent: Arc::new(extent),
            log: Mutex::new(Rank::Manifest, log),
        })
    }

    /// The current version; holding it pins its files.
    pub fn current(&self) -> Arc<Version> {
        self.current.load_full()
    }

    /// The recorded extent of manifest and log.
    pub(crate) fn extent(&self) -> &Arc<Extent> {
        &self.extent
    }

    /// The directory of tables.
    pub fn tables_dir(&self) -> &Path {
        &self.tables_dir
    }

    /// The next file number by the manifest as it was at open.
    pub(crate) fn next_file_at_open(&self) -> FileNumber {
        self.next_file_at_open
    }

    /// A file number that no file has had.
    pub fn new_file_number(&self) -> FileNumber {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes an edit durable and current; returns the new version.
    ///
    /// Errors: `NoSpace` or `Io` from the append: nothing has changed, it may be tried again. `Io` from the sync,
    /// and `Stopped` for ever after ([`VersionSet::is_stopped`]): the edit may or may not be there after a restart, so
    /// the files it names must stay. `Bug` if the edit breaks an invariant; nothing was written.
    pub fn apply(&self, mut edit: VersionEdit) -> Result<Arc<Version>> {
        let mut guard = StopsOnPanic::new(self.log.lock());
        let log = &mut *guard.log;
        if let Some(reason) = &log.stopped {
            return Err(Error::Stopped(reason.clone()));
        }
        let before = self.current.load_full();
        assert!(!edit.is_snapshot, "whole versions are written by the rewrite only");
        // The output of a flush or a compaction for a family that was dropped meanwhile is discarded here, and nowhere
        // else: this is where the two meet.
        let unwanted = edit.without_families(&before.dropped);
        edit.next_file = Some(self.next_file.load(Ordering::Relaxed));
        let wrap = |added: &AddedTable| Arc::new(added.wrap(&self.obsolete));
        let (mut after, touched) = before.after(&edit, &wrap).map_err(Error::Bug)?;
        // Where the manifest's format has a record for it; an older one is about to be replaced.
        if log.writer.format >= FORMAT_FORGETS_RANGES {
            // In the same edit, so that the next planner never sees a tombstone that hides nothing.
            edit.spent_ranges = after.spent_ranges(&edit, &touched.removed, self.horizon.oldest());
            let dropped = edit.spent_ranges.iter().map(|(_, range)| range.sequence).max();
            self.horizon.note_dropped(dropped.unwrap_or(0));
            after.forget_ranges(&edit.spent_ranges).map_err(Error::Bug)?;
        } else {
            after.look_at_all_ranges();
        }
        let after = Arc::new(after);
        self.check_added(&edit)?;
        match log.writer.append(&edit) {
            Ok(()) => {}
            Err(AppendError::Retryable(error)) => return Err(error),
            Err(AppendError::Final(error)) => {
                log.stopped = Some(error.to_string());
                return Err(error);
            }
        }
        if log.writer.format == FORMAT_VERSION {
            self.extent.note_manifest(log.writer.number, log.writer.synced_bytes());
        }
        assert!(after.flushed_sequence() >= before.flushed_sequence(), "what is flushed stays flushed");
        debug_assert!(Arc::ptr_eq(&before, &self.current.load()), "edits are applied one at a time");
        self.current.store(after.clone());
        mark_removed(&touched.removed, &edit);
        before.values.mark_removed(&edit.values);
        unwanted.into_iter().for_each(|number| self.obsolete.push_table(number));
        self.rewrite_if_large(log, &after);
        Ok(after)
    }

    /// Which tombstones may be dropped, and which were.
    pub fn horizon(&self) -> &Arc<Horizon> {
        &self.horizon
    }

    /// The manifest names only files that exist under their final, synced names.
    fn check_added(&self, edit: &VersionEdit) -> Result<()> {
        for AddedTable { meta, .. } in &edit.added {
            let path = table_path(&self.tables_dir, meta.number);
            if !self.env.fs.exists(&path) {
                return Err(Error::Bug(format!("an edit adds {}, which does not exist", path.display())));
            }
            assert!(meta.number < edit.next_file.unwrap_or(0), "file numbers come from new_file_number");
        }
        Ok(())
    }

    /// Replaces a manifest that has grown, or has an older format. A full disk is harmless: the old one stays in use.
    fn rewrite_if_large(&self, log: &mut Log, version: &Version) {
        let limit = self.options.rewrite_bytes.max(log.first_bytes * 2);
        if log.writer.bytes() <= limit && log.writer.format == FORMAT_VERSION {
            return;
        }
        let number = log.next_manifest;
        log.next_manifest = number.saturating_add(1);
        let edit = VersionEdit { next_file: Some(self.next_file.load(Ordering::Relaxed)), ..version.as_edit() };
        let prepared = ManifestWriter::create(&self.env, &self.dir, number, &edit).and_then(|writer| {
            self.env.fs.sync_dir(&self.dir).map_err(|error| Error::failed_sync(&self.dir, &error))?;
            write_current(&self.env, &self.dir, number)?;
            Ok(writer)
        });
        let writer = match prepared {
            Ok(writer) => writer,
            // For lack of a descriptor nothing was renamed.
            Err(error)
                if matches!(error, Error::NoDescriptors { .. })
                    || error.is_retryable() && self.names(log.writer.number) =>
            {
                tracing::warn!(%error, "the manifest could not be rewritten; the rewrite is tried again");
                log.first_bytes = log.writer.bytes();
                self.obsolete.push_path(manifest_path(&self.dir, number));
                return;
            }
            Err(error) => {
                // The manifest of the next start is unknown; both have the same content until the next edit, so none
                // follows.
                log.stopped = Some(error.to_string());
                return;
            }
        };
        assert!(writer.number > log.writer.number && writer.path != log.writer.path);
        self.extent.note_manifest(writer.number, writer.synced_bytes());
        self.obsolete.push_path(log.writer.path.clone());
        log.first_bytes = writer.bytes();
        log.writer = writer;
    }

    /// Whether `CURRENT` surely still names this manifest.
    fn names(&self, number: u64) -> bool {
        current_number(&self.env, &self.dir).is_ok_and(|current| current == number)
    }

    /// Whether a failed sync has stopped all edits.
    pub fn is_stopped(&self) -> bool {
        self.log.lock().stopped.is_some()
    }

    /// Sets the callback for files that wait for [`VersionSet::remove_obsolete`]: a reader that ends puts them there,
    /// on any thread, and maybe long after the last write. Once, at open; must not block.
    pub fn set_on_obsolete(&self, callback: Box<dyn Fn() + Send + Sync>) {
        self.obsolete.set_on_first(callback);
    }

    /// Number of files that wait for [`VersionSet::remove_obsolete`].
    #[cfg(test)]
    pub fn obsolete_count(&self) -> usize {
        self.obsolete.len()
    }

    /// Removes the files that nothing refers to, returns how many. What could not be removed is tried again next
    /// time. Called by one job.
    pub fn remove_obsolete(&self, cache: &TableCache) -> Result<usize> {
        if let Some(reason) = &self.log.lock().stopped {
            // The last edit may not be there after a restart, and then what it removed is still needed.
            return Err(Error::Stopped(reason.clone()));
        }
        self.obsolete.remove(&self.env, &self.tables_dir, cache)
    }
}

fn mark_removed(removed: &[Arc<Table>], edit: &VersionEdit) {
    let moved: BTreeSet<FileNumber> = edit.added.iter().map(|added| added.meta.number).collect();
    let gone = removed.iter().filter(|table| !moved.contains(&table.meta().number));
    gone.for_each(|table| table.mark_removed());
}

/// The version that the manifest's edits add up to, and the next file number.
fn replay(
    contents: &ManifestContents,
    dir: &Path,
    obsolete: &Arc<ObsoleteFiles>,
    values: ValueSegments,
) -> Result<(Version, FileNumber)> {
    let replayed = replay_edits(contents, obsolete, values.clone(), false);
    // If the sum is invalid, each step is checked, so that the faulty record can be named.
    let replayed = replayed.or_else(|_| replay_edits(contents, obsolete, values, true));
    let version = replayed.map_err(|(offset, what)| {
        let file = manifest_path(dir, contents.number);
        Error::Corruption { file, offset, what }
    })?;
    let next_file = contents.edits.iter().rev().find_map(|(_, edit)| edit.next_file);
    Ok((version, next_file.unwrap_or(1)))
}

/// Applies all edits to one version, which is put in order after each of them or at the end. Or an error with its
/// offset.
fn replay_edits(
    contents: &ManifestContents,
    obsolete: &Arc<ObsoleteFiles>,
    values: ValueSegments,
    order_each: bool,
) -> std::result::Result<Version, (u64, String)> {
    let wrap = |added: &AddedTable| Arc::new(added.wrap(obsolete));
    let mut version = Version { values, ..Version::default() };
    let mut legacy = LegacyRanges::new(&contents.edits);
    let mut touched = BTreeSet::new();
    let mut last = 0;
    for (offset, edit) in &contents.edits {
        let error = |what| (*offset, what);
        let is_legacy = legacy.take(edit).map_err(error)?;
        let changed = version.change(edit, !is_legacy, &wrap).map_err(error)?;
        if is_legacy {
            legacy.end_of_edit(&mut version).map_err(error)?;
        }
        touched.extend(changed.families);
        if order_each {
            version.put_in_order(&std::mem::take(&mut touched)).map_err(error)?;
        }
        last = *offset;
    }
    version.put_in_order(&touched).map_err(|what| (last, what))?;
    // What transactions of an earlier process held back is not held any more.
    version.look_at_all_ranges();
    Ok(version)
}

/// Reads the version that a directory's manifest describes, without changing anything; `None` if the directory
/// holds no database. For offline inspection.
pub(crate) fn read_version(env: &Env, dir: &Path) -> Result<Option<(ManifestContents, Version)>> {
    let (found, lost) = read_version_as_it_is(env, dir)?;
    lost.map_or(Ok(found), Err)
}

/// The same of what is left of the manifest, and what is known to be missing of it.
#[allow(clippy::type_complexity)]
pub(crate) fn read_version_as_it_is(
    env: &Env,
    dir: &Path,
) -> Result<(Option<(ManifestContents, Version)>, Option<Error>)> {
    let (contents, lost) = read_current_as_it_is(env, dir)?;
    let Some(contents) = contents else { return Ok((None, lost)) };
    let (version, _) = replay(&contents, dir, &Arc::new(ObsoleteFiles::default()), ValueSegments::default())?;
    Ok((Some((contents, version)), lost))
}

fn list(env: &Env, dir: &Path) -> Result<Vec<String>> {
    env.fs.list(dir).map_err(|error| Error::io(dir, &error))
}

fn check_tables_exist(env: &Env, version: &Version, tables_dir: &Path) -> Result<()> {
    let names = list(env, tables_dir)?;
    let present: BTreeSet<FileNumber> = names.iter().filter_map(|name| parse_table_name(name)).collect();
    for (_, _, table) in version.tables() {
        if !present.contains(&table.meta().number) {
            return Err(Error::Corruption {
                file: table_path(tables_dir, table.meta().number),
                offset: 0,
                what: "the manifest names this table, but it is missing".to_string(),
            });
        }
    }
    Ok(())
}

fn check_value_files_exist(env: &Env, version: &Version, values_dir: &Path) -> Result<()> {
    let names = list(env, values_dir)?;
    let present: BTreeSet<u64> = names.iter().filter_map(|name| parse_value_file_name(name)).collect();
    match version.values.files().keys().find(|number| !present.contains(number)) {
        None => Ok(()),
        Some(number) => Err(Error::Corruption {
            file: value_file_path(values_dir, *number),
            offset: 0,
            what: "the manifest names this value file, but it is missing".to_string(),
        }),
    }
}

/// As [`find_orphans`], for value files: those that the manifest does not name were never referred to.
fn find_orphan_value_files(env: &Env, values_dir: &Path, version: &Version, obsolete: &ObsoleteFiles) -> Result<u64> {
    let mut largest = 0;
    for name in list(env, values_dir)? {
        let Some(number) = parse_value_file_name(&name) else { continue };
        largest = largest.max(number);
        if !version.values.files().contains_key(&number) {
            obsolete.push_path(values_dir.join(&name));
        }
    }
    if !version.values.files().is_empty() {
        env.fs.sync_dir(values_dir).map_err(|error| Error::failed_sync(values_dir, &error))?; // as for tables
    }
    Ok(largest)
}

/// The largest numbers of files that exist, needed or not.
struct Largest {
    table: FileNumber,
    manifest: u64,
}

/// Puts files that a crash left behind on the list of obsolete files; returns the largest numbers found.
fn find_orphans(
    env: &Env,
    dir: &Path,
    tables_dir: &Path,
    version: &Version,
    manifest: u64,
    obsolete: &ObsoleteFiles,
) -> Result<Largest> {
    let live: BTreeSet<FileNumber> = version.tables().map(|(_, _, table)| table.meta().number).collect();
    let mut largest = Largest { table: 0, manifest };
    for name in list(env, tables_dir)? {
        let number = parse_table_name(name.strip_suffix(".tmp").unwrap_or(&name));
        largest.table = largest.table.max(number.unwrap_or(0));
        match (parse_table_name(&name), number) {
            (Some(number), _) if live.contains(&number) => {}
            (Some(number), _) => obsolete.push_table(number),
            (None, Some(_)) => obsolete.push_path(tables_dir.join(&name)),
            (None, None) => {}
        }
    }
    for name in list(env, dir)? {
        let number = parse_manifest_name(&name).unwrap_or(manifest);
        largest.manifest = largest.manifest.max(number);
        if number != manifest {
            obsolete.push_path(dir.join(&name));
        }
    }
    if !live.is_empty() {
        // The names that the manifest relies on were synced before it named them; a copied directory's may not be.
        sync_tables_dir(env, tables_dir)?;
    }
    Ok(largest)
}
