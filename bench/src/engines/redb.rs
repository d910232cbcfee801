//! redb: each put is a transaction. It has no mode in which an acknowledged write survives a killed process but not
//! power loss: without sync, commits are `Durability::None`, which a kill loses back to the last durable commit. One of
//! those is made whenever a memtable's worth has been written, because only it frees pages.

use super::{CACHE_BYTES, Durability, MEMTABLE_BYTES, Read, Store, Visit, VisitEntry};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("default");

pub struct Redb {
    db: Database,
    durability: Durability,
    written_bytes: AtomicU64,
}

pub fn open(dir: &Path, durability: Durability) -> Redb {
    let db = Database::builder().set_cache_size(CACHE_BYTES as usize).create(dir.join("redb")).expect("redb opens");
    let transaction = db.begin_write().expect("redb begin");
    transaction.open_table(TABLE).expect("redb table");
    transaction.commit().expect("redb commit");
    Redb { db, durability, written_bytes: AtomicU64::new(0) }
}

impl Redb {
    fn table(&self) -> ReadOnlyTable<&'static [u8], &'static [u8]> {
        self.db.begin_read().expect("redb begin").open_table(TABLE).expect("redb table")
    }

    fn write(&self, bytes: u64, work: impl FnOnce(&mut redb::Table<&'static [u8], &'static [u8]>)) {
        let before = self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        let full = before / MEMTABLE_BYTES != (before + bytes) / MEMTABLE_BYTES;
        let mut transaction = self.db.begin_write().expect("redb begin");
        let immediate = self.durability == Durability::Sync || full;
        let durability = if immediate { redb::Durability::Immediate } else { redb::Durability::None };
        transaction.set_durability(durability).expect("redb durability");
        work(&mut transaction.open_table(TABLE).expect("redb table"));
        transaction.commit().expect("redb commit");
    }
}

impl Read for Redb {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        Read::get(&self.table(), key, visit)
    }
}

impl Read for ReadOnlyTable<&'static [u8], &'static [u8]> {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        let found = ReadableTable::get(self, key).expect("redb get");
        found.map(|value| visit(value.value())).is_some()
    }
}

impl Store for Redb {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.write((key.len() + value.len()) as u64, |table| drop(table.insert(key, value).expect("redb insert")));
    }
    fn delete(&self, key: &[u8]) {
        self.write(key.len() as u64, |table| drop(table.remove(key).expect("redb remove")));
    }
    fn load(&self, entries: &[([u8; 16], Vec<u8>)]) {
        self.write(MEMTABLE_BYTES, |table| {
            for (key, value) in entries {
                table.insert(&key[..], &value[..]).expect("redb insert");
            }
        });
    }
    fn scan(&self, start: &[u8], visit: VisitEntry) {
        for entry in self.table().range(start..).expect("redb range") {
            let (key, value) = entry.expect("redb scan");
            if !visit(key.value(), value.value()) {
                return;
            }
        }
    }
    fn with_snapshot(&self, work: &mut dyn FnMut(&dyn Read)) {
        work(&self.table());
    }
    fn flush(&self) {
        self.write(MEMTABLE_BYTES, |_| {});
    }
    fn compact(&self) {}
}
