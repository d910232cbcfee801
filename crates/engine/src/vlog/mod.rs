//! The value log: large values, outside of the tree.
//!
//! The tree holds [pointers](crate::kind::ValuePointer) to them, so flush and compaction move some 20 bytes instead of
//! the value. A value is written once, before the log record that refers to it, and again only if it outlives most
//! of its neighbours ([relocation](docs/internals/value-log.md)).
//!
//! Bytes: docs/formats/value-log.md, and at the encoders: [`mod@format`], [`index`]. Which files there are is in the manifest
//! (`version/value_segments.rs`); what of them is garbage follows from what tables refer to ([`refs`]).

mod appender;
mod cache;
pub mod format;
#[expect(dead_code, reason = "relocation comes next")]
mod index;
mod recovery;
pub mod refs;
#[cfg_attr(not(test), expect(dead_code, reason = "relocation comes next"))]
mod scan;
mod separate;
#[expect(dead_code, reason = "relocation comes next")]
mod store;
#[expect(dead_code, reason = "relocation comes next")]
mod values;

pub(crate) use appender::{Appender, ValuePin};
pub(crate) use cache::ValueCache;
pub use format::{FileKind, VALUES_DIR, parse_value_file_name, value_file_path};
pub(crate) use recovery::ValueRecovery;
pub use refs::ValueRefs;
pub(crate) use separate::ValueThresholds;
pub(crate) use store::ValueStore;
pub(crate) use store::value_file_kind;
pub(crate) use values::ValueLog;
