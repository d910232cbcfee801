//! Are the tests any good? Each planted bug must be found within a stated number of seeds by the usual random runs, whose
//! worlds have themes (see `kontiki_sim::cluster::Theme`).
//!
//! All of them, which takes minutes: `cargo test --release -p kontiki-sim --test planted -- --ignored`. The suite runs
//! those that the first few seeds find.

use kontiki_sim::cluster::{Plan, PlantedBug, run_caught};

/// Bugs that are planted and for which no budget is established, and why: `kontiki-sim find` shows which seeds find them.
const WITHOUT_BUDGET: &[PlantedBug] = &[
    // Needs a full disk, a command whose latches are released, and another one of the same key before the first is applied.
    PlantedBug::UnlatchOnFullDisk,
    // Needs a chain of six events: see raftstore's scenario `learns_a_term_from_a_late_refusal`.
    PlantedBug::PromiseWhileLeaderKnown,
    // Needs a heartbeat that is handled before a late tick, and an election exactly at the end of the promise.
    PlantedBug::PromiseInTicks,
    // Hidden: the driver answers a barrier's reader only when an entry of the leader's own term is applied too, and what this
    // leader acknowledged is applied here.
    PlantedBug::BarrierBeforeApply,
    // Hidden: a leader that steps down drops its proposals above the commit index, and no message of its successor can
    // raise that index before it has answered one.
    PlantedBug::ProposalTermNotChecked,
    // Needs a snapshot that is refused during an install and sent again under the same name.
    PlantedBug::SnapshotNamesReused,
    // Found by seed 113 while the simulator's bound was twice the configured one, which seed 514 exceeds without the bug; not
    // measured with the present bound.
    PlantedBug::FollowersUnbounded,
    // Breaks no promise at any moment: followers need more snapshots. raftstore's scenario `log_not_held` counts them.
    PlantedBug::LogNotHeld,
];

/// Within how many seeds each of the others must be found.
fn budget(bug: PlantedBug) -> u64 {
    use PlantedBug::*;
    match bug {
        NoDirectorySync | TruncateNeededSegment | AcknowledgeBeforeSync | AcknowledgeBeforeQuorum => 20,
        ApplyTwiceAfterRestart => 60,
        _ => 200,
    }
}

/// The first seed that finds the bug, if one of its budget does.
fn first_seed(bug: PlantedBug) -> Option<u64> {
    (0..budget(bug)).find(|seed| {
        let report = run_caught(&Plan { planted: Some(bug), ..Plan::new(*seed) });
        !report.violations.is_empty()
    })
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
        PlantedBug::ManifestNotSynced,
    ]);
}

#[test]
fn bugs_of_transactions_are_found() {
    assert_found(&[
        PlantedBug::RollBackWithoutRecord,
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
        PlantedBug::SnapshotWithoutLocks,
    ]);
}

#[test]
#[ignore = "takes minutes: in an optimised build, see the module"]
fn every_planted_bug_is_found() {
    let all = PlantedBug::ALL.iter().copied();
    let bugs: Vec<PlantedBug> = all.filter(|bug| !WITHOUT_BUDGET.contains(bug)).collect();
    assert_found(&bugs);
}
