//! The plan of a run: groups of workloads, each group on its own store.

use serde::{Deserialize, Serialize};

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Every key once, in order.
    Fillseq,
    /// Every key once, in random order; with sync: random keys for a time.
    Fillrandom,
    /// Random existing keys.
    Overwrite,
    /// As overwrite, ten times as long.
    Sustained,
    /// Random existing keys.
    Readrandom,
    /// Keys as YCSB draws them.
    Readzipf,
    /// Random missing keys, between existing ones.
    Readmissing,
    /// An iterator to a random key, and 10 entries.
    Seekrandom,
    /// All entries in order; figures are of entries.
    Scan,
    /// Random keys at a snapshot, after a quarter of all keys were overwritten.
    Snapread,
    /// Random existing keys, each once, three quarters of all at most.
    Deleterandom,
    /// Half reads, half updates.
    YcsbA,
    /// 95 % reads, 5 % updates.
    YcsbB,
    /// Reads.
    YcsbC,
    /// 95 % reads of late keys, 5 % inserts.
    YcsbD,
    /// 95 % scans of up to 100 entries, 5 % inserts.
    YcsbE,
    /// Half reads, half read-modify-writes.
    YcsbF,
}

impl Workload {
    /// The name in tables and on the command line.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).expect("a name");
        name.as_str().expect("a name").to_owned()
    }

    /// Whether it fills an empty store.
    pub fn fills(self) -> bool {
        matches!(self, Workload::Fillseq | Workload::Fillrandom)
    }

    /// Whether its figures are also given for the settled store: it does nothing but write, from its start on.
    pub fn only_writes(self) -> bool {
        use Workload::*;
        matches!(self, Fillseq | Fillrandom | Overwrite | Sustained | Deleterandom)
    }

    /// Whether it leaves background work behind.
    pub fn writes(self) -> bool {
        use Workload::*;
        !matches!(self, Readrandom | Readzipf | Readmissing | Seekrandom | Scan | YcsbC)
    }
}

/// A workload with a number of client threads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Step {
    pub workload: Workload,
    pub threads: u64,
}

/// Steps that share a store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    pub value_bytes: usize,
    pub keys: u64,
    /// Writes are synced, and fills are of random keys for a time.
    pub sync: bool,
    /// The store is opened anew after the load, and the page cache emptied all the time.
    pub cold: bool,
    pub steps: Vec<Step>,
}

impl Group {
    /// Values of another size, and as many bytes.
    pub fn resize(&mut self, value_bytes: usize) {
        let bytes = self.keys * self.value_bytes as u64;
        self.keys = (bytes / value_bytes.max(1) as u64).max(1_000);
        self.value_bytes = value_bytes;
    }
}

fn group(name: &str, value_bytes: usize, keys: u64, steps: &[(Workload, u64)]) -> Group {
    let steps = steps.iter().map(|&(workload, threads)| Step { workload, threads }).collect();
    Group { name: name.into(), value_bytes, keys: keys.max(1_000), sync: false, cold: false, steps }
}

/// Everything, for a number of 100-byte keys. Larger values have fewer keys.
pub fn groups(keys: u64) -> Vec<Group> {
    use Workload::*;
    let each = |threads: u64, workloads: &[Workload]| -> Vec<(Workload, u64)> {
        workloads.iter().map(|&workload| (workload, threads)).collect()
    };
    let sync = |name: &str, value_bytes: usize, threads: &[u64]| {
        let steps: Vec<_> = threads.iter().map(|&threads| (Fillrandom, threads)).collect();
        Group { sync: true, ..group(name, value_bytes, keys * 2 / 5, &steps) }
    };
    let one = [Fillrandom, Overwrite, Readrandom, Readmissing, Seekrandom, Scan, Snapread, Deleterandom];
    let eight = [Fillrandom, Overwrite, Readrandom, Readmissing, Seekrandom];
    let kib = [Fillrandom, Overwrite, Readrandom, Seekrandom, Scan];
    let ycsb = [Fillrandom, YcsbA, YcsbB, YcsbC, YcsbD, YcsbE, YcsbF];
    let large = [Fillrandom, Readrandom, Overwrite, YcsbA, Sustained];
    let cold = [(Readrandom, 1), (Readzipf, 1), (Seekrandom, 1), (Readrandom, 16)];
    vec![
        group("seq", 100, keys, &each(1, &[Fillseq])),
        group("small", 100, keys, &each(1, &one)),
        group("small8", 100, keys, &each(8, &eight)),
        group("kib", 1024, keys / 2, &each(1, &kib)),
        sync("sync", 100, &[1, 2, 4, 16, 64]),
        sync("sync-kib", 1024, &[1, 16]),
        group("ycsb", 1024, keys / 2, &each(8, &ycsb)),
        group("large", 16_384, keys * 3 / 100, &each(2, &large)),
        Group { cold: true, ..group("cold", 1024, keys * 3 / 2, &cold) },
    ]
}

/// The task of a child process: one group with one engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    pub round: usize,
    pub engine: String,
    pub group: Group,
    pub seconds: f64,
    /// Compact fully before the first step that only reads.
    pub compact: bool,
    pub dir: std::path::PathBuf,
}

/// The figures of one step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub round: usize,
    pub engine: String,
    pub group: String,
    pub workload: String,
    pub value_bytes: usize,
    pub threads: u64,
    pub mode: String,
    pub keys: u64,
    pub operations: u64,
    /// Until the clients were done.
    pub seconds: f64,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// Processor time of the process for each operation: background work included, for what only writes until settled.
    pub cpu_us: f64,
    /// After that, until flush and compaction had nothing left to do.
    pub settle_seconds: Option<f64>,
    pub settled_per_second: Option<f64>,
    /// On disk then.
    pub disk_bytes: Option<u64>,
    /// That, divided by the bytes of live keys and values.
    pub space_amplification: Option<f64>,
    /// The largest it was meanwhile, divided by the same.
    pub peak_space_amplification: Option<f64>,
    /// Bytes that the process gave the system to write until settled, per byte of keys and values.
    pub write_amplification: Option<f64>,
    /// Largest resident memory of the process so far, the benchmark's own tables included.
    pub peak_memory_bytes: u64,
    /// The machine's load average of the minute before.
    pub load: f64,
}
