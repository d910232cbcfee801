//! Size limits of files and functions.

use super::{is_cfg_test, line_of};
use crate::exceptions::{self, LONG_FUNCTIONS};
use crate::{Finding, Repo, Source};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// No file is longer, tests included.
const FILE_LINES_MAX: usize = 1_000;
/// The median file is no longer.
const FILE_LINES_MEDIAN_MAX: usize = 250;
/// No function outside tests is longer, except those in a short list.
const FUNCTION_LINES_MAX: usize = 70;
/// The maximum length of that list, per thousand functions.
const LONG_FUNCTIONS_PER_MILLE_MAX: usize = 15;

/// The file budget.
pub fn files(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &repo.sources {
        let count = source.text.lines().count();
        if count > FILE_LINES_MAX {
            let message = format!("{count} lines; at most {FILE_LINES_MAX}: split it by concept");
            findings.push(Finding::new(&source.path, count, message));
        }
    }
    let median = median_lines(repo);
    if median > FILE_LINES_MEDIAN_MAX {
        let message = format!("the median source file has {median} lines; at most {FILE_LINES_MEDIAN_MAX}");
        findings.push(Finding::new(".", 0, message));
    }
    findings
}

/// The function budget.
pub fn functions(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = vec![false; LONG_FUNCTIONS.len()];
    let (mut count, mut long) = (0, 0);
    for source in &repo.sources {
        for function in functions_of(source) {
            count += 1;
            if function.lines <= FUNCTION_LINES_MAX {
                continue;
            }
            long += 1;
            match exceptions::find(LONG_FUNCTIONS, &source.path, &function.name) {
                Some(index) => used[index] = true,
                None => findings.push(Finding::new(
                    &source.path,
                    function.line,
                    format!("`{}` has {} lines; at most {FUNCTION_LINES_MAX}", function.name, function.lines),
                )),
            }
        }
    }
    if long * 1_000 > count * LONG_FUNCTIONS_PER_MILLE_MAX {
        let message = format!("{long} of {count} functions are long; at most 1.5%");
        findings.push(Finding::new(".", 0, message));
    }
    for (exception, _) in LONG_FUNCTIONS.iter().zip(&used).filter(|(_, used)| !**used) {
        let message = format!("the exception for `{}` is not needed any more: remove it", exception.what);
        findings.push(Finding::new(exception.path, 0, message));
    }
    findings
}

/// One line about the state of the budgets.
pub fn summary(repo: &Repo) -> String {
    let mut lines: Vec<usize> = repo.sources.iter().flat_map(functions_of).map(|f| f.lines).collect();
    lines.sort_unstable();
    let long = lines.iter().filter(|lines| **lines > FUNCTION_LINES_MAX).count();
    let longest = repo.sources.iter().max_by_key(|source| source.text.lines().count());
    format!(
        "tidy: {} source files, median {} lines, longest {} ({}); {} functions, median {} lines, {long} over {}{}",
        repo.sources.len(),
        median_lines(repo),
        longest.map_or(0, |source| source.text.lines().count()),
        longest.map_or("-", |source| &source.path),
        lines.len(),
        lines.get(lines.len() / 2).unwrap_or(&0),
        FUNCTION_LINES_MAX,
        asserts(repo),
    )
}

/// Assertions per thousand lines; the target is about thirty.
fn asserts(repo: &Repo) -> String {
    let mut report = String::new();
    for name in ["engine", "raftstore", "txn"] {
        let prefix = format!("crates/{name}/src/");
        let (mut lines, mut count) = (0, 0);
        for source in repo.sources.iter().filter(|s| s.path.starts_with(&prefix) && !s.is_test()) {
            lines += source.text.lines().count();
            count += source.lines().filter(|(_, line)| line.contains("assert")).count();
        }
        let per_mille = (count * 1_000).checked_div(lines).unwrap_or(0);
        report += &format!("; {name}: {per_mille} asserts per 1000 lines");
    }
    report
}

fn median_lines(repo: &Repo) -> usize {
    let mut counts: Vec<usize> = repo.sources.iter().map(|source| source.text.lines().count()).collect();
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().unwrap_or(0)
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

fn functions_of(source: &Source) -> Vec<Function> {
    let mut found = Functions(Vec::new());
    if let (Some(syntax), false) = (&source.syntax, source.is_test()) {
        found.visit_file(syntax);
    }
    found.0
}

struct Functions(Vec<Function>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = line_of(signature);
        let lines = block.span().end().line + 1 - line;
        self.0.push(Function { name: signature.ident.to_string(), line, lines });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_cfg_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if is_cfg_test(&function.attrs) {
            return;
        }
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
#[path = "sizes_test.rs"]
mod tests;
