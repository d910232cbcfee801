//! Bugs planted on purpose, one for each guarantee whose violation the simulator must find. They are off, and compiled
//! in for tests only.

kontiki_env::planted_bugs! {
    /// Placement is asked without a check of the lease.
    PlacementWithoutLease,
    /// A view that needs a read barrier is taken before the barrier.
    ViewBeforeBarrier,
    /// The contents of a memtable are reported as the contents of tables: the log is truncated too early.
    ReportUnflushed,
    /// A persist that a full disk refused is dropped, and the next one is written.
    ForgetRefusedPersist,
    /// A persist is reported to raftstore as durable when the engine gets it.
    PersistedAtOnce,
    /// Replication stops waiting when the disk is full, although it holds latches.
    UnlatchOnFullDisk,
    /// A replica that does not lead shows what its leader may not have applied.
    ShowBeforeLeader,
    /// Safe timestamps ignore locks.
    SafeTsPastLocks,
    /// Safe timestamps are below the locks of the round before: those of prewrites that were on their way then are
    /// missed.
    SafeTsOfEarlierLocks,
    /// A leader does not take the timestamps of reads at followers into account.
    ForgetReplicaReads,
}
