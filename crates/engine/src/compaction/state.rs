//! What flush and the compactions of a database share while it is open.

use super::in_flight::{Claim, InFlight};
use super::level_work::CompactionStats;
use super::pieces::Pieces;
use super::rate::RateLimiter;
use crate::Family;
use crate::lock::{Condvar, Mutex, Rank};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// See the head of this file.
pub struct CompactionState {
    pub(super) in_flight: Mutex<InFlight>,
    /// A plan has ended.
    pub(super) ended: Condvar,
    /// Large compactions with pieces that no job has taken yet.
    pub(super) pieces: Mutex<Vec<Arc<Pieces>>>,
    /// Where flushes cut the tables of a family.
    pub(super) guards: Mutex<BTreeMap<Family, Vec<Bytes>>>,
    /// What flush, compaction and relocation of values write.
    pub limiter: RateLimiter,
    /// Statistics of them.
    pub stats: CompactionStats,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Default for CompactionState {
    fn default() -> CompactionState {
        CompactionState {
            in_flight: Mutex::new(Rank::CompactionClaims, InFlight::default()),
            ended: Condvar::new(),
            pieces: Mutex::new(Rank::CompactionPieces, Vec::new()),
            guards: Mutex::new(Rank::FlushGuards, BTreeMap::new()),
            limiter: RateLimiter::default(),
            stats: CompactionStats::default(),
            wake: OnceLock::new(),
        }
    }
}

impl CompactionState {
    /// For a bound on bytes written per second, 0 for none.
    pub fn new(bytes_per_second_max: u64) -> CompactionState {
        CompactionState { limiter: RateLimiter::new(bytes_per_second_max), ..CompactionState::default() }
    }

    /// Sets how to wake the jobs that call `compaction::step`. Once, when they have started.
    pub fn set_wake(&self, wake: Box<dyn Fn() + Send + Sync>) {
        assert!(self.wake.set(wake).is_ok(), "the jobs are started once");
    }

    /// Removes a family that was dropped.
    pub(crate) fn forget_family(&self, family: Family) {
        self.guards.lock().remove(&family);
    }

    /// There may be work for jobs that found none.
    pub(super) fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// What is in flight.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.lock().clone()
    }

    /// Enters claims that are free, for a plan of a job, which looks for more when it has ended.
    pub(super) fn claim_of_job(&self, in_flight: &mut InFlight, claims: Vec<Claim>) -> ClaimGuard<'_> {
        ClaimGuard { state: self, id: in_flight.enter(claims), of_job: true }
    }

    /// Enters claims that are free, for other work.
    pub(super) fn claim(&self, in_flight: &mut InFlight, claims: Vec<Claim>) -> ClaimGuard<'_> {
        ClaimGuard { state: self, id: in_flight.enter(claims), of_job: false }
    }
}

/// Claims that end with it.
pub(crate) struct ClaimGuard<'a> {
    state: &'a CompactionState,
    id: u64,
    of_job: bool,
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        let rest = {
            let mut in_flight = self.state.in_flight.lock();
            in_flight.leave(self.id);
            in_flight.len()
        };
        self.state.ended.notify_all();
        // A job may now do what conflicted with this. A job that ends looks for more itself; an ingest or a manual
        // compaction does not, and a writer may be waiting for what it excluded.
        if rest > 0 || !self.of_job {
            self.state.wake();
        }
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
