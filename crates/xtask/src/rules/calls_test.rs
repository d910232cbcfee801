use super::*;

fn found(path: &str, text: &str) -> Vec<String> {
    let stale = |finding: &Finding| finding.message.contains("is not needed any more");
    check(&Repo::from_files(&[(path, text)])).iter().filter(|f| !stale(f)).map(ToString::to_string).collect()
}

#[test]
fn calls_imports_and_grouped_imports_are_found() {
    for text in [
        "fn f() { std::fs::read(\"x\"); }",
        "use std::fs;",
        "use std::{io, fs::File};",
        "use std::fs as disk;",
        "fn f() { let t = Instant::now(); }",
        "fn f() { std::thread::sleep(d); }",
        "fn f() { assert!(std::time::SystemTime::now() > x); }",
    ] {
        assert_eq!(found("crates/engine/src/a.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn comments_strings_and_the_door_itself_are_not() {
    let text = "//! never std::fs::read\nfn f() { let s = \"std::fs\"; env::fs::open(s); }";
    assert!(found("crates/engine/src/a.rs", text).is_empty());
    assert!(found("crates/env/src/fs.rs", "use std::fs;").is_empty());
}

#[test]
fn tests_may_use_files_but_not_sleep() {
    let text = "use std::fs;\nfn f() {\n    std::thread::sleep(d);\n}";
    let found = found("crates/engine/src/a_test.rs", text);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("crates/engine/src/a_test.rs:3:"), "{found:?}");
}

#[test]
fn an_exception_that_is_not_needed_is_found() {
    let found = check(&Repo::from_files(&[("crates/engine/src/a.rs", "fn f() {}")]));
    assert_eq!(found.len(), CALLS.len());
}
