//! The peers behind one face, configured alike: 256 MiB cache, 64 MiB memtable, LZ4, 10 bloom bits a key,
//! 2 background threads.

use std::path::Path;

/// An embedded store under test.
pub trait Store: Send + Sync {
    /// Writes; returns once the write is in the operating system or, with `sync`, on the disk.
    fn put(&self, key: &[u8], value: &[u8], sync: bool);
    /// Reads.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Flushes and lets compaction finish, so that reads are measured on a settled store.
    fn settle(&self);
}

/// The names `open` takes, in the order of the tables.
pub const NAMES: [&str; 3] = ["kontiki", "rocksdb", "fjall"];

const CACHE_BYTES: u64 = 256 << 20;
const MEMTABLE_BYTES: u64 = 64 << 20;

/// Opens a store of the named kind.
pub fn open(name: &str, dir: &Path) -> Box<dyn Store> {
    match name {
        "kontiki" => Box::new(Kontiki(open_kontiki(dir))),
        "rocksdb" => Box::new(open_rocksdb(dir)),
        "fjall" => Box::new(open_fjall(dir)),
        other => panic!("unknown engine {other}; known: {NAMES:?}"),
    }
}

struct Kontiki(kontiki_engine::Db);

fn open_kontiki(dir: &Path) -> kontiki_engine::Db {
    let options = kontiki_engine::Options {
        block_cache_bytes: CACHE_BYTES,
        memtable_bytes: MEMTABLE_BYTES,
        ..kontiki_engine::Options::default()
    };
    kontiki_engine::Db::open(dir, options).expect("kontiki opens")
}

impl Store for Kontiki {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) {
        use kontiki_engine::{Durability, Family, WriteBatch};
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, key, value);
        self.0.write(batch, if sync { Durability::Sync } else { Durability::Buffered }).expect("kontiki put");
    }
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).expect("kontiki get").map(|value| value.to_vec())
    }
    fn settle(&self) {
        self.0.flush().expect("kontiki flush");
        self.0.compact().expect("kontiki compact");
    }
}

struct Rocks {
    db: rocksdb::DB,
    sync: rocksdb::WriteOptions,
    buffered: rocksdb::WriteOptions,
}

fn open_rocksdb(dir: &Path) -> Rocks {
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(CACHE_BYTES as usize));
    table.set_bloom_filter(10.0, false);
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(MEMTABLE_BYTES as usize);
    options.set_max_background_jobs(2);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    let mut sync = rocksdb::WriteOptions::default();
    sync.set_sync(true);
    Rocks { db: rocksdb::DB::open(&options, dir).expect("rocksdb opens"), sync, buffered: Default::default() }
}

impl Store for Rocks {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) {
        self.db.put_opt(key, value, if sync { &self.sync } else { &self.buffered }).expect("rocksdb put");
    }
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.db.get(key).expect("rocksdb get")
    }
    fn settle(&self) {
        self.db.flush().expect("rocksdb flush");
        self.db.compact_range::<&[u8], &[u8]>(None, None);
    }
}

struct Fjall {
    db: fjall::Database,
    keyspace: fjall::Keyspace,
}

fn open_fjall(dir: &Path) -> Fjall {
    let db = fjall::Database::builder(dir).cache_size(CACHE_BYTES).worker_threads(2).open().expect("fjall opens");
    let options = || fjall::KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
    let keyspace = db.keyspace("default", options).expect("fjall keyspace");
    Fjall { db, keyspace }
}

impl Store for Fjall {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) {
        self.keyspace.insert(key, value).expect("fjall put");
        if sync {
            self.db.persist(fjall::PersistMode::SyncData).expect("fjall persist");
        }
    }
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.keyspace.get(key).expect("fjall get").map(|value| value.to_vec())
    }
    fn settle(&self) {
        self.keyspace.rotate_memtable_and_wait().expect("fjall flush");
        self.keyspace.major_compact().expect("fjall compact");
    }
}
