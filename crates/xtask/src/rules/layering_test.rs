use super::*;

fn messages(manifest: &str, text: &str) -> Vec<String> {
    check(&Repo::from_files(&[(manifest, text)])).iter().map(ToString::to_string).collect()
}

#[test]
fn a_sibling_named_is_found_with_its_line() {
    let text = "[package]\nname = \"kontiki-txn\"\n[dependencies]\nkontiki-raftstore.workspace = true\n";
    let found = messages("crates/txn/Cargo.toml", text);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("crates/txn/Cargo.toml:4: `kontiki-raftstore` is not below"), "{found:?}");
}

#[test]
fn a_call_upwards_a_rename_and_a_build_dependency_are_found() {
    let text = "[dependencies]\nx = { package = \"kontiki-server\", path = \"..\" }\n\
                [build-dependencies]\nkontiki-txn.workspace = true\n\
                [target.'cfg(unix)'.dependencies]\nkontiki-proto.workspace = true\n";
    assert_eq!(messages("crates/engine/Cargo.toml", text).len(), 3);
}

#[test]
fn dev_dependencies_are_exempt() {
    assert!(messages("crates/txn/Cargo.toml", "[dev-dependencies]\nkontiki-raftstore.workspace = true\n").is_empty());
}

#[test]
fn tokio_stays_in_the_shells() {
    assert_eq!(messages("crates/raftstore/Cargo.toml", "[dependencies]\ntokio.workspace = true\n").len(), 1);
    assert!(messages("crates/server/Cargo.toml", "[dependencies]\ntokio.workspace = true\n").is_empty());
    assert!(messages("Cargo.toml", "[dependencies]\ntokio.workspace = true\n").is_empty());
}

#[test]
fn a_crate_without_a_floor_is_found() {
    assert!(messages("crates/attic/Cargo.toml", "[package]\n")[0].contains("has no layer"));
}
