//! Modules within a crate: dependencies go downward only. The layers are in `lists`.
//!
//! A module depends on another one if its code (tests aside) names a path through it; see [`super::modules`].

mod lists;

use super::modules::{Dependency, Scope, dependencies, modules};
use crate::exceptions::{self, Exception, UPWARD_DEPENDENCIES};
use crate::{Finding, Repo};
use lists::{LAYERS, Layers};

/// See the module.
pub fn check(repo: &Repo) -> Vec<Finding> {
    check_with(repo, LAYERS, UPWARD_DEPENDENCIES)
}

fn check_with(repo: &Repo, layers: &[Layers], excused: &'static [Exception]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = vec![false; excused.len()];
    for (name, layers) in layers {
        let lib = Scope::of(name).root;
        let layer = |module: &str| layers.iter().position(|layer| layer.contains(&module));
        let modules = modules(repo, name);
        let unlisted = modules.iter().filter(|module| layer(module).is_none());
        findings.extend(unlisted.map(|module| Finding::new(&lib, 0, format!("give the module {module} a layer"))));
        let listed = layers.iter().flat_map(|layer| layer.iter());
        let gone = listed.filter(|module| !modules.contains(**module));
        findings
            .extend(gone.map(|module| Finding::new(&lib, 0, format!("the module {module} has a layer but no code"))));
        for Dependency { from, to, path } in dependencies(repo, name) {
            if layer(&to) < layer(&from) {
                continue;
            }
            match exceptions::find(excused, &path, &to) {
                Some(index) => used[index] = true,
                None => findings.push(Finding::new(&path, 0, format!("{from} is not above {to} and may not use it"))),
            }
        }
    }
    for (exception, _) in excused.iter().zip(&used).filter(|(_, used)| !**used) {
        let message = format!("the exception for the use of {} is not needed any more", exception.what);
        findings.push(Finding::new(exception.path, 0, message));
    }
    findings
}

#[cfg(test)]
#[path = "module_layers_test.rs"]
mod tests;
