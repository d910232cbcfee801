//! The tables of docs/benchmarks.md. Ratios are computed per round, in which the engines ran directly after each other,
//! and their median is shown; a report of several files must not mix machines.

use super::plan::Record;
use crate::report;
use std::collections::BTreeMap;

const OWN: &str = "kontiki";
const BASE: &str = "rocksdb";
/// The engines of which the better one is the reference.
const PEERS: [&str; 2] = ["rocksdb", "fjall"];

/// The engines whose latencies are shown.
const LATENCIES: [&str; 5] = ["kontiki", "rocksdb", "fjall", "lmdb", "rocksdb-blob"];

/// A row: the same work.
struct Row<'a> {
    first: &'a Record,
    /// By engine, a record for each round.
    engines: BTreeMap<&'a str, Vec<&'a Record>>,
}

impl Row<'_> {
    fn head(&self) -> Vec<String> {
        let first = self.first;
        vec![
            first.workload.clone(),
            first.value_bytes.to_string(),
            first.threads.to_string(),
            first.mode.clone(),
            first.keys.to_string(),
        ]
    }

    fn median(&self, engine: &str, figure: impl Fn(&Record) -> Option<f64>) -> Option<f64> {
        let figures: Vec<f64> = self.engines.get(engine)?.iter().filter_map(|record| figure(record)).collect();
        (!figures.is_empty()).then(|| report::median(figures))
    }

    /// The median over rounds of one engine's rate divided by another's.
    fn ratio(&self, engine: &str, base: &str) -> Option<f64> {
        let base = self.engines.get(base)?;
        let of_round = |record: &&&Record| {
            let base = base.iter().find(|base| base.round == record.round)?;
            Some(record.per_second / base.per_second)
        };
        let ratios: Vec<f64> = self.engines.get(engine)?.iter().filter_map(|record| of_round(&record)).collect();
        (!ratios.is_empty()).then(|| report::median(ratios))
    }

    /// The lowest ratio to one of several engines.
    fn ratio_to_best<'b>(&self, bases: impl Iterator<Item = &'b str>) -> Option<(f64, &'b str)> {
        let ratios = bases.filter_map(|base| Some((self.ratio(OWN, base)?, base)));
        ratios.min_by(|one, other| one.0.total_cmp(&other.0))
    }
}

fn rows(records: &[Record]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row> = Vec::new();
    for record in records {
        let same = |row: &&mut Row| {
            let key = |r: &Record| (r.group.clone(), r.workload.clone(), r.threads, r.keys);
            key(row.first) == key(record)
        };
        match rows.iter_mut().find(same) {
            Some(row) => row.engines.entry(&record.engine).or_default().push(record),
            None => {
                rows.push(Row { first: record, engines: BTreeMap::from([(record.engine.as_str(), vec![record])]) });
            }
        }
    }
    rows
}

/// Every engine that occurs: those that are in all rows first, in a fixed order.
fn engines(records: &[Record]) -> Vec<&str> {
    use crate::engines::{BLOB_NAMES, NAMES, THRESHOLD_NAMES};
    let known = NAMES.iter().chain(&THRESHOLD_NAMES).chain(&BLOB_NAMES).chain(&super::bare_disk::NAMES);
    known.copied().filter(|engine| records.iter().any(|record| record.engine == *engine)).collect()
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("–".into(), |ratio| format!("{ratio:.2}×"))
}

const HEAD: [&str; 5] = ["workload", "value", "threads", "mode", "keys"];

fn table(extra: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    report::head(&[&HEAD, extra].concat());
    rows.for_each(|row| report::row(&row));
    println!();
}

/// Prints all tables.
pub fn print(records: &[Record]) {
    let (rows, engines) = (rows(records), engines(records));
    rates(&rows, &engines);
    if engines.contains(&OWN) {
        against_peers(&rows, &engines);
    }
    cpu(&rows, &engines);
    settled(&rows, &engines);
    latencies(&rows, &engines);
    let loads: Vec<f64> = records.iter().map(|record| record.load).collect();
    let highest = loads.iter().copied().fold(0.0, f64::max);
    println!("Load average of the machine: median {:.1}, highest {highest:.1}.", report::median(loads));
}

fn rates(rows: &[Row], engines: &[&str]) {
    println!("Per second until the clients were done, median over rounds; in brackets the ratio to {BASE}.\n");
    let cells = |row: &Row| {
        let cell = |engine: &&str| {
            let Some(rate) = row.median(engine, |record| Some(record.per_second)) else { return "–".into() };
            match row.ratio(engine, BASE).filter(|_| *engine != BASE) {
                Some(ratio) => format!("{} ({ratio:.2}×)", report::rate(rate)),
                None => report::rate(rate),
            }
        };
        row.head().into_iter().chain(engines.iter().map(cell)).collect()
    };
    table(engines, rows.iter().map(cells));
}

fn against_peers(rows: &[Row], engines: &[&str]) {
    println!("{OWN} divided by its peers; the disk's bound is threads x one thread's fdatasync rate.\n");
    let of_disk = |row: &Row| {
        let one = rows.iter().find(|one| one.first.group == row.first.group && one.first.threads == 1);
        let one = one.and_then(|one| one.median("disk", |record| Some(record.per_second)));
        let own = row.median(OWN, |record| Some(record.per_second));
        Some(own? / (one? * row.first.threads as f64))
    };
    let cells = |row: &Row| {
        let mut cells = row.head();
        cells.extend(PEERS.map(|peer| ratio(row.ratio(OWN, peer))));
        cells.push(ratio(row.ratio_to_best(PEERS.into_iter()).map(|best| best.0)));
        let others = engines.iter().copied().filter(|engine| *engine != OWN && !engine.starts_with("disk"));
        let best = row.ratio_to_best(others);
        cells.push(best.map_or("–".into(), |(ratio, engine)| format!("{ratio:.2}× ({engine})")));
        let disk = ["disk", "disk-group"].map(|engine| row.ratio(OWN, engine));
        cells.extend(disk.into_iter().chain([of_disk(row)]).map(ratio));
        cells
    };
    let extra =
        ["to rocksdb", "to fjall", "to the better", "to the best of all", "to disk", "to disk-group", "to bound"];
    table(&extra, rows.iter().map(cells));
}

fn cpu(rows: &[Row], engines: &[&str]) {
    println!(
        "Processor time in µs for each operation, that of background work included (for fills, overwrites and deletes"
    );
    println!("until the store has settled); it hardly depends on other load of the machine. Median over rounds.\n");
    let cells = |row: &Row| {
        let cell = |engine: &&str| row.median(engine, |r| Some(r.cpu_us)).map_or("–".into(), |us| format!("{us:.2}"));
        row.head().into_iter().chain(engines.iter().map(cell)).collect()
    };
    let engines: Vec<&str> = engines.iter().copied().filter(|engine| !engine.starts_with("disk")).collect();
    // A snapshot's overwrites come before the measurement.
    table(&engines, rows.iter().filter(|row| row.first.workload != "snapread").map(cells));
}

fn settled(rows: &[Row], engines: &[&str]) {
    println!(
        "Once background work was done: rate until then; seconds that it took; space on disk per byte of live keys"
    );
    println!("and values (with its peak, where it was watched); bytes written per byte given.\n");
    let engines: Vec<&str> = engines.iter().copied().filter(|engine| !engine.starts_with("disk")).collect();
    let cells = |row: &Row| {
        let cell = |engine: &&str| {
            let figure = |figure: fn(&Record) -> Option<f64>| row.median(engine, figure);
            let Some(rate) = figure(|record| record.settled_per_second) else { return "–".into() };
            let number = |number: Option<f64>| number.map_or("–".into(), |number| format!("{number:.2}"));
            let peak = figure(|record| record.peak_space_amplification).map(|peak| format!(" (peak {peak:.2})"));
            let (seconds, space) = (figure(|r| r.settle_seconds), figure(|r| r.space_amplification));
            let written = figure(|r| r.write_amplification);
            let (seconds, space, written) = (number(seconds), number(space), number(written));
            format!("{}; {seconds} s; space {space}{}; written {written}", report::rate(rate), peak.unwrap_or_default())
        };
        row.head().into_iter().chain(engines.iter().map(cell)).collect()
    };
    table(&engines, rows.iter().filter(|row| row.first.settle_seconds.is_some()).map(cells));
}

fn latencies(rows: &[Row], engines: &[&str]) {
    println!("Latencies in µs, median over rounds: p50 / p99 / p99.9 / longest.\n");
    let engines: Vec<&str> = LATENCIES.into_iter().filter(|engine| engines.contains(engine)).collect();
    let cells = |row: &Row| {
        let cell = |engine: &&str| {
            let figures: [fn(&Record) -> f64; 4] = [|r| r.p50_us, |r| r.p99_us, |r| r.p999_us, |r| r.max_us];
            let figures = figures.map(|figure| row.median(engine, |record| Some(figure(record))));
            let text =
                |figure: Option<f64>| figure.map(|us| if us < 10.0 { format!("{us:.1}") } else { format!("{us:.0}") });
            let texts: Option<Vec<String>> = figures.into_iter().map(text).collect();
            texts.map_or("–".into(), |texts| texts.join(" / "))
        };
        row.head().into_iter().chain(engines.iter().map(cell)).collect()
    };
    table(&engines, rows.iter().filter(|row| row.first.workload != "scan").map(cells));
}
