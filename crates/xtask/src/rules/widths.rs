//! Comments and prose are as wide as code: the width of rustfmt.toml. (rustfmt keeps code to it, but not comments.)

use crate::{Finding, Repo};

const WIDTH: usize = 120;

/// See the module. Tables, code blocks and links may be wider.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &repo.sources {
        for (number, line) in source.lines() {
            let comment = line.trim_start().trim_start_matches('/').trim_start_matches('!').trim_start();
            if line.trim_start().starts_with("//") && is_too_wide(line) && !comment.starts_with('|') {
                findings.push(finding(&source.path, number, line));
            }
        }
    }
    for (path, text) in repo.texts.iter().filter(|(path, _)| path.ends_with(".md")) {
        let mut in_code = false;
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            } else if !in_code && !line.trim_start().starts_with('|') && is_too_wide(line) {
                findings.push(finding(path, index + 1, line));
            }
        }
    }
    findings
}

/// A line that cannot be broken, a link say, is as wide as it is.
fn is_too_wide(line: &str) -> bool {
    line.chars().count() > WIDTH && line.split_whitespace().count() > 2
}

fn finding(path: &str, number: usize, line: &str) -> Finding {
    Finding::new(path, number, format!("{} columns; comments and prose have {WIDTH} at most", line.chars().count()))
}

#[cfg(test)]
#[path = "widths_test.rs"]
mod tests;
