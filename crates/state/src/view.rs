//! The state at one moment.

use bytes::Bytes;
use kontiki_engine::{Direction, Entries, Family, PartSize, Range, RangePart, Result, Snapshot, View};
use std::fmt;
use std::sync::Arc;

/// What a [`StateView`] holds.
pub trait StateSnapshot: View {
    /// The parts of a range, each of about a size, see [`Snapshot::range_parts`]. May be empty if the engine has no
    /// tables there.
    fn range_parts(&self, family: Family, range: Range, size: PartSize) -> Result<Vec<RangePart>>;
}

impl StateSnapshot for Snapshot {
    fn range_parts(&self, family: Family, range: Range, size: PartSize) -> Result<Vec<RangePart>> {
        Snapshot::range_parts(self, family, range, size)
    }
}

/// The state at one moment. Cheap to take and to clone; it pins memory and files until its last clone is dropped.
#[derive(Clone)]
pub struct StateView(Arc<dyn StateSnapshot>);

impl StateView {
    /// Of a snapshot of an engine.
    pub fn new(snapshot: impl StateSnapshot + 'static) -> StateView {
        StateView(Arc::new(snapshot))
    }

    /// The parts of a range, each of about a size, see [`Snapshot::range_parts`].
    pub fn range_parts(&self, family: Family, range: impl Into<Range>, size: PartSize) -> Result<Vec<RangePart>> {
        self.0.range_parts(family, range.into(), size)
    }
}

impl View for StateView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(family, key)
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>> {
        self.0.entries(family, range, direction)
    }
}

impl fmt::Debug for StateView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateView")
    }
}
