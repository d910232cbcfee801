//! Offline inspection of a database directory.

mod check;
mod check_log;
mod dry_fs;
mod summary;

pub use check::{CheckReport, Problem, check};
pub use summary::{FamilySummary, LogSegment, Summary, ValueFileSummary, log_segments, summarize, table_properties};
