//! Kontiki. Its value log has the default settings: values from 1 KiB on are separated.

use super::{CACHE_BYTES, Durability, MEMTABLE_BYTES, Read, Store, Visit, VisitEntry};
use kontiki_engine::Compression;
use kontiki_engine::{Db, Direction, Family, FamilySpec, Options, Range, ReadOptions, Snapshot, WriteBatch};
use std::path::Path;

pub struct Kontiki {
    db: Db,
    durability: kontiki_engine::Durability,
}

pub fn open(dir: &Path, durability: Durability, value_threshold_bytes: Option<u64>) -> Kontiki {
    // Like the peers: nothing is compressed above level 2, and there is one cache budget.
    let mut family = FamilySpec::new(Family::DEFAULT, "default");
    family.options.compression = vec![Compression::None, Compression::None, Compression::Lz4];
    if let Some(bytes) = value_threshold_bytes {
        family.options.value_threshold_bytes = bytes;
    }
    let options = Options {
        families: vec![family],
        cache_bytes: CACHE_BYTES,
        memtable_bytes: MEMTABLE_BYTES,
        ..Options::default()
    };
    let durability = match durability {
        Durability::Buffered => kontiki_engine::Durability::Buffered,
        Durability::Sync => kontiki_engine::Durability::Sync,
    };
    Kontiki { db: Db::open(dir, options).expect("kontiki opens"), durability }
}

impl Read for Kontiki {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        let found = self.db.get(key).expect("kontiki get");
        found.as_deref().map(visit).is_some()
    }
}

impl Read for Snapshot {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        let found = self.get(key).expect("kontiki snapshot get");
        found.as_deref().map(visit).is_some()
    }
}

impl Store for Kontiki {
    fn put(&self, key: &[u8], value: &[u8]) {
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, key, value);
        self.db.write(batch, self.durability).expect("kontiki put");
    }
    fn delete(&self, key: &[u8]) {
        let mut batch = WriteBatch::new();
        batch.delete(Family::DEFAULT, key);
        self.db.write(batch, self.durability).expect("kontiki delete");
    }
    fn delete_range(&self, start: &[u8], end: &[u8]) {
        let mut batch = WriteBatch::new();
        batch.delete_range(Family::DEFAULT, start..end);
        self.db.write(batch, self.durability).expect("kontiki delete_range");
    }
    fn scan(&self, start: &[u8], visit: VisitEntry) {
        let range = Range { start: Some(start.to_vec().into()), end: None };
        let scan = self.db.scan(Family::DEFAULT, range, Direction::Forward, ReadOptions::default());
        let mut scan = scan.expect("kontiki scan");
        while scan.advance().expect("kontiki advance") {
            let (key, value) = scan.entry().expect("kontiki value");
            if !visit(key, value) {
                return;
            }
        }
    }
    fn with_snapshot(&self, work: &mut dyn FnMut(&dyn Read)) {
        work(&self.db.snapshot());
    }
    fn flush(&self) {
        self.db.flush().expect("kontiki flush");
    }
    fn compact(&self) {
        self.db.compact().expect("kontiki compact");
    }
}
