//! Comparisons of Kontiki with its peers on the same work, in one interleaved run. Every answer is checked.
//! The commands behind docs/benchmarks.md; build with `cargo run --release -- --help` in this folder. Without the
//! feature `peers` the commands that compare engines are not there, nor the engines.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a benchmark measures the machine itself

mod catch_up;
mod cluster;
mod data;
#[cfg(feature = "peers")]
mod dead;
mod disk;
#[cfg(feature = "peers")]
mod embedded;
#[cfg(feature = "peers")]
mod engines;
mod etcd;
mod failover;
mod load;
mod nodes;
mod regions;
mod report;
mod scans;
#[cfg(feature = "peers")]
mod transact;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benchmarks of Kontiki and its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kontiki, RocksDB, fjall, redb and LMDB, embedded.
    #[cfg(feature = "peers")]
    Embedded(embedded::Arguments),
    /// Tables of figures that `embedded --json` recorded.
    #[cfg(feature = "peers")]
    Report(embedded::ReportArguments),
    /// One group of `embedded` with one engine.
    #[cfg(feature = "peers")]
    #[command(hide = true)]
    EmbeddedChild(embedded::ChildArguments),
    /// Raw put and get on three local nodes, with the disk's flush latency for comparison.
    Cluster(cluster::Arguments),
    /// Puts and gets beside three nodes of etcd and a bare gRPC echo, interleaved.
    Etcd(etcd::Arguments),
    /// The echo of `etcd`.
    #[command(hide = true)]
    EchoServer(etcd::echo::Arguments),
    /// Many regions: memory, processor time and restart when they are idle, and throughput.
    Regions(regions::Arguments),
    /// Kills the leader under load and measures the gap in service.
    Failover(failover::Arguments),
    /// A follower that was down comes back under a steady load of writes.
    CatchUp(catch_up::Arguments),
    /// Gets concurrently with clients that scan everything.
    Scans(scans::Arguments),
    /// Transactions that all update one key, compared with the same behind one mutex, and with redb.
    #[cfg(feature = "peers")]
    Transact(transact::Arguments),
    /// A queue, seeks after many deletes, many deleted ranges.
    #[cfg(feature = "peers")]
    Dead(dead::Arguments),
    /// The disk alone: fdatasync latency of small appends.
    Disk(disk::Arguments),
}

/// One allocator for all engines, those in C and C++ too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    match Arguments::parse().command {
        #[cfg(feature = "peers")]
        Command::Embedded(arguments) => embedded::run(&arguments),
        #[cfg(feature = "peers")]
        Command::Report(arguments) => embedded::report(&arguments),
        #[cfg(feature = "peers")]
        Command::EmbeddedChild(arguments) => embedded::child::run(&arguments.task),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Etcd(arguments) => etcd::run(&arguments),
        Command::EchoServer(arguments) => etcd::echo::run(&arguments),
        Command::Regions(arguments) => regions::run(&arguments),
        Command::Failover(arguments) => failover::run(&arguments),
        Command::CatchUp(arguments) => catch_up::run(&arguments),
        Command::Scans(arguments) => scans::run(&arguments),
        #[cfg(feature = "peers")]
        Command::Transact(arguments) => transact::run(&arguments),
        #[cfg(feature = "peers")]
        Command::Dead(arguments) => dead::run(&arguments),
        Command::Disk(arguments) => disk::run(&arguments),
    }
}
