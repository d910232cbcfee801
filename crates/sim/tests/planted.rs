//! Are the tests any good? Each planted bug must be found within a stated number of seeds.

use kontiki_sim::cluster::{Plan, PlantedBug, run_caught};

/// Runs seeds until one finds the bug; panics if none of `budget` seeds does.
fn finds(bug: PlantedBug, budget: u64) {
    let found = (0..budget).find(|seed| {
        let report = run_caught(&Plan { planted: Some(bug), ..Plan::new(*seed) });
        !report.violations.is_empty()
    });
    assert!(found.is_some(), "{bug:?} is not found within {budget} seeds");
}

#[test]
fn a_directory_that_is_not_synced_is_found() {
    finds(PlantedBug::NoDirectorySync, 20);
}

#[test]
fn a_log_segment_that_goes_too_early_is_found() {
    finds(PlantedBug::TruncateNeededSegment, 20);
}

#[test]
fn an_answer_before_the_sync_is_found() {
    finds(PlantedBug::AcknowledgeBeforeSync, 20);
}

#[test]
fn an_answer_before_the_quorum_is_found() {
    finds(PlantedBug::AcknowledgeBeforeQuorum, 20);
}

#[test]
fn a_read_without_a_lease_is_found() {
    finds(PlantedBug::ReadWithoutLease, 60);
}

#[test]
fn entries_applied_twice_are_found() {
    finds(PlantedBug::ApplyTwiceAfterRestart, 60);
}
