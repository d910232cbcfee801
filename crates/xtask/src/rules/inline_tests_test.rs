use super::*;

#[test]
fn a_long_inline_module_is_found_and_a_sibling_is_not() {
    let long = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn t() {}\n".repeat(10));
    let found = check(&Repo::from_files(&[("a.rs", &long)]));
    assert_eq!((found.len(), found[0].line), (1, 3));
    let sibling = "#[cfg(test)]\n#[path = \"a_test.rs\"]\nmod tests;\n#[cfg(test)]\nmod few {\n    fn t() {}\n}\n";
    assert!(check(&Repo::from_files(&[("a.rs", sibling)])).is_empty());
}
