//! Manual compaction of a range of a family.

use super::Db;
use crate::{Family, Range, Result, compaction};

impl Db {
    /// Flushes, merges everything that a family has in a range down into its last level, and waits for that: afterwards
    /// reads of the range search one table each, and what was deleted or has expired there takes no space (in the
    /// value log: its garbage is known). Tables that are there already and hold nothing dead are left alone. It works
    /// on the caller's thread, in parallel with automatic compactions; whole tables are compacted, so keys near
    /// the range too. What is written meanwhile is left to automatic compactions, so it ends while others write.
    ///
    /// Errors: [`crate::Error::InvalidArgument`] for an unknown family, [`crate::Error::FamilyDropped`]; those of
    /// [`Db::flush`]. After an error a part of the work is done.
    pub fn compact_range(&self, family: Family, range: Range) -> Result<()> {
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
