//! Links in Markdown are valid: they lead to a file or folder of the repository, and to a heading there.

use crate::{Finding, Repo};

/// See the module. Links to other sites are not followed.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in repo.texts.iter().filter(|(path, _)| path.ends_with(".md")) {
        for (line, target) in links(text) {
            if let Some(message) = broken(repo, path, text, &target) {
                findings.push(Finding::new(path, line, message));
            }
        }
    }
    findings
}

fn broken(repo: &Repo, path: &str, text: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let (place, there) = if file.is_empty() {
        (path.to_string(), text)
    } else {
        let place = resolve(path, file);
        if !place.is_empty() && !repo.paths.contains(&place) {
            return Some(format!("the link to `{target}` is broken: there is no `{place}`"));
        }
        let there = repo.text(&place);
        (place, there)
    };
    let found = heading.is_empty() || !place.ends_with(".md") || headings(there).any(|slug| slug == heading);
    (!found).then(|| format!("the link to `{target}`: `{place}` has no such heading"))
}

/// The path that `target` means in a file at `path`; empty for the root.
fn resolve(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Lines outside fenced code, with inline code removed.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        let kept: Vec<&str> = line.split('`').step_by(2).collect();
        (!fenced).then(|| (index + 1, kept.join("")))
    })
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for piece in line.split("](").skip(1) {
            if let Some((target, _)) = piece.split_once(')') {
                let target = target.split_whitespace().next().unwrap_or_default();
                found.push((number, target.to_string()));
            }
        }
    }
    found
}

/// The anchors of headings, as code hosts make them: lower case, spaces to hyphens, punctuation dropped.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let mut fenced = false;
    text.lines().filter_map(move |line| {
        fenced ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if fenced || title == line || !title.starts_with(' ') {
            return None;
        }
        let kept = title.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
    })
}

#[cfg(test)]
#[path = "links_test.rs"]
mod tests;
