//! What the database must hold: an ordered map, and the commits that made it.

use bytes::Bytes;
use kontiki_engine::{Direction, Family, Range, SequenceNumber, WriteBatch};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

/// The value of a key, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub value: Bytes,
    pub expires_at_ms: Option<u64>,
}

impl Cell {
    pub fn live(&self, now_ms: u64) -> Option<&Bytes> {
        self.expires_at_ms.is_none_or(|at| now_ms < at).then_some(&self.value)
    }
}

/// Every key with its last value. Values that have ended stay until they are overwritten: readers check them.
pub type Rows = BTreeMap<(Family, Bytes), Cell>;

pub type Entry = (Bytes, Bytes);

pub fn get(rows: &Rows, family: Family, key: &Bytes, now_ms: u64) -> Option<Bytes> {
    rows.get(&(family, key.clone()))?.live(now_ms).cloned()
}

/// The end of a range: an empty one is that of the family, behind all keys that are drawn.
pub fn end_of(end: &Bytes) -> Bytes {
    if end.is_empty() { Bytes::from_static(&[0xff; 256]) } else { end.clone() }
}

/// The live entries of a range, in the order of the direction.
pub fn entries(rows: &Rows, family: Family, range: &Range, direction: Direction, now_ms: u64) -> Vec<Entry> {
    let start = (family, range.start.clone().unwrap_or_default());
    let of_range = rows
        .range((Bound::Included(start), Bound::Unbounded))
        .take_while(|((of, key), _)| *of == family && range.end.as_ref().is_none_or(|end| *key < end_of(end)));
    let live = of_range.filter_map(|((_, key), cell)| Some((key.clone(), cell.live(now_ms)?.clone())));
    let mut found: Vec<Entry> = live.collect();
    if direction == Direction::Backward {
        found.reverse();
    }
    found
}

/// One operation of a batch.
#[derive(Clone, Debug)]
pub enum Write {
    Put { family: Family, key: Bytes, cell: Cell },
    Delete { family: Family, key: Bytes },
    DeleteRange { family: Family, start: Bytes, end: Bytes },
}

impl Write {
    pub fn apply(&self, rows: &mut Rows) {
        match self {
            Write::Put { family, key, cell } => _ = rows.insert((*family, key.clone()), cell.clone()),
            Write::Delete { family, key } => _ = rows.remove(&(*family, key.clone())),
            Write::DeleteRange { family, start, end } => {
                let inside = rows.range((*family, start.clone())..(*family, end_of(end)));
                let keys: Vec<_> = inside.map(|(key, _)| key.clone()).collect();
                keys.iter().for_each(|key| _ = rows.remove(key));
            }
        }
    }

    pub fn add_to(&self, batch: &mut WriteBatch) {
        match self {
            Write::Put { family, key, cell } => match cell.expires_at_ms {
                Some(at) => batch.put_expiring(*family, key, &cell.value, at),
                None => batch.put(*family, key, &cell.value),
            },
            Write::Delete { family, key } => batch.delete(*family, key),
            Write::DeleteRange { family, start, end } => batch.delete_range(*family, start..end),
        }
    }

    /// Whether it writes to a key of the range, there or not.
    fn touches(&self, of: Family, range: &Range) -> bool {
        match self {
            Write::Put { family, key, .. } | Write::Delete { family, key } => *family == of && range.contains(key),
            Write::DeleteRange { family, start, end } => {
                let lowest = range.start.as_ref().map_or(start, |other| start.max(other));
                let is_before = |end: &Bytes| *lowest < end_of(end);
                *family == of && is_before(end) && range.end.as_ref().is_none_or(is_before)
            }
        }
    }
}

pub fn batch_of(writes: &[Write]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    writes.iter().for_each(|write| write.add_to(&mut batch));
    batch
}

/// The smallest range with a key.
pub fn only(key: &Bytes) -> Range {
    let end = [key, &[0][..]].concat();
    Range { start: Some(key.clone()), end: Some(end.into()) }
}

#[derive(Clone, Debug)]
pub struct Committed {
    pub sequence: SequenceNumber,
    pub writes: Vec<Write>,
}

/// The commits since the database was opened, and what they have made.
#[derive(Default)]
pub struct Model {
    /// When it was opened.
    base: Rc<Rows>,
    base_sequence: SequenceNumber,
    pub rows: Rc<Rows>,
    pub commits: Vec<Committed>,
    /// So many of them survive a power loss.
    pub durable: usize,
    /// A commit that was answered with an error that leaves open whether it has happened.
    pub unknown: Option<Vec<Write>>,
    /// If that was an ingest: what was there before.
    pub before_ingest: Option<Rc<Rows>>,
}

impl Model {
    pub fn last_sequence(&self) -> SequenceNumber {
        self.commits.last().map_or(self.base_sequence, |last| last.sequence)
    }

    /// The number of the commit before number `at` (an index).
    pub fn sequence_before(&self, at: usize) -> SequenceNumber {
        at.checked_sub(1).map_or(self.base_sequence, |before| self.commits[before].sequence)
    }

    pub fn commit(&mut self, sequence: SequenceNumber, writes: Vec<Write>, durable: bool) {
        assert!(sequence > self.last_sequence(), "number {sequence} comes after {}", self.last_sequence());
        let rows = Rc::make_mut(&mut self.rows);
        writes.iter().for_each(|write| write.apply(rows));
        self.commits.push(Committed { sequence, writes });
        if durable {
            self.durable = self.commits.len();
        }
    }

    /// Everything answered so far survives from now on.
    pub fn all_durable(&mut self) {
        self.durable = self.commits.len();
    }

    /// Whether a key of the range was written by the commits from number `since` (an index) on.
    pub fn written_since(&self, since: usize, family: Family, range: &Range) -> bool {
        self.commits[since..].iter().flat_map(|commit| &commit.writes).any(|write| write.touches(family, range))
    }

    /// After a crash the database is at `sequence`: takes back what is lost, and returns what is wrong with that.
    pub fn recover(&mut self, sequence: SequenceNumber, killed: bool) -> Result<(), String> {
        let kept = self.commits.partition_point(|commit| commit.sequence <= sequence);
        let all = self.commits.len();
        let least = if killed { all } else { self.durable };
        if kept < least {
            return Err(format!("{kept} commits are left of {all}; {least} had to survive"));
        }
        if sequence > self.last_sequence() {
            let Some(writes) = self.unknown.take() else {
                return Err(format!("stands at {sequence}; the last commit was {}", self.last_sequence()));
            };
            self.commit(sequence, writes, true);
        } else if kept < all {
            let mut rows = (*self.base).clone();
            self.commits[..kept].iter().flat_map(|commit| &commit.writes).for_each(|write| write.apply(&mut rows));
            self.rows = Rc::new(rows);
        }
        self.reopened(sequence);
        Ok(())
    }

    /// From here on: whatever a restart has found is durable.
    pub fn reopened(&mut self, sequence: SequenceNumber) {
        self.base = self.rows.clone();
        self.base_sequence = sequence;
        self.commits.clear();
        self.durable = 0;
        self.unknown = None;
    }
}
