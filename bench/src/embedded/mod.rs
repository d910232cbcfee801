//! Kontiki, RocksDB, fjall, redb and LMDB on the same work: one engine after another in each round, each in its own
//! process, so that variations of the machine affect all of them. Every answer is checked; a wrong one ends the run.

mod bare_disk;
pub mod child;
mod client;
mod clock;
mod histogram;
mod machine;
mod model;
mod plan;
mod random;
pub mod table;
mod workloads;

use crate::engines;
use plan::{Group, Record, Task, Workload};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[derive(clap::Args)]
pub struct Arguments {
    /// A quick run: 1 round of 0.4 s, 100,000 keys, no cold reads, not every engine.
    #[arg(long)]
    quick: bool,
    /// Seconds of a measurement; fills take as long as they take. Default 3.
    #[arg(long)]
    seconds: Option<f64>,
    /// Rounds over all engines. Default 2.
    #[arg(long)]
    rounds: Option<usize>,
    /// Keys with values of 100 bytes; groups with larger values have fewer. Default 1,000,000.
    #[arg(long)]
    keys: Option<u64>,
    /// Engines to compare. Default: kontiki,rocksdb,rocksdb-tuned,fjall,redb,lmdb, with large values also rocksdb-blob
    /// and fjall-blob, with sync also disk and disk-group.
    #[arg(long, value_delimiter = ',')]
    engines: Option<Vec<String>>,
    /// Groups to run: seq, small, small8, kib, sync, sync-kib, ycsb, large, cold. Default: all.
    #[arg(long, value_delimiter = ',')]
    groups: Option<Vec<String>>,
    /// Workloads to run, in all groups that have them. A group without its fill is loaded first, unmeasured.
    #[arg(long, value_delimiter = ',')]
    workloads: Option<Vec<Workload>>,
    /// Only steps with these numbers of threads.
    #[arg(long, value_delimiter = ',')]
    threads: Option<Vec<u64>>,
    /// Values of this size in all groups, with a number of keys that keeps the total bytes about the same.
    #[arg(long)]
    value_bytes: Option<usize>,
    /// Compact fully before reads. Default: reads see the state that background work has left.
    #[arg(long)]
    compact: bool,
    /// Where to put the data; a temporary directory by default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Appends every figure of every round to this file, as JSON lines. `report` makes tables of such files.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Runs every group and engine under `perf record` and leaves the profiles in this directory.
    #[arg(long)]
    profile: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct ReportArguments {
    /// Files that `embedded --json` wrote.
    files: Vec<PathBuf>,
}

#[derive(clap::Args)]
pub struct ChildArguments {
    pub task: String,
}

const QUICK_ENGINES: [&str; 4] = ["kontiki", "rocksdb", "fjall", "lmdb"];

impl Arguments {
    fn engines(&self, group: &Group) -> Vec<String> {
        if let Some(engines) = &self.engines {
            let takes = |engine: &&String| group.sync || !bare_disk::NAMES.contains(&engine.as_str());
            return engines.iter().filter(takes).cloned().collect();
        }
        let mut engines = if self.quick { QUICK_ENGINES.to_vec() } else { engines::NAMES.to_vec() };
        if group.value_bytes > 1024 {
            engines.extend(&engines::BLOB_NAMES[..if self.quick { 1 } else { 2 }]);
        }
        if group.sync {
            engines.extend(bare_disk::NAMES);
        }
        engines.into_iter().map(String::from).collect()
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups = plan::groups(self.keys.unwrap_or(if self.quick { 100_000 } else { 1_000_000 }));
        match &self.groups {
            Some(names) => groups.retain(|group| names.contains(&group.name)),
            None => groups.retain(|group| !(self.quick && group.cold)),
        }
        for group in &mut groups {
            if let Some(value_bytes) = self.value_bytes {
                group.resize(value_bytes);
            }
            let workload = |workload| self.workloads.as_ref().is_none_or(|names| names.contains(&workload));
            let threads = |threads| self.threads.as_ref().is_none_or(|numbers| numbers.contains(&threads));
            group.steps.retain(|step| workload(step.workload) && threads(step.threads));
        }
        groups.retain(|group| !group.steps.is_empty());
        groups
    }
}

pub fn run(arguments: &Arguments) {
    let mut records = Vec::new();
    let mut json = arguments.json.as_ref().map(|path| {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.expect("the file for JSON lines")
    });
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 2 });
    for round in 0..rounds {
        for group in arguments.groups() {
            let engines = arguments.engines(&group);
            for i in 0..engines.len() {
                let engine = &engines[(i + round) % engines.len()];
                eprintln!("round {} of {rounds}, {}, {engine}", round + 1, group.name);
                records.extend(run_child(arguments, round, engine, &group, &mut json));
            }
        }
    }
    table::print(&records);
}

fn run_child(
    arguments: &Arguments,
    round: usize,
    engine: &str,
    group: &Group,
    json: &mut Option<std::fs::File>,
) -> Vec<Record> {
    let dir = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.expect("a directory");
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { 0.4 } else { 3.0 });
    let task = Task {
        round,
        engine: engine.into(),
        group: group.clone(),
        seconds,
        compact: arguments.compact,
        dir: dir.path().into(),
    };
    let mut command = command(arguments, &task);
    command.arg("embedded-child").arg(serde_json::to_string(&task).expect("a task is JSON"));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the child starts");
    let mut records = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("the child's figures");
        // `perf` may print its own lines.
        let Ok(record) = serde_json::from_str::<Record>(&line) else { continue };
        if let Some(json) = json {
            writeln!(json, "{line}").expect("write figures");
        }
        records.push(record);
    }
    let status = child.wait().expect("the child ends");
    assert!(status.success(), "{engine} failed in group {}: {status}", group.name);
    records
}

fn command(arguments: &Arguments, task: &Task) -> Command {
    let program = std::env::current_exe().expect("this program");
    let Some(dir) = &arguments.profile else { return Command::new(program) };
    std::fs::create_dir_all(dir).expect("a directory for profiles");
    let file = dir.join(format!("{}-{}-{}.perf", task.group.name, task.engine, task.round));
    let mut command = Command::new("perf");
    // The software clock: virtual machines often have no cycle counter to sample.
    command.args(["record", "--quiet", "--event", "cpu-clock", "--freq", "1999", "--call-graph", "fp", "--output"]);
    command.arg(file).arg("--").arg(program);
    command
}

/// Prints the tables of recorded figures.
pub fn report(arguments: &ReportArguments) {
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a file of figures");
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect::<Vec<Record>>()
    };
    table::print(&arguments.files.iter().flat_map(read).collect::<Vec<_>>());
}
