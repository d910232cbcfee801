use super::*;

fn function(name: &str, lines: usize) -> String {
    format!("fn {name}() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
}

#[test]
fn a_function_of_seventy_lines_passes_and_one_more_does_not() {
    let text = function("fits", 70) + &function("long", 71);
    let found = functions(&Repo::from_files(&[("crates/a/src/x.rs", &text)]));
    assert_eq!(found[0].line, 71);
    assert!(found[0].message.contains("`long` has 71 lines"), "{found:?}");
    assert!(found[1].message.contains("1 of 2 functions"), "{found:?}");
}

#[test]
fn methods_count_and_tests_do_not() {
    let method = format!("impl X {{\n{}}}\n", function("method", 80));
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function("test", 80));
    let repo = Repo::from_files(&[("a.rs", &(method + &tests)), ("a_test.rs", &function("test", 80))]);
    let names: Vec<String> = functions(&repo).into_iter().map(|finding| finding.message).collect();
    assert!(names[0].contains("`method`"), "{names:?}");
    assert!(names.iter().all(|name| !name.contains("`test`")), "{names:?}");
}

#[test]
fn a_file_over_the_maximum_and_a_high_median_are_found() {
    let text = "// line\n".repeat(1_001);
    let found = files(&Repo::from_files(&[("a.rs", &text)]));
    assert!(found[0].message.contains("1001 lines") && found[1].message.contains("median"), "{found:?}");
    assert!(files(&Repo::from_files(&[("a.rs", "// line\n")])).is_empty());
}
