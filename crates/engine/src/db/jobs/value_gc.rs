//! Garbage collection of the value log, and the job that maintains it. Its part of commits is in
//! `write/large_values.rs`.

use super::failure::wait_after_failure;
use crate::db::shared::Shared;
use crate::db::write::WritePath;
use crate::measure::Recorder;
use crate::read::ReadState;
use crate::value_files::collection_plan::{CollectionPlan, UNFLUSHED_SEGMENTS, hides_too_much, plan};
use crate::value_files::{Relocation, Relocator};
use crate::version::{Version, VersionEdit};
use crate::vlog::CollectionReport;
use crate::{Db, Error, Family, Result};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Percent of garbage that a manual collection leaves in a file: to copy nineteen bytes for one is too much even then.
const COLLECT_PERCENT: u64 = 5;
/// When garbage is this many percent beyond its bound, relocation runs as fast as the disk does.
const URGENT_PERCENT: u64 = 5;
/// Within a relocation, the progress of writers is checked after so many bytes.
const CHECK_EACH_BYTES: u64 = 8 << 20;

impl Db {
    /// Frees what is garbage in the value log now: flushes, and relocates or removes every value file with more than a
    /// few percent of garbage. The database does this by itself beyond [`crate::Options::value_garbage_percent`].
    /// Garbage that only a compaction can find is not seen: call [`Db::compact`] before to free that too.
    ///
    /// Errors: those of [`Db::flush`], and [`Error::NoSpace`] if there is no space for what is relocated.
    pub fn collect_value_garbage(&self) -> Result<CollectionReport> {
        let core = self.core();
        let _here = core.enter_foreground()?;
        core.write.seal_values(true)?;
        core.write.flush_all()?;
        core.write.seal_values(false)?;
        let values = &core.shared().context.values;
        let _collecting = values.collecting.lock();
        let mut report = CollectionReport::default();
        while let Some(step) = ValueCollector::new(&core.write).collect_once(COLLECT_PERCENT)? {
            report.files += step.files;
            report.read_bytes += step.read_bytes;
            report.moved_bytes += step.moved_bytes;
            report.freed_bytes += step.freed_bytes;
        }
        report.damaged_files = values.stats().damaged_files;
        Ok(report)
    }
}

/// One collection, or one step of the `values` job.
pub(super) struct ValueCollector<'a> {
    write: &'a WritePath,
    shared: &'a Shared,
}

impl ValueCollector<'_> {
    pub(super) fn new(write: &WritePath) -> ValueCollector<'_> {
        ValueCollector { write, shared: &write.shared }
    }

    /// One step of the job. Returns whether to call it again.
    pub(super) fn step(&self) -> bool {
        if self.shared.health.check_writable().is_err() || self.shared.is_stopping() {
            return false;
        }
        let outcome = self.maintain();
        let error = outcome.as_ref().err().filter(|error| error.is_retryable()).cloned();
        if error.is_some() || self.shared.progress.has_error() {
            // Callers that wait for a collection must get the error.
            self.shared.progress.update(|state| {
                state.failed_collections += u64::from(error.is_some());
                state.collection_error = error;
            });
        }
        match outcome {
            Ok(again) => again,
            Err(Error::Closed) => false,
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "the value log is maintained later");
                wait_after_failure(self.shared)
            }
            Err(error) => {
                self.write.stop(&error);
                false
            }
        }
    }

    fn maintain(&self) -> Result<bool> {
        let again = self.seal_and_flush()?;
        // A manual collection runs.
        let Some(_collecting) = self.shared.context.values.collecting.try_lock() else { return Ok(again) };
        let collected = self.collect_once(self.shared.options.value_garbage_percent)?;
        Ok(again || collected.is_some())
    }

    /// What must not wait for a relocation: a segment that is not sealed, or a memtable that is not flushed, hides
    /// garbage.
    fn seal_and_flush(&self) -> Result<bool> {
        let sealed = self.write.seal_values(false)?;
        let spare = self.shared.context.values.make_spare(
            || self.shared.context.versions.new_file_number(),
            |number| self.write.add_value_segment(number),
        )?;
        self.flush_for_values();
        self.compact_for_values();
        Ok(sealed || spare)
    }

    /// Memtables are small when values are large: what they refer to is garbage that is not known yet, or live values
    /// whose segments must wait. So they are flushed because of the values too.
    fn flush_for_values(&self) {
        if self.write.unflushed_value_bytes() > UNFLUSHED_SEGMENTS * self.shared.options.value_segment_bytes {
            self.write.memtables.freeze_oldest();
            self.shared.jobs.wake_flush();
        }
    }

    /// Requests the compaction of families whose tables may hide too much garbage.
    fn compact_for_values(&self) {
        let version = self.shared.context.versions.current();
        let mut requested = false;
        for family in hiding_families(&version, self.shared.options.value_segment_bytes) {
            requested |= self.shared.progress.update(|state| state.compact_for_values.insert(family));
        }
        if requested {
            self.shared.jobs.wake_compact();
        }
    }

    /// Removes dead files, or relocates some, if there is more garbage than `percent`. `None` if there is nothing to
    /// do. Under the lock `collecting`.
    fn collect_once(&self, percent: u64) -> Result<Option<CollectionReport>> {
        let version = self.shared.context.versions.current();
        let candidates = self.write.value_candidates(&version);
        let urgent = is_urgent(self.write.note_value_debt(&candidates), percent);
        let values = &self.shared.context.values;
        let sources = match plan(&candidates, percent, self.shared.options.value_segment_bytes) {
            CollectionPlan::Rest => return Ok(None),
            CollectionPlan::Drop(dead) => {
                let mut edit = VersionEdit::new();
                dead.iter().for_each(|number| edit.values_mut().remove_file(*number));
                let freed = dead.iter().filter_map(|number| version.values().files().get(number)?.sealed_bytes()).sum();
                self.finish_collection(edit, &dead)?;
                let report = CollectionReport { files: dead.len() as u64, freed_bytes: freed, ..Default::default() };
                values.counters.note_collection(&report);
                return Ok(Some(report));
            }
            CollectionPlan::Relocate(sources) => sources,
        };
        let relocation = match self.relocate(version, &sources, (percent, urgent)) {
            Err(Error::Corruption { file, offset, what }) => {
                // Damaged files stay as they are, and reads of them return the error; relocation continues with the
                // others.
                tracing::error!(file = %file.display(), offset, what, "a value file cannot be relocated");
                values.set_damaged(&sources, &file);
                return Ok(Some(CollectionReport::default()));
            }
            other => other?,
        };
        let moved = relocation.file.map_or(0, |file| file.bytes);
        let report = CollectionReport {
            files: sources.len() as u64,
            read_bytes: relocation.read_bytes,
            moved_bytes: moved,
            freed_bytes: relocation.removed_bytes.saturating_sub(moved),
            damaged_files: 0,
        };
        let applied = self.finish_collection(relocation.edit, &sources);
        if let (Err(_), Some(file), false) = (&applied, relocation.file, self.shared.context.versions.is_stopped()) {
            values.appender.discard(file.number);
        }
        applied?;
        values.counters.note_collection(&report);
        Ok(Some(report))
    }

    fn finish_collection(&self, edit: VersionEdit, gone: &[u64]) -> Result<()> {
        self.shared.context.versions.apply(edit)?;
        self.write.install_version();
        gone.iter().for_each(|number| self.shared.context.values.forget(*number));
        self.shared.jobs.wake_compact(); // It removes the files once no reader has them.
        Ok(())
    }

    /// `percent` is the share of garbage above which files are relocated at a limited rate; `urgent`: there is far
    /// more.
    fn relocate(&self, version: Arc<Version>, sources: &[u64], (percent, urgent): (u64, bool)) -> Result<Relocation> {
        let tables = self.shared.context.tables.clone();
        let state = ReadState {
            dead: None,
            memtables: Vec::new(),
            version,
            tables,
            clock: self.shared.env.clock.clone(),
            recorder: Recorder::off(self.shared.env.clock.clone()),
        };
        let rate = self.shared.options.value_relocation_bytes_per_second;
        let (urgent, since_check) = (Cell::new(urgent), Cell::new(0));
        let pace = |bytes: u64, written: u64| {
            if self.shared.is_stopping() || self.shared.health.check_writable().is_err() {
                return Err(Error::Closed);
            }
            since_check.set(since_check.get() + bytes);
            if since_check.get() >= CHECK_EACH_BYTES {
                since_check.set(0);
                // A full disk is no reason to end the work that frees space.
                self.seal_and_flush()
                    .map(drop)
                    .or_else(|error| if error.is_retryable() { Ok(()) } else { Err(error) })?;
                let candidates = self.write.value_candidates(&self.shared.context.versions.current());
                urgent.set(is_urgent(self.write.note_value_debt(&candidates), percent));
            }
            // Together with flush and compaction, also if urgent: that bound is the disk's.
            self.shared.context.state.limiter.take(&self.shared.env, written, &self.shared.context.stop);
            // In a stepped world time does not advance.
            if rate > 0 && !urgent.get() && self.shared.env.tasks.threaded() {
                let wait = Duration::from_secs_f64(bytes as f64 / rate as f64);
                self.shared.progress.wait_for_end(wait, || self.shared.health.check_writable().is_err());
            }
            Ok(())
        };
        let new_number = || self.shared.context.versions.new_file_number();
        Relocator::new(&state, &self.shared.context.values.store, &new_number, &pace).run(sources)
    }
}

/// Whether garbage is so far beyond `percent` of all bytes that it is relocated as fast as the disk allows.
fn is_urgent((total, garbage): (u64, u64), percent: u64) -> bool {
    garbage.saturating_mul(100) > total.saturating_mul(percent + URGENT_PERCENT)
}

/// The families whose tables above the bottom refer to so much that too much garbage may be hidden.
fn hiding_families(version: &Version, segment_bytes: u64) -> Vec<Family> {
    let bytes_of = |number: u64| version.values().refs_of(number).map_or(0, |refs| refs.total_bytes());
    let mut levels: BTreeMap<Family, BTreeMap<usize, u64>> = BTreeMap::new();
    for (family, level, table) in version.tables() {
        *levels.entry(family).or_default().entry(level).or_default() += bytes_of(table.meta().number);
    }
    let hides = |(family, by_level): (Family, BTreeMap<usize, u64>)| {
        let all: u64 = by_level.values().sum();
        let bottom = by_level.last_key_value().filter(|(level, _)| **level > 0).map_or(0, |(_, bytes)| *bytes);
        hides_too_much(all - bottom, all, segment_bytes).then_some(family)
    };
    levels.into_iter().filter_map(hides).collect()
}

#[cfg(test)]
#[path = "value_gc_test.rs"]
mod tests;
