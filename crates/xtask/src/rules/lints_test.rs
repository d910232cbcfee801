use super::*;

#[test]
fn both_lints_are_asked_for() {
    let found = check(&Repo::from_files(&[("crates/txn/src/lib.rs", "//! x\n"), ("crates/txn/src/other.rs", "")]));
    assert_eq!(found.len(), 2);
    let good = "#![deny(missing_docs)]\n#![forbid(unsafe_code)]\n";
    assert!(check(&Repo::from_files(&[("src/lib.rs", good)])).is_empty());
}
