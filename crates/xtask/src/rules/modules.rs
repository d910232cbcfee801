//! Modules within a crate: every file belongs to one, and dependencies between top-level modules form no larger cycles
//! than they did.
//!
//! A module depends on another one if its code (tests aside) names a path through it: `crate::log::Segments`, or
//! `crate::Error`, which `lib.rs` re-exports from `error`. The largest set of modules that all depend on each other,
//! directly or through others, is bounded for each crate by `CYCLES_MAX`. The aim is 1, which means: no cycle. Lower
//! a bound when a cycle is taken apart.

use super::is_cfg_test;
use crate::{Finding, Repo, Source};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::Visit;

/// By crate: how many top-level modules the largest cycle has. A crate that is not listed has none.
const CYCLES_MAX: &[(&str, usize)] = &[];

type Graph = BTreeMap<String, BTreeSet<String>>;

/// See the module.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = undeclared(repo);
    for name in crates(repo) {
        let (largest, bound) = (largest_cycle(&graph(repo, &name)), bound(&name));
        let lib = format!("crates/{name}/src/lib.rs");
        if largest.len() > bound {
            let modules = largest.into_iter().collect::<Vec<_>>().join(", ");
            findings.push(Finding::new(lib, 0, format!("these modules depend on each other in a cycle: {modules}")));
        } else if largest.len() < bound {
            let message = format!("the largest cycle has {} modules: lower CYCLES_MAX from {bound}", largest.len());
            findings.push(Finding::new(lib, 0, message));
        }
    }
    findings
}

/// One line: the largest cycle of each crate that has one.
pub fn summary(repo: &Repo) -> String {
    let sizes = crates(repo).into_iter().map(|name| (largest_cycle(&graph(repo, &name)).len(), name));
    let listed: Vec<String> =
        sizes.filter(|(size, _)| *size > 1).map(|(size, name)| format!("{name} {size}")).collect();
    match listed.is_empty() {
        true => "modules in the largest cycle: none".to_string(),
        false => format!("modules in the largest cycle: {}", listed.join(", ")),
    }
}

fn bound(name: &str) -> usize {
    CYCLES_MAX.iter().find(|(of, _)| *of == name).map_or(1, |(_, bound)| *bound)
}

fn crates(repo: &Repo) -> BTreeSet<String> {
    let of = |source: &Source| Some(source.path.strip_prefix("crates/")?.strip_suffix("/src/lib.rs")?.to_string());
    repo.sources.iter().filter_map(of).collect()
}

/// Files that no `mod` declares: nothing compiles them.
fn undeclared(repo: &Repo) -> Vec<Finding> {
    let declared: BTreeSet<String> = repo.sources.iter().flat_map(declared_by).collect();
    let message = "no `mod` declares this file, so it is not compiled: declare it or delete it";
    let missing = |source: &&Source| !is_root(&source.path) && !declared.contains(&source.path);
    repo.sources.iter().filter(missing).map(|source| Finding::new(&source.path, 0, message)).collect()
}

/// Whether cargo compiles the file without a declaration.
fn is_root(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let (file, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    ["lib.rs", "main.rs", "build.rs"].contains(&file)
        || ["tests", "examples", "benches", "fuzz_targets", "bin"].contains(&folder) && !path.contains("/src/")
}

/// The paths that the `mod` items of a file may mean.
fn declared_by(source: &Source) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let owns_folder = file == "mod.rs" || is_root(&source.path);
    let inner = if owns_folder { folder.to_string() } else { format!("{folder}/{}", file.trim_end_matches(".rs")) };
    let mut found = Vec::new();
    for item in source.syntax.iter().flat_map(|syntax| &syntax.items) {
        let syn::Item::Mod(module) = item else { continue };
        let name = module.ident.to_string();
        match path_attribute(module) {
            Some(path) => found.push(format!("{folder}/{path}")),
            None => found.extend([format!("{inner}/{name}.rs"), format!("{inner}/{name}/mod.rs")]),
        }
    }
    found
}

fn path_attribute(module: &syn::ItemMod) -> Option<String> {
    let attribute = module.attrs.iter().find(|attribute| attribute.path().is_ident("path"))?;
    let syn::Expr::Lit(literal) = &attribute.meta.require_name_value().ok()?.value else { return None };
    let syn::Lit::Str(path) = &literal.lit else { return None };
    Some(path.value())
}

/// Which top-level module depends on which, in one crate.
fn graph(repo: &Repo, name: &str) -> Graph {
    let mut graph: Graph = modules(repo, name).into_iter().map(|module| (module, BTreeSet::new())).collect();
    for Dependency { from, to, .. } in dependencies(repo, name) {
        graph.entry(from).or_default().insert(to);
    }
    graph
}

/// A file of one top-level module names a path through another one.
pub(super) struct Dependency {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) path: String,
}

/// What modules are compared of: a crate (`engine`), or one module of it that is a folder (`engine::db`).
pub(super) struct Scope {
    /// The file that declares the modules.
    pub(super) root: String,
    crate_src: String,
    src: String,
    /// From the root of the crate.
    path: Vec<String>,
}

impl Scope {
    pub(super) fn of(name: &str) -> Scope {
        let mut parts = name.split("::");
        let crate_src = format!("crates/{}/src/", parts.next().unwrap_or_default());
        let path: Vec<String> = parts.map(str::to_string).collect();
        let src = path.iter().fold(crate_src.clone(), |src, part| format!("{src}{part}/"));
        let root = format!("{src}{}.rs", if path.is_empty() { "lib" } else { "mod" });
        Scope { root, crate_src, src, path }
    }

    fn sources<'a>(&'a self, repo: &'a Repo) -> impl Iterator<Item = &'a Source> {
        repo.sources.iter().filter(move |source| source.path.starts_with(&self.src) && !source.is_test())
    }

    /// What a path in a file names of the scope: the first name behind it. In a whole crate only paths from its root
    /// count.
    fn named(&self, file: &str, path: &[String]) -> Option<String> {
        let supers = path.iter().take_while(|part| *part == "super").count();
        let full = match path.first()?.as_str() {
            "crate" => path[1..].to_vec(),
            "super" if !self.path.is_empty() => {
                let module = file[self.crate_src.len()..].trim_end_matches(".rs").trim_end_matches("/mod");
                let module: Vec<String> = module.split('/').map(str::to_string).collect();
                [&module[..module.len().checked_sub(supers)?], &path[supers..]].concat()
            }
            _ => return None,
        };
        full.strip_prefix(self.path.as_slice())?.first().cloned()
    }
}

/// The dependencies between the modules of a scope; each of a file once.
pub(super) fn dependencies(repo: &Repo, name: &str) -> Vec<Dependency> {
    let scope = Scope::of(name);
    let root = repo.sources.iter().find(|source| source.path == scope.root);
    let exported = root.and_then(|root| root.syntax.as_ref()).map(exports).unwrap_or_default();
    let modules = modules(repo, name);
    let mut found = Vec::new();
    for source in scope.sources(repo) {
        let from = module_of(&source.path, &scope.src);
        let mut paths = Paths(Vec::new());
        source.syntax.iter().for_each(|syntax| paths.visit_file(syntax));
        let named = paths.0.iter().filter_map(|path| scope.named(&source.path, path));
        let uses: BTreeSet<String> = named.map(|first| exported.get(&first).cloned().unwrap_or(first)).collect();
        let others = uses.into_iter().filter(|to| *to != from && modules.contains(to) && modules.contains(&from));
        found.extend(others.map(|to| Dependency { from: from.clone(), to, path: source.path.clone() }));
    }
    found
}

/// The modules of a scope that have code beside their tests.
pub(super) fn modules(repo: &Repo, name: &str) -> BTreeSet<String> {
    let scope = Scope::of(name);
    let names = scope.sources(repo).map(|source| module_of(&source.path, &scope.src));
    names.filter(|name| !["lib", "main", "mod"].contains(&&**name)).collect()
}

fn module_of(path: &str, src: &str) -> String {
    path[src.len()..].split('/').next().unwrap_or_default().trim_end_matches(".rs").to_string()
}

/// From the names that `lib.rs` re-exports to the modules that they are of.
fn exports(lib: &syn::File) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for item in &lib.items {
        let syn::Item::Use(item) = item else { continue };
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut leaves);
        for leaf in leaves.into_iter().filter(|leaf| leaf.len() > 1) {
            found.insert(leaf[leaf.len() - 1].clone(), leaf[0].clone());
        }
    }
    found
}

fn flatten(tree: &syn::UseTree, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let leaf = |name: String, before: &[String]| [before, &[name]].concat();
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, found);
            before.pop();
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, found)),
        syn::UseTree::Name(name) => found.push(leaf(name.ident.to_string(), before)),
        syn::UseTree::Rename(name) => found.push(leaf(name.rename.to_string(), before)),
        syn::UseTree::Glob(_) => found.push(before.clone()),
    }
}

/// The paths that begin with `crate` or `super`, tests aside.
struct Paths(Vec<Vec<String>>);

fn is_local(first: impl AsRef<str>) -> bool {
    ["crate", "super"].contains(&first.as_ref())
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_cfg_test(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if is_cfg_test(&item.attrs) {
            return;
        }
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut leaves);
        self.0.extend(leaves.into_iter().filter(|leaf| leaf.len() > 1 && is_local(&leaf[0])));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && is_local(path.segments[0].ident.to_string()) {
            self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }
}

/// The largest set of modules that all reach each other; any single one without a cycle.
fn largest_cycle(graph: &Graph) -> BTreeSet<String> {
    let reached: BTreeMap<&String, BTreeSet<String>> = graph.keys().map(|from| (from, reach(graph, from))).collect();
    let cycle = |from: &String| -> BTreeSet<String> {
        let both = |to: &&String| reached[from].contains(*to) && reached[*to].contains(from);
        graph.keys().filter(both).cloned().collect()
    };
    let largest = graph.keys().map(cycle).max_by_key(BTreeSet::len).unwrap_or_default();
    if largest.is_empty() { graph.keys().take(1).cloned().collect() } else { largest }
}

fn reach(graph: &Graph, from: &str) -> BTreeSet<String> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from.to_string()]);
    while let Some(module) = next.pop() {
        for to in graph.get(&module).into_iter().flatten() {
            if found.insert(to.clone()) {
                next.push(to.clone());
            }
        }
    }
    found
}

#[cfg(test)]
#[path = "modules_test.rs"]
mod tests;
