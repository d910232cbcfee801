//! The embedded engine: one log, memtables, sorted tables, manifest, leveled compaction, snapshots, iterators.
//! Threads and blocking calls; knows nothing of consensus, protobuf or the network.
//!
//! ```no_run
//! # fn main() -> kontiki_engine::Result<()> {
//! use kontiki_engine::{Db, Options};
//!
//! let db = Db::open("data", Options::default())?;
//! db.put(b"raft", b"balsa")?;
//! assert_eq!(db.get(b"raft")?.as_deref(), Some(&b"balsa"[..]));
//! db.close()?;
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod batch;
pub mod cache;
mod commit;
pub mod compaction;
pub mod copy;
mod db;
mod dead;
mod error;
mod extent;
mod family;
mod family_map;
mod feed;
mod hot;
pub mod inspect;
pub mod iterator;
pub mod kind;
mod lock;
pub mod log;
pub mod memtable;
mod ownership;
pub mod planted;
#[allow(unsafe_code)]
mod prefetch;
mod range;
pub mod stats;
mod stream;
pub mod table;
mod transaction;
pub mod version;
mod view;
pub mod vlog;

pub use batch::{BatchOp, WriteBatch};
pub use commit::{Commit, Durability, Precondition, StreamContents, StreamId, StreamOp, Unchanged};
pub use db::{Db, DelayReason, IngestOptions, IngestReport, MEMORY_BUDGET_BYTES_MIN, Options, Snapshot, WriteDelays};
pub use error::{Error, Result};
pub use family::{Family, FamilyOptions, FamilySpec, KEY_BYTES_MAX, SequenceNumber, VALUE_BYTES_MAX};
pub use feed::{Change, Changes, ChangesOptions, FeedStats, IngestedRange, SubscriberStatus};
pub use hot::HotKeyOptions;
pub use iterator::Scan;
pub use log::{LogHolder, LogSegmentStatus};
pub use stats::{FamilyStats, Histogram, LevelStats, Stats};
pub use stream::STREAM_STATE_BYTES_MAX;
pub use table::{IngestFile, IngestWriter};
pub use transaction::{Isolation, Savepoint, Transaction, TransactionEntries, TransactionOptions, TransactionStats};
pub use view::{Direction, Entries, Range, ReadOptions, View};
pub use vlog::{CollectionReport, ValueStats};
