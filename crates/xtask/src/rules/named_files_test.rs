use super::*;

fn found(text: &str) -> Vec<Finding> {
    let files = [
        ("docs/a.md", text),
        ("CHANGELOG.md", "`gone.rs` was split"),
        ("crates/engine/src/db/open.rs", "pub(crate) fn open() {}"),
        ("crates/engine/src/db/open_test.rs", "fn it_opens() {}"),
        ("tests/kill.rs", "async fn it_survives() {}"),
    ];
    check(&Repo::from_files(&files))
}

#[test]
fn names_of_what_exists_pass() {
    for text in [
        "`db/open.rs`, `open.rs` and crates/engine/src/db/open.rs",
        "[db/open.rs](../../crates/engine/src/db/open.rs) and `engine/db/open.rs`",
        "db/{open, open_test}.rs and open_test.rs::it_opens; kill.rs::{it_survives, it_opens}, more",
        "A sibling `x_test.rs`, `action/*.rs`, docs.rs/raft",
        "```\nnowhere.rs\n```",
        "a crate of rsync",
    ] {
        assert!(found(text).is_empty(), "{text}: {:?}", found(text));
    }
}

#[test]
fn names_of_what_does_not_exist_are_found_with_their_line() {
    for (text, message) in [
        ("\n`db/close.rs`", "there is no source file `db/close.rs`"),
        ("\nb/open.rs", "there is no source file `b/open.rs`"),
        ("\n[x](../crates/db/open.rs)", "there is no source file `crates/db/open.rs`"),
        ("\ndb/{open,shut}.rs", "there is no source file `db/shut.rs`"),
        ("\nopen_test.rs::it_shuts", "no source file has a function `it_shuts`"),
        ("\nkill.rs::{it_survives, it_dies}", "no source file has a function `it_dies`"),
    ] {
        assert_eq!(found(text), [Finding::new("docs/a.md", 2, message)], "{text}");
    }
}

#[test]
fn a_list_of_bugs_names_tests_by_their_names_alone() {
    let of = |text: &str| {
        let sources = [("tests/kill.rs", "fn a_killed_process_loses_nothing() {}"), ("docs/bugs.md", text)];
        check(&Repo::from_files(&sources)).len()
    };
    assert_eq!(of("kill.rs::a_killed_process_loses_nothing, a_killed_process_loses_nothing, sync_bytes_max"), 0);
    assert_eq!(of("a_killed_process_loses_little"), 1);
}
