//! The command line: one file per command.
//!
//! Exit codes: 0 success; 1 the operation failed, or found its object absent or damaged; 2 wrong usage: the arguments,
//! or what they name, have to change first.

mod check;
mod cluster;
mod compare;
mod copies;
mod data;
mod entries;
mod failure;
mod inspect;
mod keyspace;
mod local;
mod node;
mod raft_logs;
mod remote;
mod scan;
mod serve;
mod source;
mod split;
mod status;
mod text;
mod tls;
mod unsafe_recovery;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;

/// The default endpoint of a node.
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
    /// Remove a key; a missing key is not an error
    Delete(data::Delete),
    /// List keys and values of a range
    Scan(scan::Scan),
    /// Show stores, regions and their leaders
    Status(status::Status),
    /// Split regions at keys
    Split(split::Split),
    /// Create and list keyspaces, for clients that use version 2 of TiKV's API
    Keyspace(keyspace::Keyspace),
    /// Compare the replicas of regions: whether they hold the same data
    CompareReplicas(compare::CompareReplicas),
    /// Verify every byte of a data directory that no process has open
    Check(check::Check),
    /// Show the levels of a data directory
    Stats(inspect::Stats),
    /// Show the contents of a data directory's manifest
    Manifest(inspect::Manifest),
    /// Show the sorted tables of a data directory
    Tables(inspect::Tables),
    /// Show the segments of a data directory's log
    Wal(inspect::Wal),
    /// Show the files of a data directory's value log
    Vlog(inspect::Vlog),
    /// Compact everything in a data directory, or a range of one family, into one level
    Compact(copies::Compact),
    /// Create a second data directory with the same contents, by hard links
    Checkpoint(copies::Checkpoint),
    /// Create, show, verify and delete backups of data directories
    Backup(copies::Backup),
    /// Create a data directory from a backup
    Restore(copies::Restore),
    /// Go on without a majority of the stores, if it is lost for good: changes a stopped node's directory
    UnsafeRecovery(unsafe_recovery::UnsafeRecovery),
    /// Save what can be saved of a damaged data directory into a new one
    Repair(check::Repair),
}

/// What the command line's parser does not say.
fn remedy(error: &clap::Error) -> Option<&'static str> {
    match error.kind() {
        clap::error::ErrorKind::InvalidUtf8 => Some(
            "Arguments are UTF-8 text. Give other keys and values as hexadecimal digits with --hex, and a value also by a \
             file with --from; file names have to be UTF-8 where they are part of a list",
        ),
        // The text of the standard library for what is no number.
        clap::error::ErrorKind::ValueValidation if error.to_string().contains("invalid digit found in string") => Some(
            "A whole number is expected, without a unit or separators: sizes are in bytes (64 MiB is 67108864), times in \
             the unit that the option's name ends with",
        ),
        _ => None,
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here, too; they go to the standard output and are not failures.
            let _ = error.print();
            if let Some(remedy) = remedy(&error) {
                eprintln!("{remedy}");
            }
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    // Each open file and each connection takes a descriptor, and the default limit of most systems is low for a
    // database.
    let _ = kontiki_env::machine::raise_descriptors_max(); // a lower limit costs speed and is not an error
    let result = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Cluster(cluster) => cluster.run(),
        Command::Put(put) => put.run(),
        Command::Get(get) => get.run(),
        Command::Delete(delete) => delete.run(),
        Command::Scan(scan) => scan.run(),
        Command::Status(status) => status.run(),
        Command::Split(split) => split.run(),
        Command::Keyspace(keyspace) => keyspace.run(),
        Command::CompareReplicas(compare) => compare.run(),
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
        Command::UnsafeRecovery(recovery) => recovery.run(),
        Command::Repair(repair) => repair.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed it, as `head` does.
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
