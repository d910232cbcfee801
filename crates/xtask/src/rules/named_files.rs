//! Files and tests that Markdown names exist, so that a page does not outlive a file or a test that moved.
//!
//! A file is named by the end of its path, `db/open.rs` for `crates/engine/src/db/open.rs`; a folder `src` may be left
//! out. `a_test.rs::name` and `b.rs::{name, other}` name functions, which any source file may hold: tests move. Braces
//! stand for each of the names in them. In the list of bugs every word with three underscores is such a name. Not read:
//! the changelog, which speaks of earlier versions, and fenced code.

use crate::{Finding, Repo};
use std::collections::BTreeSet;

/// Stands for any file in the conventions.
const PLACEHOLDER: &str = "x_test.rs";
/// Speaks of earlier versions.
const NOT_READ: &str = "CHANGELOG.md";
/// Lists tests, often several of one file.
const BUGS: &str = "docs/bugs.md";

/// See the module.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let known = Known::of(repo);
    let mut findings = Vec::new();
    for (path, text) in repo.texts.iter().filter(|(path, _)| path.ends_with(".md") && *path != NOT_READ) {
        let mut in_code = false;
        for (index, line) in text.lines().enumerate() {
            in_code ^= line.trim_start().starts_with("```");
            if !in_code {
                let mut named = names(line);
                if path == BUGS {
                    named.extend(long_words(line));
                }
                let unknown = named.into_iter().filter_map(|name| known.problem(&name));
                findings.extend(unknown.map(|message| Finding::new(path, index + 1, message)));
            }
        }
    }
    findings
}

struct Known<'a> {
    /// Every end of a source file's path, with and without its folders `src`.
    files: BTreeSet<String>,
    functions: BTreeSet<&'a str>,
    /// Every word of a source file, and every name of one.
    words: BTreeSet<&'a str>,
}

impl Known<'_> {
    fn of(repo: &Repo) -> Known<'_> {
        let mut files = BTreeSet::new();
        let (mut functions, mut words) = (BTreeSet::new(), BTreeSet::new());
        for source in &repo.sources {
            for path in [source.path.clone(), source.path.replace("/src/", "/")] {
                let ends = path.match_indices('/').map(|(at, _)| path[at + 1..].to_string());
                files.extend(ends.chain([path.clone()]));
            }
            functions.extend(source.text.split("fn ").skip(1).map(identifier));
            words.extend(source.text.split(is_separator).chain(source.path.split(is_separator)));
        }
        Known { files, functions, words }
    }

    fn problem(&self, name: &Name) -> Option<String> {
        match name {
            Name::File(file) if file == PLACEHOLDER || file.contains('*') || self.files.contains(file) => None,
            Name::File(file) => Some(format!("there is no source file `{file}`")),
            Name::Function(function) if self.functions.contains(function.as_str()) => None,
            Name::Function(function) => Some(format!("no source file has a function `{function}`")),
            Name::Word(word) if self.words.contains(word.as_str()) => None,
            Name::Word(word) => Some(format!("no source file has the name `{word}`")),
        }
    }
}

enum Name {
    File(String),
    Function(String),
    Word(String),
}

/// The files and functions that a line names.
fn names(line: &str) -> Vec<Name> {
    let mut found = Vec::new();
    let mut rest = 0;
    while let Some(at) = line[rest..].find(".rs").map(|at| rest + at) {
        rest = at + ".rs".len();
        // A longer word, or the host of a link.
        if line[rest..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '/') {
            continue;
        }
        let file = &line[start_of_path(&line[..at])..rest];
        found.extend(expand(file).into_iter().map(|file| Name::File(relative(&file))));
        if let Some(function) = line[rest..].strip_prefix("::") {
            let functions = match function.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
                Some((inside, _)) => inside.split(',').map(str::trim).collect(),
                None => vec![identifier(function)],
            };
            found.extend(functions.into_iter().map(|function| Name::Function(function.to_string())));
        }
    }
    found
}

/// What looks like the name of a test.
fn long_words(line: &str) -> impl Iterator<Item = Name> {
    let words = line.split(is_separator).filter(|word| word.matches('_').count() >= 3);
    words.map(|word| Name::Word(word.to_string()))
}

fn is_separator(c: char) -> bool {
    !c.is_alphanumeric() && c != '_'
}

/// Where the path at the end of `text` begins; spaces belong to it within braces only.
fn start_of_path(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices().rev() {
        match c {
            '}' => depth += 1,
            '{' if depth > 0 => depth -= 1,
            ',' | ' ' if depth > 0 => {}
            '/' | '.' | '-' | '_' | '*' => {}
            c if c.is_alphanumeric() => {}
            _ => return at + c.len_utf8(),
        }
    }
    0
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expand(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_string()] };
    let Some((inside, after)) = rest.split_once('}') else { return vec![path.to_string()] };
    inside.split(',').flat_map(|one| expand(&format!("{before}{}{after}", one.trim()))).collect()
}

/// Without the steps to other folders at its beginning.
fn relative(path: &str) -> String {
    path.trim_start_matches(['.', '/']).to_string()
}

fn identifier(text: &str) -> &str {
    let end = text.find(is_separator).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
#[path = "named_files_test.rs"]
mod tests;
