//! What a prewrite asks for.

use crate::{Assertion, AssertionLevel, TimeStamp};
use bytes::Bytes;

/// What a mutation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MutationOp {
    /// Sets the value.
    Put(Bytes),
    /// Deletes the key.
    Delete,
    /// Changes nothing, but conflicts with other writers.
    Lock,
    /// Sets the value; fails if the key exists.
    Insert(Bytes),
    /// Fails if the key exists; locks nothing.
    CheckNotExists,
}

/// How a pessimistic transaction has secured a key before it prewrites it. Ignored in optimistic ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PessimisticAction {
    /// By a lock of another key: nothing is checked.
    #[default]
    Skip,
    /// By a pessimistic lock of the key, which must be there.
    CheckLock,
    /// Not at all: it is checked as in an optimistic transaction.
    CheckConflict,
}

/// One key of a prewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The user key.
    pub key: Bytes,
    /// What happens to it.
    pub op: MutationOp,
    /// The state that the client expects of it.
    pub assertion: Assertion,
    /// How it was secured.
    pub pessimistic: PessimisticAction,
    /// If the key's pessimistic lock must have a certain for-update timestamp: which.
    pub expected_for_update_ts: Option<TimeStamp>,
}

/// The first phase of a transaction's commit, for those of its keys that lie in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prewrite {
    /// The keys, each once.
    pub mutations: Vec<Mutation>,
    /// The primary: the key that decides the outcome, in this or another region.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Milliseconds until others may roll it back.
    pub ttl_ms: u64,
    /// How many keys it writes in all; a hint.
    pub txn_size: u64,
    /// Minimum commit timestamp; 0 forbids readers to push it.
    pub min_commit_ts: TimeStamp,
    /// Not 0: a pessimistic transaction, and the timestamp of its last lock.
    pub for_update_ts: TimeStamp,
    /// Which assertions are checked.
    pub assertion_level: AssertionLevel,
    /// Async commit is requested: the transaction is committed once all its keys are prewritten.
    pub use_async_commit: bool,
    /// All other keys of the transaction; for async commit.
    pub secondaries: Vec<Bytes>,
    /// One-phase commit is requested: these are all keys of the transaction.
    pub try_one_pc: bool,
    /// Not 0: async commit and one-phase commit are declined if the commit timestamp would exceed it.
    pub max_commit_ts: TimeStamp,
}

impl Prewrite {
    /// Whether the commit timestamp is to be computed here.
    pub(crate) fn computes_commit_ts(&self) -> bool {
        self.use_async_commit || self.try_one_pc
    }

    /// Whether it may commit in one phase: no key is elsewhere.
    pub(super) fn is_whole(&self) -> bool {
        let is_here = |key: &Bytes| self.mutations.iter().any(|mutation| mutation.key == *key);
        self.try_one_pc && is_here(&self.primary) && self.secondaries.iter().all(is_here)
    }

    pub(super) fn is_pessimistic(&self) -> bool {
        !self.for_update_ts.is_zero()
    }
}

/// The answer of a successful prewrite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prewritten {
    /// Not 0: prewritten for async commit, with this minimum commit timestamp.
    pub min_commit_ts: TimeStamp,
    /// Not 0: committed in one phase at this timestamp.
    pub one_pc_commit_ts: TimeStamp,
}
