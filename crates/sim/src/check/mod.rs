//! Checkers: pure functions from records to a result. One guarantee per file.

pub mod durability;
pub mod linearizability;
pub mod outcomes;
pub mod records;
pub mod replicas;
pub mod serializability;
pub mod snapshot_isolation;
pub mod timestamps;
mod wgl;
mod zones;

use std::fmt;

/// A violated guarantee, and the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong, in one line.
    pub what: String,
    /// The records that show it, one per line.
    pub evidence: Vec<String>,
}

impl Violation {
    pub(crate) fn new<'a, R: fmt::Display + 'a>(
        what: impl Into<String>,
        evidence: impl IntoIterator<Item = &'a R>,
    ) -> Violation {
        Violation { what: what.into(), evidence: evidence.into_iter().map(R::to_string).collect() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        self.evidence.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
