//! Words that are not allowed: marks of unfinished work in code, paths of one machine in any file, and words that a
//! reader cannot search for, because they are metaphors or hide who acts (CONTRIBUTING.md, "Language").

use crate::{Finding, Repo};

/// Unfinished work belongs in an issue. Spelt in two parts, so that this file passes its own rule.
const UNFINISHED: &[&str] =
    &[concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME"), concat!("XX", "X:")];

/// Places that exist on one machine only.
const MACHINE: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/tmp/ta", "rget"), concat!("/ho", "me/"), concat!("/ro", "ot/")];

/// A metaphor, or a subject that is no component: the term of the field says more. Matched as whole words, in any case.
const VAGUE: &[(&str, &str)] = &[
    (concat!("ho", "use"), "architecture"),
    (concat!("ro", "om"), "memory, space, capacity, module"),
    (concat!("ro", "oms"), "modules"),
    (concat!("fl", "oor"), "lower bound, layer"),
    (concat!("fl", "oors"), "lower bounds, layers"),
    (concat!("fa", "ce"), "API, interface"),
    (concat!("se", "am"), "interface, boundary"),
    (concat!("se", "ams"), "interfaces, boundaries"),
    (concat!("ha", "ll"), "module"),
    (concat!("who", "ever"), "the caller, a thread"),
    (concat!("who", "so"), "the caller, a thread"),
    (concat!("no", "body"), "no reader, no other thread"),
    (concat!("some", "body"), "a thread, another transaction"),
    (concat!("any", "body"), "any thread"),
    (concat!("every", "body"), "all waiters"),
    (concat!("to", "ld"), "notified, reported, returned"),
    (concat!("te", "lls"), "reports, returns, says"),
    (concat!("let", " go"), "release"),
    (concat!("look", " after"), "maintain"),
    (concat!("looks", " after"), "maintains"),
    (concat!("may", " go"), "can be deleted"),
    (concat!("jud", "ge"), "check, decide"),
    (concat!("ver", "dict"), "decision, result"),
    (concat!("wis", "hes"), "requests"),
    (concat!("pati", "ence"), "retry budget, time-out"),
];

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
            vague_words(&source.path, number, line, &mut findings);
        }
    }
    for (path, text) in &repo.texts {
        for (index, line) in text.lines().enumerate() {
            machine_paths(path, index + 1, line, &mut findings);
            vague_words(path, index + 1, line, &mut findings);
        }
    }
    findings
}

fn machine_paths(path: &str, number: usize, line: &str, findings: &mut Vec<Finding>) {
    for word in MACHINE.iter().filter(|word| line.contains(**word)) {
        findings.push(Finding::new(path, number, format!("`{word}` is a path that exists on one machine only")));
    }
}

fn vague_words(path: &str, number: usize, line: &str, findings: &mut Vec<Finding>) {
    let line = line.to_ascii_lowercase();
    for (word, better) in VAGUE.iter().filter(|(word, _)| has_word(&line, word)) {
        findings.push(Finding::new(path, number, format!("`{word}`: say what it is ({better})")));
    }
}

/// Whether `word` stands in `line` on its own. An underscore belongs to a word, as in identifiers.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
#[path = "words_test.rs"]
mod tests;
