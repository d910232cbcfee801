//! One group with one engine, in its own process: engines share neither memory nor background threads, and the system's
//! counters belong to one engine. Prints a [`Record`] in JSON for each step.

use super::bare_disk::{self, BareDisk};
use super::client::Outcome;
use super::clock;
use super::machine;
use super::model::{self, Model, Permutation};
use super::plan::{Record, Step, Task, Workload};
use super::workloads::{Stage, verify};
use crate::engines::{self, Durability, Store};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Capacity for keys that are inserted, in addition to those of the load.
const INSERTS_MAX: u64 = 2_000_000;
const LOAD_BATCH: u64 = 1000;
const DROP_INTERVAL: Duration = Duration::from_millis(50);
const SPACE_INTERVAL: Duration = Duration::from_millis(250);

/// Does a task given in JSON.
pub fn run(task: &str) {
    let task: Task = serde_json::from_str(task).expect("a task");
    clock::ticks_per_second();
    if bare_disk::NAMES.contains(&task.engine.as_str()) {
        return run_disk(&task);
    }
    let model = Model::new(task.group.keys + INSERTS_MAX, task.group.value_bytes);
    let durability = if task.group.sync { Durability::Sync } else { Durability::Buffered };
    let mut store = engines::open(&task.engine, &task.dir, durability);
    let first = task.group.steps.first().expect("a group has steps").workload;
    if !first.fills() {
        load(&*store, &model, task.group.keys);
        settle(&*store);
    }
    if task.group.cold {
        drop(store);
        machine::sync_all(&task.dir);
        store = engines::open(&task.engine, &task.dir, durability);
    }
    let mut warm = task.group.cold || task.group.sync;
    for (number, &step) in task.group.steps.iter().enumerate() {
        if !warm && !step.workload.fills() && !step.workload.writes() {
            warm_up(&*store, &model, &task);
            warm = true;
        }
        let stage = Stage {
            store: &*store,
            model: &model,
            keys: task.group.keys,
            seconds: task.seconds,
            sync: task.group.sync,
            seed: (task.round * 100 + number) as u64,
        };
        print(&measure(&task, &stage, step));
        if step.workload.writes() {
            warm = task.group.cold || task.group.sync;
        }
    }
    if !task.group.cold {
        verify(&*store, &model);
    }
}

fn print(record: &Record) {
    println!("{}", serde_json::to_string(record).expect("a record is JSON"));
}

/// Fills the store without measuring, in random order.
fn load(store: &dyn Store, model: &Model, keys: u64) {
    let permutation = Permutation::new(keys, 1);
    for first in (0..keys).step_by(LOAD_BATCH as usize) {
        let indices: Vec<u64> = (first..keys.min(first + LOAD_BATCH)).map(|n| permutation.at(n)).collect();
        let entry = |&index: &u64| {
            let mut value = Vec::new();
            model.begin_put(index, &mut value);
            (model::key(index), value)
        };
        store.load(&indices.iter().map(entry).collect::<Vec<_>>());
        indices.iter().for_each(|&index| model.end_write(index));
    }
    model.set_used(keys);
}

/// Reads every key once, so that the caches are full.
fn warm_up(store: &dyn Store, model: &Model, task: &Task) {
    if task.compact {
        store.compact();
        machine::wait_until_quiet();
    }
    let permutation = Permutation::new(task.group.keys, 2);
    for index in (0..task.group.keys).map(|n| permutation.at(n)) {
        let expected = model.before_read(index);
        if !store.get(&model::key(index), &mut |value| model.check_found(expected, value)) {
            model.check_missing(expected);
        }
    }
}

fn settle(store: &dyn Store) -> Instant {
    store.flush();
    machine::wait_until_quiet()
}

/// Runs `work` while another thread does something at intervals.
fn beside<T>(interval: Duration, aside: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                aside();
                std::thread::sleep(interval);
            }
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    })
}

fn measure(task: &Task, stage: &Stage, step: Step) -> Record {
    let (written, cpu_us) = (machine::written_bytes(), machine::cpu_us());
    let (start, peak) = (Instant::now(), AtomicU64::new(0));
    let note_peak = || {
        peak.fetch_max(machine::disk_bytes(&task.dir), Ordering::Relaxed);
    };
    let outcome = match step.workload {
        _ if task.group.cold => {
            machine::drop_cached(&task.dir);
            beside(DROP_INTERVAL, || machine::drop_cached(&task.dir), || stage.run(step))
        }
        Workload::Sustained => beside(SPACE_INTERVAL, note_peak, || stage.run(step)),
        _ => stage.run(step),
    };
    let end = Instant::now();
    let mut record = describe(task, step, &outcome);
    let per_operation = |cpu_us: u64| (machine::cpu_us() - cpu_us) as f64 / outcome.operations as f64;
    record.cpu_us = per_operation(cpu_us);
    if step.workload.writes() && !task.group.sync {
        let settled = settle(stage.store).saturating_duration_since(end).as_secs_f64();
        if step.workload.only_writes() {
            record.cpu_us = per_operation(cpu_us);
            let written = machine::written_bytes() - written;
            note_settled(&mut record, stage.model, settled, machine::disk_bytes(&task.dir), written);
        }
        if step.workload == Workload::Sustained {
            record.peak_space_amplification = Some(peak.into_inner() as f64 / live_bytes(stage.model));
        }
    }
    let whole = start.elapsed().as_secs_f64();
    eprintln!("    {} x{}: {:.0}/s ({whole:.1} s)", record.workload, step.threads, record.per_second);
    record
}

fn live_bytes(model: &Model) -> f64 {
    (model.live() * model.entry_bytes()) as f64
}

fn note_settled(record: &mut Record, model: &Model, seconds: f64, disk_bytes: u64, written_bytes: u64) {
    record.settle_seconds = Some(seconds);
    record.settled_per_second = Some(record.operations as f64 / (record.seconds + seconds));
    record.disk_bytes = Some(disk_bytes);
    record.space_amplification = Some(disk_bytes as f64 / live_bytes(model));
    let given = record.operations * model.entry_bytes();
    record.write_amplification = Some(written_bytes as f64 / given as f64);
}

fn describe(task: &Task, step: Step, outcome: &Outcome) -> Record {
    let seconds = outcome.elapsed.as_secs_f64();
    let quantile = |part| clock::micros(outcome.latencies.quantile(part));
    let mode = match (task.group.sync, task.group.cold) {
        (true, _) => "sync",
        (_, true) => "cold",
        _ => "",
    };
    Record {
        round: task.round,
        engine: task.engine.clone(),
        group: task.group.name.clone(),
        workload: step.workload.name(),
        value_bytes: task.group.value_bytes,
        threads: step.threads,
        mode: mode.into(),
        keys: task.group.keys,
        operations: outcome.operations,
        seconds,
        per_second: outcome.operations as f64 / seconds,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        max_us: clock::micros(outcome.latencies.max()),
        peak_memory_bytes: machine::peak_memory_bytes(),
        load: machine::load(),
        ..Record::default()
    }
}

fn run_disk(task: &Task) {
    let disk = BareDisk::new(Path::new(&task.dir), task.group.value_bytes);
    for &step in &task.group.steps {
        let outcome = disk.run(task.engine == "disk-group", step, task.seconds);
        print(&describe(task, step, &outcome));
    }
}
