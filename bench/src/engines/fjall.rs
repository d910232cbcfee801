//! fjall. Without sync a write is in the page cache when it returns (`PersistMode::Buffer`, its default), so it
//! survives a killed process; with sync, each write is followed by `persist(SyncData)`.

use super::{BACKGROUND_THREADS, BLOB_BYTES_MIN, BLOOM_BITS, CACHE_BYTES, MEMTABLE_BYTES};
use super::{Durability, Read, Store, Visit, VisitEntry};
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable};
use std::path::Path;

pub struct Fjall {
    db: Database,
    keyspace: Keyspace,
    durability: Durability,
}

pub fn open(dir: &Path, durability: Durability, blobs: bool) -> Fjall {
    let db = Database::builder(dir).cache_size(CACHE_BYTES).worker_threads(BACKGROUND_THREADS).open();
    let db = db.expect("fjall opens");
    let (none, lz4) = (CompressionType::None, CompressionType::Lz4);
    let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(BLOOM_BITS as f32));
    let separation = KvSeparationOptions::default().separation_threshold(BLOB_BYTES_MIN as u32).compression(none);
    let options = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(MEMTABLE_BYTES)
            .filter_policy(FilterPolicy::all(bloom))
            .data_block_compression_policy(CompressionPolicy::new([none, none, lz4]))
            .with_kv_separation(blobs.then_some(separation))
    };
    let keyspace = db.keyspace("default", options).expect("fjall keyspace");
    Fjall { db, keyspace, durability }
}

impl Fjall {
    fn persist(&self) {
        if self.durability == Durability::Sync {
            self.db.persist(PersistMode::SyncData).expect("fjall persist");
        }
    }
}

impl Read for Fjall {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        let found = self.keyspace.get(key).expect("fjall get");
        found.as_deref().map(visit).is_some()
    }
}

struct Snapshot<'a> {
    snapshot: fjall::Snapshot,
    keyspace: &'a Keyspace,
}

impl Read for Snapshot<'_> {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        let found = self.snapshot.get(self.keyspace, key).expect("fjall snapshot get");
        found.as_deref().map(visit).is_some()
    }
}

impl Store for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.keyspace.insert(key, value).expect("fjall put");
        self.persist();
    }
    fn delete(&self, key: &[u8]) {
        self.keyspace.remove(key).expect("fjall delete");
        self.persist();
    }
    fn scan(&self, start: &[u8], visit: VisitEntry) {
        for entry in self.keyspace.range(start..) {
            let (key, value) = entry.into_inner().expect("fjall scan");
            if !visit(&key, &value) {
                return;
            }
        }
    }
    fn with_snapshot(&self, work: &mut dyn FnMut(&dyn Read)) {
        work(&Snapshot { snapshot: self.db.snapshot(), keyspace: &self.keyspace });
    }
    fn flush(&self) {
        self.keyspace.rotate_memtable_and_wait().expect("fjall flush");
    }
    fn compact(&self) {
        self.keyspace.major_compact().expect("fjall compact");
    }
}
