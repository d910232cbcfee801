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

use super::descriptors::{DescriptorFs, OpenLimits};
use super::log_replay::Replay;
use super::start_jobs::start_jobs;
use crate::cache::{Budget, Part};
use crate::compaction::{self, CompactionContext, FamilyTable};
use crate::db::Core;
use crate::db::close_state::CloseState;
use crate::db::family_numbers::{missing_families, with_numbers};
use crate::db::foreground::Foreground;
use crate::db::jobs::Background;
use crate::db::options::Options;
use crate::db::shared::Shared;
use crate::db::shared::counters::Counters;
use crate::db::shared::health::Health;
use crate::db::shared::job_notifier::JobNotifier;
use crate::db::shared::progress::Progress;
use crate::db::shared::subscribers::Subscribers;
use crate::db::transactions::Transactions;
use crate::db::write::WritePath;
use crate::db::write::commit_log::CommitLog;
use crate::db::write::memtables::Memtables;
use crate::directory::{LOCK, absolute, create_directory, lineage, lock_directory, unfinished};
use crate::extent::{EXTENT, doubt};
use crate::hot::HotKeys;
use crate::log::{NextSegments, RawRecord, Recovered, Segments, Tail, WAL_DIR, recover, refuse_missing_segments};
use crate::measure::{Recorder, Sampler};
use crate::table::BlockCache;
use crate::value_files::ValueRecovery;
use crate::version::{ManifestOptions, TableCache, VersionSet};
use crate::vlog::{ValueCache, ValueLog, ValueStore, ValueThresholds};
use crate::{FamilySpec, Result};
use kontiki_env::Env;
use kontiki_env::fs::FileLock;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    lineage::forget_later_backups(env, path, versions.next_file_at_open())?;
    let options = with_numbers(&versions.current(), options);
    let missing = missing_families(&versions, &options)?;
    create_directory(env, &wal)?;
    let core = Arc::new(build(env, path, options, versions, Some(directory_lock), descriptors.refused().clone())?);
    // After the log, which must write to no family but those that the manifest had.
    if !missing.is_empty() {
        core.shared().context.versions.apply(missing)?;
        core.write.install_version();
    }
    descriptors.may_close_files_of(&core.shared().context);
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
    let (memtables, streams) = replay.finish(&segments)?;
    memtables.raise_to(context.versions.current().newest_sequence());
    segments.set_start(memtables.visible());
    // What earlier runs have dropped is not known.
    context.versions.horizon().note_dropped(memtables.visible());
    if !read_only {
        seal_values(&context, &beside, &memtables)?;
    }
    value_bounds.into_iter().for_each(|(segment, sequence)| context.values.set_bound(segment, sequence));
    tracing::info!(
        directory = %path.display(),
        replayed_bytes = recovered.replayed_bytes,
        unclean = recovered.unclean,
        sequence = memtables.visible(),
        "database opened"
    );
    let next_segments = Arc::new(next_segments(&segments, &context, &options, &recovered));
    warn_of_doubts(env, path, &recovered, context.versions.extent().is_kept())?;
    if !read_only {
        let first = segments.list().first().map_or(recovered.next_number, |(number, _)| *number);
        context.versions.extent().note_log(first, recovered.next_number - 1)?;
        next_segments.adopt(&recovered.free)?;
    }
    let tail = Arc::new(Tail::new(context.values.appender.clone(), recorder.clone()));
    let log = CommitLog::new(segments, next_segments, tail, streams);
    let transactions = Transactions::new(context.versions.horizon().clone());
    let shared = Shared {
        env: env.clone(),
        directory: path.to_path_buf(),
        options,
        context,
        health: Health::new(read_only),
        jobs: JobNotifier::default(),
        // Recovery may have flushed memtables already.
        progress: Progress::new(memtables.flushed_id()),
        subscribers: Subscribers::default(),
        counters: Counters { descriptors_refused, ..counters_after(&recovered) },
        recorder,
    };
    Ok(Core {
        write: WritePath::new(shared, log, memtables),
        transactions,
        background: Background::default(),
        foreground: Foreground::default(),
        close_state: CloseState::new(directory_lock),
    })
}

/// What is legal after a crash, and may be damage: the user knows which.
fn warn_of_doubts(env: &Env, path: &Path, recovered: &Recovered, keeps_extent: bool) -> Result<()> {
    if let Some(end) = recovered.end.as_ref().filter(|end| end.torn) {
        tracing::warn!(
            "{} at offset {}: the log was cut before records that are not whole. After a power loss that is what was \
             not yet acknowledged as durable; otherwise it is damage, and what was written last may be lost",
            end.file.display(),
            end.offset
        );
    }
    if let Some(what) = doubt(&*env.fs, path)?.filter(|_| keeps_extent && recovered.next_number > 1) {
        tracing::warn!("{}: {what}", path.join(EXTENT).display());
    }
    Ok(())
}

/// Where the log finds its next segments.
fn next_segments(
    segments: &Segments,
    context: &CompactionContext,
    options: &Options,
    recovered: &Recovered,
) -> NextSegments {
    let next_segments = NextSegments::new(
        context.env.fs.clone(),
        segments.directory(),
        options.log_segment_bytes,
        options.log_segments_recycled_max,
        recovered.next_number,
    );
    next_segments.recorded_in(context.versions.extent().clone())
}

/// What flushes, compactions and reads of values share, and the store of value segments.
fn context(env: &Env, versions: VersionSet, options: &Options) -> (Arc<ValueStore>, CompactionContext) {
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
    let context = CompactionContext {
        env: env.clone(),
        versions: Arc::new(versions),
        tables,
        values,
        table_options: options.table.clone(),
        families: Arc::new(FamilyTable::new(options.families.iter().map(of_family).collect())),
        options: options.compaction.clone(),
        filter: options.compaction_filter.clone(),
        state: Arc::new(compaction::CompactionState::new(options.compaction.bytes_per_second_max)),
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
fn seal_values(context: &CompactionContext, beside: &ValueRecovery, memtables: &Memtables) -> Result<()> {
    let edit = beside.seal()?;
    if edit.is_empty() {
        return Ok(());
    }
    match context.versions.apply(edit) {
        Ok(_) => memtables.install(&context.versions, None),
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
