use super::*;

#[test]
fn wide_comments_and_prose_are_found_but_not_tables_code_and_links() {
    let wide = "word ".repeat(30);
    let found = |path: &str, text: &str| check(&Repo::from_files(&[(path, text)])).len();
    assert_eq!(found("a.rs", &format!("    /// {wide}\nfn f() {{}}\n")), 1);
    assert_eq!(found("a.md", &format!("{wide}\n")), 1);
    assert_eq!(found("a.md", &format!("| {wide} |\n```text\n{wide}\n```\nhttps://{}\n", "x".repeat(130))), 0);
    assert_eq!(found("a.rs", &format!("//! | {wide} |\n// short\n")), 0);
}
