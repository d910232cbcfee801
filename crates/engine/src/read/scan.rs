//! What a user sees: each key once, at its newest version at or below a sequence number, without deleted keys.

use super::MergingCursor;
use super::dead_walk::DeadWalk;
use super::fetch_ahead::FetchAhead;
use super::hidden::Hidden;
use super::read_state::PinnedState;
use super::value::decode;
use crate::types::{Content, Cursor, KeyRef, Kind, ReadOptions, SEQUENCE_NUMBER_MAX, successor};
use crate::vlog::ReadValue;
use crate::{Direction, Entries, Family, Range, Result, SequenceNumber};
use bytes::Bytes;
use std::cmp::Ordering;
use std::sync::Arc;

/// After so many steps over versions of one key the rest is passed over by a search: a hot key with thousands of
/// versions then costs a search instead of a walk.
const STEPS_BEFORE_SEEK: usize = 8;
/// Stored bytes up to this length are copied when they must outlast a step: cheaper than a reference count and, of a
/// memtable, than an allocation.
const COPIED_BYTES_MAX: usize = 512;

/// The live entries of a range in one direction, lent out one by one:
///
/// ```
/// # fn main() -> kontiki_engine::Result<()> {
/// # let env = kontiki_env::SimMachine::from_seed(1).env();
/// # let db = kontiki_engine::Db::open_in(&env, "/db".as_ref(), kontiki_engine::Options::default())?;
/// use kontiki_engine::{Direction, Family, Range, ReadOptions};
///
/// db.put(b"raft/balsa", b"9 logs")?;
/// let mut scan = db.scan(Family::DEFAULT, Range::prefix(b"raft/"), Direction::Forward, ReadOptions::default())?;
/// while scan.advance()? {
///     let (key, value) = scan.entry()?;
///     println!("{key:?} = {value:?}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// It pins what it reads, memtables and files, until it is dropped. When the database is closed it answers
/// [`Error::Closed`](crate::Error::Closed) instead of the next entry for which it would have to open a file.
pub struct Scan {
    state: Arc<PinnedState>,
    merge: MergingCursor,
    family: Family,
    sequence: SequenceNumber,
    /// Expiring values that have ended at this time are not there.
    now_ms: u64,
    range: Range,
    direction: Direction,
    options: ReadOptions,
    hidden: Hidden,
    place: Place,
    /// Forward: the user key whose versions are behind us, if `passing`. Backward: the current user key.
    user_key: Vec<u8>,
    passing: bool,
    /// Backward: the current entry, for the merge has gone on.
    held: Held,
    /// The current value, if it had to be read from the value log.
    value: Option<ReadValue>,
    ahead: FetchAhead,
    dead: DeadWalk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The merge is not positioned yet.
    Fresh,
    /// Before an entry, to which the merge has yet to go or, backward, at whose oldest version it stands.
    Before,
    /// On an entry.
    On,
    Finished,
}

#[derive(Default)]
struct Held {
    kind: Option<Kind>,
    sequence: SequenceNumber,
    copied: Vec<u8>,
    /// Instead of `copied`.
    shared: Option<Bytes>,
}

impl Held {
    fn hold(&mut self, cursor: &impl Cursor) {
        self.kind = Some(cursor.kind());
        self.sequence = cursor.key().sequence;
        self.copied.clear();
        self.shared = None;
        let stored = cursor.stored_slice();
        if stored.len() <= COPIED_BYTES_MAX {
            self.copied.extend_from_slice(stored);
        } else {
            self.shared = Some(cursor.stored());
        }
    }

    fn stored(&self) -> &[u8] {
        self.shared.as_deref().unwrap_or(&self.copied)
    }
}

/// What a scan is of.
pub(crate) struct Of {
    pub(crate) family: Family,
    pub(crate) range: Range,
    pub(crate) direction: Direction,
    pub(crate) sequence: SequenceNumber,
    pub(crate) now_ms: u64,
}

impl Scan {
    /// The entries that `merge`, a merge of all sources of `state` for the range, gives.
    pub(super) fn new(
        state: Arc<PinnedState>,
        merge: MergingCursor,
        hidden: Hidden,
        of: Of,
        options: ReadOptions,
    ) -> Scan {
        assert!(of.sequence <= SEQUENCE_NUMBER_MAX);
        let dead = DeadWalk::new(&state, of.family, of.direction, (of.sequence, of.now_ms));
        Scan {
            state,
            merge,
            family: of.family,
            sequence: of.sequence,
            now_ms: of.now_ms,
            range: of.range,
            direction: of.direction,
            options,
            hidden,
            place: Place::Fresh,
            user_key: Vec::new(),
            passing: false,
            held: Held::default(),
            value: None,
            ahead: FetchAhead::default(),
            dead,
        }
    }

    /// Goes to the next entry; false at the end. After an error the scan is finished, unless it is sought again.
    #[inline]
    pub fn advance(&mut self) -> Result<bool> {
        self.value = None;
        self.ahead.step();
        let found = match self.direction {
            Direction::Forward => self.advance_forward(),
            Direction::Backward => self.advance_backward(),
        };
        self.place = if matches!(found, Ok(true)) { Place::On } else { Place::Finished };
        found
    }

    /// The key of the entry that the last [`Scan::advance`] went to.
    ///
    /// Panics if there is none.
    #[inline]
    pub fn key(&self) -> &[u8] {
        assert!(self.place == Place::On, "advance() has said that there is an entry");
        match self.direction {
            Direction::Forward => self.merge.top().expect("a scan on an entry has one").key().user_key,
            Direction::Backward => &self.user_key,
        }
    }

    /// Its value; with [`ReadOptions::key_only`] empty. A value in the value log is read now.
    ///
    /// Panics as [`Scan::key`]. Errors: `Corruption` and `Io` from the value log.
    #[inline]
    pub fn value(&mut self) -> Result<&[u8]> {
        self.follow_pointer()?;
        self.followed()
    }

    /// Key and value at once: [`Scan::key`] and [`Scan::value`].
    ///
    /// Panics and errors: as these.
    #[inline]
    pub fn entry(&mut self) -> Result<(&[u8], &[u8])> {
        self.follow_pointer()?;
        Ok((self.key(), self.followed()?))
    }

    /// When the current entry expires, in milliseconds of the wall clock since 1970; `None` if it does not.
    ///
    /// Panics as [`Scan::key`].
    pub fn expires_at_ms(&self) -> Option<u64> {
        assert!(self.place == Place::On, "advance() has said that there is an entry");
        let (kind, stored) = self.stored();
        // Its bytes were decoded when it was found to be live.
        if kind.expires() { decode(kind, stored).ok()?.expires_at_ms } else { None }
    }

    /// Reads the current value, if it is in the value log and wanted.
    #[inline]
    fn follow_pointer(&mut self) -> Result<()> {
        assert!(self.place == Place::On, "advance() has said that there is an entry");
        if self.stored().0.is_pointer() && self.value.is_none() && !self.options.key_only {
            self.ahead.fetch(&self.merge, self.state.version.values());
            self.value = Some(self.read_pointer()?);
        }
        Ok(())
    }

    /// The current value, after [`Scan::follow_pointer`].
    #[inline]
    fn followed(&self) -> Result<&[u8]> {
        if self.options.key_only {
            return Ok(&[]);
        }
        let (kind, stored) = self.stored();
        match (&self.value, kind) {
            (Some(value), _) => Ok(value),
            (None, Kind::Put) => Ok(stored),
            (None, _) => match decode(kind, stored)?.content {
                Content::Value(value) => Ok(value),
                other => unreachable!("{other:?}: advance() passes over deleted keys, and pointers were followed"),
            },
        }
    }

    /// The same, to keep: shares the memory of the block or memtable where that costs less than a copy.
    pub fn value_bytes(&mut self) -> Result<Bytes> {
        let bytes = self.value()?.len();
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        if let Some(value) = self.value.take() {
            let value = value.into_bytes();
            self.value = Some(ReadValue::Own(value.clone()));
            return Ok(value);
        }
        let stored = match self.direction {
            Direction::Forward => self.merge.top().expect("a scan on an entry has one").stored(),
            Direction::Backward => match &self.held.shared {
                Some(shared) => shared.clone(),
                None => return Ok(Bytes::copy_from_slice(self.value()?)),
            },
        };
        // The value is what the stored bytes end with.
        Ok(stored.slice(stored.len() - bytes..))
    }

    /// Moves so that the next entry is the first at or beyond `key` in the scan's direction, within the range. May move
    /// either way.
    pub fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.value = None;
        self.ahead = FetchAhead::default();
        let outside = match self.direction {
            Direction::Forward => self.range.start.as_ref().is_some_and(|start| key < start),
            Direction::Backward => self.range.end.as_ref().is_some_and(|end| key >= end),
        };
        let result = if outside { self.begin() } else { self.seek_within(key) };
        self.place = if result.is_ok() { Place::Before } else { Place::Finished };
        result
    }

    fn seek_within(&mut self, key: &[u8]) -> Result<()> {
        self.passing = false;
        let counters = &self.state.recorder.reads;
        let beyond = match self.direction {
            Direction::Forward => self.dead.begin_at(Some(key), counters),
            Direction::Backward if self.dead.is_on() => self.dead.begin_at(Some(&successor(key)), counters),
            Direction::Backward => None,
        };
        match (beyond, self.direction) {
            (Some(beyond), _) => self.merge.seek(KeyRef::before_all(&beyond)),
            (None, Direction::Forward) => self.merge.seek(KeyRef::before_all(key)),
            (None, Direction::Backward) => self.merge.seek(KeyRef::after_all(key)),
        }
    }

    fn begin(&mut self) -> Result<()> {
        self.passing = false;
        let recorder = &self.state.recorder;
        let started = recorder.start_sampled();
        let bound = match self.direction {
            Direction::Forward => Some(self.range.start.as_deref().unwrap_or_default()),
            Direction::Backward => self.range.end.as_deref(),
        };
        let beyond = self.dead.begin_at(bound, &recorder.reads);
        match (self.direction, beyond.as_deref().or(bound)) {
            (Direction::Forward, Some(start)) if !start.is_empty() => self.merge.seek(KeyRef::before_all(start))?,
            // No version stands exactly there, so this is the last one below it.
            (Direction::Backward, Some(end)) => self.merge.seek(KeyRef::before_all(end))?,
            _ => self.merge.seek_to_first()?,
        }
        recorder.end(&recorder.seek, started);
        Ok(())
    }

    fn advance_forward(&mut self) -> Result<bool> {
        match self.place {
            Place::Before => {}
            Place::On => self.pass()?,
            Place::Fresh => self.begin()?,
            Place::Finished => return Ok(false),
        }
        let mut steps = 0;
        while let Some(top) = self.merge.top() {
            let key = top.key();
            if self.range.end.as_ref().is_some_and(|end| key.user_key >= end.as_ref()) {
                break;
            }
            let behind = self.passing
                && match key.user_key.cmp(&self.user_key) {
                    Ordering::Less => panic!("a scan's keys must not go back"),
                    Ordering::Equal => true,
                    Ordering::Greater => false,
                };
            if behind || key.sequence > self.sequence {
                steps += 1;
                self.dead.step();
                if steps <= STEPS_BEFORE_SEEK {
                    self.merge.advance()?;
                } else {
                    steps = 0;
                    let user_key = key.user_key.to_vec();
                    let sequence = if behind { 0 } else { self.sequence };
                    self.merge.seek(KeyRef::new(&user_key, sequence))?;
                }
                continue;
            }
            if (top.kind() == Kind::Put && self.hidden.is_empty())
                || is_live(&mut self.hidden, self.now_ms, top.kind(), key, top.stored_slice())?
            {
                debug_assert!(!self.dead.is_skipped(key.user_key), "nothing in a dead range lives");
                self.dead.end(&self.state);
                return Ok(true);
            }
            steps = 0;
            match self.dead.pass(&self.state, key.user_key) {
                Some(beyond) => {
                    self.passing = false;
                    self.merge.seek(KeyRef::before_all(&beyond))?;
                }
                None => self.pass()?,
            }
            self.skip_hidden()?;
        }
        self.dead.end(&self.state);
        Ok(false)
    }

    /// Passes over what is hidden by a range tombstone around the merge's version, in sources that have nothing newer
    /// than that: without looking at it.
    fn skip_hidden(&mut self) -> Result<()> {
        if self.hidden.is_empty() {
            return Ok(());
        }
        while let Some(top) = self.merge.top() {
            let rest = self.hidden.rest_of_stretch(top.key().user_key, STEPS_BEFORE_SEEK, self.direction);
            let Some((end, below)) = rest else { return Ok(()) };
            if !self.merge.skip_old(KeyRef::before_all(&end), below)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Leaves the user key of the merge's version behind.
    #[inline]
    fn pass(&mut self) -> Result<()> {
        let key = self.merge.top().expect("the caller stands on a version").key();
        self.user_key.clear();
        self.user_key.extend_from_slice(key.user_key);
        self.passing = true;
        self.merge.advance()
    }

    fn advance_backward(&mut self) -> Result<bool> {
        match self.place {
            Place::Before | Place::On => {}
            Place::Fresh => self.begin()?,
            Place::Finished => return Ok(false),
        }
        while let Some(top) = self.merge.top() {
            let user_key = top.key().user_key;
            if self.range.start.as_ref().is_some_and(|start| user_key < start.as_ref()) {
                break;
            }
            assert!(!self.passing || user_key < self.user_key.as_slice(), "a scan's keys must strictly decrease");
            self.user_key.clear();
            self.user_key.extend_from_slice(user_key);
            self.passing = true;
            self.hold_newest()?;
            let Some(kind) = self.held.kind else { continue };
            let key = KeyRef::new(&self.user_key, self.held.sequence);
            debug_assert!(key.sequence <= self.sequence);
            if is_live(&mut self.hidden, self.now_ms, kind, key, self.held.stored())? {
                debug_assert!(!self.dead.is_skipped(&self.user_key), "nothing in a dead range lives");
                self.dead.end(&self.state);
                return Ok(true);
            }
            if let Some(beyond) = self.dead.pass(&self.state, &self.user_key) {
                self.merge.seek(KeyRef::before_all(&beyond))?;
            }
            self.skip_hidden()?;
        }
        self.dead.end(&self.state);
        Ok(false)
    }

    /// Backward: holds the newest visible version of the current user key, at whose oldest version the merge stands, if
    /// there is one; and leaves the key behind.
    fn hold_newest(&mut self) -> Result<()> {
        self.held.kind = None;
        for _ in 0..STEPS_BEFORE_SEEK {
            let Some(top) = self.merge.top() else { return Ok(()) };
            let key = top.key();
            if key.user_key != self.user_key {
                return Ok(());
            }
            // Versions come oldest first: the last one at or below the sequence number counts.
            if key.sequence <= self.sequence {
                self.held.hold(top);
            }
            self.merge.advance()?;
        }
        let more = self.merge.top().is_some_and(|top| top.key().user_key == self.user_key);
        if more {
            let found = self.state.find(self.family, &self.user_key, self.sequence)?;
            self.held.kind = found.as_ref().map(|found| found.kind);
            self.held.sequence = found.as_ref().map_or(0, |found| found.sequence);
            self.held.shared = found.map(|found| found.stored);
            self.merge.seek(KeyRef::before_all(&self.user_key))?;
        }
        Ok(())
    }

    #[inline]
    fn stored(&self) -> (Kind, &[u8]) {
        match self.direction {
            Direction::Forward => {
                let top = self.merge.top().expect("a scan on an entry has one");
                (top.kind(), top.stored_slice())
            }
            Direction::Backward => (self.held.kind.unwrap_or(Kind::Delete), self.held.stored()),
        }
    }

    fn read_pointer(&self) -> Result<ReadValue> {
        let (kind, stored) = self.stored();
        match decode(kind, stored)?.content {
            Content::Pointer(pointer) => self.state.version.values().read_shared(pointer, self.options.fill_cache),
            other => unreachable!("{other:?}: the caller asked the kind"),
        }
    }
}

/// Each entry with a key that is copied; [`Scan::advance`] and [`Scan::entry`] copy nothing.
impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(error)),
        }
        let value = self.value_bytes();
        if value.is_err() {
            self.place = Place::Finished;
        }
        Some(value.map(|value| (Bytes::copy_from_slice(self.key()), value)))
    }
}

impl Entries for Scan {
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        Scan::seek(self, key)
    }

    fn expires_at_ms(&self) -> Option<u64> {
        Scan::expires_at_ms(self)
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan")
            .field("family", &self.family)
            .field("range", &self.range)
            .field("direction", &self.direction)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Whether a version, the newest visible one of its key, gives it a value.
fn is_live(hidden: &mut Hidden, now_ms: u64, kind: Kind, key: KeyRef<'_>, stored: &[u8]) -> Result<bool> {
    if kind.is_delete() || (!hidden.is_empty() && hidden.above(key.user_key) > key.sequence) {
        return Ok(false);
    }
    if kind == Kind::Put {
        return Ok(true);
    }
    Ok(!decode(kind, stored)?.expired(now_ms))
}

#[cfg(test)]
#[path = "scan_test.rs"]
mod tests;
