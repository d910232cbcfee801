//! How a scan treats dead versions: it skips ranges that are known to be dead, and records those that it walks over.

use super::read_state::PinnedState;
use crate::dead_ranges::{Proof, Skips};
use crate::measure::ReadCounters;
use crate::types::{SEQUENCE_NUMBER_MAX, successor};
use crate::{Direction, Family, SequenceNumber};
use bytes::Bytes;

/// After so many dead versions in a row the part walked so far is recorded: so a long walk helps others, and
/// the next attempt if this one is given up.
const PART_VERSIONS_MAX: u64 = 4096;

/// State of one scan.
pub(super) struct DeadWalk {
    family: Family,
    direction: Direction,
    sequence: SequenceNumber,
    now_ms: u64,
    /// A part with so many versions is recorded.
    versions_min: u64,
    skips: Option<Skips>,
    /// Dead versions passed over since `edge`.
    versions: u64,
    /// Where the part begins in the scan's direction: forward its first key, backward the first key behind it.
    edge: Vec<u8>,
    has_edge: bool,
    /// The last key that was found dead.
    last: Vec<u8>,
}

impl DeadWalk {
    pub(super) fn new(
        state: &PinnedState,
        family: Family,
        direction: Direction,
        (sequence, now_ms): (SequenceNumber, u64),
    ) -> DeadWalk {
        // A reader at the largest number reads what is not visible yet.
        let dead = state.dead.as_ref().filter(|_| sequence < SEQUENCE_NUMBER_MAX);
        DeadWalk {
            family,
            direction,
            sequence,
            now_ms,
            versions_min: dead.map_or(u64::MAX, |dead| dead.versions_min()),
            skips: dead.and_then(|dead| dead.skips(family, sequence, now_ms)),
            versions: 0,
            edge: Vec::new(),
            has_edge: false,
            last: Vec::new(),
        }
    }

    /// Whether anything is recorded or skipped.
    pub(super) fn is_on(&self) -> bool {
        self.versions_min < u64::MAX || self.skips.is_some()
    }

    /// The scan is about to seek. `edge`: forward the first key of interest, backward the first key behind those;
    /// `None` if there is none. Returns another such key if it may begin there instead.
    pub(super) fn begin_at(&mut self, edge: Option<&[u8]>, counters: &ReadCounters) -> Option<Bytes> {
        self.versions = 0;
        self.has_edge = false;
        let edge = edge.filter(|_| self.is_on())?;
        self.set_edge(edge);
        let skips = self.skips.as_ref()?;
        let (start, end) = match self.direction {
            Direction::Forward => skips.around(edge)?,
            Direction::Backward => skips.below(edge)?,
        };
        counters.note_dead_skip();
        let beyond = if self.direction == Direction::Forward { end } else { start };
        self.set_edge(&beyond);
        Some(beyond)
    }

    fn set_edge(&mut self, edge: &[u8]) {
        self.edge.clear();
        self.edge.extend_from_slice(edge);
        self.has_edge = true;
    }

    /// The scan is at a live version, or at its end.
    #[inline]
    pub(super) fn end(&mut self, state: &PinnedState) {
        if self.versions > 0 {
            self.end_part(state, true);
        }
        self.has_edge = false;
    }

    #[cold]
    fn end_part(&mut self, state: &PinnedState, is_last: bool) {
        state.recorder.reads.note_dead_passed(self.versions);
        if self.versions >= self.versions_min {
            let last = match self.direction {
                Direction::Forward => successor(&self.last),
                Direction::Backward => Bytes::copy_from_slice(&self.last),
            };
            self.learn(state, last, is_last);
        }
        self.versions = 0;
    }

    /// The scan has found a key dead, and has left it behind or is about to. If the key is in a range that is known to
    /// be dead: the key at which the scan may continue.
    pub(super) fn pass(&mut self, state: &PinnedState, key: &[u8]) -> Option<Bytes> {
        if let Some((start, end)) = self.skips.as_ref().and_then(|skips| skips.around(key)) {
            state.recorder.reads.note_dead_skip();
            let (near, far) = match self.direction {
                Direction::Forward => (start, end),
                Direction::Backward => (end, start),
            };
            if self.versions > 0 {
                // Between the walked part and the known range there is nothing else.
                state.recorder.reads.note_dead_passed(self.versions);
                if self.versions_min < u64::MAX {
                    self.learn(state, near, false);
                }
                self.versions = 0;
            }
            self.set_edge(&far);
            return Some(far);
        }
        if !self.has_edge {
            match self.direction {
                Direction::Forward => self.set_edge(key),
                Direction::Backward => self.set_edge(&successor(key)),
            }
        }
        self.versions += 1;
        self.last.clear();
        self.last.extend_from_slice(key);
        if self.versions >= PART_VERSIONS_MAX && self.versions_min < u64::MAX {
            self.end_part(state, false);
            match self.direction {
                Direction::Forward => self.set_edge(&successor(key)),
                Direction::Backward => self.set_edge(key),
            }
        }
        None
    }

    /// The scan has passed over one more version in a dead part, or over one outside of its bounds.
    #[inline]
    pub(super) fn step(&mut self) {
        self.versions += u64::from(self.versions > 0);
    }

    /// No live version may be in what is skipped.
    pub(super) fn is_skipped(&self, key: &[u8]) -> bool {
        self.skips.as_ref().is_some_and(|skips| skips.around(key).is_some())
    }

    /// `to` is the other end of the part that begins at `edge`.
    fn learn(&self, state: &PinnedState, to: Bytes, is_last: bool) {
        let Some(dead) = &state.dead else { return };
        let edge = Bytes::copy_from_slice(&self.edge);
        let (start, end) = match self.direction {
            Direction::Forward => (edge, to),
            Direction::Backward => (to, edge),
        };
        let (family, sequence, now_ms, versions) = (self.family, self.sequence, self.now_ms, self.versions);
        dead.learn(&Proof { family, start, end, sequence, now_ms, versions, is_last });
    }
}
