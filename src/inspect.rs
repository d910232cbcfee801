//! Directories that no process has open: what is in them, whether it is as it was written, and what can be saved.
//!
//! The same as `kontiki check`, `repair`, `stats`, `manifest`, `tables` and `wal` for programs.

use crate::Result;
use kontiki_engine::inspect as engine;
use kontiki_env::Env;
use std::path::Path;

pub use engine::{
    CheckReport, FamilySummary, LogFiles, LogSegment, Problem, Properties, RepairReport, SegmentSummary, Summary,
    TableMeta, ValueFileSummary,
};

/// Verifies every byte of the database in `dir` and changes nothing. Meanwhile no process can open it for writing.
///
/// Errors: [`InvalidArgument`](crate::Error::InvalidArgument) if there is no database, [`InUse`](crate::Error::InUse)
/// if it is open for writing, [`Io`](crate::Error::Io) if a file cannot be read. Damage is no error: it is in the
/// report.
pub fn check(dir: impl AsRef<Path>) -> Result<CheckReport> {
    engine::check(&Env::real(), dir.as_ref())
}

/// Saves what can be saved of the database in `from` into `to`, a directory that does not exist or is empty. `from` is
/// not changed.
///
/// Errors: [`InvalidArgument`](crate::Error::InvalidArgument) if `from` holds no part of a database or `to` is not
/// empty, [`InUse`](crate::Error::InUse), [`Io`](crate::Error::Io), [`NoSpace`](crate::Error::NoSpace). What is lost is
/// in the report.
pub fn repair(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<RepairReport> {
    engine::repair(&Env::real(), from.as_ref(), to.as_ref())
}

/// Reads the manifest of the database in `dir`, also while a process has it open.
///
/// Errors: [`InvalidArgument`](crate::Error::InvalidArgument) if there is no database,
/// [`Corruption`](crate::Error::Corruption), [`UnsupportedFormat`](crate::Error::UnsupportedFormat),
/// [`Io`](crate::Error::Io).
pub fn summarize(dir: impl AsRef<Path>) -> Result<Summary> {
    engine::summarize(&Env::real(), dir.as_ref())
}

/// Reads the segments of the log in `dir`, in order.
///
/// Errors: [`Corruption`](crate::Error::Corruption), [`UnsupportedFormat`](crate::Error::UnsupportedFormat),
/// [`Io`](crate::Error::Io).
pub fn log_segments(dir: impl AsRef<Path>) -> Result<Vec<LogSegment>> {
    engine::log_segments(&Env::real(), dir.as_ref())
}

/// Reads the properties of the table `number` of the database in `dir`.
///
/// Errors: [`InvalidArgument`](crate::Error::InvalidArgument) if the manifest names no such table,
/// [`Corruption`](crate::Error::Corruption), [`Io`](crate::Error::Io).
pub fn table_properties(dir: impl AsRef<Path>, number: u64) -> Result<Properties> {
    engine::table_properties(&Env::real(), dir.as_ref(), number)
}
