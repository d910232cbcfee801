use super::*;

fn repo(files: &[(&str, &str)]) -> Repo {
    let files: Vec<(String, &str)> = files.iter().map(|(path, text)| (format!("crates/a/src/{path}"), *text)).collect();
    Repo::from_files(&files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>())
}

fn messages(files: &[(&str, &str)]) -> Vec<String> {
    check(&repo(files)).into_iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect()
}

const LIB: &str = "mod error;\nmod log;\nmod db;\npub use error::Error;\npub use db::{Db as Database, Options};\n";

#[test]
fn dependencies_that_go_one_way_pass() {
    let files = [
        ("lib.rs", LIB),
        ("error.rs", "pub struct Error;"),
        ("log.rs", "use crate::Error;"),
        ("db/mod.rs", "mod open;\nuse crate::log;"),
        ("db/open.rs", "use crate::{Error, log::Segments};\nuse super::Db;"),
    ];
    assert_eq!(messages(&files), Vec::<String>::new());
    assert_eq!(summary(&repo(&files)), "modules in the largest cycle: none");
}

#[test]
fn a_cycle_is_found_through_reexports_and_paths_but_not_through_tests() {
    let with = |error: &str| {
        let files =
            [("lib.rs", LIB), ("error.rs", error), ("log.rs", "use crate::Error;"), ("db.rs", "use crate::log;")];
        messages(&files)
    };
    assert_eq!(with("#[cfg(test)] mod t { use crate::Database; }").len(), 0);
    assert!(with("use crate::Options;")[0].ends_with("in a cycle: db, error, log"));
    assert!(with("fn f() { crate::Database::open(); }")[0].ends_with("in a cycle: db, error, log"));
    assert!(with("use crate::log;")[0].ends_with("in a cycle: error, log"));
}

#[test]
fn files_that_no_module_declares_are_found() {
    let files = [
        ("lib.rs", "mod log;\n#[path = \"other_name.rs\"]\nmod named;"),
        ("log/mod.rs", "mod writer;"),
        ("log/writer.rs", "mod parts;"),
        ("log/writer/parts.rs", ""),
        ("other_name.rs", ""),
        ("log/forgotten.rs", ""),
    ];
    let found = messages(&files);
    assert!(found.len() == 1 && found[0].starts_with("crates/a/src/log/forgotten.rs: no `mod`"), "{found:?}");
}
