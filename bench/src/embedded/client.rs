//! Client threads: each repeats an operation for a time, or until it has no more, and records how long each one took.

use super::clock;
use super::histogram::Histogram;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// The result of the clients of one step.
pub struct Outcome {
    pub operations: u64,
    pub elapsed: Duration,
    pub latencies: Histogram,
}

/// Runs on `threads` threads what `make` makes for each; an operation returns how many units it did, 0 at the end.
///
/// A latency is the time from the end of one operation to that of the next: it includes making the key and the value
/// and checking the answer, some 50 ns.
pub fn run<O: FnMut() -> u64>(threads: u64, seconds: f64, make: impl Fn(u64) -> O + Sync) -> Outcome {
    let length = (seconds * clock::ticks_per_second()) as u64;
    let barrier = Barrier::new(threads as usize);
    let client = |thread: u64| {
        let mut operation = make(thread);
        let (mut operations, mut latencies) = (0, Histogram::new());
        barrier.wait();
        let (start, first) = (Instant::now(), clock::ticks());
        let mut last = first;
        loop {
            let done = operation();
            if done == 0 {
                break;
            }
            operations += done;
            let now = clock::ticks();
            latencies.record(now.saturating_sub(last));
            last = now;
            if now.saturating_sub(first) >= length {
                break;
            }
        }
        (start, Instant::now(), operations, latencies)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let client = &client;
        let spawn = |thread| {
            let builder = std::thread::Builder::new().name("client".into());
            builder.spawn_scoped(scope, move || client(thread)).expect("a thread")
        };
        let clients: Vec<_> = (0..threads).map(spawn).collect();
        clients.into_iter().map(|client| client.join().expect("every answer was right")).collect()
    });
    let start = results.iter().map(|result| result.0).min().expect("at least one client");
    let end = results.iter().map(|result| result.1).max().expect("at least one client");
    let mut latencies = Histogram::new();
    results.iter().for_each(|result| latencies.add(&result.3));
    Outcome { operations: results.iter().map(|result| result.2).sum(), elapsed: end - start, latencies }
}
