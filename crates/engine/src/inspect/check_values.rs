//! Checks the value log: that every live pointer leads to a sound value, and that files can be walked from end to end.

use super::check::CheckReport;
use super::dry_fs::DryFs;
use crate::cache::{BlockCache, TableCache};
use crate::iterator::{Cursor, ReadState};
use crate::kind::{Content, Decoded};
use crate::table::{TABLES_DIR, TableCursor};
use crate::version::{Table, ValueSegments, Version};
use crate::vlog::{FILE_HEADER_BYTES, Scan, VALUES_DIR, ValueStore};
use crate::{Direction, Error, Family, Result};
use kontiki_env::Env;
use std::path::Path;
use std::sync::Arc;

/// Memory for filters and indexes of open tables.
const TABLE_CACHE_BYTES: u64 = 32 << 20;
/// Tables open at once.
const OPEN_TABLES_MAX: usize = 100;

/// See the head of this file. Only the newest version of a key is asked for its value, unless a range tombstone hides it:
/// values of others may be gone. (A hidden version may be the newest that is left, when a compaction has dropped one above it
/// that was hidden too.)
pub(super) fn check_values(env: &Env, dir: &Path, version: &Version, report: &mut CheckReport) -> Result<()> {
    let store = Arc::new(ValueStore::new(Arc::new(DryFs(env.fs.clone())), dir.join(VALUES_DIR)));
    let values = version.values().clone().located_in(store.clone());
    for (number, state) in values.files() {
        report.value_files += 1;
        if let Some(bytes) = state.sealed_bytes() {
            report.value_bytes += bytes;
            if let Err(error) = walk(&store, *number, bytes) {
                report.note(error)?;
            }
        }
    }
    let tables_dir = dir.join(TABLES_DIR);
    let blocks = Arc::new(BlockCache::new(0));
    let tables = Arc::new(TableCache::new(env, &tables_dir, blocks, TABLE_CACHE_BYTES, OPEN_TABLES_MAX));
    let clock = env.clock.clone();
    let recorder = crate::stats::Recorder::off(clock.clone());
    let state = ReadState { memtables: Vec::new(), version: Arc::new(version.clone()), tables, clock, recorder };
    for (family, _, table) in version.tables() {
        if version.values().refs_of(table.meta().number).is_none() {
            continue;
        }
        match check_table(&state, &values, family, table, report) {
            // A damaged table was reported when it was read as such.
            Ok(()) | Err(Error::Corruption { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Every place of a sealed file has a record; a relocated one has its index.
fn walk(store: &Arc<ValueStore>, number: u64, bytes: u64) -> Result<()> {
    let reader = store.reader(number)?;
    let end = reader.directory().map_or(bytes, |directory| directory.data_end);
    let file_bytes = reader.file_bytes()?;
    if file_bytes < bytes || end < FILE_HEADER_BYTES {
        return Err(reader.corrupt(file_bytes, &format!("the value file has {file_bytes} bytes of {bytes}")));
    }
    let mut scan = Scan::new(&reader, end);
    while scan.next()?.is_some() {}
    Ok(())
}

fn check_table(
    state: &ReadState,
    values: &ValueSegments,
    family: Family,
    table: &Arc<Table>,
    report: &mut CheckReport,
) -> Result<()> {
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
                report.values += 1;
                if let Err(error) = values.read(pointer) {
                    report.note(error)?;
                }
            }
        }
        cursor.advance()?;
    }
    Ok(())
}
