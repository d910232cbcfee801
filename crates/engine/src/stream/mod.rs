//! Streams: sequences of opaque entries that live in the log only.
//!
//! The index keeps, for every stream, where each live entry lies in the log, the latest state blob and the truncation
//! mark; and for every segment, how much of it streams still need. One function ([`StreamIndex::apply`]) applies
//! records, whether they were just written or are replayed, so both produce the same index.
//!
//! Invariants:
//! 1. Entries are above the truncation mark and, outside of replay, consecutive.
//! 2. `usage` counts exactly the live items of all streams (checked by recounting in debug builds).
//! 3. Records are applied in log order. Replay may begin in the middle of a stream's history, with entries missing that
//!    a later `Place` puts back; [`StreamIndex::check_whole`] asserts after replay that none is missing.

mod index;
mod read;
mod scan;

pub(crate) use index::StreamIndex;
pub(crate) use read::{collect_rewrite, read_entries, read_stream};
pub(crate) use scan::scan_entries;

/// Longest state blob, in bytes: it is kept in memory and rewritten with its segment, so it must stay small.
pub const STREAM_STATE_BYTES_MAX: usize = 64 << 10;
