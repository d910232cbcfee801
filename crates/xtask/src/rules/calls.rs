//! Only crates/env uses files, clocks and threads of the operating system. clippy.toml bans the same calls; this rule
//! also checks imports, and keeps the exceptions, each with a reason, in one place.
//!
//! Tests may use files, clocks and threads, but not sleep: they wait on a condition with a deadline.

use super::line_of;
use crate::exceptions::{self, CALLS};
use crate::{Finding, Repo, Source};
use syn::visit::Visit;

/// What is banned, the remedy, and whether tests may.
const BANNED: &[(&str, &str, bool)] = &[
    ("std::fs", "go through env::fs", true),
    ("Instant::now", "go through env::clock", true),
    ("SystemTime::now", "go through env::clock", true),
    ("thread::spawn", "go through env::tasks", true),
    ("thread::Builder", "go through env::tasks", true),
    ("thread::sleep", "wait on a condition with a deadline", false),
];

/// The crate that may make these calls, and the workspaces that measure the store from outside.
const EXEMPT: [&str; 3] = ["crates/env/", "bench/", "fuzz/"];

/// See the module.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = vec![false; CALLS.len()];
    for source in repo.sources.iter().filter(|s| !EXEMPT.iter().any(|prefix| s.path.starts_with(prefix))) {
        for (line, what, remedy) in uses(source) {
            match exceptions::find(CALLS, &source.path, what) {
                Some(index) => used[index] = true,
                None => {
                    let message = format!("`{what}` outside crates/env: {remedy}");
                    findings.push(Finding::new(&source.path, line, message));
                }
            }
        }
    }
    for (exception, _) in CALLS.iter().zip(&used).filter(|(_, used)| !**used) {
        let message = format!("the exception for `{}` is not needed any more: remove it", exception.what);
        findings.push(Finding::new(exception.path, 0, message));
    }
    findings.sort();
    findings.dedup();
    findings
}

fn uses(source: &Source) -> Vec<(usize, &'static str, &'static str)> {
    let mut paths = Paths::default();
    if let Some(syntax) = &source.syntax {
        paths.visit_file(syntax);
    }
    let banned = |path: &str, (what, _, in_tests): &(&str, &str, bool)| {
        let path = format!("::{path}::");
        path.contains(&format!("::{what}::")) && !(*in_tests && source.is_test())
    };
    let find = |(line, path): (usize, String)| {
        BANNED.iter().find(|entry| banned(&path, entry)).map(|(what, remedy, _)| (line, *what, *remedy))
    };
    paths.0.into_iter().filter_map(find).collect()
}

/// Every path in expressions, types and imports, with its line.
#[derive(Default)]
struct Paths(Vec<(usize, String)>);

impl Paths {
    fn flatten(&mut self, tree: &syn::UseTree, prefix: &str) {
        let join = |name: &syn::Ident| if prefix.is_empty() { name.to_string() } else { format!("{prefix}::{name}") };
        match tree {
            syn::UseTree::Path(path) => self.flatten(&path.tree, &join(&path.ident)),
            syn::UseTree::Name(name) => self.0.push((line_of(name), join(&name.ident))),
            syn::UseTree::Rename(rename) => self.0.push((line_of(rename), join(&rename.ident))),
            syn::UseTree::Glob(glob) => self.0.push((line_of(glob), prefix.to_string())),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.flatten(item, prefix)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.flatten(&item.tree, "");
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.0.push((line_of(path), names.join("::")));
        syn::visit::visit_path(self, path);
    }

    /// The arguments of macros are tokens to the parser, not paths: search their text.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        for word in
            call.tokens.to_string().replace(" :: ", "::").split(|c: char| !c.is_alphanumeric() && c != ':' && c != '_')
        {
            if word.contains("::") {
                self.0.push((line_of(call), word.to_string()));
            }
        }
    }
}

#[cfg(test)]
#[path = "calls_test.rs"]
mod tests;
