//! Offline inspection of a database directory.

mod check;

pub use check::{CheckReport, Problem, check};
