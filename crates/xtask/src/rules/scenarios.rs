//! The counts at the top of docs/internals/scenarios.md are those of its rows.

use crate::{Finding, Repo};

const PAGE: &str = "docs/internals/scenarios.md";

/// See the module.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let text = repo.text(PAGE);
    if text.is_empty() {
        return Vec::new();
    }
    let expected = counts(text);
    // The sentence may be broken into lines.
    if text.split_whitespace().collect::<Vec<_>>().join(" ").contains(&expected) {
        return Vec::new();
    }
    vec![Finding::new(PAGE, 1, format!("state what the rows are: \"{expected}\""))]
}

/// A row begins with a number. One without a third column is shown; one that says in it what is missing, in part.
fn counts(text: &str) -> String {
    let (mut shown, mut in_part, mut open) = (0, 0, 0);
    for row in text.lines().filter_map(|line| line.strip_prefix("| ")) {
        let columns: Vec<&str> = row.trim_end().trim_end_matches('|').splitn(3, " |").map(str::trim).collect();
        let is_scenario = columns[0].starts_with(|first: char| first.is_ascii_digit());
        match columns.get(2).copied().unwrap_or_default() {
            _ if !is_scenario => {}
            missing if missing.contains("**open**") => open += 1,
            "" => shown += 1,
            _ => in_part += 1,
        }
    }
    let all = shown + in_part + open;
    format!("Of {all} scenarios {shown} are shown, {in_part} in part, and {open} are open.")
}

#[cfg(test)]
#[path = "scenarios_test.rs"]
mod tests;
