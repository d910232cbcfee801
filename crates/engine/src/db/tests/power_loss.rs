//! Power loss at every operation that changes the disk; in recovery too; and long random runs.

use super::model::Run;
use super::*;
use crate::planted::{self, Bug};
use kontiki_env::fs::CrashMode;

const MODES: [CrashMode; 5] =
    [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Prefix, CrashMode::Pages, CrashMode::Kill];

/// A machine that shares nothing with `machine` but what is on its disk now.
fn fork(machine: &SimMachine, seed: u64) -> SimMachine {
    SimMachine { fs: machine.fs.fork(Rng::new(seed)), ..restarted(machine, seed) }
}

/// Runs the script until the power goes off after `ops` operations; `None` if it never does.
fn run_until_power_off(seed: u64, ops: u64, steps: usize) -> Option<(SimMachine, Run)> {
    let machine = new_machine(seed);
    let mut run = Run::new(seed);
    machine.fs.power_off_after(ops);
    let outcome = try_open(&machine).and_then(|db| run.go(&machine, &db, steps));
    outcome.is_err().then_some((machine, run))
}

/// Crashes, recovers, checks; recovers again; continues, crashes and checks once more.
fn check_crash(machine: &SimMachine, run: &Run, mode: CrashMode, seed: u64) -> Result<(), String> {
    let mut run = run.clone();
    let machine = fork(machine, seed);
    machine.fs.crash(mode);
    // Every third time the power goes off once more, in the middle of recovery.
    if seed.is_multiple_of(3) {
        machine.fs.power_off_after(seed % 13);
        drop(try_open(&machine));
        machine.fs.crash(CrashMode::Random);
    }
    let killed = mode == CrashMode::Kill && !seed.is_multiple_of(3);
    let opened = |what: &str, machine: &SimMachine| try_open(machine).map_err(|error| format!("{what}: {error}"));
    let machine = restarted(&machine, seed);
    let at = |what: &str, outcome: Result<(), String>| outcome.map_err(|error| format!("{what}: {error}"));
    at("recovery", run.check_recovered(&opened("recovery", &machine)?, killed))?;
    machine.fs.crash(CrashMode::LoseUnsynced);

    let machine = restarted(&machine, seed + 1);
    let db = opened("second recovery", &machine)?;
    at("second recovery", run.check_recovered(&db, false))?;
    run.go(&machine, &db, 10).map_err(|error| format!("going on: {error}"))?;
    at("live", run.check_live(&db))?;
    machine.fs.power_off();
    drop(db);
    machine.fs.crash(CrashMode::Random);
    let machine = restarted(&machine, seed + 2);
    at("third recovery", run.check_recovered(&opened("third recovery", &machine)?, false))
}

/// Takes the power away at every operation of a short run; the first violation, and how many crashes were looked at.
pub(super) fn enumerate(seed: u64, steps: usize) -> (Result<(), String>, u64) {
    let mut crashes = 0;
    for ops in 0.. {
        let Some((machine, run)) = run_until_power_off(seed, ops, steps) else { break };
        for mode in MODES {
            crashes += 1;
            if let Err(what) = check_crash(&machine, &run, mode, seed ^ (ops << 8)) {
                return (Err(format!("seed {seed}, power off at operation {ops}, {mode:?}: {what}")), crashes);
            }
        }
    }
    (Ok(()), crashes)
}

#[test]
fn power_loss_at_every_operation_loses_nothing_acknowledged() {
    let (outcome, crashes) = enumerate(1, 150);
    outcome.expect("no violation");
    assert!(crashes > 1000, "the script has become too short: {crashes} crashes");
}

#[test]
fn power_loss_at_random_operations_of_long_runs() {
    for seed in 100..180 {
        at_random_operation(seed).unwrap_or_else(|what| panic!("{what}"));
    }
}

/// As above, where buffered commits write memory instead of the file: each part of a record is a separate operation.
#[test]
fn power_loss_at_every_operation_of_a_mapped_log_loses_nothing_acknowledged() {
    map_log_segments();
    let (outcome, crashes) = enumerate(2, 100);
    outcome.expect("no violation");
    assert!(crashes > 1000, "the script has become too short: {crashes} crashes");
    for seed in 300..330 {
        at_random_operation(seed).unwrap_or_else(|what| panic!("{what}"));
    }
}

/// Takes the power away at a random operation of a long run.
pub(super) fn at_random_operation(seed: u64) -> Result<(), String> {
    let ops = Rng::new(seed).range(500..4000);
    let Some((machine, run)) = run_until_power_off(seed, ops, 2500) else { return Ok(()) };
    for mode in MODES {
        let outcome = check_crash(&machine, &run, mode, seed ^ (ops << 8));
        outcome.map_err(|what| format!("seed {seed}, operation {ops}, {mode:?}: {what}"))?;
    }
    Ok(())
}

/// The script reaches every mechanism that the enumeration is meant to test.
#[test]
fn the_script_exercises_everything() {
    let machine = new_machine(1);
    let db = open(&machine);
    let mut run = Run::new(1);
    run.go(&machine, &db, 150).expect("no faults");
    let short = db.stats();
    assert!(short.memtables.flushes > 1 && short.compaction.count > 0 && short.log.segments_deleted > 0, "{short:?}");
    run.go(&machine, &db, 2000).expect("no faults");
    let long = db.stats();
    assert!(long.log.rewritten_bytes > 0 && long.commits.derived > 0 && long.log.streams > 2, "{long:?}");
    assert!(long.log.bytes < 64 << 10, "the log stays near its budget: {long:?}");
    run.check_live(&db).expect("the model agrees");
}

/// Each planted bug is found within this many crashes of the enumeration.
const PLANTED_BUDGET_CRASHES: u64 = 2000;

fn assert_found(bug: Bug) {
    planted::set(Some(bug));
    let (outcome, crashes) = enumerate(1, 150);
    planted::set(None);
    let violation = outcome.expect_err("the checker must see the planted bug");
    assert!(crashes <= PLANTED_BUDGET_CRASHES, "found only after {crashes} crashes: {violation}");
}

#[test]
fn finds_the_planted_bug_no_directory_sync() {
    assert_found(Bug::NoDirectorySync);
}

#[test]
fn finds_the_planted_bug_truncate_needed_segment() {
    assert_found(Bug::TruncateNeededSegment);
}

#[test]
fn finds_the_planted_bug_acknowledge_before_sync() {
    assert_found(Bug::AcknowledgeBeforeSync);
}
