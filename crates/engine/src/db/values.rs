//! The value log in an open database: the separation of values in commits, and its job.

use super::core::Core;
use crate::measure::Recorder;
use crate::read::ReadState;
use crate::value_files::collection_plan::{
    CollectionCandidate, CollectionPlan, UNFLUSHED_SEGMENTS, hides_too_much, plan, total_and_garbage,
};
use crate::value_files::{Relocation, Relocator};
use crate::version::{Version, VersionEdit};
use crate::vlog::{CollectionReport, FILE_HEADER_BYTES, ValuePin, ValueStats};
use crate::{Db, Error, Family, Result, WriteBatch};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

/// Percent of garbage that a manual collection leaves in a file: to copy nineteen bytes for one is too much even then.
const COLLECT_PERCENT: u64 = 5;
/// When garbage is this many percent beyond its bound, relocation runs as fast as the disk does.
const HURRY_PERCENT: u64 = 5;
/// Within a relocation, the progress of writers is checked after so many bytes.
const LOOK_EACH_BYTES: u64 = 8 << 20;

impl Db {
    /// Frees what is garbage in the value log now: flushes, and relocates or removes every value file with more than a
    /// few percent of garbage. The database does this by itself beyond [`crate::Options::value_garbage_percent`].
    /// Garbage that only a compaction can find is not seen: call [`Db::compact`] before to free that too.
    ///
    /// Errors: those of [`Db::flush`], and [`Error::NoSpace`] if there is no space for what is relocated.
    pub fn collect_value_garbage(&self) -> Result<CollectionReport> {
        let core = self.core();
        let _here = core.foreground()?;
        core.seal_values(true)?;
        self.flush()?;
        core.seal_values(false)?;
        let values = &core.context.values;
        let _collecting = values.collecting.lock();
        let mut report = CollectionReport::default();
        while let Some(step) = core.collect_once(COLLECT_PERCENT)? {
            report.files += step.files;
            report.read_bytes += step.read_bytes;
            report.moved_bytes += step.moved_bytes;
            report.freed_bytes += step.freed_bytes;
        }
        report.damaged_files = values.stats().damaged_files;
        Ok(report)
    }
}

impl Core {
    /// Moves a logged commit's large values to the value log. Returns the batch that replaces it, and the pin
    /// that must be kept until it is in a memtable, or refused. Called on the writer's thread, before the commit
    /// has a place in any order. [`Error::NoSpace`] leaves nothing behind but garbage; other errors stop writes.
    pub(crate) fn separate(&self, batch: WriteBatch) -> Result<(WriteBatch, Option<ValuePin>)> {
        let result =
            self.context.values.separate(batch, || self.context.versions.new_file_number(), |n| self.enter_segment(n));
        match &result {
            Ok((_, None)) => {}
            Ok((_, Some(_))) => {
                if self.context.values.appender.needs_maintenance() {
                    self.wake_values();
                }
            }
            Err(Error::Closed) => {}
            Err(error) if error.is_retryable() => {}
            Err(error) => self.stop(error),
        }
        result
    }

    /// Puts a new value segment into the manifest, and into the version that readers get: a reader that sees a pointer
    /// to it must find it there.
    fn enter_segment(&self, number: u64) -> Result<()> {
        let mut edit = VersionEdit::new();
        edit.values_mut().add_file(number);
        self.context.versions.apply(edit)?;
        self.writes.install(&self.context.versions, None);
        // The job may wait for the disk for long; writers should see the results meanwhile.
        self.note_value_debt(&self.candidates(&self.context.versions.current()));
        Ok(())
    }

    /// Seals segments that are full and that no batch in progress refers to; with `all`, no values follow in the others
    /// either. Returns whether any was sealed.
    pub(crate) fn seal_values(&self, all: bool) -> Result<bool> {
        let values = &self.context.values;
        let _sealing = values.sealing.lock();
        let segments = values.appender.retire(all);
        if segments.is_empty() {
            return Ok(false);
        }
        // Read after the segments were seen without pins: every batch that refers to them has its number by now.
        let bound = self.writes.next_sequence() - 1;
        let mut edit = VersionEdit::new();
        for segment in &segments {
            values.set_bound(segment.number, bound);
            match values.appender.finish(segment)? {
                Some(bytes) => edit.values_mut().seal_file(segment.number, bytes, bytes - FILE_HEADER_BYTES),
                None => edit.values_mut().remove_file(segment.number),
            }
        }
        self.context.versions.apply(edit)?;
        self.writes.install(&self.context.versions, None);
        segments.iter().for_each(|segment| values.appender.sealed(segment));
        Ok(true)
    }

    /// One step of the `values` job. Returns whether to call it again.
    pub(crate) fn values_step(&self) -> bool {
        if self.check_writable().is_err() || self.is_stopping() {
            return false;
        }
        let outcome = self.look_after_values();
        let error = outcome.as_ref().err().filter(|error| error.is_retryable()).cloned();
        if error.is_some() || self.progress.has_error() {
            // Callers that wait for a collection must get the error.
            self.progress.update(|state| {
                state.failed_collections += u64::from(error.is_some());
                state.collection_error = error;
            });
        }
        match outcome {
            Ok(again) => again,
            Err(Error::Closed) => false,
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "care of the value log is put off");
                self.wait_after_failure()
            }
            Err(error) => {
                self.stop(&error);
                false
            }
        }
    }

    fn look_after_values(&self) -> Result<bool> {
        let again = self.keep_up_with_writers()?;
        // A manual collection runs.
        let Some(_collecting) = self.context.values.collecting.try_lock() else { return Ok(again) };
        let collected = self.collect_once(self.options.value_garbage_percent)?;
        Ok(again || collected.is_some())
    }

    /// What must not wait for a relocation: a segment that is not sealed, or a memtable that is not flushed, hides
    /// garbage.
    fn keep_up_with_writers(&self) -> Result<bool> {
        let sealed = self.seal_values(false)?;
        let spare = self
            .context
            .values
            .make_spare(|| self.context.versions.new_file_number(), |number| self.enter_segment(number))?;
        self.flush_for_values();
        self.compact_for_values();
        Ok(sealed || spare)
    }

    /// Updates the debt of the value log for the throttle: garbage beyond its share, and beyond what memtables may
    /// refer to what is not in tables yet, of which it is unknown how much is garbage. Returns the bytes of the
    /// candidates, and of their garbage.
    fn note_value_debt(&self, candidates: &[CollectionCandidate]) -> (u64, u64) {
        let values = &self.context.values;
        let (total, garbage) = total_and_garbage(candidates);
        values.note_garbage(total, garbage, self.options.value_garbage_percent);
        let unflushed = self.unflushed_value_bytes();
        let late = unflushed.saturating_sub(UNFLUSHED_SEGMENTS * self.options.value_segment_bytes);
        self.throttle.note_value_debt(values.debt_bytes().saturating_add(late), total.saturating_add(unflushed));
        (total, garbage)
    }

    /// Memtables are small when values are large: what they refer to is garbage that is not known yet, or live values
    /// whose segments must wait. So they are flushed because of the values too.
    fn flush_for_values(&self) {
        if self.unflushed_value_bytes() > UNFLUSHED_SEGMENTS * self.options.value_segment_bytes {
            self.writes.freeze_oldest();
            self.wake_flush();
        }
    }

    /// Bytes of segments that memtables may refer to.
    fn unflushed_value_bytes(&self) -> u64 {
        let values = &self.context.values;
        let version = self.context.versions.current();
        let unflushed = |(number, state): (&u64, &crate::version::ValueFileState)| {
            state.sealed_bytes().filter(|_| !values.is_flushed(*number, version.flushed_sequence()))
        };
        let sealed: u64 = version.values().files().iter().filter_map(unflushed).sum();
        sealed + values.appender.open_bytes()
    }

    /// Requests the compaction of families whose tables may hide too much garbage.
    fn compact_for_values(&self) {
        let version = self.context.versions.current();
        let mut asked = false;
        for family in hiding_families(&version, self.options.value_segment_bytes) {
            asked |= self.progress.update(|state| state.compact_for_values.insert(family));
        }
        if asked {
            self.wake_compact();
        }
    }

    /// Removes dead files, or relocates some, if there is more garbage than `percent`. `None` if there is nothing to
    /// do. Under the lock `collecting`.
    fn collect_once(&self, percent: u64) -> Result<Option<CollectionReport>> {
        let version = self.context.versions.current();
        let candidates = self.candidates(&version);
        let urgent = is_urgent(self.note_value_debt(&candidates), percent);
        let values = &self.context.values;
        let sources = match plan(&candidates, percent, self.options.value_segment_bytes) {
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
        if let (Err(_), Some(file), false) = (&applied, relocation.file, self.context.versions.is_stopped()) {
            values.appender.discard(file.number);
        }
        applied?;
        values.counters.note_collection(&report);
        Ok(Some(report))
    }

    fn finish_collection(&self, edit: VersionEdit, gone: &[u64]) -> Result<()> {
        self.context.versions.apply(edit)?;
        self.writes.install(&self.context.versions, None);
        gone.iter().for_each(|number| self.context.values.forget(*number));
        self.wake_compact(); // It removes the files once no reader has them.
        Ok(())
    }

    /// `percent` is the share of garbage above which files are relocated at a limited rate; `urgent`: there is far
    /// more.
    fn relocate(
        &self,
        version: std::sync::Arc<Version>,
        sources: &[u64],
        (percent, urgent): (u64, bool),
    ) -> Result<Relocation> {
        let tables = self.context.tables.clone();
        let state = ReadState {
            dead: None,
            memtables: Vec::new(),
            version,
            tables,
            clock: self.env.clock.clone(),
            recorder: Recorder::off(self.env.clock.clone()),
        };
        let rate = self.options.value_relocation_bytes_per_second;
        let (urgent, since_look) = (Cell::new(urgent), Cell::new(0));
        let pace = |bytes: u64, written: u64| {
            if self.is_stopping() || self.check_writable().is_err() {
                return Err(Error::Closed);
            }
            since_look.set(since_look.get() + bytes);
            if since_look.get() >= LOOK_EACH_BYTES {
                since_look.set(0);
                // A full disk is no reason to end the work that frees space.
                self.keep_up_with_writers()
                    .map(drop)
                    .or_else(|error| if error.is_retryable() { Ok(()) } else { Err(error) })?;
                let candidates = self.candidates(&self.context.versions.current());
                urgent.set(is_urgent(self.note_value_debt(&candidates), percent));
            }
            // Together with flush and compaction, also if urgent: that bound is the disk's.
            self.context.state.limiter.take(&self.env, written, &self.context.stop);
            // In a stepped world time does not advance.
            if rate > 0 && !urgent.get() && self.env.tasks.threaded() {
                let wait = Duration::from_secs_f64(bytes as f64 / rate as f64);
                self.progress.wait_for_end(wait, || self.check_writable().is_err());
            }
            Ok(())
        };
        let new_number = || self.context.versions.new_file_number();
        Relocator::new(&state, &self.context.values.store, &new_number, &pace).run(sources)
    }

    /// The files that may be relocated or removed.
    fn candidates(&self, version: &Version) -> Vec<CollectionCandidate> {
        let values = version.values();
        let mut referred: BTreeMap<u64, u64> = BTreeMap::new();
        for (segment, bytes) in values.referred().iter() {
            if let Some((file, _)) = values.file_of(segment) {
                let sum = referred.entry(file).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
        let needless = version.flushed_sequence().min(self.feed_keeps_after());
        let candidate = |(number, state): (&u64, &crate::version::ValueFileState)| {
            let sealed = state.sealed()?;
            let ready = self.context.values.may_delete(*number, needless);
            let referred = referred.get(number).copied().unwrap_or(0);
            ready.then_some(CollectionCandidate { number: *number, bytes: sealed.record_bytes, referred })
        };
        values.files().iter().filter_map(candidate).collect()
    }

    /// For `Db::stats`.
    pub(crate) fn value_stats(&self) -> ValueStats {
        let version = self.context.versions.current();
        let mut stats = self.context.values.stats();
        for state in version.values().files().values() {
            stats.files += 1;
            stats.file_bytes += state.sealed_bytes().unwrap_or(0);
        }
        stats.file_bytes += stats.open_bytes;
        stats.referred_bytes = version.values().referred().total_bytes();
        stats.relocated_segments = version.values().relocated().len() as u64;
        stats
    }
}

/// Whether garbage is so far beyond `percent` of all bytes that it is relocated as fast as the disk allows.
fn is_urgent((total, garbage): (u64, u64), percent: u64) -> bool {
    garbage.saturating_mul(100) > total.saturating_mul(percent + HURRY_PERCENT)
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
#[path = "values_test.rs"]
mod tests;
