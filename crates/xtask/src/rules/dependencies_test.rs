use super::*;

const MEMBER: &str = "[dependencies]\nbytes.workspace = true\n";

fn found(declared: &str, page: &str) -> Vec<String> {
    let manifest = format!("[workspace.dependencies]\n{declared}\n");
    let repo = Repo::from_files(&[(MANIFEST, &manifest), ("crates/a/Cargo.toml", MEMBER), (PAGE, page)]);
    check(&repo).into_iter().map(|finding| finding.message).collect()
}

#[test]
fn what_is_declared_used_and_listed_passes() {
    assert!(found("bytes = \"1\"\nkontiki-env = { path = \"x\" }", "| `bytes` | shared slices |").is_empty());
}

#[test]
fn what_is_not_listed_not_used_or_gone_is_found() {
    assert!(found("bytes = \"1\"", "")[0].contains("add it there with the reason"));
    assert!(found("bytes = \"1\"\nrand = \"1\"", "`bytes` `rand`")[0].contains("but used by no crate"));
    assert!(found("bytes = \"1\"", "| `bytes`, `rand` | x |")[0].contains("`rand` is not a dependency"));
}

#[test]
fn an_optional_dependency_is_a_use() {
    assert!(is_use_of("clap = { workspace = true, optional = true }", "clap"));
    assert!(is_use_of("clap.workspace = true", "clap"));
    assert!(!is_use_of("clap_derive.workspace = true", "clap") && !is_use_of("clap = \"4\"", "clap"));
}
