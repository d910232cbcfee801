//! The column families of a served directory, and which of them a region owns.

use crate::region::{Region, Space};
use kontiki_engine::{BatchOp, Family, WriteBatch};

/// Embedded data, which is the raw data of a served store: the user key as it is.
pub const DEFAULT: Family = Family(0);
/// Long transactional values.
pub const TXN_DEFAULT: Family = Family(1);
/// Transactional locks.
pub const TXN_LOCK: Family = Family(2);
/// Transactional commit and rollback records.
pub const TXN_WRITE: Family = Family(3);
/// Store identity, region descriptors, applied indices: written by raftstore alone.
pub const META: Family = Family(4);
/// State of the placement group (the region of [`Space::System`]).
pub const PLACEMENT: Family = Family(5);

/// The families in which a data region owns its key range, ascending.
pub const DATA_FAMILIES: [Family; 4] = [DEFAULT, TXN_DEFAULT, TXN_LOCK, TXN_WRITE];

/// The families in which a region of this space owns its key range, ascending.
pub fn families_of(space: Space) -> &'static [Family] {
    match space {
        Space::System => &[PLACEMENT],
        Space::Data => &DATA_FAMILIES,
    }
}

/// The first key of the batch that is not the region's to write (its family or its range is another's).
pub fn first_foreign_key<'a>(region: &Region, batch: &'a WriteBatch) -> Option<&'a [u8]> {
    let families = families_of(region.space);
    let within = |op: &BatchOp<'_>| {
        let whole = match op {
            // Its end is exclusive, so it may be the region's own end.
            BatchOp::DeleteRange { end, .. } => region.contains(end) || region.end_key == *end,
            _ => true,
        };
        whole && families.contains(&op.family()) && region.contains(op.key())
    };
    batch.ops().find(|op| !within(op)).map(|op| op.key())
}
