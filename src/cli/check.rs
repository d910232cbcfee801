//! `kontiki check` and `repair`: read every byte of a directory that no process has open.

use super::{Failure, local, text};
use clap::Args;
use kontiki_engine::inspect::{self, CheckReport, RepairReport};
use kontiki_env::Env;
use kontiki_server::stopped::{FilesChecked, LogFileProblem, check_files};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `kontiki check`.
#[derive(Args, Debug)]
pub struct Check {
    /// The directory, embedded or served
    #[arg(long, value_name = "DIR", default_value = kontiki_server::config::DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Prints what was read and the problems found; fails if there are any.
    pub fn run(self) -> Result<(), Failure> {
        local::find_database(&self.data_dir)?;
        let report = inspect::check(&Env::real(), &self.data_dir).map_err(local::failed)?;
        let logs = self.check_logs()?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", all_to_json(&report, &logs))?;
        } else {
            let rows = rows(&report).into_iter().chain([row("raft log files", logs.files, Some(logs.bytes))]);
            writeln!(out, "{}", text::table(&["WHAT", "COUNT", "BYTES"], rows))?;
            for problem in &report.problems {
                writeln!(out, "{} at offset {}: {}", problem.file.display(), problem.offset, problem.what)?;
            }
            for problem in &logs.problems {
                writeln!(out, "{} at offset {}: {}", problem.file.display(), problem.offset, problem.what)?;
            }
            for note in &report.notes {
                writeln!(out, "note: {} at offset {}: {}", note.file.display(), note.offset, note.what)?;
            }
        }
        if report.is_sound() && logs.problems.is_empty() {
            return Ok(());
        }
        let (folder, count) = (self.data_dir.display(), report.problems.len() + logs.problems.len());
        Err(Failure::new(format!(
            "{folder}: {count} problems; `kontiki repair --data-dir {folder} NEW` saves what is whole into the directory NEW, \
             and a member of a cluster gets its data from the others: docs/guide/replace-a-disk.md"
        )))
    }
}

impl Check {
    /// The raft logs of a node that keeps them in files of their own.
    fn check_logs(&self) -> Result<FilesChecked, Failure> {
        let _lock = inspect::lock_to_read(&Env::real(), &self.data_dir).map_err(local::failed)?;
        check_files(&Env::real(), &self.data_dir).map_err(local::failed)
    }
}

fn all_to_json(report: &CheckReport, logs: &FilesChecked) -> serde_json::Value {
    let mut value = to_json(report);
    value["sound"] = json!(report.is_sound() && logs.problems.is_empty());
    (value["raft_log_files"], value["raft_log_file_bytes"]) = (json!(logs.files), json!(logs.bytes));
    let problem = |problem: &LogFileProblem| json!({ "file": problem.file.display().to_string(), "offset": problem.offset, "what": problem.what });
    if let Some(problems) = value["problems"].as_array_mut() {
        problems.extend(logs.problems.iter().map(problem));
    }
    value
}

/// Arguments of `kontiki repair`.
#[derive(Args, Debug)]
pub struct Repair {
    /// The damaged directory; it is only read
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The new directory
    target: PathBuf,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl Repair {
    /// Saves what can be saved, and prints what was lost; fails if something is known to be lost.
    pub fn run(self) -> Result<(), Failure> {
        local::find_database(&self.data_dir)?;
        let report = inspect::repair(&Env::real(), &self.data_dir, &self.target).map_err(local::failed)?;
        let mut out = std::io::stdout().lock();
        let counts = [
            ("tables_sound", report.tables_sound),
            ("tables_mended", report.tables_mended),
            ("tables_lost", report.tables_lost),
            ("versions_mended", report.versions_mended),
            ("versions_dropped", report.versions_dropped),
            ("commits", report.commits),
            ("log_segments", report.log_segments),
            ("stream_ops_lost", report.stream_ops_lost),
            ("value_files", report.value_files),
        ];
        if self.json {
            let mut value = json!({
                "whole": report.is_whole(),
                "manifest_read": report.manifest_read,
                "checked": to_json(&report.checked),
                "problems": report.problems.iter().map(problem_to_json).collect::<Vec<_>>(),
            });
            counts.iter().for_each(|(name, count)| value[*name] = json!(count));
            writeln!(out, "{value:#}")?;
            return self.answer(&report);
        }
        let rows = counts.iter().map(|(name, count)| vec![name.replace('_', " "), count.to_string()]);
        writeln!(out, "{}", text::table(&["WHAT", "COUNT"], rows))?;
        if !report.manifest_read {
            writeln!(out, "the manifest could not be read: deleted keys may have come back, range deletes are lost")?;
        }
        for problem in &report.problems {
            writeln!(out, "{} at offset {}: {}", problem.file.display(), problem.offset, problem.what)?;
        }
        self.answer(&report)
    }

    fn answer(&self, report: &RepairReport) -> Result<(), Failure> {
        if report.is_whole() {
            return Ok(());
        }
        let (target, count) = (self.target.display(), report.problems.len());
        Err(Failure::new(format!("{target} holds what could be saved; not everything could: {count} problems")))
    }
}

fn problem_to_json(problem: &inspect::Problem) -> serde_json::Value {
    json!({ "file": problem.file.display().to_string(), "offset": problem.offset, "what": problem.what })
}

fn row(what: &str, count: u64, bytes: Option<u64>) -> Vec<String> {
    vec![what.to_string(), count.to_string(), bytes.map_or_else(String::new, |bytes| bytes.to_string())]
}

fn rows(report: &CheckReport) -> Vec<Vec<String>> {
    vec![
        row("manifest edits", report.edits, None),
        row("column families", report.families, None),
        row("tables", report.tables, Some(report.table_bytes)),
        row("blocks", report.blocks, None),
        row("versions", report.versions, None),
        row("value files", report.value_files, Some(report.value_bytes)),
        row("values in use", report.values, None),
        row("torn values, not in use", report.torn_values, None),
        row("log segments", report.log_segments, None),
        row("log records", report.log_records, Some(report.log_bytes)),
    ]
}

fn to_json(report: &CheckReport) -> serde_json::Value {
    json!({
        "sound": report.is_sound(),
        "manifest_edits": report.edits,
        "manifest_torn": report.manifest_torn,
        "families": report.families,
        "tables": report.tables,
        "table_bytes": report.table_bytes,
        "blocks": report.blocks,
        "versions": report.versions,
        "value_files": report.value_files,
        "value_bytes": report.value_bytes,
        "values": report.values,
        "torn_values": report.torn_values,
        "log_segments": report.log_segments,
        "log_records": report.log_records,
        "log_bytes": report.log_bytes,
        "log_unclean": report.log_unclean,
        "problems": report.problems.iter().map(problem_to_json).collect::<Vec<_>>(),
        "notes": report.notes.iter().map(problem_to_json).collect::<Vec<_>>(),
    })
}
