//! The command line: one file a command.
//!
//! Exit codes: 0 done; 1 it was tried and failed, or found what it looks for absent or damaged; 2 it was asked wrongly, so
//! the arguments, or what they name, have to change first.

mod check;
mod cluster;
mod copies;
mod data;
mod entries;
mod failure;
mod inspect;
mod local;
mod node;
mod remote;
mod scan;
mod serve;
mod source;
mod status;
mod text;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;

/// Where commands look for a node that was not named.
const ENDPOINT_DEFAULT: &str = kontiki_server::config::GRPC_ADDRESS_DEFAULT;

/// A transactional key-value store: embedded, or served to clients of TiKV.
#[derive(Debug, Parser)]
#[command(name = "kontiki", version, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  kontiki serve                          one node on 127.0.0.1:20160, data in ./kontiki-data
  kontiki cluster --nodes 3 --dir demo   three nodes on this machine, until Ctrl-C
  kontiki put greeting hello             write to the node at 127.0.0.1:20160
  kontiki get greeting
  kontiki put photo --from photo.jpg     the value is a file, or with `--from -` standard input
  kontiki scan --prefix gree --json      a line for each key; --all for as many as there are
  kontiki status                         stores, regions and their leaders

Exit codes: 0 done; 1 it failed, or what was looked for is absent or damaged; 2 it was asked wrongly";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node in the foreground
    Serve(Box<serve::Serve>),
    /// Run a cluster on this machine in the foreground; Ctrl-C stops it, the next start continues it
    Cluster(cluster::Cluster),
    /// Write a key
    Put(data::Put),
    /// Print the value of a key
    Get(data::Get),
    /// Remove a key; it is no error if it was not there
    Delete(data::Delete),
    /// List keys and values of a range
    Scan(scan::Scan),
    /// Show stores, regions and their leaders
    Status(status::Status),
    /// Verify every byte of a data directory that no process has open
    Check(check::Check),
    /// Show the levels of a data directory
    Stats(inspect::Stats),
    /// Show what a data directory's manifest says
    Manifest(inspect::Manifest),
    /// Show the sorted tables of a data directory
    Tables(inspect::Tables),
    /// Show the segments of a data directory's log
    Wal(inspect::Wal),
    /// Show the files of a data directory's value log
    Vlog(inspect::Vlog),
    /// Merge everything in a data directory, or a range of one family, down into one level
    Compact(copies::Compact),
    /// Make a second data directory with the same contents, by hard links
    Checkpoint(copies::Checkpoint),
    /// Make, show, verify and delete backups of data directories
    Backup(copies::Backup),
    /// Make a data directory out of a backup
    Restore(copies::Restore),
    /// Save what can be saved of a damaged data directory into a new one
    Repair(check::Repair),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here too; they go to the standard output and are no failure.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    // Each open file and each connection takes a descriptor, and what most systems begin with is little for a database.
    let _ = kontiki_env::machine::raise_descriptors_max(); // less is less speed, and no error
    let result = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Cluster(cluster) => cluster.run(),
        Command::Put(put) => put.run(),
        Command::Get(get) => get.run(),
        Command::Delete(delete) => delete.run(),
        Command::Scan(scan) => scan.run(),
        Command::Status(status) => status.run(),
        Command::Check(check) => check.run(),
        Command::Stats(stats) => stats.run(),
        Command::Manifest(manifest) => manifest.run(),
        Command::Tables(tables) => tables.run(),
        Command::Wal(wal) => wal.run(),
        Command::Vlog(vlog) => vlog.run(),
        Command::Compact(compact) => compact.run(),
        Command::Checkpoint(checkpoint) => checkpoint.run(),
        Command::Backup(backup) => backup.run(),
        Command::Restore(restore) => restore.run(),
        Command::Repair(repair) => repair.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has had enough, as `head` does.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kontiki: {failure}");
            failure.code()
        }
    }
}

/// Runs a future to its end on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(future)
}
