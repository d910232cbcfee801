//! Offline inspection of a database directory.

mod check;
mod check_log;
mod dry_fs;

pub use check::{CheckReport, Problem, check};
