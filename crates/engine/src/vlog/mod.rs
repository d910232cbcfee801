//! The value log: large values, outside of the LSM tree.
//!
//! The tree holds pointers to them (`ValuePointer` in `types/kind.rs`), so flush and compaction move some 20 bytes
//! instead of the value. A value is written once, before the log record that refers to it, and again only if it
//! outlives most of its neighbours: see docs/internals/value-log.md.
//!
//! - [`mod@format`] and `index`: the bytes; docs/formats/value-log.md too;
//! - `separate` and `appender`: writing;
//! - `store` and `scan`: reading, by pointer and from end to end;
//! - `recovery`: what a crash has left open;
//! - [`refs`]: what tables refer to, from which it follows what is garbage;
//! - `plan` and `relocate`: collecting garbage; `file_writer` writes the new files, `flushed` those of a flush;
//! - `values`: all of it, in an open database; its job is in `db/values.rs`;
//! - `summary`: what a file's bytes hold, for tools.
//!
//! Which files there are is in the manifest (`version/value_segments.rs`).

mod appender;
mod cache;
mod file_writer;
mod flushed;
pub mod format;
mod index;
pub(crate) mod plan;
mod recovery;
pub mod refs;
mod relocate;
mod scan;
mod separate;
mod store;
mod summary;
mod values;
mod verify;

pub(crate) use appender::{Appender, ValuePin};
pub(crate) use cache::{ReadValue, Step, ValueCache};
pub(crate) use flushed::FlushedValues;
pub(crate) use format::FILE_HEADER_BYTES;
pub use format::{FileKind, VALUES_DIR, parse_value_file_name, value_file_path};
pub(crate) use recovery::ValueRecovery;
pub use refs::ValueRefs;
pub(crate) use relocate::{Relocation, Relocator};
pub(crate) use separate::ValueThresholds;
pub(crate) use store::OPEN_FILES_MAX as OPEN_VALUE_FILES_MAX;
pub(crate) use store::{ValueReader, ValueStore, value_file_kind};
pub use summary::summarize_value_file;
pub(crate) use values::ValueLog;
pub use values::{CollectionReport, ValueStats};
