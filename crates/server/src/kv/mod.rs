//! Key-value requests: from wire messages to the layers below and back. This module has no gRPC, thread or clock.
//!
//! Every request takes the same path (`Kv::routed`):
//! 1. *Route*, in the order clients rely on: cluster, store, region, leader, epoch, and then each key in the region's
//!    range. The first failure is the answer, as a region error without other fields.
//! 2. *Do*: raw calls read a view or propose a batch; transactional ones go through the transaction scheduler.
//! 3. *Wait*: a transient error (no leader yet, a full queue) is retried for a bounded time, because some clients treat
//!    it as fatal. Only refusals are repeated, never a write whose outcome is unknown.
//!
//! Raw data and transactional data are in separate families under one region table. Raw keys of API version 1 are
//! compared with region boundaries unchanged, all others in their memcomparable encoding.

mod answer;
mod answer_budget;
mod api_version;
mod crc64;
mod delete_range;
mod load;
mod raw;
mod raw_space;
mod raw_write;
mod route;
mod scan;
mod split;
mod tinykv;
mod txn;
mod txn_convert;

pub use answer::Refusal;
pub(crate) use answer::wire_peer;
pub use answer_budget::ANSWER_BYTES_MAX;

use crate::api::{Node, RetryBudget};
use answer_budget::LargeAnswers;
use kontiki_txn::{Detach, Scheduler, Surroundings};

/// The key-value requests of one node. Cheap to clone.
#[derive(Clone)]
pub struct Kv<N: Node> {
    node: N,
    scheduler: Scheduler<N>,
    retry_budget: RetryBudget,
    large: LargeAnswers,
}

impl<N: Node> Kv<N> {
    /// Serves `node`. `detach` runs replications whose callers were dropped.
    pub fn new(node: N, retry_budget: RetryBudget, detach: Detach) -> Kv<N> {
        let (sleep, detector, concurrency) = (retry_budget.pause.clone(), node.detector(), node.concurrency());
        let surroundings = Surroundings { detach, sleep, detector, concurrency };
        let scheduler = Scheduler::new(node.clone(), surroundings);
        Kv { scheduler, node, retry_budget, large: LargeAnswers::default() }
    }

    /// Requests that wait for keys which other transactions have locked.
    pub fn lock_waiters(&self) -> usize {
        self.scheduler.lock_waiters()
    }

    /// Transactional commands that hold latches or wait for them.
    pub fn commands_latched(&self) -> usize {
        self.scheduler.latches().len()
    }
}

#[cfg(test)]
mod deadline_test;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod raw_atomic_test;
#[cfg(test)]
mod raw_families_test;
#[cfg(test)]
mod raw_test;
#[cfg(test)]
mod txn_commit_test;
#[cfg(test)]
mod txn_test;
