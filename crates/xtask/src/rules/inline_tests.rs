//! Unit tests live in a sibling file, `x_test.rs` beside `x.rs`, so that the code can be read without them.

use super::{is_cfg_test, line_of};
use crate::{Finding, Repo};
use syn::spanned::Spanned;

/// A test module in the file it tests has at most so many lines.
const INLINE_LINES_MAX: usize = 10;

/// See the module.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &repo.sources {
        let items = source.syntax.iter().flat_map(|syntax| &syntax.items);
        for item in items {
            let syn::Item::Mod(module) = item else { continue };
            let lines = module.span().end().line + 1 - line_of(&module.mod_token);
            if is_cfg_test(&module.attrs) && module.content.is_some() && lines > INLINE_LINES_MAX {
                let message = "move these tests to a sibling file: `#[path = \"x_test.rs\"] mod tests;`";
                findings.push(Finding::new(&source.path, line_of(&module.mod_token), message));
            }
        }
    }
    findings
}

#[cfg(test)]
#[path = "inline_tests_test.rs"]
mod tests;
