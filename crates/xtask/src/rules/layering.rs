//! Which crate may use which: requests go down, results come back up, crates of one layer do not use each other.
//!
//! Dev-dependencies are exempt: tests may use any crate.

use crate::{Finding, Repo};

/// A crate and the crates of this workspace that it may use.
struct Layer {
    manifest: &'static str,
    may_use: &'static [&'static str],
}

const CORE: &[&str] = &["kontiki-env", "kontiki-engine"];
const CORE_AND_STATE: &[&str] = &["kontiki-env", "kontiki-engine", "kontiki-state"];
const BELOW_SERVER: &[&str] = &[
    "kontiki-env",
    "kontiki-engine",
    "kontiki-state",
    "kontiki-proto",
    "kontiki-tls",
    "kontiki-txn",
    "kontiki-raftlog",
    "kontiki-raftstore",
    "kontiki-placement",
];

const LAYERS: &[Layer] = &[
    Layer { manifest: "crates/env/Cargo.toml", may_use: &[] },
    Layer { manifest: "crates/engine/Cargo.toml", may_use: &["kontiki-env"] },
    Layer { manifest: "crates/proto/Cargo.toml", may_use: &[] },
    Layer { manifest: "crates/tls/Cargo.toml", may_use: &["kontiki-env"] },
    Layer { manifest: "crates/txn/Cargo.toml", may_use: CORE },
    Layer { manifest: "crates/state/Cargo.toml", may_use: CORE },
    Layer { manifest: "crates/raftlog/Cargo.toml", may_use: CORE_AND_STATE },
    Layer { manifest: "crates/raftstore/Cargo.toml", may_use: CORE },
    Layer { manifest: "crates/placement/Cargo.toml", may_use: CORE },
    Layer { manifest: "crates/server/Cargo.toml", may_use: BELOW_SERVER },
    Layer { manifest: "crates/client/Cargo.toml", may_use: &["kontiki-env", "kontiki-proto", "kontiki-tls"] },
    Layer {
        manifest: "Cargo.toml",
        may_use: &["kontiki-env", "kontiki-engine", "kontiki-proto", "kontiki-tls", "kontiki-server", "kontiki-client"],
    },
    Layer {
        manifest: "crates/sim/Cargo.toml",
        may_use: &[
            "kontiki-env",
            "kontiki-engine",
            "kontiki-state",
            "kontiki-proto",
            "kontiki-txn",
            "kontiki-raftlog",
            "kontiki-raftstore",
            "kontiki-placement",
            "kontiki-server",
            "kontiki-client",
        ],
    },
    Layer { manifest: "crates/xtask/Cargo.toml", may_use: &[] },
];

/// Libraries that only some crates may use, so that the others stay pure and portable.
const OWNED: &[(&str, &[&str])] = &[
    ("tokio", &["crates/tls", "crates/server", "crates/client", "Cargo.toml"]),
    ("tonic", &["crates/proto", "crates/tls", "crates/server", "crates/client"]),
    ("tokio-rustls", &["crates/tls"]),
    ("axum", &["crates/server"]),
    ("raft", &["crates/raftstore"]),
    ("protobuf", &["crates/raftstore"]),
    ("rustix", &["crates/env"]),
    ("rand", &[]),
];

/// See the module.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in &repo.texts {
        let is_member = path == "Cargo.toml" || (path.starts_with("crates/") && path.ends_with("/Cargo.toml"));
        if !is_member {
            continue;
        }
        let Some(layer) = LAYERS.iter().find(|layer| layer.manifest == path) else {
            findings.push(Finding::new(
                path,
                1,
                "this crate has no layer: add it to crates/xtask/src/rules/layering.rs",
            ));
            continue;
        };
        let Ok(manifest) = text.parse::<toml::Table>() else {
            findings.push(Finding::new(path, 1, "not valid TOML"));
            continue;
        };
        for dependency in dependencies(&manifest) {
            if let Some(message) = check_dependency(layer, &dependency) {
                findings.push(Finding::new(path, line_of_key(text, &dependency), message));
            }
        }
    }
    findings
}

fn check_dependency(layer: &Layer, dependency: &str) -> Option<String> {
    if dependency.starts_with("kontiki") && !layer.may_use.contains(&dependency) {
        let allowed = if layer.may_use.is_empty() { "nothing".into() } else { layer.may_use.join(", ") };
        return Some(format!("`{dependency}` is not below this crate; it may use: {allowed}"));
    }
    let (_, owners) = OWNED.iter().find(|(name, _)| *name == dependency)?;
    let owned = owners.iter().any(|owner| layer.manifest == *owner || layer.manifest.starts_with(&format!("{owner}/")));
    (!owned).then(|| format!("`{dependency}` belongs to {} only", owners.join(", ")))
}

/// The names of all dependencies, also for some targets only and of build scripts, with renames undone.
fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut tables: Vec<&toml::Table> = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut names = Vec::new();
    for table in tables {
        for kind in ["dependencies", "build-dependencies"] {
            let Some(list) = table.get(kind).and_then(toml::Value::as_table) else { continue };
            for (name, value) in list {
                let renamed = value.get("package").and_then(toml::Value::as_str);
                names.push(renamed.unwrap_or(name).to_string());
            }
        }
    }
    names
}

fn line_of_key(text: &str, key: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(key)).map_or(1, |index| index + 1)
}

#[cfg(test)]
#[path = "layering_test.rs"]
mod tests;
