//! Deleted entries in front of live ones: a queue (read the first entry, delete it, push one at the end), the first
//! seeks after many deletes, and many small deleted ranges. Each round runs one engine after another; every answer is
//! checked.

use crate::engines::{self, Durability, Store};
use crate::report::{head, latency, median, rate, row};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Engines to compare; the first is divided by the second.
    #[arg(long, value_delimiter = ',', default_value = "kontiki,rocksdb")]
    engines: Vec<String>,
    /// What to measure: queue, deletes, ranges. Ranges: only kontiki and rocksdb have them.
    #[arg(long, value_delimiter = ',', default_value = "queue,deletes,ranges")]
    what: Vec<String>,
    /// How often all is done.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Live entries of the queue.
    #[arg(long, default_value_t = 1000)]
    live: u64,
    /// Deletes before the first seek.
    #[arg(long, default_value_t = 1_000_000)]
    deletes: u64,
    /// Small deleted ranges in memory.
    #[arg(long, default_value_t = 100_000)]
    ranges: u64,
    /// Where the stores are created; the default is the system's directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The numbers of pops after which the queue's measurement windows begin, and their length. Between them entries are
/// popped without a read.
const WINDOWS: [u64; 5] = [0, 10_000, 25_000, 50_000, 100_000];
const WINDOW_POPS: u64 = 1000;
const VALUE: [u8; 100] = [7; 100];

fn key(number: u64) -> Vec<u8> {
    format!("{number:016x}").into_bytes()
}

fn first(store: &dyn Store, start: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    store.scan(start, &mut |key, _| {
        found = Some(key.to_vec());
        false
    });
    found
}

/// A figure with its name: a rate, or a time.
enum Figure {
    Rate(f64),
    Time(Duration),
}

type Figures = Vec<(String, Figure)>;

fn queue(store: &dyn Store, arguments: &Arguments) -> Figures {
    let live = arguments.live;
    (0..live).for_each(|number| store.put(&key(number), &VALUE));
    let (mut popped, mut figures) = (0, Vec::new());
    for begin in WINDOWS {
        while popped < begin {
            store.delete(&key(popped));
            store.put(&key(popped + live), &VALUE);
            popped += 1;
        }
        let began = Instant::now();
        for _ in 0..WINDOW_POPS {
            let found = first(store, &key(0)).expect("the queue is never empty");
            assert_eq!(found, key(popped), "the first entry is the oldest live one");
            store.delete(&found);
            store.put(&key(popped + live), &VALUE);
            popped += 1;
        }
        let per_second = WINDOW_POPS as f64 / began.elapsed().as_secs_f64();
        figures.push((format!("pops per second after {begin}"), Figure::Rate(per_second)));
    }
    figures
}

fn timed<T>(figures: &mut Figures, name: &str, what: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = what();
    figures.push((name.into(), Figure::Time(began.elapsed())));
    result
}

fn deletes(store: &dyn Store, arguments: &Arguments) -> Figures {
    let count = arguments.deletes;
    (0..=count).for_each(|number| store.put(&key(number), &VALUE));
    store.flush();
    (0..count).for_each(|number| store.delete(&key(number)));
    let mut figures = Vec::new();
    for name in ["first seek", "second seek", "third seek"] {
        let found = timed(&mut figures, name, || first(store, &key(0)));
        assert_eq!(found, Some(key(count)), "one live entry");
    }
    // Gives background work time to finish.
    std::thread::sleep(Duration::from_secs(3));
    let found = timed(&mut figures, "seek 3 s later", || first(store, &key(0)));
    assert_eq!(found, Some(key(count)));
    figures
}

/// Every range has four keys, of which the first two are deleted.
const RANGE_KEYS: u64 = 4;

fn ranges(open: &dyn Fn() -> Box<dyn Store>, arguments: &Arguments) -> Figures {
    let count = arguments.ranges;
    let mut store = open();
    (0..count * RANGE_KEYS).for_each(|number| store.put(&key(number), &VALUE));
    store.flush();
    let mut figures = Vec::new();
    let per = |figures: &mut Figures, name: &str, operations: u64, what: &mut dyn FnMut()| {
        let began = Instant::now();
        what();
        let per_second = operations as f64 / began.elapsed().as_secs_f64();
        figures.push((name.into(), Figure::Rate(per_second)));
    };
    per(&mut figures, "range deletes per second", count, &mut || {
        (0..count).for_each(|at| store.delete_range(&key(at * RANGE_KEYS), &key(at * RANGE_KEYS + 2)));
    });
    // The first seek includes all work that the engine does for the first reader after a change.
    let look = |store: &dyn Store, at: u64| {
        let at = at * RANGE_KEYS;
        assert_eq!(first(store, &key(at)), Some(key(at + 2)), "the first two of each range are deleted");
    };
    timed(&mut figures, "first seek", || look(&*store, count / 2));
    let some = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count;
    per(&mut figures, "seeks per second", 20_000, &mut || (0..20_000).for_each(|at| look(&*store, some(at))));
    per(&mut figures, "gets per second", 100_000, &mut || {
        for at in 0..100_000 {
            let number = some(at) * RANGE_KEYS + at % RANGE_KEYS;
            let found = store.get(&key(number), &mut |value| assert_eq!(value, VALUE));
            assert_eq!(found, number % RANGE_KEYS >= 2, "key {number}");
        }
    });
    per(&mut figures, "delete and seek per second", 1000, &mut || {
        for at in 0..1000 {
            let number = some(at) * RANGE_KEYS;
            store.delete_range(&key(number), &key(number + 2));
            look(&*store, some(at));
        }
    });
    drop(store);
    store = timed(&mut figures, "reopen", open);
    look(&*store, 1);
    timed(&mut figures, "flush", || store.flush());
    look(&*store, 2);
    figures
}

pub fn run(arguments: &Arguments) {
    let mut names: Vec<String> = Vec::new();
    let mut all: Vec<Vec<Vec<Figure>>> = arguments.engines.iter().map(|_| Vec::new()).collect();
    for round in 0..arguments.rounds.max(1) {
        for at in 0..arguments.engines.len() {
            // Each round begins with another engine.
            let at = (at + round) % arguments.engines.len();
            let engine = &arguments.engines[at];
            let mut figures = Vec::new();
            for what in &arguments.what {
                eprintln!("round {}, {engine}, {what}", round + 1);
                let dir = arguments.dir.as_ref().map_or_else(tempfile::tempdir, tempfile::tempdir_in);
                let dir = dir.expect("a directory");
                let open = || engines::open(engine, dir.path(), Durability::Buffered);
                let measured = match what.as_str() {
                    "queue" => queue(&*open(), arguments),
                    "deletes" => deletes(&*open(), arguments),
                    "ranges" => ranges(&open, arguments),
                    other => panic!("unknown: {other}"),
                };
                figures.extend(measured.into_iter().map(|(name, figure)| (format!("{what}: {name}"), figure)));
            }
            names = figures.iter().map(|(name, _)| name.clone()).collect();
            let figures = figures.into_iter().map(|(_, figure)| figure).collect::<Vec<_>>();
            all[at].resize_with(figures.len(), Vec::new);
            all[at].iter_mut().zip(figures).for_each(|(of, figure)| of.push(figure));
        }
    }
    print(arguments, &names, &all);
}

/// Medians, and the ratio of the first two engines within each round: above 1 the first is better.
fn print(arguments: &Arguments, names: &[String], all: &[Vec<Vec<Figure>>]) {
    let mut columns = vec!["work"];
    columns.extend(arguments.engines.iter().map(String::as_str));
    columns.push("first to second");
    head(&columns);
    let number = |figure: &Figure| match figure {
        Figure::Rate(per_second) => *per_second,
        Figure::Time(time) => time.as_secs_f64(),
    };
    for (at, name) in names.iter().enumerate() {
        let of = |engine: usize| all[engine][at].iter().map(number).collect::<Vec<_>>();
        let is_rate = matches!(all[0][at].first(), Some(Figure::Rate(_)));
        let mut cells = vec![name.clone()];
        for engine in 0..all.len() {
            let middle = median(of(engine));
            cells.push(if is_rate { rate(middle) } else { latency(Duration::from_secs_f64(middle)) });
        }
        if all.len() > 1 {
            let ratios = of(0).into_iter().zip(of(1)).map(|(a, b)| if is_rate { a / b } else { b / a });
            cells.push(format!("{:.2}×", median(ratios.collect())));
        }
        row(&cells);
    }
}
