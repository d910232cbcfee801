//! LMDB through heed: each put is a transaction. Without sync (`NOSYNC`) a commit is in the page cache when it returns,
//! so it survives a killed process; power loss may then destroy the whole store, unlike with the others.

use super::{Durability, Read, Store, Visit, VisitEntry};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};
use std::path::Path;

/// LMDB reads through a memory map of this size; the page cache is its cache, and has no limit here.
const MAP_BYTES: usize = 64 << 30;
/// More than the benchmark has threads.
const READERS_MAX: u32 = 256;

pub struct Lmdb {
    env: Env,
    table: Database<Bytes, Bytes>,
}

pub fn open(dir: &Path, durability: Durability) -> Lmdb {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES).max_readers(READERS_MAX);
    // SAFETY: NOSYNC gives up durability only, and the map's file is touched by this process alone.
    let env = unsafe {
        if durability == Durability::Buffered {
            options.flags(EnvFlags::NO_SYNC);
        }
        options.open(dir).expect("lmdb opens")
    };
    let mut transaction = env.write_txn().expect("lmdb begin");
    let table = env.create_database(&mut transaction, None).expect("lmdb table");
    transaction.commit().expect("lmdb commit");
    Lmdb { env, table }
}

impl Read for Lmdb {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        let transaction = self.env.read_txn().expect("lmdb begin");
        let found = self.table.get(&transaction, key).expect("lmdb get");
        found.map(visit).is_some()
    }
}

struct Snapshot<'a> {
    transaction: RoTxn<'a, WithTls>,
    table: Database<Bytes, Bytes>,
}

impl Read for Snapshot<'_> {
    fn get(&self, key: &[u8], visit: Visit) -> bool {
        let found = self.table.get(&self.transaction, key).expect("lmdb get");
        found.map(visit).is_some()
    }
}

impl Store for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) {
        let mut transaction = self.env.write_txn().expect("lmdb begin");
        self.table.put(&mut transaction, key, value).expect("lmdb put");
        transaction.commit().expect("lmdb commit");
    }
    fn delete(&self, key: &[u8]) {
        let mut transaction = self.env.write_txn().expect("lmdb begin");
        self.table.delete(&mut transaction, key).expect("lmdb delete");
        transaction.commit().expect("lmdb commit");
    }
    fn load(&self, entries: &[([u8; 16], Vec<u8>)]) {
        let mut transaction = self.env.write_txn().expect("lmdb begin");
        for (key, value) in entries {
            self.table.put(&mut transaction, key, value).expect("lmdb put");
        }
        transaction.commit().expect("lmdb commit");
    }
    fn scan(&self, start: &[u8], visit: VisitEntry) {
        let transaction = self.env.read_txn().expect("lmdb begin");
        let from = (std::ops::Bound::Included(start), std::ops::Bound::Unbounded);
        for entry in self.table.range(&transaction, &from).expect("lmdb range") {
            let (key, value) = entry.expect("lmdb scan");
            if !visit(key, value) {
                return;
            }
        }
    }
    fn with_snapshot(&self, work: &mut dyn FnMut(&dyn Read)) {
        let transaction = self.env.read_txn().expect("lmdb begin");
        work(&Snapshot { transaction, table: self.table });
    }
    fn flush(&self) {
        self.env.force_sync().expect("lmdb sync");
    }
    fn compact(&self) {}
}
