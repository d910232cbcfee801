//! Distributed transactions (Percolator) over an engine view and a replicated log.
//!
//! A command and a consistent view go in; an answer and a write batch come out ([`Scheduler`] runs that between latches
//! and replication). It does not know consensus, the membership of regions, protobuf or runtimes: it uses its own small
//! trait [`Replicated`]. The design is described in docs/internals/txn.md.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod action;
mod assertion;
mod concurrency;
mod deadlock;
mod error;
mod gc;
mod keys;
mod latch;
mod lock;
mod lock_waits;
mod malformed;
mod memory_locks;
pub mod planted;
mod read;
mod record;
mod replicated;
mod scheduler;
mod timestamp;
mod yield_point;

#[cfg(test)]
mod golden_test;
#[cfg(test)]
mod model_clients_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod script_test;
#[cfg(test)]
mod script_text_test;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_cluster;

pub use action::{
    BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Cleanup, Commit, KeyToLock, LockedKey, Mutation, MutationOp,
    PessimisticAction, PessimisticLock, PessimisticRollback, Prewrite, Prewritten, ResolveLock, SecondaryStatus,
    StatusAction, TxnHeartBeat, TxnStatus,
};
pub use assertion::{Assertion, AssertionLevel};
pub use concurrency::ConcurrencyManager;
pub use deadlock::{DeadlockDetector, EDGE_AGE_MAX, EDGES_MAX, LocalDetector, WaitGraph};
pub use error::{ConflictReason, Failure, KeyError, StorageError, WaitFor};
pub use gc::{GcError, GcPass, SafePoints, can_be_dead};
pub use keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE, default_key, lock_key, user_range, write_key};
pub use kontiki_env::memcomparable::{
    boundary_behind, boundary_near, decode as memcomparable_decode, encode as memcomparable_encode,
};
pub use latch::{LatchGuard, Latches};
pub use lock::{Lock, LockInfo, LockKind, SHORT_VALUE_BYTES_MAX};
pub use malformed::Malformed;
pub use memory_locks::MemoryLocks;
pub use read::{CommittedReader, CommittedScan, Isolation, OldestLock, Pair, ReadOptions, Scan, ScanLock, Version};
pub use record::{Write, WriteKind};
pub use replicated::{Leadership, Replicated};
pub use scheduler::{Detach, LOCK_WAIT_MAX, Scheduler, Sleep, Surroundings};
pub use timestamp::TimeStamp;
pub use yield_point::{NoYield, ReadProgress, YieldPoint};
