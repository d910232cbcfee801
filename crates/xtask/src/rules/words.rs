//! Words that are not allowed: marks of unfinished work in code, and paths of one machine in any file.

use crate::{Finding, Repo};

/// Unfinished work belongs in an issue. Spelt in two parts, so that this file passes its own rule.
const UNFINISHED: &[&str] =
    &[concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME"), concat!("XX", "X:")];

/// Places that exist on one machine only.
const MACHINE: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/tmp/ta", "rget"), concat!("/ho", "me/"), concat!("/ro", "ot/")];

/// See the module. Also: an ignored test states the reason.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &repo.sources {
        for (number, line) in source.lines() {
            for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                let message = format!("`{word}` is unfinished work: finish it, or open an issue");
                findings.push(Finding::new(&source.path, number, message));
            }
            if line.trim() == "#[ignore]" {
                let message = "state why the test is ignored: `#[ignore = \"reason\"]`";
                findings.push(Finding::new(&source.path, number, message));
            }
            machine_paths(&source.path, number, line, &mut findings);
        }
    }
    for (path, text) in &repo.texts {
        for (index, line) in text.lines().enumerate() {
            machine_paths(path, index + 1, line, &mut findings);
        }
    }
    findings
}

fn machine_paths(path: &str, number: usize, line: &str, findings: &mut Vec<Finding>) {
    for word in MACHINE.iter().filter(|word| line.contains(**word)) {
        findings.push(Finding::new(path, number, format!("`{word}` is a path that exists on one machine only")));
    }
}

#[cfg(test)]
#[path = "words_test.rs"]
mod tests;
