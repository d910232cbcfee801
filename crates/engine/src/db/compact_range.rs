//! Compaction of a part of a family on request.

use super::Db;
use crate::{Family, Range, Result, compaction};

impl Db {
    /// Flushes, merges everything that a family has in a range into its last level, and waits for that. Afterwards a
    /// read of the range looks into one table, and deleted and expired entries take no space there (in the value log
    /// they are known as garbage). Tables that are in the last level already and hold nothing dead are not rewritten.
    /// The work is done by the caller's thread, beside background compactions. Whole tables are compacted, so keys near
    /// the range are, too. Entries that are written meanwhile are left to background compactions, so the call ends even
    /// while writers are busy.
    ///
    /// Errors: [`crate::Error::InvalidArgument`] for an unknown family, [`crate::Error::FamilyDropped`]; those of
    /// [`Db::flush`]. After an error a part of the work is done.
    pub fn compact_range(&self, family: Family, range: impl Into<Range>) -> Result<()> {
        let range = range.into();
        let core = self.core();
        let _here = core.foreground()?;
        core.check_family(&core.context.versions.current(), family)?;
        if range.is_empty() {
            return Ok(());
        }
        let range = range.normal();
        core.flush_all()?;
        let outcome = compaction::compact_range(&core.context, family, &range);
        // Also after an error: a part may be done.
        core.writes.install(&core.context.versions, None);
        core.wake_compact(); // It removes files.
        core.wake_values();
        if let Err(error) = &outcome {
            core.background_failed(error);
        }
        outcome
    }
}
