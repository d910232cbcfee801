//! Everything at once, on the real machine with real threads: transactions, conditional commits, ingests, checkpoints,
//! backups, families that come and go, compactions, garbage collections, subscribers, and a close in the middle of all
//! of it. What is looked for is a wait that never ends: every worker must make progress all the time, and must end when
//! the database is closed. In debug builds each acquisition of a lock is checked against the order of locks besides
//! (`src/lock`).
//!
//! Runs for [`SECONDS`] seconds, or as many as `KONTIKI_STRESS_SECONDS` says:
//!
//! ```sh
//! KONTIKI_STRESS_SECONDS=600 cargo test -p kontiki-engine --test stress -- --nocapture
//! ```
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real threads on the real machine")]

mod copies;
mod work;
mod world;

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use world::{Worker, World};

/// How long it runs where nothing else is said.
const SECONDS: u64 = 4;
/// A database is closed after so long, and opened again.
const ROUND: Duration = Duration::from_secs(2);
/// A worker that takes no step for so long waits for ever. Far above the longest wait on a machine that does something
/// else.
const STALL: Duration = Duration::from_secs(120);

#[test]
fn no_call_waits_for_ever_and_nothing_is_lost_under_any_concurrency() {
    let seconds = std::env::var("KONTIKI_STRESS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let dir = tempfile::tempdir().expect("written");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut totals = vec![0; work::WORKERS.len()];
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < end {
        let world = World::open(dir.path(), rounds);
        world.check("what was opened");
        run_round(&world, &mut totals);
        drop(world);
        rounds += 1;
    }
    World::open(dir.path(), rounds).check_files(dir.path());
    let steps: Vec<_> = work::WORKERS.iter().map(|(name, _)| name).zip(&totals).collect();
    println!("{rounds} rounds in {seconds} s; steps: {steps:?}");
    assert!(totals.iter().all(|steps| *steps > 0), "every worker had its turn: {steps:?}");
}

/// Runs all workers for a while, closes the database under them, and waits for their end.
fn run_round(world: &World, totals: &mut [u64]) {
    let (sender, ended) = channel();
    let mut workers = Vec::new();
    for (name, work) in work::WORKERS {
        let (worker, sender) = (Worker::new(world, name), sender.clone());
        workers.push(worker.clone());
        std::thread::Builder::new()
            .name((*name).to_owned())
            .spawn(move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&worker)));
                // Its clone of the database is dropped before its end is reported.
                drop(worker);
                sender.send((*name, outcome.is_ok())).expect("the test waits");
            })
            .expect("threads");
    }
    let close_at = Instant::now() + ROUND;
    let (closer, of_close) = (world.db.clone(), sender.clone());
    let mut closing = None;
    let mut left = workers.len() + 1;
    let mut last: Vec<(u64, Instant)> = workers.iter().map(|worker| (worker.steps(), Instant::now())).collect();
    while left > 0 {
        if closing.is_none() && Instant::now() >= close_at {
            let (closer, of_close) = (closer.clone(), of_close.clone());
            closing = Some(std::thread::spawn(move || {
                let outcome = closer.close();
                of_close.send(("close", outcome.is_ok())).expect("the test waits");
            }));
        }
        left -= wait_for_one(&ended);
        for (worker, (steps, since)) in workers.iter().zip(&mut last) {
            if worker.steps() != *steps || worker.has_ended() {
                (*steps, *since) = (worker.steps(), Instant::now());
            }
            assert!(since.elapsed() < STALL, "{} waits for ever; all: {workers:?}", worker.name());
        }
    }
    for (total, worker) in totals.iter_mut().zip(&workers) {
        *total += worker.steps();
    }
}

/// Returns how many have ended: one or, after a moment, none.
fn wait_for_one(ended: &Receiver<(&'static str, bool)>) -> usize {
    match ended.recv_timeout(Duration::from_millis(100)) {
        Ok((_, true)) => 1,
        Ok((name, false)) => panic!("{name} failed, see above"),
        Err(RecvTimeoutError::Timeout) => 0,
        Err(RecvTimeoutError::Disconnected) => panic!("a worker has ended without an outcome"),
    }
}
