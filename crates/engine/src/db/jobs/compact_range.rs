//! Compaction of a part of a family on request.

use super::failure::background_failed;
use crate::{Db, Family, Range, Result, compaction};

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
        let _here = core.enter_foreground()?;
        core.write.check_family(&core.shared().context.versions.current(), family)?;
        if range.is_empty() {
            return Ok(());
        }
        let range = range.normal();
        core.write.flush_all()?;
        let outcome = compaction::compact_range(&core.shared().context, family, &range);
        // Also after an error: a part may be done.
        core.write.install_version();
        core.shared().jobs.wake_compact(); // It removes files.
        core.shared().jobs.wake_values();
        if let Err(error) = &outcome {
            background_failed(&core.write, error);
        }
        outcome
    }
}
