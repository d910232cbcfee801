//! The parts of an open database.

use super::close_state::CloseState;
use super::foreground::Foreground;
use super::jobs::Background;
use super::shared::Shared;
use super::transactions::Transactions;
use super::write::WritePath;
use crate::Result;
use crate::lock::RwLockReadGuard;

/// An open database: each part owns its state, and knows only parts above it in this list. docs/internals/engine.md
/// describes them.
///
/// The order in which a thread takes several locks is that of their ranks (`lock`), which debug builds check. No
/// completion runs under any of them. Under the lock that orders commits a thread waits only for other writers'
/// insertions into memtables, when a commit has conditions; and no file is touched but for the append itself, a
/// rewrite, and a segment that was not made in time.
pub(crate) struct Core {
    /// Commits, memtables, the log, and (as `shared`) what all parts use.
    pub(crate) write: WritePath,
    /// What transactions have registered.
    pub(crate) transactions: Transactions,
    /// The state of background jobs.
    pub(crate) background: Background,
    /// Callers that change files on their own threads.
    pub(crate) foreground: Foreground,
    /// The end of the database.
    pub(super) close_state: CloseState,
}

impl Core {
    /// What all parts use.
    #[inline]
    pub(crate) fn shared(&self) -> &Shared {
        &self.write.shared
    }

    /// Kept by a caller that changes files on its own thread: the directory is not released before it is dropped.
    pub(crate) fn enter_foreground(&self) -> Result<RwLockReadGuard<'_, ()>> {
        self.foreground.enter(&self.shared().health)
    }
}
