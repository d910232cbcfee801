//! The pointers to values that readers can read.

use super::ReadState;
use crate::table::TableCursor;
use crate::types::{Content, Cursor, Decoded, ValuePointer};
use crate::version::Table;
use crate::{Direction, Family, Result};
use std::sync::Arc;

/// Gives `visit` the key and the pointer of every version in a table that readers of tables can read: the newest of its
/// key, unless a range tombstone hides it. Values of others may be deleted. (A hidden version may be the newest that is
/// left, when a compaction has dropped one above it that was hidden too.)
pub(crate) fn live_pointers(
    state: &ReadState,
    family: Family,
    table: &Arc<Table>,
    visit: &mut dyn FnMut(&[u8], ValuePointer) -> Result<()>,
) -> Result<()> {
    if state.version.values().refs_of(table.meta().number).is_none() {
        return Ok(());
    }
    let ranges = state.version.family(family).map(|levels| levels.range_tombstones.clone()).unwrap_or_default();
    let mut cursor = TableCursor::new(state.tables.reader(table)?, Direction::Forward);
    cursor.seek_to_first()?;
    while cursor.valid() {
        if cursor.kind().is_pointer() {
            let key = cursor.key();
            let newest = state.newest_in_tables(family, key.user_key)?;
            if newest.is_some_and(|newest| newest.sequence == key.sequence)
                && ranges.covering(key.user_key).is_none_or(|covering| key.sequence >= covering)
                && let Ok(Decoded { content: Content::Pointer(pointer), .. }) =
                    Decoded::new(cursor.kind(), &cursor.stored())
            {
                visit(key.user_key, pointer)?;
            }
        }
        cursor.advance()?;
    }
    Ok(())
}
