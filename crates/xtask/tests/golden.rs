//! Golden files are listed in docs/formats/README.md, and every format with a magic number has one.
#![allow(clippy::disallowed_methods, reason = "golden files are files of the repository")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files below a folder of the repository, by their paths in it.
fn files(folder: &str) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("readable").path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(root()).expect("below it").to_str().expect("UTF-8").to_owned()),
            }
        }
    }
    found
}

fn golden_files() -> Vec<String> {
    files("crates").into_iter().filter(|path| path.ends_with(".hex")).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("a text of the repository")
}

#[test]
fn the_table_of_formats_names_every_golden_file() {
    let table = read("docs/formats/README.md");
    let patterns: BTreeSet<&str> = table.split('`').filter(|part| part.contains("/tests/golden/")).collect();
    let mut used = BTreeSet::new();
    for path in golden_files() {
        // The most specific one.
        let fits = |pattern: &&&str| pattern.strip_suffix('*').is_some_and(|start| path.starts_with(start));
        let pattern = patterns.iter().filter(fits).max_by_key(|pattern| pattern.len());
        used.insert(*pattern.unwrap_or_else(|| panic!("docs/formats/README.md does not name {path}")));
    }
    let unused: Vec<_> = patterns.difference(&used).collect();
    assert!(unused.is_empty(), "no golden file is there for {unused:?}");
}

#[test]
fn every_magic_number_is_in_a_golden_file() {
    let golden: Vec<String> = golden_files().iter().map(|path| read(path).replace('\n', "")).collect();
    let sources = files("crates").into_iter().filter(|path| path.contains("/src/") && path.ends_with(".rs"));
    let mut count = 0;
    for path in sources {
        for line in read(&path).lines().filter(|line| line.contains("const MAGIC")) {
            let magic = line.split('"').nth(1).expect("a literal of bytes").split('\\').next().expect("its letters");
            let digits: String = magic.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert!(golden.iter().any(|text| text.contains(&digits)), "{path}: no golden file has {magic}");
            count += 1;
        }
    }
    assert!(count >= 6, "only {count} magic numbers were found");
}
