//! `kontiki checkpoint`, `backup`, `restore` and `compact`: work on a directory that no other process has open.

use super::local::Purpose;
use super::{Failure, local, text};
use bytes::Bytes;
use clap::{Args, Subcommand};
use kontiki_engine::Range;
use kontiki_engine::copy::{BackupInfo, BackupStore, CopyProgress};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Arguments of `kontiki checkpoint`.
#[derive(Args, Debug)]
pub struct Checkpoint {
    /// The directory to copy; no other process may have it open
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The new directory
    target: PathBuf,
    /// Copy a node's directory even if its raft logs hold entries that its tables do not; the copy lacks them
    #[arg(long)]
    tables_only: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl Checkpoint {
    /// Makes a second directory with the same contents, by hard links.
    pub fn run(self) -> Result<(), Failure> {
        let db = local::open(&self.data_dir, Purpose::Copy { tables_only: self.tables_only })?;
        let report = db.checkpoint(&self.target).map_err(local::failed)?;
        db.close().map_err(local::failed)?;
        let value = json!({
            "sequence": report.sequence, "linked": report.linked, "copied": report.copied, "bytes": report.bytes,
        });
        print(self.json, &value, || {
            let (target, bytes) = (self.target.display(), report.bytes);
            format!("{target}: {} files linked, {} copied, {bytes} bytes", report.linked, report.copied)
        })
    }
}

/// Arguments of `kontiki compact`.
#[derive(Args, Debug)]
pub struct Compact {
    /// The directory; no other process may have it open
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Only this family, by its name or number
    #[arg(long, value_name = "FAMILY")]
    family: Option<String>,
    /// Only keys from this one on; needs --family
    #[arg(long, value_name = "KEY", requires = "family")]
    from: Option<String>,
    /// Only keys before this one; needs --family
    #[arg(long, value_name = "KEY", requires = "family")]
    to: Option<String>,
}

impl Compact {
    /// Compacts every family, or a part of one, completely.
    pub fn run(self) -> Result<(), Failure> {
        if let (Some(from), Some(to)) = (&self.from, &self.to)
            && from > to
        {
            return Err(Failure::usage(format!("--from {from:?} comes after --to {to:?}: exchange them")));
        }
        let db = local::open(&self.data_dir, Purpose::Arrange)?;
        let before = db.stats().table_bytes();
        match &self.family {
            None => db.compact().map_err(local::failed)?,
            Some(name) => {
                let family = local::family(&db, &self.data_dir, name)?;
                let range = Range { start: self.from.clone().map(Bytes::from), end: self.to.clone().map(Bytes::from) };
                db.compact_range(family, range).map_err(local::failed)?;
            }
        }
        let after = db.stats().table_bytes();
        db.close().map_err(local::failed)?;
        writeln!(std::io::stdout(), "{}: tables {before} bytes before, {after} now", self.data_dir.display())?;
        Ok(())
    }
}

/// Arguments of `kontiki backup`.
#[derive(Args, Debug)]
pub struct Backup {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Back a directory up; only data that earlier backups do not hold is copied
    Create {
        /// The directory; no other process may have it open
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Back up a node's directory even if its raft logs hold entries that its tables do not; the backup lacks them
        #[arg(long)]
        tables_only: bool,
        #[command(flatten)]
        store: Store,
    },
    /// Show the backups
    List {
        #[command(flatten)]
        store: Store,
    },
    /// Read a backup and compare its checksums
    Verify {
        /// The backup; the last one if it is left out
        #[arg(long, value_name = "NUMBER")]
        backup: Option<u64>,
        #[command(flatten)]
        store: Store,
    },
    /// Remove a backup and the data that only it uses
    Delete {
        /// The backup
        #[arg(long, value_name = "NUMBER")]
        backup: u64,
        #[command(flatten)]
        store: Store,
    },
}

#[derive(Args, Debug)]
struct Store {
    /// The directory of backups
    #[arg(long, value_name = "DIR")]
    backups: PathBuf,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl Store {
    fn open(&self) -> Result<BackupStore, Failure> {
        BackupStore::open(&self.backups).map_err(local::failed)
    }

    /// A store of backups that must exist.
    fn existing(&self) -> Result<BackupStore, Failure> {
        if !self.backups.join("backups").is_dir() {
            return Err(Failure::usage(format!("{} is not a directory of backups", self.backups.display())));
        }
        self.open()
    }

    fn print(&self, infos: &[BackupInfo]) -> Result<(), Failure> {
        let values: Vec<Value> = infos.iter().map(to_json).collect();
        print(self.json, &Value::Array(values), || {
            let row = |info: &BackupInfo| {
                let numbers = [info.made_at_ms, info.sequence, info.files, info.bytes, info.copied_bytes.unwrap_or(0)];
                let shown = |number: u64| if info.damage.is_some() { String::new() } else { number.to_string() };
                let mut row = vec![info.number.to_string()];
                row.extend(numbers.map(shown));
                if info.damage.is_none() && info.copied_bytes.is_none() {
                    row.pop();
                    row.push("not recorded".to_string());
                }
                row.push(info.damage.clone().unwrap_or_default());
                row
            };
            let header = ["BACKUP", "MADE AT (MS)", "SEQUENCE", "FILES", "BYTES", "COPIED", "DAMAGE"];
            text::table(&header, infos.iter().map(row))
        })
    }
}

impl Backup {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Create { data_dir, tables_only, store } => {
                let db = local::open(&data_dir, Purpose::Copy { tables_only })?;
                let info = store.open()?.create(&db, &mut progress()).map_err(local::failed)?;
                db.close().map_err(local::failed)?;
                print(store.json, &to_json(&info), || {
                    let (number, copied, bytes) = (info.number, info.copied_bytes.unwrap_or(0), info.bytes);
                    format!("backup {number}: {} files, {bytes} bytes, {copied} of them copied", info.files)
                })
            }
            Action::List { store } => {
                let infos = store.existing()?.list().map_err(local::failed)?;
                store.print(&infos)?;
                let damaged = infos.iter().filter(|info| info.damage.is_some()).count();
                match damaged {
                    0 => Ok(()),
                    _ => Err(Failure::new(format!("{damaged} backups have a damaged record: delete them"))),
                }
            }
            Action::Verify { backup, store } => {
                let backups = store.existing()?;
                let number = number_or_last(&backups, backup, &store.backups)?;
                let info = backups.verify(number, &mut progress()).map_err(local::failed)?;
                print(store.json, &to_json(&info), || format!("backup {number} is sound: {} bytes read", info.bytes))
            }
            Action::Delete { backup, store } => store.existing()?.delete(backup).map_err(local::failed),
        }
    }
}

/// Arguments of `kontiki restore`.
#[derive(Args, Debug)]
pub struct Restore {
    /// The new directory
    target: PathBuf,
    /// The backup; the last one if it is left out
    #[arg(long, value_name = "NUMBER")]
    backup: Option<u64>,
    #[command(flatten)]
    store: Store,
}

impl Restore {
    /// Makes a directory with the contents of a backup.
    pub fn run(self) -> Result<(), Failure> {
        let backups = self.store.existing()?;
        let number = number_or_last(&backups, self.backup, &self.store.backups)?;
        let info = backups.restore(number, &self.target, &mut progress()).map_err(local::failed)?;
        print(self.store.json, &to_json(&info), || {
            format!("{}: backup {number} restored, {} files, {} bytes", self.target.display(), info.files, info.bytes)
        })
    }
}

fn number_or_last(backups: &BackupStore, number: Option<u64>, dir: &Path) -> Result<u64, Failure> {
    match number {
        Some(number) => Ok(number),
        None => {
            let all = backups.list().map_err(local::failed)?;
            let last = all.iter().rfind(|info| info.damage.is_none()).map(|info| info.number);
            last.ok_or_else(|| Failure::usage(format!("{} holds no backup", dir.display())))
        }
    }
}

fn to_json(info: &BackupInfo) -> Value {
    json!({
        "backup": info.number, "made_at_ms": info.made_at_ms, "sequence": info.sequence, "files": info.files,
        "bytes": info.bytes, "copied_bytes": info.copied_bytes, "damage": info.damage,
    })
}

fn print(as_json: bool, value: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{value:#}")?
    } else {
        writeln!(out, "{}", text())?
    }
    Ok(())
}

/// Shows progress on a terminal, in one line that is overwritten at the end of each file.
fn progress() -> impl FnMut(CopyProgress) {
    let shown = std::io::stderr().is_terminal();
    let mut files_done = u64::MAX;
    move |progress| {
        if shown && progress.files_done != files_done {
            files_done = progress.files_done;
            let CopyProgress { files, bytes_done, bytes, .. } = progress;
            let end = if files_done == files { "\n" } else { "" };
            eprint!("\r{files_done}/{files} files, {bytes_done}/{bytes} bytes{end}");
        }
    }
}
