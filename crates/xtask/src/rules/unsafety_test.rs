use super::*;

#[test]
fn blocks_functions_and_impls_outside_the_list_are_found() {
    for text in ["fn f() { unsafe { g() } }", "unsafe fn f() {}", "unsafe impl Send for X {}", "unsafe trait T {}"] {
        let found = check(&Repo::from_files(&[("crates/engine/src/a.rs", text)]));
        let ours: Vec<_> = found.iter().filter(|finding| finding.line == 1).collect();
        assert_eq!(ours.len(), 3, "not listed, not in UNSAFE.md, no SAFETY comment: {text}: {ours:?}");
    }
}

#[test]
fn a_comment_above_and_an_entry_leave_only_the_list() {
    let text = "fn f() {\n    // SAFETY: g has no preconditions.\n    unsafe { g() }\n}";
    let repo = Repo::from_files(&[("crates/engine/src/a.rs", text), ("UNSAFE.md", "crates/engine/src/a.rs: why")]);
    let found: Vec<_> = check(&repo).into_iter().filter(|finding| finding.line == 3).collect();
    assert_eq!(found.len(), 1, "{found:?}");
}
