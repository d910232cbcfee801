//! Bugs planted on purpose, one for each promise whose breach the simulator must find. Off, and compiled in for tests only.

kontiki_env::planted_bugs! {
    /// Placement is asked without a look at the lease.
    PlacementWithoutLease,
    /// A view behind a read barrier is taken before the barrier.
    ViewBeforeBarrier,
    /// What a memtable holds is reported as what tables hold: the log goes too early.
    ReportUnflushed,
    /// A persist that a full disk refused is dropped, and the next one goes on.
    ForgetRefusedPersist,
    /// raftstore is told that a persist is durable when the engine gets it.
    PersistedAtOnce,
    /// Replication waits no longer than the full disk lets it, although it holds latches.
    UnlatchOnFullDisk,
}
