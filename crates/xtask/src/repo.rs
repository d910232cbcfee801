//! The source tree, read once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Folders without source files of this project.
const SKIPPED: [&str; 4] = ["target", ".git", "kontiki-data", "node_modules"];

/// Extensions of the files whose text the rules read.
const READ: [&str; 4] = [".rs", ".md", ".toml", ".proto"];

/// The root of the repository: two levels above this package.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("crates/xtask"), PathBuf::from);
    package.join("../..")
}

/// A parsed source file.
pub struct Source {
    /// From the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Its syntax; `None` if it does not parse (the compiler then reports the errors).
    pub syntax: Option<syn::File>,
}

impl Source {
    /// Whether it is compiled for tests only, by the conventions of this repository.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.ends_with("_test.rs") || name.starts_with("test_") || self.path.split('/').any(|part| part == "tests")
    }

    /// Lines with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// All files that the rules read.
#[derive(Default)]
pub struct Repo {
    /// Rust sources, by path.
    pub sources: Vec<Source>,
    /// The texts of Markdown, TOML and proto files, by path.
    pub texts: BTreeMap<String, String>,
    /// Every file and folder, for the check of links.
    pub paths: std::collections::BTreeSet<String>,
}

impl Repo {
    /// Reads the tree below `root`.
    pub fn load(root: &Path) -> io::Result<Repo> {
        let mut repo = Repo::default();
        repo.walk(root, "")?;
        Ok(repo)
    }

    /// A tree from memory, for tests of rules.
    pub fn from_files(files: &[(&str, &str)]) -> Repo {
        let mut repo = Repo::default();
        for (path, text) in files {
            repo.add(path, text.to_string());
        }
        repo
    }

    /// A text by its path, empty if there is none.
    pub fn text(&self, path: &str) -> &str {
        self.texts.get(path).map_or("", String::as_str)
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        for name in names.into_iter().filter(|name| !SKIPPED.contains(&name.as_str())) {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            let place = folder.join(&name);
            if place.is_dir() {
                self.paths.insert(path.clone());
                self.walk(&place, &path)?;
            } else if READ.iter().any(|end| name.ends_with(end)) {
                let text = fs::read_to_string(&place).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
                self.add(&path, text);
            } else {
                self.paths.insert(path);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, text: String) {
        self.paths.insert(path.to_string());
        if path.ends_with(".rs") {
            let syntax = syn::parse_file(&text).ok();
            self.sources.push(Source { path: path.to_string(), text, syntax });
        } else {
            self.texts.insert(path.to_string(), text);
        }
    }
}
