//! Bugs planted on purpose, one for each guarantee whose violation the simulator must find. They are off, and compiled
//! in for tests only.

kontiki_env::planted_bugs! {
    /// A rollback that finds neither lock nor record leaves no record.
    RollBackWithoutRecord,
    /// A prewrite that arrives after its transaction was rolled back on the key locks it anyway.
    PrewriteAfterRollback,
    /// A prewrite does not check for commits above its start.
    MissNewerCommits,
    /// A commit below the minimum commit timestamp of its lock is accepted.
    CommitBelowMinimum,
    /// Latches are released before the write that they guard is replicated.
    UnlatchEarly,
    /// A write whose caller was dropped releases its latches before its outcome is known.
    UnlatchWithCaller,
    /// Reads ignore locks.
    ReadPastLocks,
    /// A rollback leaves the long value behind.
    LeaveLongValue,
    /// A status check pushes the minimum commit timestamp in its answer, not in the lock.
    PushInAnswerOnly,
    /// A scan skips a locked key instead of reporting it.
    OmitLockedKeys,
    /// Async commit does not regard the timestamps of reads.
    IgnoreMaxTs,
    /// A new leader accepts async commit and one-phase commit without a timestamp of the oracle.
    LeadWithoutTimestamp,
    /// A one-phase commit does not check for commits above its start.
    OnePhaseSkipsConflicts,
    /// A status check rolls an expired async-commit lock back although all secondaries may be there.
    RollBackAsyncCommit,
    /// Reads do not look at the locks that are on their way to the replicas.
    MissMemoryLocks,
    /// The pessimistic locks of every second transaction get lost, and its prewrite does not notice.
    LosePessimisticLocks,
    /// Garbage collection drops the version that a read at the safe point needs.
    DropNeededVersion,
    /// Reads below the safe point are served.
    ReadBelowSafePoint,
}
