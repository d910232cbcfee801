//! The coding rules hold in this tree: one test per rule, so a failure names the rule and every place.

use xtask::{Repo, root, rules};

fn check(name: &str) {
    let repo = Repo::load(&root()).expect("the source tree is readable");
    assert!(repo.sources.len() > 10, "the tree was found");
    let rule = rules::ALL.iter().find(|rule| rule.name == name).expect("a rule of that name");
    let findings: Vec<String> = (rule.check)(&repo).iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{name}:\n{}", findings.join("\n"));
}

macro_rules! rule_tests {
    ($($test:ident: $rule:literal,)*) => {
        $(#[test]
        fn $test() {
            check($rule);
        })*

        #[test]
        fn every_rule_has_a_test() {
            let tested = [$($rule),*];
            let all: Vec<&str> = rules::ALL.iter().map(|rule| rule.name).collect();
            assert_eq!(all, tested);
        }
    };
}

rule_tests! {
    crates_use_only_crates_below_them: "layering",
    files_fit_a_sitting: "file-budget",
    functions_fit_a_screen: "function-budget",
    only_env_touches_the_machine: "disallowed-calls",
    crates_deny_missing_docs_and_unsafe_code: "crate-lints",
    no_unfinished_work_and_no_machine_paths: "words",
    unsafe_code_is_listed_and_argued: "unsafe",
    unit_tests_live_in_sibling_files: "inline-tests",
    links_lead_somewhere: "links",
    every_dependency_has_its_reason: "dependencies",
    modules_use_modules_of_lower_layers: "module-layers",
    modules_form_no_cycles_and_own_every_file: "modules",
    files_and_tests_that_prose_names_exist: "named-files",
    scenarios_are_counted: "scenarios",
    comments_and_prose_have_one_width: "widths",
}
