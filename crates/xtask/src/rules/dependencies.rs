//! Every direct dependency is listed with its reason in docs/internals/dependencies.md, and nothing else is.

use crate::{Finding, Repo};

const MANIFEST: &str = "Cargo.toml";
const PAGE: &str = "docs/internals/dependencies.md";

/// See the module.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let manifest = repo.text(MANIFEST).parse::<toml::Table>().unwrap_or_default();
    let declared = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let mut names: Vec<&str> =
        declared.and_then(toml::Value::as_table).into_iter().flat_map(|t| t.keys()).map(String::as_str).collect();
    names.retain(|name| !name.starts_with("kontiki"));
    let page = repo.text(PAGE);
    let mut findings = Vec::new();
    for name in &names {
        if !page.contains(&format!("`{name}`")) {
            let message = format!("`{name}` is not in {PAGE}: add it there with the reason");
            findings.push(Finding::new(MANIFEST, 1, message));
        }
        let used = |(path, text): (&String, &String)| {
            path.ends_with("Cargo.toml") && text.lines().any(|line| is_use_of(line, name))
        };
        if !repo.texts.iter().any(used) {
            findings.push(Finding::new(MANIFEST, 1, format!("`{name}` is declared but used by no crate: remove it")));
        }
    }
    for (index, line) in page.lines().enumerate().filter(|(_, line)| line.starts_with("| `")) {
        let listed = line.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2);
        for name in listed.filter(|name| !names.contains(name) && !TOOLS.contains(name)) {
            findings.push(Finding::new(PAGE, index + 1, format!("`{name}` is not a dependency any more")));
        }
    }
    findings
}

/// Declared by the one crate that uses them.
const TOOLS: [&str; 2] = ["syn", "proc-macro2"];

/// `name.workspace = true` or `name = { workspace = true, .. }`.
fn is_use_of(line: &str, name: &str) -> bool {
    let rest = line.strip_prefix(name).unwrap_or_default();
    rest.starts_with(".workspace") || rest.trim_start().starts_with("= { workspace")
}

#[cfg(test)]
#[path = "dependencies_test.rs"]
mod tests;
