//! Offline inspection of a database directory.

mod check;
mod check_log;
mod check_values;
mod foreign;
mod repair;
mod repair_log;
mod repair_values;
mod summary;

use crate::Result;
use kontiki_env::Env;
use kontiki_env::fs::FileLock;
use std::path::Path;

pub use crate::log::SegmentSummary;
pub use crate::table::TableMeta;
pub use crate::table::properties::Properties;
pub use check::{CheckReport, Problem, check};
pub use foreign::refuse_foreign;
pub use repair::{RepairReport, repair};
pub use summary::{
    FamilySummary, LogFiles, LogSegment, Summary, ValueFileSummary, log_segments, summarize, table_properties,
};

/// Keeps writers away from the database in `dir` as long as the lock lives, for those who read it without opening it
/// for writing ([`crate::Db::open_read_only`]). Several may hold it at once. Nothing in the directory is changed, so it
/// works on read-only media and in directories of other users. `None` if no process ever opened the directory for
/// writing.
///
/// Errors: [`crate::Error::InUse`] if it is open for writing; [`crate::Error::Io`].
pub fn lock_to_read(env: &Env, dir: &Path) -> Result<Option<Box<dyn FileLock>>> {
    crate::directory::lock_to_read(env, dir)
}
