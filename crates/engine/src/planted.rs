//! Bugs planted on purpose, so that the tests can show that they would find them. Only with the feature
//! `planted-bugs` (and in this crate's own tests), which nothing but tests enables; without it every check
//! is `false` at compile time.

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bug {
    /// New log segments are used before their directory has been synced.
    NoDirectorySync,
    /// Log segments are deleted although an unflushed memtable or a stream needs them.
    TruncateNeededSegment,
    /// `Sync` commits are answered without a sync of the log.
    AcknowledgeBeforeSync,
    /// A table is renamed and named in the manifest without having been synced.
    TableNotSynced,
    /// A record of the manifest is in force before it is synced.
    ManifestNotSynced,
    /// A compaction drops tombstones although deeper levels may hold what they hide.
    DropTombstonesEarly,
    /// The end of a sync does not wake a waiter to start the next.
    ForgetTheNextSync,
    /// A transaction that waits for a lock checks whether it has it, and only then registers to be woken.
    LoseLockWakeUp,
    /// A writer panics when it puts its batch into the memtable.
    PanicAtInsertion,
    /// A block is put into its slot before the lock of its shard is taken.
    FillSlotUnlocked,
}

#[cfg(any(test, feature = "planted-bugs"))]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches a bug on, or all off, for databases that are driven by this thread (a stepped world has one).
    pub fn set(bug: Option<Bug>) {
        BUG.set(bug);
    }

    pub(crate) fn is_set(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }
}

#[cfg(any(test, feature = "planted-bugs"))]
pub(crate) use switch::is_set;
#[cfg(any(test, feature = "planted-bugs"))]
pub use switch::set;

#[cfg(not(any(test, feature = "planted-bugs")))]
pub(crate) const fn is_set(_: Bug) -> bool {
    false
}
