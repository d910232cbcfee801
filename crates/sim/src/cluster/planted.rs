//! Known bugs, planted to show that the simulator would find them.

use super::Cluster;
use kontiki_engine::planted::Bug;
use kontiki_raftstore::planted::Planted;

/// A bug to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PlantedBug {
    /// New log segments are used before their directory has been synced.
    NoDirectorySync,
    /// Log segments go although a memtable or a raft log needs them.
    TruncateNeededSegment,
    /// Synced commits are answered without a sync.
    AcknowledgeBeforeSync,
    /// A proposal is acknowledged before a quorum has it.
    AcknowledgeBeforeQuorum,
    /// A replica that believes it leads serves reads without looking at its lease.
    ReadWithoutLease,
    /// After a restart, entries that tables already hold are applied once more.
    ApplyTwiceAfterRestart,
    /// A follower's promise to a leader ends when the consensus core forgets that leader.
    PromiseWhileLeaderKnown,
    /// A follower counts its promise in ticks.
    PromiseInTicks,
    /// A restarted follower votes at once.
    VoteAtOnceAfterRestart,
    /// A leader that orders a transfer keeps its lease.
    LeaseThroughTransfer,
}

/// Takes the bug away when it is dropped: the engine's switch belongs to the thread.
pub(super) struct Removal;

impl Drop for Removal {
    fn drop(&mut self) {
        kontiki_engine::planted::set(None);
    }
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [PlantedBug; 10] = [
        PlantedBug::NoDirectorySync,
        PlantedBug::TruncateNeededSegment,
        PlantedBug::AcknowledgeBeforeSync,
        PlantedBug::AcknowledgeBeforeQuorum,
        PlantedBug::ReadWithoutLease,
        PlantedBug::ApplyTwiceAfterRestart,
        PlantedBug::PromiseWhileLeaderKnown,
        PlantedBug::PromiseInTicks,
        PlantedBug::VoteAtOnceAfterRestart,
        PlantedBug::LeaseThroughTransfer,
    ];

    /// Plants the bug in a cluster that has not run yet.
    pub(super) fn plant(self, cluster: &mut Cluster) -> Removal {
        let mut planted = Planted::default();
        let engine = match self {
            PlantedBug::NoDirectorySync => Some(Bug::NoDirectorySync),
            PlantedBug::TruncateNeededSegment => Some(Bug::TruncateNeededSegment),
            PlantedBug::AcknowledgeBeforeSync => Some(Bug::AcknowledgeBeforeSync),
            PlantedBug::AcknowledgeBeforeQuorum => {
                planted.acknowledge_before_quorum = true;
                None
            }
            PlantedBug::ReadWithoutLease => {
                planted.read_without_lease = true;
                None
            }
            PlantedBug::ApplyTwiceAfterRestart => {
                planted.apply_twice_after_restart = true;
                None
            }
            PlantedBug::PromiseWhileLeaderKnown => {
                planted.promise_while_leader_known = true;
                None
            }
            PlantedBug::PromiseInTicks => {
                planted.promise_in_ticks = true;
                None
            }
            PlantedBug::VoteAtOnceAfterRestart => {
                planted.vote_at_once_after_restart = true;
                None
            }
            PlantedBug::LeaseThroughTransfer => {
                planted.lease_through_transfer = true;
                None
            }
        };
        kontiki_engine::planted::set(engine);
        for id in cluster.nodes.clone() {
            cluster.world.node_mut(id).expect("it was just made").plant(planted);
        }
        Removal
    }
}
