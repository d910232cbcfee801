//! Embedding the engine compiles no server: its dependency tree has no async runtime, no network and no consensus.

use std::process::Command;

/// The packages that `kontiki` pulls in without its default features.
fn packages(features: &[&str]) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["tree", "--package", "kontiki", "--no-default-features", "--edges", "normal,build"]);
    command.args(["--prefix", "none", "--format", "{p}", "--locked", "--offline"]).args(features);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are text");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_string).collect()
}

#[test]
fn the_engine_alone_has_no_runtime_no_network_and_no_consensus() {
    let found = packages(&[]);
    assert!(found.iter().any(|name| name == "kontiki-engine"), "the tree was read: {found:?}");
    let foreign = ["tokio", "tonic", "hyper", "h2", "axum", "raft", "protobuf", "prost", "clap", "futures", "serde"];
    for name in &found {
        let other_layer = name.starts_with("kontiki-") && !["kontiki-engine", "kontiki-env"].contains(&name.as_str());
        assert!(!foreign.contains(&name.as_str()) && !other_layer, "{name} is in the tree of the engine alone");
    }
}

#[test]
fn the_client_adds_no_server() {
    let found = packages(&["--features", "client"]);
    assert!(found.iter().any(|name| name == "kontiki-client"), "the tree was read: {found:?}");
    for name in ["kontiki-server", "kontiki-raftstore", "raft", "clap"] {
        assert!(!found.iter().any(|found| found == name), "{name} is in the tree of the client");
    }
}
