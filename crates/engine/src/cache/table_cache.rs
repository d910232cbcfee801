//! The cache of open tables.

use super::BlockCache;
use super::hash::FixedHash;
use crate::Result;
use crate::table::{FileNumber, TableMeta, TableReader};
use kontiki_env::Env;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Key = FileNumber;

/// Opens tables on demand and keeps them, within a bound of bytes (filters and indexes) and of files: each table
/// weighs at least `capacity_bytes / files_max`.
///
/// A table counts for a quarter of the capacity at most, so that a few tables stay open however small the capacity is:
/// to read filter and index again for every lookup would be far worse than to exceed the bound.
pub struct TableCache {
    env: Env,
    tables_dir: PathBuf,
    blocks: Arc<BlockCache>,
    tables: Cache<Key, Arc<TableReader>, TableWeight, FixedHash, DefaultLifecycle<Key, Arc<TableReader>>>,
}

#[derive(Clone)]
struct TableWeight {
    floor: u64,
    ceiling: u64,
}

impl Weighter<Key, Arc<TableReader>> for TableWeight {
    fn weight(&self, _: &Key, table: &Arc<TableReader>) -> u64 {
        (table.memory_bytes() as u64).min(self.ceiling).max(self.floor)
    }
}

impl TableCache {
    /// A cache over the tables in `tables_dir` that keeps at most `files_max` open and `capacity_bytes` of their
    /// filters and indexes. Cursors keep the tables they use open beyond that.
    pub fn new(
        env: &Env,
        tables_dir: &Path,
        blocks: Arc<BlockCache>,
        capacity_bytes: u64,
        files_max: usize,
    ) -> TableCache {
        let files_max = files_max.max(1);
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(files_max)
            .weight_capacity(capacity_bytes)
            .build()
            .expect("every option is given and in range");
        assert!(capacity_bytes > 0, "without a table cache every read would open its table anew");
        let weight = TableWeight { floor: (capacity_bytes / files_max as u64).max(1), ceiling: capacity_bytes / 4 };
        let tables = Cache::with_options(options, weight, FixedHash, DefaultLifecycle::default());
        TableCache { env: env.clone(), tables_dir: tables_dir.to_path_buf(), blocks, tables }
    }

    /// The open table. Two threads that miss at once may both open it; one of the readers stays.
    pub fn reader(&self, meta: &TableMeta) -> Result<Arc<TableReader>> {
        if let Some(reader) = self.tables.get(&meta.number) {
            return Ok(reader);
        }
        debug_assert!(meta.is_plausible(), "versions hold plausible tables only");
        let reader = Arc::new(TableReader::open(&self.env, &self.tables_dir, meta, self.blocks.clone())?);
        self.tables.insert(meta.number, reader.clone());
        Ok(reader)
    }

    /// Closes a table that is about to be removed.
    pub fn forget(&self, number: FileNumber) {
        self.tables.remove(&number);
    }

    /// The cache of blocks behind it.
    pub fn blocks(&self) -> &Arc<BlockCache> {
        &self.blocks
    }
}

#[cfg(test)]
#[path = "table_cache_test.rs"]
mod tests;
