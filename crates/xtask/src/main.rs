//! `cargo xtask COMMAND`: the project's maintenance commands.

use std::process::ExitCode;
use xtask::{Repo, rules};

const USAGE: &str = "usage: cargo xtask tidy

  tidy    check the coding rules: layering, sizes, disallowed calls, docs, links (CONTRIBUTING.md lists them)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy(),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn tidy() -> ExitCode {
    let repo = match Repo::load(&xtask::root()) {
        Ok(repo) => repo,
        Err(error) => {
            eprintln!("tidy: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings: Vec<_> = rules::ALL.iter().flat_map(|rule| (rule.check)(&repo)).collect();
    for finding in &findings {
        eprintln!("{finding}");
    }
    println!("{}", rules::sizes::summary(&repo));
    println!("{}", rules::modules::summary(&repo));
    if findings.is_empty() {
        println!("tidy: all rules hold");
        ExitCode::SUCCESS
    } else {
        eprintln!("tidy: {} findings", findings.len());
        ExitCode::FAILURE
    }
}
