//! Bugs planted on purpose, one for each promise whose breach the simulator must find. Off, and compiled in for tests only.

kontiki_env::planted_bugs! {
    /// A rollback that finds neither lock nor record leaves no record.
    RollBackWithoutRecord,
    /// A prewrite that arrives after its transaction was rolled back on the key locks it all the same.
    PrewriteAfterRollback,
    /// A prewrite does not look for commits above its start.
    MissNewerCommits,
    /// A commit below the least commit timestamp of its lock is accepted.
    CommitBelowMinimum,
    /// Latches are let go before what they guard is replicated.
    UnlatchEarly,
    /// A write whose caller is gone lets its latches go, whatever becomes of it.
    UnlatchWithCaller,
    /// Reads do not look at locks.
    ReadPastLocks,
    /// A rollback leaves the long value behind.
    LeaveLongValue,
    /// A status check pushes the least commit timestamp in its answer, not in the lock.
    PushInAnswerOnly,
    /// A scan passes over a locked key in place of reporting it.
    OmitLockedKeys,
}
