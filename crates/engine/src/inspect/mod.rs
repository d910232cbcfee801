//! Offline inspection of a database directory.

mod check;
mod check_log;
mod check_values;
mod dry_fs;
mod repair;
mod summary;

pub use check::{CheckReport, Problem, check};
pub(crate) use dry_fs::DryFs;
pub use repair::{RepairReport, repair};
pub use summary::{
    FamilySummary, LogFiles, LogSegment, Summary, ValueFileSummary, log_segments, summarize, table_properties,
};
