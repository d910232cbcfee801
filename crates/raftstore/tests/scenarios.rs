//! The scenarios of docs/internals/raftstore.md, random ones from seeds, and step-by-step ones from text files.

mod cluster;
#[path = "scenarios/commits.rs"]
mod commits;
#[path = "scenarios/consistency.rs"]
mod consistency;
#[path = "scenarios/flow.rs"]
mod flow;
#[path = "scenarios/hibernation.rs"]
mod hibernation;
#[path = "scenarios/lag.rs"]
mod lag;
#[path = "scenarios/leader_transfer.rs"]
mod leader_transfer;
#[path = "scenarios/leadership.rs"]
mod leadership;
#[path = "scenarios/lease.rs"]
mod lease;
#[path = "scenarios/lifecycle.rs"]
mod lifecycle;
#[path = "scenarios/log_memory.rs"]
mod log_memory;
#[path = "scenarios/members.rs"]
mod members;
#[path = "scenarios/merge.rs"]
mod merge;
#[cfg(feature = "planted-bugs")]
#[path = "scenarios/planted.rs"]
mod planted;
#[path = "scenarios/promise.rs"]
mod promise;
#[path = "scenarios/random.rs"]
mod random;
#[path = "scenarios/replica_reads.rs"]
mod replica_reads;
#[path = "scenarios/replication.rs"]
mod replication;
#[path = "scenarios/roles.rs"]
mod roles;
#[path = "scenarios/scripts.rs"]
mod scripts;
#[path = "scenarios/slow_disk.rs"]
mod slow_disk;
#[path = "scenarios/snapshots.rs"]
mod snapshots;
#[path = "scenarios/split.rs"]
mod split;
#[path = "scenarios/stability.rs"]
mod stability;
#[path = "scenarios/stale_reads.rs"]
mod stale_reads;
#[path = "scenarios/unsafe_recovery.rs"]
mod unsafe_recovery;
#[path = "scenarios/unsafe_recovery_halfway.rs"]
mod unsafe_recovery_halfway;
