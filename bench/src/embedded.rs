//! Embedded put and get, engine after engine in each round, so that the machine's moods hit all of them.

use crate::data;
use crate::engines::{self, Store};
use crate::report;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Seconds a measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds over all engines.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Different keys.
    #[arg(long, default_value_t = 200_000)]
    keys: u64,
    /// Value sizes in bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024])]
    values: Vec<usize>,
    /// Thread counts.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    threads: Vec<u64>,
    /// Engines to compare.
    #[arg(long, value_delimiter = ',', default_values_t = engines::NAMES.map(String::from))]
    engines: Vec<String>,
    /// Where to put the data; a temporary directory by default.
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
}

/// Runs `operation(n)` for n = 0, 1, ... on `threads` threads for the given time; operations a second.
fn measure(threads: u64, seconds: f64, operation: &(dyn Fn(u64) + Sync)) -> f64 {
    let next = AtomicU64::new(0);
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while Instant::now() < end {
                        // Blocks of 16 keep the shared counter out of the figures.
                        let first = next.fetch_add(16, Ordering::Relaxed);
                        (first..first + 16).for_each(operation);
                        count += 16;
                    }
                    count
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no operation fails")).sum()
    });
    done as f64 / start.elapsed().as_secs_f64()
}

type Figures = BTreeMap<(String, usize, u64), BTreeMap<String, Vec<f64>>>;

fn check(store: &dyn Store, index: u64, bytes: usize) {
    let found = store.get(&data::key(index));
    assert!(found.as_deref() == Some(&data::value(index, bytes)[..]), "wrong answer for key {index}");
}

fn one_round(arguments: &Arguments, engine: &str, bytes: usize, figures: &mut Figures) {
    let dir = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.expect("a directory");
    let store = engines::open(engine, dir.path());
    let keys = arguments.keys;
    let index = |n: u64| data::scatter(n) % keys;
    let mut note = |what: &str, threads: u64, rate: f64| {
        figures.entry((what.into(), bytes, threads)).or_default().entry(engine.into()).or_default().push(rate);
    };
    (0..keys).for_each(|i| store.put(&data::key(i), &data::value(i, bytes), false));
    for &threads in &arguments.threads {
        for (what, sync) in [("put buffered", false), ("put sync", true)] {
            let put = |n| store.put(&data::key(index(n)), &data::value(index(n), bytes), sync);
            note(what, threads, measure(threads, arguments.seconds, &put));
        }
    }
    store.settle();
    for &threads in &arguments.threads {
        let get = |n| check(&*store, index(n), bytes);
        note("get", threads, measure(threads, arguments.seconds, &get));
        let missing = |n: u64| assert!(store.get(&data::key(keys + n)).is_none(), "found what was never written");
        note("get of nothing", threads, measure(threads, arguments.seconds, &missing));
    }
    (0..keys).step_by(97).for_each(|i| check(&*store, i, bytes));
}

pub fn run(arguments: &Arguments) {
    let mut figures = Figures::new();
    for round in 0..arguments.rounds {
        for &bytes in &arguments.values {
            for i in 0..arguments.engines.len() {
                let engine = &arguments.engines[(i + round) % arguments.engines.len()];
                eprintln!("round {round}, {bytes} B, {engine}");
                one_round(arguments, engine, bytes, &mut figures);
            }
        }
    }
    let mut columns = vec!["work", "value B", "threads"];
    columns.extend(arguments.engines.iter().map(String::as_str));
    report::head(&columns);
    for ((what, bytes, threads), engines) in &figures {
        let mut cells = vec![what.clone(), bytes.to_string(), threads.to_string()];
        let own = engines.get(&arguments.engines[0]);
        for engine in &arguments.engines {
            let rates = engines.get(engine).cloned().unwrap_or_default();
            // Round by round against the first engine, so that drift of the machine cancels out.
            let ratios =
                own.map(|own| own.iter().zip(&rates).map(|(own, peer)| own / peer).collect()).unwrap_or_default();
            cells.push(format!("{} ({:.2}x)", report::rate(report::median(rates)), report::median(ratios)));
        }
        report::row(&cells);
    }
    println!("\nIn brackets: the median over rounds of {} divided by that engine.", arguments.engines[0]);
}
