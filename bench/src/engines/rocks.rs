//! RocksDB. Without sync a write is in the page cache when it returns (`write` to the log, no `manual_wal_flush`), so
//! it survives a killed process.

use super::{BACKGROUND_THREADS, BLOB_BYTES_MIN, BLOOM_BITS, CACHE_BYTES, MEMTABLE_BYTES};
use super::{Durability, Read, Store, Visit, VisitEntry};
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, WriteOptions};
use std::path::Path;

/// How RocksDB is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Only what all have in common.
    Plain,
    /// HyperClockCache, hash index in data blocks, pipelined writes, 4 memtables with bloom filters, recycled log.
    Tuned,
    /// Plain, with large values in blob files (garbage collected as by default) and the cache shared with them.
    Blob,
}

pub struct Rocks {
    db: DB,
    write: WriteOptions,
}

pub fn open(dir: &Path, durability: Durability, variant: Variant) -> Rocks {
    let cache = match variant {
        Variant::Tuned => Cache::new_hyper_clock_cache(CACHE_BYTES as usize, 0),
        Variant::Plain | Variant::Blob => Cache::new_lru_cache(CACHE_BYTES as usize),
    };
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_bloom_filter(BLOOM_BITS as f64, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(MEMTABLE_BYTES as usize);
    options.set_max_background_jobs(BACKGROUND_THREADS as i32);
    let (none, lz4) = (DBCompressionType::None, DBCompressionType::Lz4);
    options.set_compression_per_level(&[none, none, lz4, lz4, lz4, lz4, lz4]);
    match variant {
        Variant::Plain => {}
        Variant::Tuned => {
            table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            options.set_enable_pipelined_write(true);
            options.set_max_write_buffer_number(4);
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.1);
            options.set_recycle_log_file_num(4);
        }
        Variant::Blob => {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(BLOB_BYTES_MIN);
            options.set_enable_blob_gc(true);
            options.set_blob_cache(&cache);
        }
    }
    options.set_block_based_table_factory(&table);
    let mut write = WriteOptions::default();
    write.set_sync(durability == Durability::Sync);
    Rocks { db: DB::open(&options, dir).expect("rocksdb opens"), write }
}

impl Read for Rocks {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        let found = self.db.get_pinned(key).expect("rocksdb get");
        found.as_deref().map(visit).is_some()
    }
}

impl Read for rocksdb::Snapshot<'_> {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        let found = self.get_pinned(key).expect("rocksdb snapshot get");
        found.as_deref().map(visit).is_some()
    }
}

impl Store for Rocks {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.db.put_opt(key, value, &self.write).expect("rocksdb put");
    }
    fn delete(&self, key: &[u8]) {
        self.db.delete_opt(key, &self.write).expect("rocksdb delete");
    }
    fn delete_range(&self, start: &[u8], end: &[u8]) {
        let mut batch = rocksdb::WriteBatch::default();
        batch.delete_range(start, end);
        self.db.write_opt(batch, &self.write).expect("rocksdb delete_range");
    }
    fn scan(&self, start: &[u8], visit: VisitEntry) {
        let mut entries = self.db.raw_iterator();
        entries.seek(start);
        while let Some((key, value)) = entries.item() {
            if !visit(key, value) {
                return;
            }
            entries.next();
        }
        entries.status().expect("rocksdb scan");
    }
    fn with_snapshot(&self, work: &mut dyn FnMut(&dyn Read)) {
        work(&self.db.snapshot());
    }
    fn flush(&self) {
        self.db.flush().expect("rocksdb flush");
    }
    fn compact(&self) {
        self.db.compact_range::<&[u8], &[u8]>(None, None);
    }
}
