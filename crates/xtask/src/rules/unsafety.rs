//! Unsafe code lives in listed files only, each block with its reason, each file with an entry in UNSAFE.md.

use super::line_of;
use crate::exceptions::{self, UNSAFE_FILES};
use crate::{Finding, Repo, Source};
use syn::visit::{self, Visit};

/// How far above a block its `// SAFETY:` may start.
const COMMENT_LINES_MAX: usize = 10;

/// See the module.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = vec![false; UNSAFE_FILES.len()];
    for source in &repo.sources {
        let lines = unsafe_lines(source);
        if lines.is_empty() {
            continue;
        }
        match exceptions::find(UNSAFE_FILES, &source.path, "unsafe") {
            Some(index) => used[index] = true,
            None => findings.push(Finding::new(&source.path, lines[0], "unsafe code in a file that is not listed")),
        }
        if !repo.text("UNSAFE.md").contains(&source.path) {
            findings.push(Finding::new(&source.path, lines[0], "this file's unsafe code has no entry in UNSAFE.md"));
        }
        let all: Vec<&str> = source.text.lines().collect();
        for line in lines {
            let above = &all[line.saturating_sub(COMMENT_LINES_MAX)..line];
            if !above.iter().any(|text| text.contains("SAFETY:")) {
                findings.push(Finding::new(&source.path, line, "state above it why this is sound: `// SAFETY: ...`"));
            }
        }
    }
    for (exception, _) in UNSAFE_FILES.iter().zip(&used).filter(|(_, used)| !**used) {
        findings.push(Finding::new(
            exception.path,
            0,
            "the exception for unsafe code is not needed any more: remove it",
        ));
    }
    findings
}

fn unsafe_lines(source: &Source) -> Vec<usize> {
    let mut found = Unsafe(Vec::new());
    if let Some(syntax) = &source.syntax {
        found.visit_file(syntax);
    }
    found.0
}

struct Unsafe(Vec<usize>);

impl<'ast> Visit<'ast> for Unsafe {
    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.0.push(line_of(&block.unsafe_token));
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0.extend(signature.unsafety.iter().map(line_of));
        visit::visit_signature(self, signature);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.0.extend(item.unsafety.iter().map(line_of));
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.0.extend(item.unsafety.iter().map(line_of));
        visit::visit_item_trait(self, item);
    }
}

#[cfg(test)]
#[path = "unsafety_test.rs"]
mod tests;
