//! The value log: large values, outside of the LSM tree.
//!
//! The tree holds pointers to them (`ValuePointer` in `types/kind.rs`), so flush and compaction move some 20 bytes
//! instead of the value. A value is written once, before the log record that refers to it, and again only if it
//! outlives most of its neighbours: see docs/internals/value-log.md.
//!
//! - [`mod@format`] and `index`: the bytes; docs/formats/value-log.md too;
//! - `separate` and `appender`: writing;
//! - `store` and `record_scan`: reading, by pointer and from end to end;
//! - [`refs`]: what tables refer to, from which it follows what is garbage;
//! - `file_writer`: writing a whole file, for a flush or a relocation;
//! - `value_log`: all of it, in an open database;
//! - `summary`: what a file's bytes hold, for tools.
//!
//! Which files there are is in the manifest (`version/value_segments.rs`); what adds and removes them is `value_files`.

mod appender;
mod cache;
mod file_writer;
pub mod format;
mod index;
mod record_scan;
pub mod refs;
mod separate;
mod store;
mod summary;
mod value_log;
mod verify;

pub(crate) use appender::{Appender, ValuePin};
pub(crate) use cache::{ReadValue, Step, ValueCache};
pub(crate) use file_writer::{FileWriter, FinishedFile};
pub(crate) use format::FILE_HEADER_BYTES;
pub use format::{VALUES_DIR, ValueFileKind, parse_value_file_name, value_file_path};
pub(crate) use index::Moved;
pub(crate) use record_scan::{FoundRecords, RecordScan, find_records};
pub use refs::ValueRefs;
pub(crate) use separate::ValueThresholds;
pub(crate) use store::OPEN_FILES_MAX as OPEN_VALUE_FILES_MAX;
pub(crate) use store::{ValueReader, ValueStore, value_file_kind};
pub use summary::summarize_value_file;
pub(crate) use value_log::ValueLog;
pub use value_log::{CollectionReport, ValueStats};
