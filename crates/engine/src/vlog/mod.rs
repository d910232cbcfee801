//! The value log: large values, outside of the tree.
//!
//! The tree holds [pointers](crate::kind::ValuePointer) to them, so flush and compaction move some 20 bytes instead of
//! the value. A value is written once, before the log record that refers to it, and again only if it outlives most
//! of its neighbours ([relocation](docs/internals/value-log.md)).
//!
//! Bytes: docs/formats/value-log.md, and at the encoders: [`mod@format`], [`index`]. Which files there are is in the manifest
//! (`version/value_segments.rs`); what of them is garbage follows from what tables refer to ([`refs`]).

#[cfg_attr(not(test), expect(dead_code, reason = "the appender comes next"))]
pub mod format;
#[expect(dead_code, reason = "relocation comes next")]
mod index;
pub mod refs;
#[expect(dead_code, reason = "the appender comes next")]
mod store;

pub use format::{FileKind, VALUES_DIR, parse_value_file_name, value_file_path};
pub use refs::ValueRefs;
pub(crate) use store::ValueStore;
