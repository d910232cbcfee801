//! The column families of a served directory, and which of them a region owns.

use crate::region::{Region, Space};
use kontiki_engine::{BatchOp, Family, WriteBatch};

/// Embedded data, which is the raw data of a served store: the user key as it is.
pub const DEFAULT: Family = Family(0);
/// Long transactional values.
pub const TXN_DEFAULT: Family = Family::reserved(0);
/// Transactional locks.
pub const TXN_LOCK: Family = Family::reserved(1);
/// Transactional commit and rollback records.
pub const TXN_WRITE: Family = Family::reserved(2);
/// Store identity, region descriptors, applied indices: written by raftstore alone.
pub const META: Family = Family::reserved(3);
/// State of the placement group (the region of [`Space::System`]).
pub const PLACEMENT: Family = Family::reserved(4);

/// The numbers that these families had before the present numbers were reserved: in directories, log entries and
/// snapshot files of earlier versions.
pub const EARLIER: [(Family, Family); 5] = [
    (Family(1), TXN_DEFAULT),
    (Family(2), TXN_LOCK),
    (Family(3), TXN_WRITE),
    (Family(4), META),
    (Family(5), PLACEMENT),
];

/// The present family for an earlier number.
pub fn renumbered(family: Family) -> Family {
    EARLIER.iter().find(|(earlier, _)| *earlier == family).map_or(family, |(_, now)| *now)
}

/// A batch with earlier numbers, converted to the present ones.
pub(crate) fn renumber(batch: &WriteBatch) -> WriteBatch {
    let mut now = WriteBatch::new();
    for op in batch.ops() {
        let family = renumbered(op.family());
        match op {
            BatchOp::Put { key, value, .. } => now.put(family, key, value),
            BatchOp::PutExpiring { key, value, expires_at_ms, .. } => {
                now.put_expiring(family, key, value, expires_at_ms)
            }
            BatchOp::Delete { key, .. } => now.delete(family, key),
            BatchOp::DeleteRange { start, end, .. } => now.delete_range(family, start..end),
        }
    }
    now
}

/// The families in which a data region owns its key range, ascending.
pub const DATA_FAMILIES: [Family; 4] = [DEFAULT, TXN_DEFAULT, TXN_LOCK, TXN_WRITE];

/// The families in which a region of this space owns its key range, ascending.
pub fn families_of(space: Space) -> &'static [Family] {
    match space {
        Space::System => &[PLACEMENT],
        Space::Data => &DATA_FAMILIES,
    }
}

/// The first key of the batch that the region must not write (its family or its range is not the region's).
pub fn first_foreign_key<'a>(region: &Region, batch: &'a WriteBatch) -> Option<&'a [u8]> {
    let families = families_of(region.space);
    let within = |op: &BatchOp<'_>| {
        let whole = match op {
            // Its end is exclusive, so it may be the region's own end. An empty one is that of the family.
            BatchOp::DeleteRange { end, .. } => region.end_key == *end || (!end.is_empty() && region.contains(end)),
            _ => true,
        };
        whole && families.contains(&op.family()) && region.contains(op.key())
    };
    batch.ops().find(|op| !within(op)).map(|op| op.key())
}
