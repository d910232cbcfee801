//! An iterator with a look-ahead of one entry.

use crate::Failure;
use crate::error::ActionFailure;
use crate::keys::split_versioned;
use bytes::Bytes;
use kontiki_engine::{Direction, Entries, Family, Range, View};

/// Steps before a seek is tried: most keys have few versions, and a step costs much less than a seek.
const STEPS_MAX: usize = 8;

pub(super) struct Cursor {
    entries: Box<dyn Entries>,
    head: Option<(Bytes, Bytes)>,
    direction: Direction,
}

impl Cursor {
    pub(super) fn open(
        view: &dyn View,
        family: Family,
        range: &Range,
        direction: Direction,
    ) -> Result<Cursor, ActionFailure> {
        let mut entries = view.entries(family, range.clone(), direction)?;
        let head = entries.next().transpose()?;
        Ok(Cursor { entries, head, direction })
    }

    /// The entry it stands on.
    pub(super) fn head(&self) -> Option<&(Bytes, Bytes)> {
        self.head.as_ref()
    }

    pub(super) fn advance(&mut self) -> Result<(), ActionFailure> {
        debug_assert!(self.head.is_some(), "nothing lies beyond the end");
        let next = self.entries.next().transpose()?;
        if let (Some((old, _)), Some((new, _))) = (&self.head, &next) {
            assert_eq!(self.direction == Direction::Forward, old < new, "an iterator moves in its direction");
        }
        self.head = next;
        Ok(())
    }

    pub(super) fn seek(&mut self, key: &[u8]) -> Result<(), ActionFailure> {
        self.entries.seek(key)?;
        self.head = self.entries.next().transpose()?;
        Ok(())
    }

    /// The encoded user key of the versioned entry it stands on.
    pub(super) fn encoded_key(&self) -> Result<Option<&[u8]>, ActionFailure> {
        let Some((physical, _)) = &self.head else { return Ok(None) };
        let (encoded, _) = split_versioned(physical).map_err(|what| Failure::corrupt(physical, what))?;
        Ok(Some(encoded))
    }

    /// Moves until `done` of the head, stepping a little and then seeking to `target`.
    pub(super) fn step_or_seek(&mut self, target: &[u8], done: impl Fn(&[u8]) -> bool) -> Result<(), ActionFailure> {
        for _ in 0..STEPS_MAX {
            match &self.head {
                Some((physical, _)) if !done(physical) => self.advance()?,
                _ => return Ok(()),
            }
        }
        if self.head.as_ref().is_some_and(|(physical, _)| !done(physical)) {
            self.seek(target)?;
        }
        debug_assert!(self.head.as_ref().is_none_or(|(physical, _)| done(physical)), "the target is done");
        Ok(())
    }
}
