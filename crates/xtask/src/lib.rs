//! The project's coding rules as code: a rule is a function from the source tree to findings.
//!
//! They run as `cargo xtask tidy` and as tests of this package, so a change that breaks a rule fails the tests. Each
//! rule has a list of exceptions with a reason beside each (`exceptions`), and an exception that is not needed any more
//! is itself a finding, so the lists stay short.
#![deny(missing_docs)]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)] // a tool that reads the source tree, not part of the store

pub mod exceptions;
mod repo;
pub mod rules;

pub use repo::{Repo, Source, root};

use std::fmt;

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the root of the repository.
    pub path: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}
