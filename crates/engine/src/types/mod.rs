//! The types that every layer speaks: keys, values and their versions, batches and commits, families and their options,
//! ranges and views, cursors, and errors. Plain data and traits: nothing here does I/O, locks or starts threads.

mod batch;
mod commit;
mod compaction_filter;
mod compaction_options;
mod cursor;
mod error;
mod family;
mod family_map;
mod key;
mod kind;
mod table_options;
mod view;

pub(crate) use batch::BatchEntry;
pub use batch::{BatchOp, WriteBatch};
pub use commit::{
    Commit, Durability, Precondition, StreamContents, StreamHead, StreamId, StreamOp, StreamVisitor, Unchanged,
};
pub use compaction_filter::{CompactionFilter, FilterHandle, FilterPass};
pub(crate) use compaction_options::RATIO_MIN;
pub use compaction_options::{CompactionOptions, LEVEL_COUNT};
pub use cursor::{Cursor, SEEK_STEPS};
pub use error::{Error, Result};
pub use family::{Family, FamilyOptions, FamilySpec, KEY_BYTES_MAX, SequenceNumber, VALUE_BYTES_MAX};
pub use family_map::FamilyMap;
pub(crate) use key::{BEYOND_ALL_KEYS, successor};
pub use key::{Found, KeyRef, SEQUENCE_NUMBER_MAX};
pub use kind::{Content, Decoded, EXPIRY_BYTES, KIND_BITS, Kind, VALUE_POINTER_BYTES, ValuePointer, inline_value};
pub use table_options::{Compression, TABLE_BYTES_MAX, TableOptions};
pub use view::{Direction, Entries, Range, ReadOptions, View};
