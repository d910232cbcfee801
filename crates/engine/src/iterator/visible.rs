//! What a user sees: each key once, at its newest version at or below a sequence number, without deleted keys.

use super::{Cursor, KeyRef, MergingCursor, SEQUENCE_NUMBER_MAX, live_value};
use crate::kind::Kind;
use crate::version::Version;
use crate::{Direction, Entries, Error, Range, Result, SequenceNumber};
use bytes::Bytes;
use std::sync::Arc;

/// After so many steps over versions of one key the cursor seeks past the rest: a hot key with thousands of
/// versions then costs a search instead of a walk.
const STEPS_BEFORE_SEEK: usize = 8;

/// The live entries of a range, in one direction. See [`Entries`].
pub struct VisibleEntries {
    cursor: MergingCursor,
    /// Where values are that are not in the sources themselves; also pins them.
    version: Arc<Version>,
    sequence: SequenceNumber,
    /// Expiring values that have ended at this time are not there.
    now_ms: u64,
    range: Range,
    direction: Direction,
    state: State,
    /// The user key returned last, or deleted: its versions are behind us. Valid in state `Walking`.
    last: Vec<u8>,
    has_last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not positioned yet.
    Fresh,
    Walking,
    Finished,
}

impl VisibleEntries {
    /// The entries of `sources`, which belong to `version`, visible at `sequence` within `range`. Every source goes in `direction`.
    pub fn new(
        sources: Vec<Box<dyn Cursor>>,
        version: Arc<Version>,
        sequence: SequenceNumber,
        now_ms: u64,
        range: Range,
        direction: Direction,
    ) -> VisibleEntries {
        assert!(sequence <= SEQUENCE_NUMBER_MAX);
        let cursor = MergingCursor::new(sources, direction);
        let (state, last, has_last) = (State::Fresh, Vec::new(), false);
        VisibleEntries { cursor, version, sequence, now_ms, range, direction, state, last, has_last }
    }

    fn begin(&mut self) -> Result<()> {
        self.has_last = false;
        let result = match (self.direction, &self.range.start, &self.range.end) {
            (Direction::Forward, Some(start), _) => self.cursor.seek(KeyRef::before_all(start)),
            // No version stands exactly there, so this is the last one below `end`.
            (Direction::Backward, _, Some(end)) => self.cursor.seek(KeyRef::before_all(end)),
            _ => self.cursor.seek_to_first(),
        };
        self.state = State::Walking;
        result
    }

    /// Whether the current position lies beyond the range's far bound.
    fn beyond(&self) -> bool {
        let key = self.cursor.key().user_key;
        match self.direction {
            Direction::Forward => self.range.end.as_ref().is_some_and(|end| key >= end),
            Direction::Backward => self.range.start.as_ref().is_some_and(|start| key < start),
        }
    }

    fn next_forward(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let mut steps = 0;
        while self.cursor.valid() && !self.beyond() {
            let key = self.cursor.key();
            let behind = self.has_last && key.user_key == self.last;
            assert!(!self.has_last || key.user_key >= self.last.as_slice(), "an iterator's keys must not go back");
            if behind || key.sequence > self.sequence {
                steps += 1;
                if steps <= STEPS_BEFORE_SEEK {
                    self.cursor.advance()?;
                } else {
                    steps = 0;
                    let user_key = key.user_key.to_vec();
                    let sequence = if behind { 0 } else { self.sequence };
                    self.cursor.seek(KeyRef::new(&user_key, sequence))?;
                }
                continue;
            }
            steps = 0;
            debug_assert!(!self.has_last || key.user_key > self.last.as_slice());
            debug_assert!(key.sequence <= self.sequence);
            self.last.clear();
            self.last.extend_from_slice(key.user_key);
            self.has_last = true;
            if let Some(value) = self.live(self.cursor.kind(), self.cursor.stored())? {
                // The cursor stays: the next call steps over this key's older versions.
                return Ok(Some((Bytes::copy_from_slice(&self.last), value)));
            }
        }
        Ok(None)
    }

    fn next_backward(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while self.cursor.valid() && !self.beyond() {
            let user_key = self.cursor.key().user_key;
            assert!(!self.has_last || user_key < self.last.as_slice(), "an iterator's keys must strictly decrease");
            self.last.clear();
            self.last.extend_from_slice(user_key);
            self.has_last = true;
            // Versions come oldest first: the last one at or below the sequence number counts.
            let mut newest = None;
            let mut invisible = 0;
            while self.cursor.valid() && self.cursor.key().user_key == self.last {
                if self.cursor.key().sequence <= self.sequence {
                    newest = Some((self.cursor.kind(), self.cursor.stored()));
                } else {
                    invisible += 1;
                }
                if invisible > STEPS_BEFORE_SEEK {
                    invisible = 0;
                    self.cursor.seek(KeyRef::before_all(&self.last))?;
                } else {
                    self.cursor.advance()?;
                }
            }
            let value = newest.map_or(Ok(None), |(kind, stored)| self.live(kind, stored))?;
            if let Some(value) = value {
                return Ok(Some((Bytes::copy_from_slice(&self.last), value)));
            }
        }
        Ok(None)
    }

    fn live(&self, kind: Kind, stored: Bytes) -> Result<Option<Bytes>> {
        live_value(kind, stored, || self.now_ms, self.version.values())
    }

    fn guarded<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.state = State::Finished;
        }
        result
    }
}

impl Entries for VisibleEntries {
    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        if self.state == State::Fresh {
            let begun = self.begin();
            self.guarded(begun)?;
        }
        if self.state == State::Finished {
            return Ok(None);
        }
        let next = match self.direction {
            Direction::Forward => self.next_forward(),
            Direction::Backward => self.next_backward(),
        };
        let next = self.guarded(next)?;
        if next.is_none() {
            self.state = State::Finished;
        }
        Ok(next)
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let outside = match self.direction {
            Direction::Forward => self.range.start.as_ref().is_some_and(|start| key < start),
            Direction::Backward => self.range.end.as_ref().is_some_and(|end| key >= end),
        };
        let result = if outside {
            self.begin()
        } else {
            self.has_last = false;
            self.state = State::Walking;
            match self.direction {
                Direction::Forward => self.cursor.seek(KeyRef::before_all(key)),
                Direction::Backward => self.cursor.seek(KeyRef::after_all(key)),
            }
        };
        self.guarded(result)
    }
}

/// A range must not be upside down: that is a caller's mistake that would otherwise look like an empty range.
pub(super) fn check_range(range: &Range) -> Result<()> {
    match (&range.start, &range.end) {
        (Some(start), Some(end)) if start > end => {
            Err(Error::InvalidArgument("a range must not end before it starts".to_string()))
        }
        _ => Ok(()),
    }
}
