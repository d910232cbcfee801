//! What flush and the compactions of a database share while it is open.

use super::in_flight::{Claim, InFlight};
use super::pieces::Pieces;
use super::rate::RateLimiter;
use super::stats::CompactionStats;
use crate::Family;
use crate::lock::{Condvar, Mutex, Rank};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// See the head of this file.
pub struct State {
    pub(super) in_flight: Mutex<InFlight>,
    /// A plan has ended.
    pub(super) ended: Condvar,
    /// Large compactions with pieces that nobody has taken yet.
    pub(super) pieces: Mutex<Vec<Arc<Pieces>>>,
    /// Where flushes cut the tables of a family.
    pub(super) guards: Mutex<BTreeMap<Family, Vec<Bytes>>>,
    /// What flush, compaction and relocation of values write.
    pub limiter: RateLimiter,
    /// What they have done.
    pub stats: CompactionStats,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Default for State {
    fn default() -> State {
        State {
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

impl State {
    /// For a bound on bytes written a second, 0 for none.
    pub fn new(bytes_per_second_max: u64) -> State {
        State { limiter: RateLimiter::new(bytes_per_second_max), ..State::default() }
    }

    /// Says how to wake the jobs that call `compaction::step`. Once, when they are there.
    pub fn set_wake(&self, wake: Box<dyn Fn() + Send + Sync>) {
        assert!(self.wake.set(wake).is_ok(), "the jobs are started once");
    }

    /// Forgets a family that was dropped.
    pub(crate) fn forget_family(&self, family: Family) {
        self.guards.lock().remove(&family);
    }

    /// There may be work for jobs that found none.
    pub(super) fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// What runs now.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.lock().clone()
    }

    /// Keeps the claims, which are entered, until it is dropped.
    pub(super) fn guard(&self, id: u64) -> ClaimGuard<'_> {
        ClaimGuard { state: self, id }
    }

    /// Enters claims that are free.
    pub(super) fn claim(&self, in_flight: &mut InFlight, claims: Vec<Claim>) -> ClaimGuard<'_> {
        self.guard(in_flight.enter(claims))
    }
}

/// Claims that end with it.
pub(crate) struct ClaimGuard<'a> {
    state: &'a State,
    id: u64,
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        self.state.in_flight.lock().leave(self.id);
        self.state.ended.notify_all();
        // A job may now do what conflicted with this. Not only when others are in flight: an ingest, or a compaction by hand,
        // does not look for more itself, and a writer may be waiting for what it kept away.
        self.state.wake();
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
