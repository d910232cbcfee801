//! Large values: commits move them to the value log before they have a place in any order. And what the value log
//! costs: garbage that slows writers.

use super::WritePath;
use crate::value_files::collection_plan::{CollectionCandidate, UNFLUSHED_SEGMENTS, total_and_garbage};
use crate::version::{ValueFileState, Version, VersionEdit};
use crate::vlog::{FILE_HEADER_BYTES, ValuePin};
use crate::{Error, Result, SequenceNumber, WriteBatch};
use std::collections::BTreeMap;

impl WritePath {
    /// Moves a logged commit's large values to the value log. Returns the batch that replaces it, and the pin
    /// that must be kept until it is in a memtable, or refused. Called on the writer's thread, before the commit
    /// has a place in any order. [`Error::NoSpace`] leaves nothing behind but garbage; other errors stop writes.
    pub(crate) fn separate_values(&self, batch: WriteBatch) -> Result<(WriteBatch, Option<ValuePin>)> {
        let result = self.shared.context.values.separate(
            batch,
            || self.shared.context.versions.new_file_number(),
            |n| self.add_value_segment(n),
        );
        match &result {
            Ok((_, None)) => {}
            Ok((_, Some(_))) => {
                if self.shared.context.values.appender.needs_maintenance() {
                    self.shared.jobs.wake_values();
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
    pub(crate) fn add_value_segment(&self, number: u64) -> Result<()> {
        let mut edit = VersionEdit::new();
        edit.values_mut().add_file(number);
        self.shared.context.versions.apply(edit)?;
        self.install_version();
        // The job may wait for the disk for long; writers should see the results meanwhile.
        self.note_value_debt(&self.value_candidates(&self.shared.context.versions.current()));
        Ok(())
    }

    /// Seals segments that are full and that no batch in progress refers to; with `all`, no values follow in the others
    /// either. Returns whether any was sealed.
    pub(crate) fn seal_values(&self, all: bool) -> Result<bool> {
        let values = &self.shared.context.values;
        let _sealing = values.sealing.lock();
        let segments = values.appender.retire(all);
        if segments.is_empty() {
            return Ok(false);
        }
        // Read after the segments were seen without pins: every batch that refers to them has its number by now.
        let bound = self.memtables.next_sequence() - 1;
        let mut edit = VersionEdit::new();
        for segment in &segments {
            values.set_bound(segment.number, bound);
            match values.appender.finish(segment)? {
                Some(bytes) => edit.values_mut().seal_file(segment.number, bytes, bytes - FILE_HEADER_BYTES),
                None => edit.values_mut().remove_file(segment.number),
            }
        }
        self.shared.context.versions.apply(edit)?;
        self.install_version();
        segments.iter().for_each(|segment| values.appender.sealed(segment));
        Ok(true)
    }

    /// Updates the debt of the value log for the throttle: garbage beyond its share, and beyond what memtables may
    /// refer to what is not in tables yet, of which it is unknown how much is garbage. Returns the bytes of the
    /// candidates, and of their garbage.
    pub(crate) fn note_value_debt(&self, candidates: &[CollectionCandidate]) -> (u64, u64) {
        let values = &self.shared.context.values;
        let (total, garbage) = total_and_garbage(candidates);
        values.note_garbage(total, garbage, self.shared.options.value_garbage_percent);
        let unflushed = self.unflushed_value_bytes();
        let late = unflushed.saturating_sub(UNFLUSHED_SEGMENTS * self.shared.options.value_segment_bytes);
        self.throttle.note_value_debt(values.debt_bytes().saturating_add(late), total.saturating_add(unflushed));
        (total, garbage)
    }

    /// Bytes of segments that memtables may refer to.
    pub(crate) fn unflushed_value_bytes(&self) -> u64 {
        let values = &self.shared.context.values;
        let version = self.shared.context.versions.current();
        let unflushed = |(number, state): (&u64, &ValueFileState)| {
            state.sealed_bytes().filter(|_| !values.is_flushed(*number, version.flushed_sequence()))
        };
        let sealed: u64 = version.values().files().iter().filter_map(unflushed).sum();
        sealed + values.appender.open_bytes()
    }

    /// The files that may be relocated or removed.
    pub(crate) fn value_candidates(&self, version: &Version) -> Vec<CollectionCandidate> {
        let values = version.values();
        let mut referred: BTreeMap<u64, u64> = BTreeMap::new();
        for (segment, bytes) in values.referred().iter() {
            if let Some((file, _)) = values.file_of(segment) {
                let sum = referred.entry(file).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
        let needless = version.flushed_sequence().min(self.feed_needs_after());
        let candidate = |(number, state): (&u64, &ValueFileState)| {
            let sealed = state.sealed()?;
            let ready = self.shared.context.values.may_delete(*number, needless);
            let referred = referred.get(number).copied().unwrap_or(0);
            ready.then_some(CollectionCandidate { number: *number, bytes: sealed.record_bytes, referred })
        };
        values.files().iter().filter_map(candidate).collect()
    }

    /// Subscribers may need the values of every batch above this number: `u64::MAX` if nothing is retained for them.
    pub(crate) fn feed_needs_after(&self) -> SequenceNumber {
        if self.shared.options.feed_retention_bytes == 0 { u64::MAX } else { self.log.segments.deleted_through() }
    }
}
