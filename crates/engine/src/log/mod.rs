//! The one log: every write that must survive a crash is a record here before it is visible.
//!
//! A record is one commit, so a commit is there after a crash whole or not at all. Records lie in *segments*,
//! preallocated files that are filled one after the other. The parts:
//!
//! - `format`: the bytes of a segment and of a record's header;
//! - `record`, `ingested`: the payloads;
//! - `writer`: appends records and switches from segment to segment; under the lock that orders commits;
//! - `next`: makes segments ahead, of files that were segments before;
//! - `tail`: the files that are not durable yet, and how they are synced;
//! - `segments`: the files that exist, shared with readers and with retention;
//! - `reader`: reads the log record by record, up to its live end;
//! - `recovery`: reads the log back at open, cuts a torn tail, names corruption;
//! - `summary`: what a segment's bytes hold, for tools;
//! - `salvage`: what a repair can still read;
//! - `retention`: the one function that decides which segment may be deleted;
//! - `holders`: its reasons, for reports.
//!
//! Invariants:
//! 1. Every segment but the newest is sealed before a record is written to its successor.
//! 2. A record that claims a durable offset `d > 0` was written after `[0, d)` of its segment and all older segments
//!    were synced. So a bad record (or a missing seal) before such a claim is corruption, and any other is where a
//!    crash has torn the log: the log ends there, and what follows is ignored.
//! 3. Nothing is ever appended to a segment of an earlier run: recovery seals the torn one at the cut, and those that
//!    follow at their beginnings. So bytes behind a cut can never follow a valid record again.
//! 4. Segments are deleted oldest first, each deletion durable before the next. So numbers have no gap, and a mark
//!    (truncation, removal) outlives the records that it applies to.
//!
//! docs/internals/log.md has the reasons and what was rejected; docs/formats/log.md the bytes.

mod format;
mod holders;
mod ingested;
mod next;
mod reader;
mod record;
mod recovery;
mod retention;
mod salvage;
mod segments;
mod summary;
mod tail;
mod writer;

pub(crate) use format::{
    RECORD_HEADER_BYTES, RawRecord, RecordKind, WAL_DIR, is_free_name, segment_name, segment_number,
};
pub(crate) use holders::{HolderKind, Holding, MemtablePin, Watchdog, explain, feed_bytes, pinned_bytes};
pub use holders::{LogHolder, LogSegmentStatus};
pub(crate) use ingested::{IngestedTable, decode_ingested, encode_ingested};
pub(crate) use next::{HURRIED_BYTES_MAX, NextSegments};
pub(crate) use reader::{LogReader, Peek};
#[cfg(test)]
pub(crate) use record::encode_commit;
pub(crate) use record::{
    CommitPayload, PayloadSpan, RewriteOp, StreamRecord, commit_bytes_max, decode_commit, decode_commit_batch,
    decode_commit_streams, decode_rewrite, encode_rewrite,
};
pub(crate) use recovery::{Beside, LogEnd, Recovered, recover, refuse_missing_segments};
pub(crate) use retention::{Retention, RetentionInput, SegmentUse, plan_retention};
pub(crate) use salvage::whole_records;
pub(crate) use segments::{RecordPosition, SegmentFacts, Segments};
pub use summary::{SegmentSummary, summarize_segment};
pub(crate) use tail::{SYNCS_MAX, Tail};
pub(crate) use writer::{Appended, FIRST_POSITION, LogWriter, Need, Outgoing};
