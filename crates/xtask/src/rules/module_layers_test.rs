use super::*;

const LAYERS: &[Layers] = &[("a", &[&["error"], &["log", "table"], &["db"]])];
const EXCUSED: &[Exception] =
    &[Exception { path: "crates/a/src/log/writer.rs", what: "db", reason: "it will be gone soon" }];

fn found(files: &[(&str, &str)], excused: &'static [Exception]) -> Vec<String> {
    let files: Vec<(String, &str)> = files.iter().map(|(path, text)| (format!("crates/a/src/{path}"), *text)).collect();
    let repo = Repo::from_files(&files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>());
    let findings = check_with(&repo, LAYERS, excused);
    findings.into_iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect()
}

/// A crate whose log's writer has this code.
fn with_writer(writer: &str) -> [(&str, &str); 6] {
    [
        ("lib.rs", "mod error;\nmod log;\nmod table;\nmod db;\npub use db::Db;\npub use error::Error;"),
        ("error.rs", "pub struct Error;"),
        ("log/mod.rs", "mod writer;"),
        ("log/writer.rs", writer),
        ("table.rs", "use crate::Error;"),
        ("db.rs", "use crate::{Error, log, table};"),
    ]
}

#[test]
fn downward_passes_upward_and_sideward_do_not() {
    assert_eq!(found(&with_writer("use crate::Error;"), &[]), Vec::<String>::new());
    let upward = "crates/a/src/log/writer.rs: log is not above db and may not use it";
    assert_eq!(found(&with_writer("use crate::Db;"), &[]), [upward]);
    assert_eq!(found(&with_writer("fn f() { crate::db::open() }"), &[]), [upward]);
    let sideward = "crates/a/src/log/writer.rs: log is not above table and may not use it";
    assert_eq!(found(&with_writer("use crate::table::Table;"), &[]), [sideward]);
    assert_eq!(found(&with_writer("#[cfg(test)] mod tests { use crate::Db; }"), &[]), Vec::<String>::new());
}

#[test]
fn the_modules_of_a_folder_have_layers_too() {
    const DB: &[Layers] = &[("a::db", &[&["shared"], &["write"], &["core"]])];
    let check = |write: &str| {
        let files = [
            ("crates/a/src/lib.rs", "mod db;"),
            ("crates/a/src/db/mod.rs", "mod core;\nmod shared;\nmod write;\npub(crate) use core::Core;"),
            ("crates/a/src/db/shared.rs", "pub struct Shared;"),
            ("crates/a/src/db/write/mod.rs", "mod queue;\nuse super::shared::Shared;"),
            ("crates/a/src/db/write/queue.rs", write),
            ("crates/a/src/db/core.rs", "use super::write::WritePath;\nuse crate::db::shared::Shared;"),
        ];
        check_with(&Repo::from_files(&files), DB, &[]).into_iter().map(|finding| finding.message).collect::<Vec<_>>()
    };
    assert_eq!(check("use super::WritePath;\nuse crate::db::shared::Shared;"), Vec::<String>::new());
    let upward = "write is not above core and may not use it";
    assert_eq!(check("use super::super::Core;"), [upward]);
    assert_eq!(check("use crate::db::core::Core;"), [upward]);
    assert_eq!(check("fn f() { crate::db::Core::new() }"), [upward]);
}

#[test]
fn an_exception_is_for_one_module_and_must_be_needed() {
    assert_eq!(found(&with_writer("use crate::Db;"), EXCUSED), Vec::<String>::new());
    assert_eq!(found(&with_writer("use crate::{Db, table};"), EXCUSED).len(), 1);
    assert!(found(&with_writer(""), EXCUSED)[0].ends_with("the use of db is not needed any more"));
}

#[test]
fn every_module_has_a_layer() {
    let mut files = with_writer("").to_vec();
    files.push(("cache.rs", ""));
    assert_eq!(found(&files, &[]), ["crates/a/src/lib.rs: give the module cache a layer"]);
    files.truncate(5);
    assert_eq!(found(&files, &[]), ["crates/a/src/lib.rs: the module db has a layer but no code"]);
}
