//! The rules, one per file.

pub mod calls;
pub mod dependencies;
pub mod inline_tests;
pub mod layering;
pub mod links;
pub mod lints;
pub mod module_layers;
pub mod modules;
pub mod named_files;
pub mod scenarios;
pub mod sizes;
pub mod unsafety;
pub mod widths;
pub mod words;

use crate::{Finding, Repo};

/// A rule.
pub struct Rule {
    /// Its name in tests and in CONTRIBUTING.md.
    pub name: &'static str,
    /// Finds the violations.
    pub check: fn(&Repo) -> Vec<Finding>,
}

/// Every rule.
pub const ALL: &[Rule] = &[
    Rule { name: "layering", check: layering::check },
    Rule { name: "file-budget", check: sizes::files },
    Rule { name: "function-budget", check: sizes::functions },
    Rule { name: "disallowed-calls", check: calls::check },
    Rule { name: "crate-lints", check: lints::check },
    Rule { name: "words", check: words::check },
    Rule { name: "unsafe", check: unsafety::check },
    Rule { name: "inline-tests", check: inline_tests::check },
    Rule { name: "links", check: links::check },
    Rule { name: "dependencies", check: dependencies::check },
    Rule { name: "module-layers", check: module_layers::check },
    Rule { name: "modules", check: modules::check },
    Rule { name: "named-files", check: named_files::check },
    Rule { name: "scenarios", check: scenarios::check },
    Rule { name: "widths", check: widths::check },
];

/// The line a syntax element starts at.
pub(crate) fn line_of(element: &impl syn::spanned::Spanned) -> usize {
    element.span().start().line
}

/// Whether an item is compiled for tests only: `cfg(test)` or `cfg(all(test, ...))`.
pub(crate) fn is_cfg_test(attributes: &[syn::Attribute]) -> bool {
    let only_test = |list: &syn::MetaList| {
        let condition = list.tokens.to_string().replace(' ', "");
        condition == "test" || condition.starts_with("all(test,")
    };
    attributes.iter().any(|a| a.path().is_ident("cfg") && a.meta.require_list().is_ok_and(only_test))
}
