//! The lower bound of every durable write: fdatasync of a small write, growing file and preallocated file.

use crate::report;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Where to write; a temporary directory by default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Syncs to time.
    #[arg(long, default_value_t = 2_000)]
    count: usize,
}

/// Latencies of `count` writes of 128 bytes, each followed by fdatasync.
pub fn sync_latencies(dir: &Path, count: usize, prewritten: bool) -> Vec<Duration> {
    let path = dir.join("fsync-probe");
    let file = std::fs::File::create(&path).expect("the probe file");
    if prewritten {
        file.write_all_at(&vec![1; count * 128], 0).expect("prewrite");
        file.sync_all().expect("sync");
    }
    let latencies = (0..count as u64)
        .map(|i| {
            let start = Instant::now();
            file.write_all_at(&[7; 128], i * 128).expect("write");
            file.sync_data().expect("sync");
            start.elapsed()
        })
        .collect();
    std::fs::remove_file(path).expect("remove the probe file");
    latencies
}

pub fn run(arguments: &Arguments) {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = arguments.dir.as_deref().unwrap_or(temporary.path());
    report::head(&["fdatasync after 128 B", "p50", "p99", "per second"]);
    for (name, prewritten) in [("growing file", false), ("prewritten file", true)] {
        let mut latencies = sync_latencies(dir, arguments.count, prewritten);
        let total: Duration = latencies.iter().sum();
        let per_second = latencies.len() as f64 / total.as_secs_f64();
        let (p50, p99) = (report::quantile(&mut latencies, 0.5), report::quantile(&mut latencies, 0.99));
        report::row(&[name.into(), report::latency(p50), report::latency(p99), report::rate(per_second)]);
    }
}
