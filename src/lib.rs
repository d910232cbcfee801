//! Kontiki is a transactional key-value store: a library that keeps ordered keys and values in a directory, and a
//! server (`kontiki serve`) that replicates the same data over several nodes.
//!
//! Keys and values are bytes. Data is kept in a log-structured merge tree with a write-ahead log; large values are kept
//! apart from the tree. One process opens a directory at a time; a [`Db`] is cheap to clone, and its clones are shared
//! by threads.
//!
//! ```toml
//! [dependencies]
//! kontiki = { git = "...", default-features = false }   # the engine alone: no async runtime, no network
//! ```
//!
//! # Open, write, read
//!
//! ```
//! # fn main() -> kontiki::Result<()> {
//! # let scratch = tempfile::tempdir().unwrap();
//! # let path = scratch.path().join("db");
//! use kontiki::{Db, Durability, Family, Options, WriteBatch};
//!
//! let db = Db::open(&path, Options::default())?;
//! db.put("raft", "balsa")?; // durable when it returns
//! assert_eq!(db.get("raft")?.as_deref(), Some(b"balsa".as_slice()));
//!
//! // All or nothing, after any crash; over any number of families.
//! let crew = db.open_family("crew")?;
//! let mut batch = WriteBatch::new();
//! batch.put(crew, "bengt", "sociologist");
//! batch.put(crew, "erik", "navigator");
//! batch.delete(Family::DEFAULT, "raft");
//! db.write(batch, Durability::Buffered)?;
//!
//! // Ranges are those of the language; entries come in the order of their keys.
//! for entry in db.range_in(crew, "a".."c")? {
//!     let (name, role) = entry?;
//!     assert_eq!((&name[..], &role[..]), (&b"bengt"[..], &b"sociologist"[..]));
//! }
//!
//! // A snapshot does not change, whatever is written.
//! let before = db.snapshot();
//! db.delete_in(crew, "erik")?;
//! assert!(before.contains(crew, "erik")?);
//! db.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Transactions
//!
//! [`Db::transact`] runs a closure until it commits without a conflict; [`Db::transaction`] is the same by hand.
//! Isolation is snapshot isolation, or serializable ([`TransactionOptions::serializable`]).
//!
//! ```
//! # fn main() -> kontiki::Result<()> {
//! # let scratch = tempfile::tempdir().unwrap();
//! # let db = kontiki::Db::open(scratch.path().join("db"), kontiki::Options::default())?;
//! let visits = db.transact(|transaction| -> kontiki::Result<u64> {
//!     let found = transaction.get("visits")?;
//!     let visits = 1 + found.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("8 bytes")));
//!     transaction.put("visits", visits.to_be_bytes())?;
//!     Ok(visits)
//! })?;
//! assert_eq!(visits, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Durability
//!
//! | call | a killed process | power loss |
//! |---|---|---|
//! | [`Db::put`], [`Db::delete`], and all other single writes | survives | survives |
//! | [`Db::write`] with [`Durability::Sync`] | survives | survives |
//! | [`Db::write`] with [`Durability::Buffered`] | survives | may be lost, from some write on, until the next sync, flush or close |
//! | [`Transaction::commit`] | survives | survives, unless its options say `Buffered` |
//! | [`Db::ingest`] | survives | survives |
//!
//! A batch, a transaction or an ingest is never there in part.
//!
//! # Limits
//!
//! | | |
//! |---|---|
//! | key | [`KEY_BYTES_MAX`]: 64 KiB |
//! | value | [`VALUE_BYTES_MAX`]: 32 MiB |
//! | writes of one transaction | [`TransactionOptions::write_bytes_max`]: 64 MiB by default |
//! | processes with the directory open for writing | 1 |
//!
//! # More
//!
//! - Bulk load: [`IngestWriter`] and [`Db::ingest`]. Expiry: [`Db::put_with_ttl`]. Conditions: [`Db::write_if`].
//! - [`Db::changes`]: every batch after a number, in order, for indexes and replicas of your own.
//! - [`backup`]: checkpoints and incremental backups; [`inspect`]: verify, look into and repair directories.
//! - [`Db::stats`]: typed statistics, as Prometheus text or JSON, too.
//! - [`Error::kind`]: what the caller can do about an error.
//! - `client` (feature `client`): a cluster of nodes instead of a directory.
//!
//! The features `client` and `server` are on by default; the `kontiki` program needs both.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod backup;
pub mod inspect;

pub use bytes::Bytes;
#[cfg(feature = "client")]
pub use kontiki_client as client;
pub use kontiki_engine::{
    BatchOp, Change, Changes, ChangesOptions, Commit, CompactionOptions, Compression, Db, DelayReason, Direction,
    Durability, Entries, Error, ErrorKind, Family, FamilyOptions, FamilySpec, HotKeyOptions, IngestFile, IngestOptions,
    IngestReport, IngestWriter, IngestedRange, Isolation, KEY_BYTES_MAX, MEMORY_BUDGET_BYTES_MIN, Options, PartSize,
    Precondition, Range, RangePart, ReadOptions, Result, Savepoint, Scan, SequenceNumber, Snapshot, Stats,
    SubscriberStatus, TableOptions, Transaction, TransactionEntries, TransactionOptions, TransactionStats, Unchanged,
    VALUE_BYTES_MAX, View, WriteBatch, WriteDelays, stats,
};

/// The keys that begin with `prefix`: [`Range::prefix`].
pub fn prefix(prefix: impl AsRef<[u8]>) -> Range {
    Range::prefix(prefix)
}

/// Every snippet of the README and of the guide runs as a test.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/guide/embedded.md")]
    struct Embedded;
    #[doc = include_str!("../docs/guide/transactions.md")]
    struct Transactions;
    #[doc = include_str!("../docs/guide/statistics.md")]
    struct Statistics;
    #[doc = include_str!("../docs/guide/replace-a-disk.md")]
    struct ReplaceADisk;
    #[doc = include_str!("../docs/guide/command-line.md")]
    struct CommandLine;
    #[cfg(feature = "client")]
    #[doc = include_str!("../docs/guide/client.md")]
    struct ClientOfACluster;
}
