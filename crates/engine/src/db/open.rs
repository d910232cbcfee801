//! Opening a database: what is on disk becomes what is in memory.
//!
//! 1. Take the directory's lock.
//! 2. Read the manifest: tables, families, and the flushed sequence number.
//! 3. Replay the log: batches above the flushed number go to memtables at the numbers they had, stream records to
//!    the index. Memtables that fill up meanwhile are flushed at once, so memory stays bounded. The log's torn tail was
//!    cut, durably, before its records are replayed.
//! 4. Start the jobs. The first append makes a new segment.
//!
//! A crash at any point leaves a directory that opens again to the same state.

use super::core::{Core, Jobs, Parts};
use super::counters::Counters;
use super::descriptors::{DescriptorFs, OpenLimits};
use super::options::{DEFAULT_FAMILY_NAME, Options};
use super::writes::{MemoryLimits, Writes};
use crate::cache::{Budget, Part};
use crate::compaction::{self, Context, FamilyTable};
use crate::copy::{forget_later_backups, unfinished};
use crate::dead_ranges::{DeadRanges, Hooks};
use crate::hot::HotKeys;
use crate::log::{
    HURRIED_BYTES_MAX, LogWriter, NextSegments, RawRecord, RecordKind, RecordPosition, Recovered, Segments, Tail,
    WAL_DIR, decode_commit, decode_ingested, decode_rewrite, recover, refuse_missing_segments,
};
use crate::measure::{Recorder, Sampler};
use crate::read::ReadState;
use crate::stream::StreamIndex;
use crate::table::BlockCache;
use crate::types::{BatchEntry, Content, Decoded};
use crate::value_files::ValueRecovery;
use crate::version::{ManifestOptions, TableCache, Version, VersionEdit, VersionSet};
use crate::vlog::{ValueCache, ValueLog, ValueStore, ValueThresholds};
use crate::{Error, Family, FamilySpec, Range, Result, SequenceNumber, WriteBatch};
use kontiki_env::Env;
use kontiki_env::fs::FileLock;
use kontiki_env::tasks::Progress;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const LOCK: &str = "LOCK";

/// See the head of this file.
pub(crate) fn open(env: &Env, path: &Path, options: Options) -> Result<Arc<Core>> {
    options.validate()?;
    let path = &absolute(env, path)?;
    create_directory(env, path)?;
    let directory_lock = lock_directory(env, path)?;
    let (env, descriptors) = &DescriptorFs::around(env, path.join(LOCK));
    let wal = path.join(WAL_DIR);
    unfinished::refuse_unfinished(env, path)?;
    let versions = VersionSet::open(env, path, ManifestOptions::default())?;
    unfinished::end(env, path)?;
    forget_later_backups(env, path, versions.next_file_at_open())?;
    let options = with_numbers(&versions.current(), options);
    let missing = missing_families(&versions, &options)?;
    create_directory(env, &wal)?;
    let core = Arc::new(build(env, path, options, versions, Some(directory_lock), descriptors.refused().clone())?);
    // After the log, which must write to no family but those that the manifest had.
    if !missing.is_empty() {
        core.context.versions.apply(missing)?;
        core.writes.install(&core.context.versions, None);
    }
    let version = core.context.versions.current();
    let store = version.values().store().expect("a version of an open set has a store");
    descriptors.may_close(&core.context.tables, store);
    start_jobs(&core);
    Ok(core)
}

/// What is on disk, in memory. Without the directory's lock, for reading only: then `env` changes nothing.
pub(super) fn build(
    env: &Env,
    path: &Path,
    options: Options,
    versions: VersionSet,
    directory_lock: Option<Box<dyn FileLock>>,
    descriptors_refused: Arc<AtomicU64>,
) -> Result<Core> {
    let read_only = directory_lock.is_none();
    refuse_missing_segments(&*env.fs, path)?;
    let (store, context) = context(env, versions, &options);
    let segments = Arc::new(Segments::new(env.fs.clone(), path.join(WAL_DIR)));
    let version = context.versions.current();
    let beside = ValueRecovery::new(store, version.values().clone(), version.flushed_sequence())?;
    let recorder = recorder(env, &options);
    let mut replay = Replay::new(&context, &options, &recorder, read_only);
    let mut visit = |position, record: RawRecord<'_>| replay.visit(&segments, position, record, &beside);
    let recovered = recover(&segments, &beside, &mut visit)?;
    let value_bounds = std::mem::take(&mut replay.value_bounds);
    let (writes, streams) = replay.finish(&segments)?;
    writes.raise_to(context.versions.current().newest_sequence());
    segments.set_start(writes.visible());
    // What earlier runs have dropped is not known.
    context.versions.horizon().note_dropped(writes.visible());
    if !read_only {
        seal_values(&context, &beside, &writes)?;
    }
    value_bounds.into_iter().for_each(|(segment, sequence)| context.values.set_bound(segment, sequence));
    tracing::info!(
        directory = %path.display(),
        replayed_bytes = recovered.replayed_bytes,
        unclean = recovered.unclean,
        sequence = writes.visible(),
        "database opened"
    );
    let next_segments = NextSegments::new(
        env.fs.clone(),
        segments.directory(),
        options.log_segment_bytes,
        options.log_segments_recycled_max,
        recovered.next_number,
    );
    let extent = context.versions.extent().clone();
    let next_segments = Arc::new(next_segments.recorded_in(extent.clone()));
    if !read_only {
        let first = segments.list().first().map_or(recovered.next_number, |(number, _)| *number);
        extent.note_log(first, recovered.next_number - 1)?;
        next_segments.adopt(&recovered.free)?;
    }
    let tail = Arc::new(Tail::new(context.values.appender.clone(), recorder.clone()));
    let log = LogWriter::new(segments.clone(), next_segments.clone(), tail.clone());
    let counters = Counters { descriptors_refused, ..counters_after(&recovered) };
    let (env, directory) = (env.clone(), path.to_path_buf());
    let parts = Parts {
        env,
        directory,
        options,
        context,
        segments,
        streams,
        log,
        next_segments,
        tail,
        writes,
        counters,
        recorder,
        directory_lock,
    };
    Ok(Core::new(parts))
}

/// What flushes, compactions and reads of values share, and the store of value segments.
fn context(env: &Env, versions: VersionSet, options: &Options) -> (Arc<ValueStore>, Context) {
    let budget = Arc::new(Budget::shared(options.cache_bytes));
    let blocks = BlockCache::within(budget.clone(), Part::Blocks);
    let tables_dir = versions.tables_dir().to_path_buf();
    let limits = OpenLimits::fitting(env.fs.descriptors_max(), options.open_tables_max);
    let tables = TableCache::new(env, &tables_dir, blocks, options.table_cache_bytes, limits.tables);
    let store = versions.current().values().store().expect("a version of an open set has a store").clone();
    let tables = Arc::new(tables.owned_by(store.ownership().clone()));
    store.cache_values(ValueCache::within(budget));
    store.limit_open_files(limits.value_files);
    let thresholds = ValueThresholds::new(&options.families);
    let values = Arc::new(ValueLog::new(store.clone(), options.value_segment_bytes, thresholds));
    let of_family = |spec: &FamilySpec| (spec.family, spec.options.clone());
    let context = Context {
        env: env.clone(),
        versions: Arc::new(versions),
        tables,
        values,
        table_options: options.table.clone(),
        families: Arc::new(FamilyTable::new(options.families.iter().map(of_family).collect())),
        options: options.compaction.clone(),
        state: Arc::new(compaction::State::new(options.compaction.bytes_per_second_max)),
        stop: Arc::new(AtomicBool::new(false)),
    };
    (store, context)
}

fn recorder(env: &Env, options: &Options) -> Arc<Recorder> {
    let one_in = options.stats_sample_one_in;
    let sampler = if env.tasks.threaded() { Sampler::new(one_in) } else { Sampler::stepped(one_in) };
    Arc::new(Recorder::new(env.clock.clone(), sampler, HotKeys::new(&options.hot_keys)))
}

/// Seals the value segments that the last process has left open. What refers to them was replayed, or is in tables.
/// On a full disk they stay open until the next open: what was readable stays so.
fn seal_values(context: &Context, beside: &ValueRecovery, writes: &Writes) -> Result<()> {
    let edit = beside.seal()?;
    if edit.is_empty() {
        return Ok(());
    }
    match context.versions.apply(edit) {
        Ok(_) => writes.install(&context.versions, None),
        Err(error) if error.is_retryable() => tracing::warn!(%error, "value segments of the last run stay open"),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn counters_after(recovered: &Recovered) -> Counters {
    let counters = Counters::default();
    counters.replayed_bytes.store(recovered.replayed_bytes, Ordering::Relaxed);
    counters
}

/// The path from the root. Every path that outlives a call, or is used more than once in it, comes through here: the
/// process may change its working directory at any time, and a relative path would name another directory from
/// then on.
pub(crate) fn absolute(env: &Env, path: &Path) -> Result<PathBuf> {
    env.fs.absolute(path).map_err(|error| Error::io(path, &error))
}

/// Creates a directory with its parents, and makes every new name durable.
fn create_directory(env: &Env, path: &Path) -> Result<()> {
    let fs = &env.fs;
    let parent_of = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(parent) => Some(parent.to_path_buf()),
        None => None,
    };
    let mut to_sync = Vec::new();
    let mut missing = path.to_path_buf();
    while !fs.exists(&missing) {
        let Some(parent) = parent_of(&missing) else { break };
        to_sync.push(parent.clone());
        missing = parent;
    }
    let existed = to_sync.is_empty();
    if existed {
        // It exists, but a crash may have come between its creation and the sync of its name.
        to_sync.extend(parent_of(path));
    }
    fs.create_dir_all(path).map_err(|error| Error::io(path, &error))?;
    for parent in to_sync.iter().rev() {
        match fs.sync_dir(parent) {
            // Another process made the directory for us, and its parent cannot be opened: that process is responsible
            // for the durability of the name.
            Err(error) if existed && error.kind() == std::io::ErrorKind::PermissionDenied => {}
            result => result.map_err(|error| Error::io(parent, &error))?,
        }
    }
    Ok(())
}

pub(crate) fn lock_directory(env: &Env, path: &Path) -> Result<Box<dyn FileLock>> {
    // In a stepped world everything on disk must be the same from the same seed.
    let process = if env.tasks.threaded() { std::process::id() } else { 1 };
    let holder = format!("kontiki, process {process}");
    let lock = path.join(LOCK);
    env.fs.lock(&lock, &holder).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::InUse { directory: path.to_path_buf(), holder: error.to_string() },
        _ => Error::io(&lock, &error),
    })
}

/// Excludes writers from a directory that is only read; nothing is changed there. `None` if it was never open for
/// writing.
pub(crate) fn lock_to_read(env: &Env, path: &Path) -> Result<Option<Box<dyn FileLock>>> {
    let lock = path.join(LOCK);
    env.fs.lock_to_read(&lock).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::InUse { directory: path.to_path_buf(), holder: error.to_string() },
        _ => Error::io(&lock, &error),
    })
}

/// The options with a number for each family that is requested by name: that of the family with this name, or the least
/// that no family has, had or is requested with.
pub(super) fn with_numbers(version: &Version, mut options: Options) -> Options {
    let mut taken: BTreeSet<Family> = options.families.iter().map(|spec| spec.family).collect();
    for spec in options.families.iter_mut().filter(|spec| spec.family == Family::BY_NAME) {
        let known = version.families().iter().find(|(_, levels)| levels.name == spec.name);
        spec.family = match known {
            Some((family, _)) => family,
            None if spec.name == DEFAULT_FAMILY_NAME => Family::DEFAULT,
            None => unused_number(version, &taken),
        };
        taken.insert(spec.family);
    }
    options
}

/// The least number that no family has, ever had, or is to have.
pub(super) fn unused_number(version: &Version, taken: &BTreeSet<Family>) -> Family {
    let is_unused = |family: &Family| {
        let known = version.family(*family).is_some() || version.dropped_families().contains_key(*family);
        !known && !family.is_reserved() && !taken.contains(family)
    };
    let numbers = (1..Family::BY_NAME.0).map(Family);
    numbers.into_iter().find(is_unused).expect("more numbers than families fit on a disk")
}

/// The edit that creates the families that are missing; refuses names and numbers that contradict the manifest.
pub(super) fn missing_families(versions: &VersionSet, options: &Options) -> Result<VersionEdit> {
    let version = versions.current();
    let mut edit = VersionEdit::new();
    let names: BTreeMap<&str, Family> =
        version.families().iter().map(|(family, levels)| (levels.name.as_str(), family)).collect();
    for (family, name) in options.all_families() {
        if version.dropped_families().contains_key(family) {
            return Err(Error::InvalidArgument(format!(
                "families: number {}, name {name:?}: a family with this number was dropped, and a number is used once; \
                 take another, or let the database choose (FamilySpec::named)",
                family.0
            )));
        }
        let by_number = version.family(family).map(|levels| (family, levels.name.as_str()));
        let known = by_number.or_else(|| names.get(name).map(|number| (*number, name)));
        match known {
            None => edit.create_family(family, name),
            Some(known) if known == (family, name) => {}
            Some((number, known)) => {
                return Err(Error::InvalidArgument(format!(
                    "families: number {}, name {name:?}: the directory has number {} with the name {:?}",
                    family.0, number.0, known
                )));
            }
        }
    }
    Ok(edit)
}

fn start_jobs(core: &Arc<Core>) {
    let spawn_idling = |name: &str, step: fn(&Core) -> bool, idle: Progress| {
        let (core, env) = (core.clone(), core.env.clone());
        let job = name.to_string();
        let step = move || if core.guarded(&job, step) { Progress::Worked } else { idle };
        env.tasks.spawn(name, Box::new(step))
    };
    let spawn = |name: &str, step: fn(&Core) -> bool| spawn_idling(name, step, Progress::Idle);
    // Expired and old data is compacted without writes.
    let look = Progress::IdleFor(Duration::from_millis(core.context.options.idle_look_ms));
    let compactions = core.context.options.background_jobs_max;
    core.set_jobs(Jobs {
        commit: spawn("commit", Core::commit_step),
        log: spawn("log", Core::log_step),
        flush: spawn("flush", Core::flush_step),
        compact: spawn_idling("compact", Core::compact_step, look),
        values: spawn("values", Core::values_step),
        more_compact: (1..compactions).map(|_| spawn("compact", Core::more_compact_step)).collect(),
    });
    let weak = Arc::downgrade(core);
    core.writes.completions.set_on_panic(Box::new(move |panic| {
        weak.upgrade().iter().for_each(|core| core.stop_after_panic("the answer to a submitted commit", panic));
    }));
    let weak = Arc::downgrade(core);
    core.context
        .versions
        .horizon()
        .set_snapshots(Box::new(move || weak.upgrade().map_or(u64::MAX, |core| core.writes.oldest_snapshot())));
    set_dead_range_hooks(core);
    let weak = Arc::downgrade(core);
    core.context.state.set_wake(Box::new(move || weak.upgrade().iter().for_each(|core| core.wake_compact())));
    // Files wait for their removal from the moment their last reader is dropped.
    let weak = Arc::downgrade(core);
    core.context.versions.set_on_obsolete(Box::new(move || weak.upgrade().iter().for_each(|core| core.wake_removal())));
    // Their first steps may have tried to wake each other before they were known.
    core.wake_commit();
    core.wake_compact();
}

fn set_dead_range_hooks(core: &Arc<Core>) {
    let weak = Arc::downgrade(core);
    let is_unchanged = move |family, range: &Range, since| {
        weak.upgrade().is_some_and(|core| core.is_range_unchanged(family, range, since))
    };
    let weak = Arc::downgrade(core);
    let request = move |request| weak.upgrade().iter().for_each(|core| core.request_compaction(&request));
    core.writes.dead.set_hooks(Hooks { is_unchanged: Box::new(is_unchanged), request: Box::new(request) });
}

/// Builds memtables and streams from the log.
struct Replay<'a> {
    context: &'a Context,
    writes: Writes,
    streams: StreamIndex,
    flushed: u64,
    /// For each value segment that batches of the log refer to, the last of them. Other references to it are in tables.
    value_bounds: BTreeMap<u64, SequenceNumber>,
    /// All of it stays in memory.
    read_only: bool,
    /// Free space below which nothing is flushed before the log can free any.
    space_bytes_min: u64,
}

impl<'a> Replay<'a> {
    fn new(context: &'a Context, options: &Options, recorder: &Arc<Recorder>, read_only: bool) -> Replay<'a> {
        let version = context.versions.current();
        let flushed = version.flushed_sequence();
        let limits = MemoryLimits {
            memtable_bytes: options.memtable_bytes,
            memtables_max: options.memtables_max,
            level0_tables_max: options.level0_tables_max,
            soft_percent: options.slowdown_percent,
        };
        let (tables, clock) = (context.tables.clone(), context.env.clock.clone());
        let recorder = recorder.clone();
        let read_state = ReadState { memtables: Vec::new(), version, tables, clock, recorder, dead: None };
        let dead = DeadRanges::new(options.dead_range_versions_min, options.compaction.dead_versions_passed);
        let writes = Writes::new(limits, flushed, read_state, Arc::new(dead));
        let (streams, value_bounds) = (StreamIndex::default(), BTreeMap::new());
        // Tables of a memtable, and a log segment for deletions.
        let space_bytes_min =
            options.memtable_bytes.saturating_add(2 * HURRIED_BYTES_MAX.min(options.log_segment_bytes));
        Replay { context, writes, streams, flushed, value_bounds, read_only, space_bytes_min }
    }

    fn visit(
        &mut self,
        segments: &Segments,
        position: RecordPosition,
        record: RawRecord<'_>,
        beside: &ValueRecovery,
    ) -> Result<()> {
        let corrupt =
            |what: String| Error::Corruption { file: segments.path(position.segment), offset: position.offset, what };
        let malformed = |_| corrupt("a log record is whole but malformed: written by a newer kontiki?".to_string());
        let streams = match record.kind {
            RecordKind::Rewrite => decode_rewrite(record.payload).map_err(malformed)?,
            RecordKind::Commit => {
                let commit = decode_commit(record.sequence, record.payload).map_err(malformed)?;
                segments.note_batch(position.segment, commit.sequence);
                self.note_values(&commit.batch, commit.sequence);
                if commit.sequence > self.flushed {
                    beside.check(&commit.batch)?;
                    self.replay_batch(&commit.batch, commit.sequence, position).map_err(corrupt)?;
                }
                commit.streams
            }
            RecordKind::Ingest => {
                decode_ingested(record.sequence, record.payload).map_err(malformed)?;
                segments.note_batch(position.segment, record.sequence);
                if record.sequence > self.flushed {
                    self.check_order(record.sequence).map_err(corrupt)?;
                    self.writes.replay_number(record.sequence, position.segment);
                }
                Vec::new()
            }
            RecordKind::Seal => return Err(Error::Bug("recovery keeps seals to itself".into())),
        };
        self.streams.apply(position, streams);
        self.flush_full()
    }

    fn note_values(&mut self, batch: &WriteBatch, sequence: SequenceNumber) {
        for entry in batch.entries() {
            let BatchEntry::Version { kind, stored, .. } = entry else { continue };
            if let (true, Ok(Decoded { content: Content::Pointer(pointer), .. })) =
                (kind.is_pointer(), Decoded::new(kind, stored))
            {
                self.value_bounds.insert(pointer.segment, sequence);
            }
        }
    }

    fn replay_batch(
        &mut self,
        batch: &WriteBatch,
        sequence: u64,
        position: RecordPosition,
    ) -> std::result::Result<(), String> {
        self.check_order(sequence)?;
        let version = self.context.versions.current();
        // What was written to a family before it was dropped is ignored; no flush writes it.
        let unknown =
            |family: &Family| version.family(*family).is_none() && !version.dropped_families().contains_key(*family);
        if let Some(family) = batch.entries().map(|entry| entry.family()).find(unknown) {
            return Err(format!("a log record writes to {family:?}, which the manifest does not know"));
        }
        self.writes.replay(batch, sequence, position.segment);
        Ok(())
    }

    fn check_order(&self, sequence: u64) -> std::result::Result<(), String> {
        let next = self.writes.next_sequence();
        if sequence < next || sequence >= crate::types::SEQUENCE_NUMBER_MAX {
            return Err(format!("a log record has sequence number {sequence}; at least {next} is expected"));
        }
        Ok(())
    }

    /// A memtable that is full is flushed to tables at once. Safe in the middle of the log: what it holds is the log's
    /// logged batches up to its last number, and all of them are durable.
    ///
    /// Not so on a full disk. The log frees no space before it was read to its end, and what was in memory before fits
    /// there again: so it stays there, in one memtable, at most as large as the log, and is flushed when the database
    /// is open.
    fn flush_full(&mut self) -> Result<()> {
        if self.read_only || !self.writes.active_is_full() || self.is_short_of_space() {
            return Ok(());
        }
        let slot = self.writes.active();
        match compaction::flush(self.context, std::slice::from_ref(&slot.memtable), slot.last_sequence(), None) {
            Ok(_) => {}
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "the log stays in memory for now");
                self.space_bytes_min = u64::MAX;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.writes.freeze_active();
        self.writes.install(&self.context.versions, Some(&slot));
        Ok(())
    }

    fn is_short_of_space(&self) -> bool {
        if self.space_bytes_min == u64::MAX {
            return true;
        }
        let free = self.context.env.fs.free_bytes(self.context.versions.tables_dir());
        // Where that is not known, the flush itself finds out.
        free.is_ok_and(|free| free < self.space_bytes_min)
    }

    fn finish(self, segments: &Segments) -> Result<(Writes, StreamIndex)> {
        self.streams.check_whole().map_err(|what| Error::Corruption {
            file: segments.directory().to_path_buf(),
            offset: 0,
            what,
        })?;
        Ok((self.writes, self.streams))
    }
}
