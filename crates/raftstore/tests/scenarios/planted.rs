//! The tests are tested: each planted bug is found within 20 seeds.

use super::random;
use kontiki_raftstore::Config;
use kontiki_raftstore::planted::Planted;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS_MAX: u64 = 20;

#[track_caller]
fn is_found(planted: Planted, by: &str) {
    for seed in 0..SEEDS_MAX {
        let config = Config { planted, ..random::hasty() };
        let found = catch_unwind(AssertUnwindSafe(|| random::run(seed, config).settle()));
        if let Err(panic) = found {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            assert!(text.contains(by), "seed {seed} found something else: {text}");
            return;
        }
    }
    panic!("not found in {SEEDS_MAX} seeds");
}

#[test]
fn acknowledging_before_a_quorum_is_found() {
    is_found(Planted { acknowledge_before_quorum: true, ..Planted::default() }, "acknowledged but durable on");
}

#[test]
fn reading_without_a_lease_is_found() {
    is_found(Planted { read_without_lease: true, ..Planted::default() }, "stale read");
}

#[test]
fn applying_twice_after_a_restart_is_found() {
    is_found(Planted { apply_twice_after_restart: true, ..Planted::default() }, "agree on what is applied");
}
