//! Tests of the tests: each planted bug must be found within a stated number of seeds by the usual random runs, whose
//! worlds have scenarios (see `kontiki_sim::cluster::Scenario`).
//!
//! All of them, which takes minutes: `cargo test --release -p kontiki-sim --test planted -- --ignored`. The suite runs
//! those that the first few seeds find.

use kontiki_sim::cluster::{Plan, PlantedBug, run_caught};

/// Within how many seeds each must be found. `kontiki-sim find` shows which seed finds it first, and by what.
fn budget(bug: PlantedBug) -> u64 {
    use PlantedBug::*;
    match bug {
        NoDirectorySync | TruncateNeededSegment | AcknowledgeBeforeSync | AcknowledgeBeforeQuorum => 20,
        ApplyTwiceAfterRestart => 60,
        // Each needs two rare events close to each other.
        LeadWithoutTimestamp | MissMemoryLocks | RollBackWithoutRecord => 1_000,
        _ => 200,
    }
}

/// The first seed that finds the bug, if one of its budget does.
fn first_seed(bug: PlantedBug) -> Option<u64> {
    let found = (0..budget(bug)).find(|seed| {
        let report = run_caught(&Plan { planted: Some(bug), ..Plan::new(*seed) });
        !report.violations.is_empty()
    });
    println!("{bug:?}: {found:?}");
    found
}

fn assert_found(bugs: &[PlantedBug]) {
    let missed: Vec<String> = bugs
        .iter()
        .filter(|bug| first_seed(**bug).is_none())
        .map(|bug| format!("{bug:?} within {} seeds", budget(*bug)))
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn bugs_of_the_engine_are_found() {
    assert_found(&[
        PlantedBug::NoDirectorySync,
        PlantedBug::TruncateNeededSegment,
        PlantedBug::AcknowledgeBeforeSync,
        PlantedBug::TableNotSynced,
    ]);
}

#[test]
fn bugs_of_transactions_are_found() {
    assert_found(&[
        PlantedBug::MissNewerCommits,
        PlantedBug::CommitBelowMinimum,
        PlantedBug::UnlatchEarly,
        PlantedBug::OmitLockedKeys,
        PlantedBug::LeaveLongValue,
    ]);
}

#[test]
fn bugs_of_placement_and_replication_are_found() {
    assert_found(&[
        PlantedBug::IdsBeyondBound,
        PlantedBug::SafePointBeforeDurable,
        PlantedBug::ReportUnflushed,
        PlantedBug::AcknowledgeBeforeQuorum,
        PlantedBug::ApplyTwiceAfterRestart,
        PlantedBug::ProposalTermNotChecked,
        PlantedBug::FollowersUnbounded,
        PlantedBug::LeaseThroughTransfer,
    ]);
}

#[test]
fn bugs_of_stale_reads_are_found() {
    assert_found(&[PlantedBug::SafeTsPastLocks, PlantedBug::SafeTsOfEarlierLocks, PlantedBug::SafeTsBeforeApply]);
}

#[test]
fn bugs_of_computed_commit_timestamps_are_found() {
    assert_found(&[PlantedBug::IgnoreMaxTs, PlantedBug::OnePhaseSkipsConflicts, PlantedBug::CommitTsBeforePrewrite]);
}

#[test]
fn bugs_of_locks_are_found() {
    assert_found(&[PlantedBug::RollBackAsyncCommit, PlantedBug::LosePessimisticLocks]);
}

#[test]
#[ignore = "takes minutes: in an optimised build, see the module"]
fn every_planted_bug_is_found() {
    assert_found(PlantedBug::ALL);
}
