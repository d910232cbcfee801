//! The value log's place in an open database: on the way in, and as a job.

use super::core::Core;
use crate::version::VersionEdit;
use crate::vlog::ValuePin;
use crate::{Error, Result, WriteBatch};

impl Core {
    /// Moves a logged commit's large values to the value log. Returns the batch that goes on in its place, and the pin that
    /// must be kept until it is in a memtable, or refused. Called on the writer's own thread, before the commit has a
    /// place in any order. [`Error::NoSpace`] leaves nothing behind but garbage; other errors stop writes.
    pub(crate) fn separate(&self, batch: WriteBatch) -> Result<(WriteBatch, Option<ValuePin>)> {
        let result =
            self.context.values.separate(batch, || self.context.versions.new_file_number(), |n| self.enter_segment(n));
        match &result {
            Ok((_, None)) => {}
            Ok((_, Some(_))) => {
                if self.context.values.appender.wants_care() {
                    self.wake_values();
                }
            }
            Err(Error::Closed) => {}
            Err(error) if error.is_retryable() => {}
            Err(error) => self.stop(error),
        }
        result
    }

    /// Puts a new value segment into the manifest, and into the version that readers get: whoever sees a pointer to it must
    /// find it there.
    fn enter_segment(&self, number: u64) -> Result<()> {
        let mut edit = VersionEdit::new();
        edit.values_mut().add_file(number);
        self.context.versions.apply(edit)?;
        self.writes.install(&self.context.versions, None);
        Ok(())
    }

    /// Seals segments that are full and that no batch on its way refers to; with `all`, every one: nothing follows.
    /// Returns whether there were any.
    pub(crate) fn seal_values(&self, all: bool) -> Result<bool> {
        let values = &self.context.values;
        let segments = values.retire(all);
        if segments.is_empty() {
            return Ok(false);
        }
        // Read after the segments were seen without pins: whatever refers to them has its number by now.
        let bound = self.writes.next_sequence() - 1;
        let mut edit = VersionEdit::new();
        for segment in &segments {
            values.set_bound(segment.number, bound);
            match values.appender.finish(segment)? {
                Some(bytes) => edit.values_mut().seal_file(segment.number, bytes),
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
        let values = &self.context.values;
        let outcome = self.seal_values(false).and_then(|sealed| {
            let spare =
                values.make_spare(|| self.context.versions.new_file_number(), |number| self.enter_segment(number))?;
            Ok(sealed || spare)
        });
        match outcome {
            Ok(again) => again,
            Err(error) => {
                if error.is_retryable() {
                    tracing::warn!(%error, "care of the value log is put off");
                } else if !matches!(error, Error::Closed) {
                    self.stop(&error);
                }
                false
            }
        }
    }
}
