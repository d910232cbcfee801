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

mod cache;
mod compaction;
pub mod copy;
mod db;
mod dead_ranges;
mod directory;
mod extent;
mod feed;
mod hot;
pub mod inspect;
mod key_locks;
mod lock;
mod log;
mod measure;
mod memtable;
mod ownership;
pub mod planted;
#[allow(unsafe_code)]
mod prefetch;
mod range;
mod read;
pub mod stats;
mod stream;
mod table;
mod transaction;
mod types;
mod value_files;
mod version;
mod vlog;

pub use db::{
    Db, DelayReason, FeedStats, IngestOptions, IngestReport, MEMORY_BUDGET_BYTES_MIN, Options, Snapshot,
    SubscriberStatus, TransactionStats, WriteDelays,
};
pub use feed::{Change, Changes, ChangesOptions, IngestedRange};
pub use hot::HotKeyOptions;
pub use kontiki_env::ErrorKind;
pub use log::{LogHolder, LogSegmentStatus};
pub use measure::Histogram;
pub use read::{PartSize, RangePart, Scan};
pub use stats::{FamilyStats, LevelStats, Stats};
pub use stream::STREAM_STATE_BYTES_MAX;
pub use table::{IngestFile, IngestWriter};
pub use transaction::{Isolation, Savepoint, Transaction, TransactionEntries, TransactionOptions};
pub use types::{
    BatchOp, Commit, CompactionFilter, CompactionOptions, Compression, Direction, Durability, Entries, Error, Family,
    FamilyOptions, FamilySpec, FilterHandle, FilterPass, KEY_BYTES_MAX, Precondition, Range, ReadOptions, Result,
    SequenceNumber, StreamContents, StreamHead, StreamId, StreamOp, StreamVisitor, TableOptions, Unchanged,
    VALUE_BYTES_MAX, View, WriteBatch,
};
pub use vlog::{CollectionReport, ValueStats};

/// What the fuzz targets and the simulator look into: not part of the interface, and changed without notice.
#[doc(hidden)]
pub mod internals {
    pub use crate::copy::decode_record;
    pub use crate::log::summarize_segment;
    pub use crate::table::BlockCache;
    pub use crate::table::block::Block;
    pub use crate::table::filter::{Filter, filter_hash};
    pub use crate::table::format::{
        BlockHandle, FOOTER_BYTES, TRAILER_BYTES, check_header, decode_block, decode_footer,
    };
    pub use crate::table::properties::Properties;
    pub use crate::table::{TABLES_DIR, TableCursor, TableReader, TableWriter, parse_table_name};
    pub use crate::types::{Cursor, KeyRef, Kind};
    pub use crate::version::VersionEdit;
    pub use crate::version::manifest::parse_manifest;
    pub use crate::vlog::{ValueRefs, summarize_value_file};
}
