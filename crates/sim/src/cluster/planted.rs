//! Known bugs, planted to show that the simulator finds them.

use super::Cluster;
use crate::workload::Records;
use kontiki_engine::planted as engine;
use kontiki_placement::planted as placement;
use kontiki_raftlog::planted as raftlog;
use kontiki_raftstore::planted::Planted;
use kontiki_server::families;
use kontiki_server::planted as server;
use kontiki_txn::planted as txn;

/// Where a bug is switched on.
enum Place {
    Engine(engine::Bug),
    Txn(txn::Bug),
    Placement(placement::Bug),
    RaftLog(raftlog::Bug),
    Server(server::Bug),
    /// In a client: a switch of the run's records.
    Client(fn(&Records)),
    Raftstore(fn(&mut Planted)),
}

/// The enumeration of bugs, and their places. A bug's documentation is the guarantee that it violates.
macro_rules! bugs {
    ($($(#[$doc:meta])+ $bug:ident: $place:ident($($what:tt)+);)+) => {
        /// A bug to plant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
        pub enum PlantedBug {
            $($(#[$doc])+ $bug,)+
        }

        impl PlantedBug {
            /// All of them.
            pub const ALL: &[PlantedBug] = &[$(PlantedBug::$bug),+];

            fn place(self) -> Place {
                match self {
                    $(PlantedBug::$bug => Place::$place($($what)+),)+
                }
            }
        }
    };
}

bugs! {
    /// New log segments are used before their directory has been synced.
    NoDirectorySync: Engine(engine::Bug::NoDirectorySync);
    /// Log segments are deleted although a memtable or a raft log needs them.
    TruncateNeededSegment: Engine(engine::Bug::TruncateNeededSegment);
    /// Synced commits are answered without a sync.
    AcknowledgeBeforeSync: Engine(engine::Bug::AcknowledgeBeforeSync);
    /// A table is named in the manifest without having been synced.
    TableNotSynced: Engine(engine::Bug::TableNotSynced);
    /// A record of the manifest takes effect before it is synced.
    ManifestNotSynced: Engine(engine::Bug::ManifestNotSynced);
    /// A compaction drops tombstones although deeper levels may hold what they hide.
    DropTombstonesEarly: Engine(engine::Bug::DropTombstonesEarly);

    /// A rollback that finds neither lock nor record leaves no record.
    RollBackWithoutRecord: Txn(txn::Bug::RollBackWithoutRecord);
    /// A prewrite that arrives after its transaction was rolled back locks the key anyway.
    PrewriteAfterRollback: Txn(txn::Bug::PrewriteAfterRollback);
    /// A prewrite does not check for commits above its start.
    MissNewerCommits: Txn(txn::Bug::MissNewerCommits);
    /// A commit below the minimum commit timestamp of its lock is accepted.
    CommitBelowMinimum: Txn(txn::Bug::CommitBelowMinimum);
    /// A status check pushes the minimum commit timestamp in its answer, not in the lock.
    PushInAnswerOnly: Txn(txn::Bug::PushInAnswerOnly);
    /// Latches are released before the write that they guard is replicated.
    UnlatchEarly: Txn(txn::Bug::UnlatchEarly);
    /// A write whose caller was dropped releases its latches before its outcome is known.
    UnlatchWithCaller: Txn(txn::Bug::UnlatchWithCaller);
    /// Reads ignore locks.
    ReadPastLocks: Txn(txn::Bug::ReadPastLocks);
    /// A scan skips a locked key instead of reporting it.
    OmitLockedKeys: Txn(txn::Bug::OmitLockedKeys);
    /// A rollback leaves the long value behind.
    LeaveLongValue: Txn(txn::Bug::LeaveLongValue);
    /// Async commit does not regard the timestamps of reads.
    IgnoreMaxTs: Txn(txn::Bug::IgnoreMaxTs);
    /// A new leader computes commit timestamps without a timestamp of the oracle: it does not know the reads at the
    /// leader before it.
    LeadWithoutTimestamp: Txn(txn::Bug::LeadWithoutTimestamp);
    /// A one-phase commit does not check for commits above its start.
    OnePhaseSkipsConflicts: Txn(txn::Bug::OnePhaseSkipsConflicts);
    /// A status check rolls an expired async-commit lock back although all secondaries may be there.
    RollBackAsyncCommit: Txn(txn::Bug::RollBackAsyncCommit);
    /// Reads do not look at the locks that are on their way to the replicas.
    MissMemoryLocks: Txn(txn::Bug::MissMemoryLocks);
    /// Pessimistic locks get lost, as in a split that does not move them, and no prewrite notices.
    LosePessimisticLocks: Txn(txn::Bug::LosePessimisticLocks);

    /// A client takes the commit timestamp before it prewrites.
    CommitTsBeforePrewrite: Client(|records| records.commits_early.set(true));

    /// Timestamps are handed out at and above the durable bound.
    TimestampsBeyondBound: Placement(placement::Bug::TimestampsBeyondBound);
    /// A new leader of placement begins at its wall clock and ignores the bound that it finds.
    BeginAtWallClock: Placement(placement::Bug::BeginAtWallClock);
    /// Ids are handed out at and above the durable bound.
    IdsBeyondBound: Placement(placement::Bug::IdsBeyondBound);
    /// A safe point is returned before it is durable.
    SafePointBeforeDurable: Placement(placement::Bug::SafePointBeforeDurable);
    /// A write of placement whose outcome is unknown counts as done.
    UnknownWriteCounts: Placement(placement::Bug::UnknownWriteCounts);

    /// Placement is asked without a check of the lease.
    PlacementWithoutLease: Server(server::Bug::PlacementWithoutLease);
    /// A view that needs a read barrier is taken before the barrier.
    ViewBeforeBarrier: Server(server::Bug::ViewBeforeBarrier);
    /// The contents of a memtable are reported as the contents of tables: the log is truncated too early.
    ReportUnflushed: Server(server::Bug::ReportUnflushed);
    /// A persist that a full disk refused is dropped, and the next one is written.
    ForgetRefusedPersist: Server(server::Bug::ForgetRefusedPersist);
    /// A persist counts as durable when the engine gets it.
    PersistedAtOnce: Server(server::Bug::PersistedAtOnce);
    /// Replication that holds latches gives up on a full disk.
    UnlatchOnFullDisk: Server(server::Bug::UnlatchOnFullDisk);
    /// A replica that does not lead shows what its leader may not have applied.
    ShowBeforeLeader: Server(server::Bug::ShowBeforeLeader);
    /// Safe timestamps ignore locks.
    SafeTsPastLocks: Server(server::Bug::SafeTsPastLocks);
    /// Safe timestamps miss the locks of prewrites that were on their way in the round before.
    SafeTsOfEarlierLocks: Server(server::Bug::SafeTsOfEarlierLocks);

    /// Files of raft logs are not synced.
    LogFilesNotSynced: RaftLog(raftlog::Bug::FilesNotSynced);
    /// New files of raft logs are used before their directory has been synced.
    LogFilesNotNamed: RaftLog(raftlog::Bug::NoDirectorySync);
    /// Raft logs are recorded to be at another place before they are there.
    LogsMovedTooEarly: RaftLog(raftlog::Bug::ConvertedTooEarly);

    /// A proposal is acknowledged before a quorum has it.
    AcknowledgeBeforeQuorum: Raftstore(|planted| planted.acknowledge_before_quorum = true);
    /// A replica that believes it leads serves reads without checking its lease.
    ReadWithoutLease: Raftstore(|planted| planted.read_without_lease = true);
    /// After a restart, entries that tables already hold are applied once more.
    ApplyTwiceAfterRestart: Raftstore(|planted| planted.apply_twice_after_restart = true);
    /// A follower's promise to a leader ends when the consensus core forgets that leader.
    PromiseWhileLeaderKnown: Raftstore(|planted| planted.promise_while_leader_known = true);
    /// A follower counts its promise in ticks.
    PromiseInTicks: Raftstore(|planted| planted.promise_in_ticks = true);
    /// A restarted follower votes at once.
    VoteAtOnceAfterRestart: Raftstore(|planted| planted.vote_at_once_after_restart = true);
    /// A leader that orders a transfer keeps its lease.
    LeaseThroughTransfer: Raftstore(|planted| planted.lease_through_transfer = true);
    /// A lease begins when its confirmation arrives, not when the heartbeat was sent.
    LeaseFromAnswer: Raftstore(|planted| planted.lease_from_answer = true);
    /// A read barrier is answered when a quorum has confirmed it, without regard to the applied index.
    BarrierBeforeApply: Raftstore(|planted| planted.barrier_before_apply = true);
    /// A proposal is recognised at apply by its index alone.
    ProposalTermNotChecked: Raftstore(|planted| planted.proposal_term_not_checked = true);
    /// A changed term or vote is not persisted.
    VoteNotPersisted: Raftstore(|planted| planted.vote_not_persisted = true);
    /// Messages that promise durability are sent before the persist that they promise.
    MessagesBeforePersist: Raftstore(|planted| planted.messages_before_persist = true);
    /// A new leader serves reads before an entry of its own term is applied.
    ReadableAtOnce: Raftstore(|planted| planted.readable_at_once = true);
    /// Names of snapshot files contain the position only, and removals are not checked again.
    SnapshotNamesReused: Raftstore(|planted| planted.snapshot_names_reused = true);
    /// Followers accept appends, and applies are handed out, without a limit.
    FollowersUnbounded: Raftstore(|planted| planted.followers_unbounded = true);
    /// The log is not retained for a snapshot in flight.
    LogNotHeld: Raftstore(|planted| planted.log_not_held = true);
    /// Entries leave the memory when they are handed out for apply.
    EvictHandedOut: Raftstore(|planted| planted.evict_handed_out = true);
    /// Snapshots lack the transactional locks.
    SnapshotWithoutLocks: Raftstore(|planted| planted.snapshot_without = Some(families::TXN_LOCK));
    /// Entries that are committed while a snapshot is installed are applied at once.
    ApplyBesideInstall: Raftstore(|planted| planted.apply_beside_install = true);
    /// A learner's answers count for the leader's lease.
    LearnerInQuorum: Raftstore(|planted| planted.learner_in_quorum = true);
    /// The target of a merge does not wait until the source's replica on its store has everything.
    MergeWithoutTail: Raftstore(|planted| planted.merge_without_tail = true);
    /// A replica is read at a safe timestamp before it has applied what belongs to it.
    SafeTsBeforeApply: Raftstore(|planted| planted.safe_ts_before_apply = true);
    /// A joint configuration ends for the consensus core when it begins.
    JointLeftAtOnce: Raftstore(|planted| planted.joint_left_at_once = true);
    /// A sole voter sends entries before the term in which it leads is durable.
    LeadBeforeVoteIsDurable: Raftstore(|planted| planted.lead_before_vote_is_durable = true);
}

/// Switches the bug off when it is dropped: the switches are per thread.
pub(super) struct Removal;

impl Drop for Removal {
    fn drop(&mut self) {
        engine::set(None);
        txn::set(None);
        placement::set(None);
        server::set(None);
        raftlog::set(None);
    }
}

impl PlantedBug {
    /// Plants the bug in a cluster that has not run yet.
    pub(super) fn plant(self, cluster: &mut Cluster) -> Removal {
        match self.place() {
            Place::Engine(bug) => engine::set(Some(bug)),
            Place::Txn(bug) => txn::set(Some(bug)),
            Place::Placement(bug) => placement::set(Some(bug)),
            Place::Server(bug) => server::set(Some(bug)),
            Place::RaftLog(bug) => raftlog::set(Some(bug)),
            Place::Client(plant) => plant(&cluster.records),
            Place::Raftstore(plant) => {
                let mut planted = Planted::default();
                plant(&mut planted);
                for id in cluster.nodes.clone() {
                    cluster.world.node_mut(id).expect("it was just made").plant(planted);
                }
            }
        }
        Removal
    }
}
