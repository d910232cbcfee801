//! Reading at one moment.

use crate::read::{Of, PartSize, RangePart, ReadState};
use crate::{Direction, Entries, Family, Range, ReadOptions, Result, Scan, SequenceNumber, View};
use bytes::Bytes;
use std::sync::Arc;

/// The database as it was at one moment. Cheap to take and to clone. It pins the memtables and tables of that moment,
/// memory and disk, until it is dropped; so drop it when you are done. It may be kept longer than the database is open,
/// but reads answer [`Error::Closed`](crate::Error::Closed) from then on.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) state: Arc<ReadState>,
    pub(crate) sequence: SequenceNumber,
    /// Values that have ended at this time are not there: so the snapshot never changes.
    now_ms: u64,
}

impl Snapshot {
    pub(crate) fn new(state: Arc<ReadState>, sequence: SequenceNumber) -> Snapshot {
        let now_ms = state.clock.wall_ms();
        Snapshot { state, sequence, now_ms }
    }

    /// The newest write that it sees.
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// The same without what is known to be dead.
    #[cfg(test)]
    pub(crate) fn without_dead_ranges(&self) -> Snapshot {
        let state = ReadState { dead: None, ..(*self.state).clone() };
        Snapshot { state: Arc::new(state), ..*self }
    }

    /// The value of a key of the default family.
    ///
    /// Errors: as [`Snapshot::get_in`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.get_in(Family::DEFAULT, key)
    }

    /// The value of a key of a family.
    ///
    /// Errors: as [`Snapshot::scan`], and those of the value log.
    pub fn get_in(&self, family: Family, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.get_slice(family, key.as_ref())
    }

    fn get_slice(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.state.tables.check_owned()?;
        self.state.get_at(family, key, self.sequence, || self.now_ms)
    }

    /// Whether a family has a key. Its value is not read, if that is in the value log.
    ///
    /// Errors: as [`Snapshot::scan`].
    pub fn contains(&self, family: Family, key: impl AsRef<[u8]>) -> Result<bool> {
        self.state.tables.check_owned()?;
        self.state.contains(family, key.as_ref(), self.sequence, self.now_ms)
    }

    /// The values of many keys of a family, in the order of `keys`. See [`Db::multi_get`](crate::Db::multi_get).
    ///
    /// Errors: as [`Snapshot::get_in`].
    pub fn multi_get(&self, family: Family, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Bytes>>> {
        self.state.tables.check_owned()?;
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        self.state.multi_get_at(family, &keys, self.sequence, self.now_ms)
    }

    /// The entries of a range of the default family by ascending key: an iterator.
    ///
    /// Errors: as [`Snapshot::scan`]; the iterator gives those that it meets, and ends.
    pub fn range(&self, range: impl Into<Range>) -> Result<Scan> {
        self.range_in(Family::DEFAULT, range)
    }

    /// As [`Snapshot::range`], of any family.
    pub fn range_in(&self, family: Family, range: impl Into<Range>) -> Result<Scan> {
        self.scan(family, range, Direction::Forward, ReadOptions::default())
    }

    /// The parts of a range, each of about a size: for planning, before the entries are read, and for where to divide
    /// it. By the metadata and the indexes of tables: what is in memtables does not count, dead versions do (except for
    /// those that a flushed range delete hides). Entries, and bytes in the value log, are taken as evenly distributed
    /// over a table; bytes in tables and keys are right to within a block of each table. Without tables in the range
    /// there are no parts.
    ///
    /// Errors: as [`Snapshot::scan`].
    pub fn range_parts(&self, family: Family, range: impl Into<Range>, size: PartSize) -> Result<Vec<RangePart>> {
        self.state.tables.check_owned()?;
        self.state.range_parts(family, &range.into(), size)
    }

    /// The wall time at which it judges what has ended, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The entries of a range in either direction: an iterator that can also lend its entries, see [`Scan`].
    ///
    /// Errors: [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an unknown family,
    /// [`Error::Corruption`](crate::Error::Corruption) and [`Error::Io`](crate::Error::Io) from tables,
    /// [`Error::Closed`](crate::Error::Closed).
    pub fn scan(
        &self,
        family: Family,
        range: impl Into<Range>,
        direction: Direction,
        options: ReadOptions,
    ) -> Result<Scan> {
        self.scan_range(family, range.into(), direction, options)
    }

    pub(crate) fn scan_range(
        &self,
        family: Family,
        range: Range,
        direction: Direction,
        options: ReadOptions,
    ) -> Result<Scan> {
        self.state.tables.check_owned()?;
        let of = Of { family, range, direction, sequence: self.sequence, now_ms: self.now_ms };
        self.state.scan(of, options)
    }
}

impl View for Snapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.get_slice(family, key)
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>> {
        Ok(Box::new(self.scan(family, range, direction, ReadOptions::default())?))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
