//! Sequence numbers of tables that were built outside of the database.

use crate::SequenceNumber;
use crate::types::SEQUENCE_NUMBER_MAX;

/// The number that all versions of a table built outside are stored at: the number that they count as is assigned only
/// when the database ingests the table.
pub const INGESTED_SEQUENCE: SequenceNumber = 1;

/// How a table's sequence numbers are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequences {
    /// As they are stored.
    AsStored,
    /// All versions, stored at [`INGESTED_SEQUENCE`], count as written at this number.
    All(SequenceNumber),
}

impl Sequences {
    /// What a stored number means.
    pub(super) fn reported(self, stored: SequenceNumber) -> SequenceNumber {
        match self {
            Sequences::AsStored => stored,
            Sequences::All(global) => global,
        }
    }

    /// The number to search for among the stored ones: before, at or after them as `reported` is.
    pub(super) fn stored(self, reported: SequenceNumber) -> SequenceNumber {
        match self {
            Sequences::AsStored => reported,
            Sequences::All(global) if reported > global => SEQUENCE_NUMBER_MAX,
            Sequences::All(global) if reported == global => INGESTED_SEQUENCE,
            Sequences::All(_) => 0,
        }
    }
}
