//! Checks one table.

use super::{TableCursor, TableMeta, TableReader};
use crate::types::{Cursor, KeyRef};
use crate::{Direction, Error, Family, Result};
use std::sync::Arc;

/// Reads every version of a table: order, bounds, counts and filter must agree with the properties of the table and
/// the manifest. Returns how many versions there are.
pub(crate) fn verify_table(reader: &Arc<TableReader>, family: Family, meta: &TableMeta) -> Result<u64> {
    let corrupt = |what: String| Error::Corruption { file: reader.path().to_path_buf(), offset: 0, what };
    if reader.properties().family() != family {
        return Err(corrupt(format!("the table is of {:?}, not of {family:?}", reader.properties().family())));
    }
    let mut cursor = TableCursor::for_one_pass(reader.clone(), Direction::Forward);
    let mut last: Option<(Vec<u8>, u64)> = None;
    let (mut entries, mut tombstones) = (0, 0);
    cursor.seek_to_first()?;
    while cursor.valid() {
        let key = cursor.key();
        if last.as_ref().is_some_and(|(user_key, sequence)| KeyRef::new(user_key, *sequence) >= key) {
            return Err(corrupt(format!("version {entries} of the table is out of order")));
        }
        if !meta.spans(key.user_key) || key.sequence < meta.smallest_sequence || key.sequence > meta.largest_sequence {
            return Err(corrupt(format!("version {entries} of the table is outside of its bounds")));
        }
        if !reader.may_contain(key.user_key) {
            return Err(corrupt(format!("the table's filter does not know its version {entries}")));
        }
        entries += 1;
        tombstones += u64::from(cursor.kind().is_delete());
        let (kept, sequence) = last.get_or_insert_with(|| (Vec::new(), 0));
        kept.clear();
        kept.extend_from_slice(key.user_key);
        *sequence = key.sequence;
        cursor.advance()?;
    }
    if entries != meta.entries || tombstones != meta.tombstones {
        let (said, hidden) = (meta.entries, meta.tombstones);
        return Err(corrupt(format!(
            "the table holds {entries} versions and {tombstones} tombstones; the manifest says {said} and {hidden}"
        )));
    }
    Ok(entries)
}
