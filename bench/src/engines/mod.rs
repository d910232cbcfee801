//! The peers behind one interface, configured alike: 256 MiB cache, 64 MiB memtable, LZ4 from level 2, 10 bloom bits
//! per key, 2 background threads, 4 KiB blocks. docs/benchmarks.md lists the differences.

mod fjall;
mod kontiki;
mod lmdb;
mod redb;
mod rocks;

use std::path::Path;

/// Gets a value that was found.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8]);
/// Receives entries in order, until it returns false.
pub type VisitEntry<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// Reads by key.
pub trait Read {
    /// Passes the value to the callback, without a copy if the engine can; returns whether it was found.
    fn get(&self, key: &[u8], visit: Visit) -> bool;
}

/// An embedded store under test. Writes are as durable as the store was opened for.
pub trait Store: Read + Send + Sync {
    /// Writes one key.
    fn put(&self, key: &[u8], value: &[u8]);
    /// Removes one key.
    fn delete(&self, key: &[u8]);
    /// Removes the keys from `start` to before `end`. Not every engine can.
    fn delete_range(&self, start: &[u8], end: &[u8]) {
        panic!("this engine has no range deletes: {start:?} to {end:?}");
    }
    /// Writes many; not measured. Transactional stores use one transaction.
    fn load(&self, entries: &[([u8; 16], Vec<u8>)]) {
        entries.iter().for_each(|(key, value)| self.put(key, value));
    }
    /// Passes the entries from a key on to the callback.
    fn scan(&self, start: &[u8], visit: VisitEntry);
    /// Takes a snapshot and passes it to `work`.
    fn with_snapshot(&self, work: &mut dyn FnMut(&dyn Read));
    /// Starts background work that would be due later: flushes memtables, if the engine has any.
    fn flush(&self);
    /// Merges everything that can be merged.
    fn compact(&self);
}

/// What a store is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In the operating system when acknowledged: survives a killed process. redb has no such mode: see `redb.rs`.
    Buffered,
    /// On the disk when acknowledged.
    Sync,
}

/// The stores of every table.
pub const NAMES: [&str; 6] = ["kontiki", "rocksdb", "rocksdb-tuned", "fjall", "redb", "lmdb"];
/// Variants that separate large values.
pub const BLOB_NAMES: [&str; 2] = ["rocksdb-blob", "fjall-blob"];
/// Kontiki with every value in the tree, and with every value in the value log, from which its threshold follows.
pub const THRESHOLD_NAMES: [&str; 2] = ["kontiki-inline", "kontiki-apart"];

const CACHE_BYTES: u64 = 256 << 20;
const MEMTABLE_BYTES: u64 = 64 << 20;
const BACKGROUND_THREADS: usize = 2;
const BLOOM_BITS: usize = 10;
/// From this size on, values are separated by the variants that do that.
const BLOB_BYTES_MIN: u64 = 1024;

/// Opens a store of the named kind.
pub fn open(name: &str, dir: &Path, durability: Durability) -> Box<dyn Store> {
    match name {
        "kontiki" => Box::new(kontiki::open(dir, durability, None)),
        "kontiki-inline" => Box::new(kontiki::open(dir, durability, Some(0))),
        "kontiki-apart" => Box::new(kontiki::open(dir, durability, Some(1))),
        "rocksdb" => Box::new(rocks::open(dir, durability, rocks::Variant::Plain)),
        "rocksdb-tuned" => Box::new(rocks::open(dir, durability, rocks::Variant::Tuned)),
        "rocksdb-blob" => Box::new(rocks::open(dir, durability, rocks::Variant::Blob)),
        "fjall" => Box::new(fjall::open(dir, durability, false)),
        "fjall-blob" => Box::new(fjall::open(dir, durability, true)),
        "redb" => Box::new(redb::open(dir, durability)),
        "lmdb" => Box::new(lmdb::open(dir, durability)),
        other => panic!("unknown engine {other}; known: {NAMES:?}, {BLOB_NAMES:?}, {THRESHOLD_NAMES:?}"),
    }
}
