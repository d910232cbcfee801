//! Checks the value log: every record of every sealed file, and that every live pointer leads to a sound one.

use super::check::{CheckReport, Suspects};
use crate::directory::DryFs;
use crate::read::{ReadState, live_pointers};
use crate::table::{BlockCache, TABLES_DIR};
use crate::version::{TableCache, Version};
use crate::vlog::{VALUES_DIR, ValueStore};
use crate::{Error, Result};
use kontiki_env::Env;
use std::path::Path;
use std::sync::Arc;

/// Memory for filters and indexes of open tables.
const TABLE_CACHE_BYTES: u64 = 32 << 20;
/// Tables open at once.
const OPEN_TABLES_MAX: usize = 100;

/// See the head of this file. Damaged records that no table refers to become `suspects`.
pub(super) fn check_values(
    env: &Env,
    dir: &Path,
    version: &Version,
    report: &mut CheckReport,
    suspects: &mut Suspects,
) -> Result<()> {
    let store = Arc::new(ValueStore::new(Arc::new(DryFs(env.fs.clone())), dir.join(VALUES_DIR)));
    let values = version.values().clone().located_in(store.clone());
    for (number, state) in values.files() {
        report.value_files += 1;
        let Some(bytes) = state.sealed_bytes() else { continue };
        report.value_bytes += bytes;
        let mut note = |offset, what| {
            suspects.insert((*number, offset), what);
        };
        if let Err(error) = store.reader(*number).and_then(|reader| reader.verify_all(bytes, &mut note)) {
            report.note(error)?;
        }
    }
    let tables_dir = dir.join(TABLES_DIR);
    let blocks = Arc::new(BlockCache::new(0));
    let tables = Arc::new(TableCache::new(env, &tables_dir, blocks, TABLE_CACHE_BYTES, OPEN_TABLES_MAX));
    let clock = env.clock.clone();
    let recorder = crate::measure::Recorder::off(clock.clone());
    let state =
        ReadState { memtables: Vec::new(), version: Arc::new(version.clone()), tables, clock, recorder, dead: None };
    for (family, _, table) in version.tables() {
        let visited = live_pointers(&state, family, table, &mut |key, pointer| {
            report.values += 1;
            let (reader, moved) = values.reader_of(pointer)?;
            match reader.verify(pointer, moved, family, key) {
                Ok(_) => Ok(()),
                Err(error) => {
                    if let Error::Corruption { offset, .. } = &error {
                        suspects.remove(&(reader.number(), *offset));
                    }
                    report.note_once(error)
                }
            }
        });
        match visited {
            // A damaged table was reported when it was read.
            Ok(()) | Err(Error::Corruption { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
