//! Reading at one moment.

use crate::iterator::ReadState;
use crate::{Direction, Entries, Family, Range, Result, SequenceNumber, View};
use bytes::Bytes;
use std::sync::Arc;

/// The database as it was at one moment. Cheap to take and to clone. It pins the memtables and tables of that moment,
/// memory and disk, until it is dropped; so drop it when you are done. It may outlive the database.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) state: Arc<ReadState>,
    pub(crate) sequence: SequenceNumber,
}

impl Snapshot {
    /// The newest write that it sees.
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }
}

impl View for Snapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.state.get(family, key, self.sequence)
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>> {
        self.state.entries(family, range, direction, self.sequence)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
