//! What running compactions work on, so that no other plan touches it.
//!
//! A claim is a key range of some neighbouring levels of a family. Two plans whose claims share a level and a key may
//! not run at the same time: so no table is in two plans, outputs never overlap, and nothing older than what a
//! compaction merges can arrive below it while it runs (its rule for dropping tombstones looks at the levels below it
//! once).

use crate::Family;
use bytes::Bytes;

/// A part of a family's levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The family.
    pub family: Family,
    /// First level.
    pub from: usize,
    /// Last level.
    pub to: usize,
    /// First user key.
    pub smallest_key: Bytes,
    /// Last user key.
    pub largest_key: Bytes,
}

impl Claim {
    /// Whether the two share a level and a key.
    pub fn conflicts(&self, other: &Claim) -> bool {
        debug_assert!(self.from <= self.to && self.smallest_key <= self.largest_key);
        self.family == other.family
            && self.from <= other.to
            && other.from <= self.to
            && self.smallest_key <= other.largest_key
            && other.smallest_key <= self.largest_key
    }
}

/// The claims of everything that runs.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    claims: Vec<(u64, Claim)>,
    /// Families in which a manual compaction waits: nothing new is planned there.
    waiting: Vec<Family>,
    last_id: u64,
}

impl InFlight {
    /// Whether nothing that runs conflicts.
    pub fn is_free(&self, claim: &Claim) -> bool {
        self.claims.iter().all(|(_, other)| !other.conflicts(claim))
    }

    /// Enters the claims of one plan, which must be free; returns what to remove them by.
    pub fn enter(&mut self, claims: Vec<Claim>) -> u64 {
        assert!(claims.iter().all(|claim| self.is_free(claim)), "plans that run together must not overlap");
        self.last_id += 1;
        self.claims.extend(claims.into_iter().map(|claim| (self.last_id, claim)));
        self.last_id
    }

    /// Removes the claims of a plan that has ended.
    pub fn leave(&mut self, id: u64) {
        let before = self.claims.len();
        self.claims.retain(|(other, _)| *other != id);
        assert!(self.claims.len() < before, "a plan ends once");
    }

    /// Whether the planner may make a plan in the family.
    pub fn is_open(&self, family: Family) -> bool {
        !self.waiting.contains(&family)
    }

    pub(super) fn wait_in(&mut self, family: Family) {
        self.waiting.push(family);
    }

    pub(super) fn end_wait_in(&mut self, family: Family) {
        let at = self.waiting.iter().position(|other| *other == family);
        self.waiting.swap_remove(at.expect("a wait ends once"));
    }

    /// How many plans run.
    pub fn plans(&self) -> usize {
        // A plan's claims are entered together.
        self.claims.chunk_by(|(left, _), (right, _)| left == right).count()
    }

    /// How many claims there are.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether nothing runs.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }
}
