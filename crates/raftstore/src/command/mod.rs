//! The content of log entries: versioned commands, and what each does to its region.
//!
//! [`decode`] makes a [`Command`] of a log entry, and [`decide`] is the one function that says what a command does:
//! `(region, command) -> change or refusal`. It is pure, so all replicas decide alike at the same place of the log. How
//! a change is performed is up to the peer that applies it (`peer/apply.rs`).
//!
//! The bytes are described in `codec.rs`; the design, with the rejected alternatives, is in
//! docs/internals/region-commands.md.
//!
mod codec;
mod decide;
mod merge;
mod split;

pub use codec::{Carrier, DecodeError, decode, encode, encode_write_context};
pub(crate) use codec::{is_checksum, is_commit_of_merge, is_split, is_write, removed_by, replicated_by};
pub use decide::{Change, Refusal, decide};

use crate::recovery::Recovery;
use crate::region::{Epoch, MemberChange, PeerId, Region, RegionId};
use bytes::Bytes;
use kontiki_engine::WriteBatch;

/// Maximum number of regions that one split makes.
pub const SPLIT_CHILDREN_MAX: usize = 64;
/// Maximum length of a split key, so that a descriptor fits wherever it is stored.
pub const SPLIT_KEY_BYTES_MAX: usize = 4 << 10;

/// A command, as its proposer meant it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The region's epoch when it was proposed.
    pub epoch: Epoch,
    /// What it does.
    pub action: Action,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes keys of the region.
    Write(WriteBatch),
    /// Changes the replicas, or their roles.
    ChangeMembers(MemberChange),
    /// Cuts the region at each child's start key. The region keeps the part before the first one.
    Split(Vec<SplitChild>),
    /// The region, as the source of a merge, accepts no further commands until the merge is committed or rolled back.
    PrepareMerge {
        /// The neighbour that will take the source's range, as the proposer knows it.
        target: Region,
        /// Every replica of the source has the log through here.
        replicated_index: u64,
    },
    /// The region, as the target of a merge, takes the range of its neighbour.
    CommitMerge {
        /// The source's descriptor after the preparation.
        source: Region,
        /// The index of the preparation in the source's log: the last command that belongs to its state.
        prepared_index: u64,
        /// The encoded entries of the source's log above `replicated_index`, through `prepared_index`, for replicas
        /// that lack them.
        entries: Vec<Bytes>,
    },
    /// The source of a merge accepts commands again.
    RollbackMerge,
    /// Every replica computes a checksum of the region's data as of this entry.
    ComputeChecksum {
        /// Only keys that do not expire before this wall time count, which lies after the last replica's computation:
        /// the others vanish at different moments on each. 0, from earlier releases: all keys; none expires there.
        expires_after_ms: u64,
    },
    /// The replicas on lost stores are members no more, if they were so many that those left are no majority. Proposed
    /// by a leader that was elected without them.
    Recover(Recovery),
    /// From here on, no command depends on versions that reads at or above this timestamp do not need.
    SetGcSafePoint(u64),
    /// Every replica compares its own result with that of the majority.
    VerifyChecksum {
        /// The index of the [`Action::ComputeChecksum`] entry.
        index: u64,
        /// The result of the majority.
        checksum: u64,
    },
}

impl Action {
    /// Whether another region may serve keys of this one afterwards: from its proposal to its apply, the leader serves
    /// no read by its lease.
    pub fn gives_keys_away(&self) -> bool {
        matches!(self, Action::Split(_) | Action::PrepareMerge { .. })
    }

    /// Whether it is one of a merge.
    pub fn is_of_merge(&self) -> bool {
        matches!(self, Action::PrepareMerge { .. } | Action::CommitMerge { .. } | Action::RollbackMerge)
    }
}

/// A region that a split makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitChild {
    /// Its first key; it ends where the next child begins, the last one where the region ended.
    pub start_key: Bytes,
    /// Its identity.
    pub id: RegionId,
    /// The identities of its replicas: on the stores of the region's replicas, in the same order.
    pub peers: Vec<PeerId>,
}
