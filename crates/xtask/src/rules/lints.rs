//! The lint attributes in each crate's root file.

use crate::exceptions::UNSAFE_FILES;
use crate::{Finding, Repo};

/// Every crate denies undocumented items, and forbids unsafe code unless one of its files is in the list.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &repo.sources {
        let member =
            source.path == "src/lib.rs" || (source.path.starts_with("crates/") && source.path.ends_with("/src/lib.rs"));
        if !member {
            continue;
        }
        if !source.text.contains("#![deny(missing_docs)]") {
            findings.push(Finding::new(&source.path, 1, "a crate starts with `#![deny(missing_docs)]`"));
        }
        let folder = source.path.trim_end_matches("lib.rs");
        let excused = UNSAFE_FILES.iter().any(|exception| exception.path.starts_with(folder));
        if !excused && !source.text.contains("#![forbid(unsafe_code)]") {
            findings.push(Finding::new(&source.path, 1, "a crate without unsafe code has `#![forbid(unsafe_code)]`"));
        }
    }
    findings
}

#[cfg(test)]
#[path = "lints_test.rs"]
mod tests;
