//! The tests are tested: each planted bug is found within 20 seeds.

use super::{merge, promise, random, roles, split, stale_reads};
use crate::cluster::families;
use crate::cluster::small_config;
use kontiki_raftstore::Config;
use kontiki_raftstore::planted::Planted;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS_MAX: u64 = 20;

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Runs a scenario with a bug until it is found. `by` are parts of the expected messages, separated by `|`.
#[track_caller]
fn finds(seeds: u64, by: &str, scenario: impl Fn(u64)) {
    for seed in 0..seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scenario(seed))) {
            let text = text_of(&*panic);
            assert!(by.split('|').any(|by| text.contains(by)), "seed {seed} found something else: {text}");
            return;
        }
    }
    panic!("not found in {seeds} seeds");
}

/// Random runs find it.
#[track_caller]
fn is_found(planted: Planted, by: &str) {
    finds(SEEDS_MAX, by, |seed| random::run(seed, Config { planted, ..random::hasty() }).settle());
}

#[test]
fn acknowledging_before_a_quorum_is_found() {
    is_found(Planted { acknowledge_before_quorum: true, ..Planted::default() }, "acknowledged but durable on");
}

#[test]
fn answers_before_what_they_promise_is_durable_are_found() {
    is_found(Planted { messages_before_persist: true, ..Planted::default() }, "is taken to have");
}

#[test]
fn a_merge_that_forgets_the_end_of_its_source_is_found() {
    let planted = Planted { merge_without_tail: true, ..Planted::default() };
    let by = "differ|exists here|serves|holds here|made by|the disk holds a complete store";
    finds(SEEDS_MAX, by, |seed| drop(merge::run(seed, Config { planted, ..split::config() })));
}

#[test]
fn a_safe_timestamp_of_a_leader_that_was_deposed_is_found() {
    let config =
        Config { planted: Planted { safe_ts_unconfirmed: true, ..Planted::default() }, ..stale_reads::config() };
    finds(1, "it claims what it does not know", |seed| stale_reads::is_cut_off(seed, config.clone()));
}

#[test]
fn a_safe_timestamp_beyond_what_is_applied_is_found() {
    let planted = Planted { safe_ts_before_apply: true, ..Planted::default() };
    let config = Config { planted, ..stale_reads::config() };
    finds(SEEDS_MAX, "a stale read of", |seed| _ = stale_reads::run(seed, config.clone()));
}

#[test]
fn a_merge_that_gives_the_end_of_its_source_once_is_found() {
    let planted = Planted { merge_tail_once: true, ..Planted::default() };
    let by = "replicas do not become equal|no put of";
    finds(SEEDS_MAX, by, |seed| {
        merge::source_installs(1_300 + seed, Config { planted, ..split::config() });
    });
}

#[test]
fn snapshot_names_that_are_reused_are_found() {
    let planted = Planted { snapshot_names_reused: true, ..Planted::default() };
    let by = "could not be installed|the log holds what tables and files do not";
    finds(SEEDS_MAX, by, |seed| super::snapshots::late_removal(seed, planted));
}

#[test]
fn a_log_that_does_not_wait_for_a_snapshot_is_found() {
    let planted = Planted { log_not_held: true, ..Planted::default() };
    finds(SEEDS_MAX, "snapshots that were not usable", |seed| super::snapshots::log_not_held(seed, planted));
}

#[test]
fn followers_without_bounds_are_found() {
    let planted = Planted { followers_unbounded: true, ..Planted::default() };
    let found = catch_unwind(AssertUnwindSafe(|| super::flow::run_with(planted)));
    let text = text_of(&*found.expect_err("found"));
    assert!(text.contains("logs take"), "found something else: {text}");
}

#[test]
fn entries_that_are_evicted_before_they_are_applied_are_found() {
    let planted = Planted { evict_handed_out: true, ..Planted::default() };
    let config = Config { planted, memory_evict_percent: 0, ..random::hasty() };
    finds(SEEDS_MAX, "only appends to followers need evicted entries", |seed| {
        random::run(seed, config.clone()).settle();
    });
}

#[test]
fn snapshots_without_locks_are_found() {
    is_found(Planted { snapshot_without: Some(families::TXN_LOCK), ..Planted::default() }, "differ");
}

#[test]
fn reading_without_a_lease_is_found() {
    is_found(Planted { read_without_lease: true, ..Planted::default() }, "stale read");
}

#[test]
fn applying_twice_after_a_restart_is_found() {
    is_found(
        Planted { apply_twice_after_restart: true, ..Planted::default() },
        "agree on what is applied|differs between replicas",
    );
}

/// Runs a scenario with the bug until it finds two leases at once, or a stale read.
#[track_caller]
fn breaks_a_lease(planted: Planted, seeds: u64, scenario: impl Fn(u64, Config)) {
    let config = Config { planted, ..small_config() };
    finds(seeds, "hold leases at the same time|stale read", |seed| scenario(seed, config.clone()));
}

#[test]
fn a_promise_that_ends_when_the_leader_is_forgotten_is_found() {
    let planted = Planted { promise_while_leader_known: true, ..Planted::default() };
    breaks_a_lease(planted, 100, |seed, config| {
        promise::learns_a_term_from_a_late_refusal(seed, config);
    });
}

#[test]
fn a_promise_that_is_counted_in_ticks_is_found() {
    let planted = Planted { promise_in_ticks: true, ..Planted::default() };
    breaks_a_lease(planted, 12, |seed, config| {
        promise::handles_a_heartbeat_before_the_tick_of_its_interval(seed, config);
    });
}

#[test]
fn a_vote_at_once_after_a_restart_is_found() {
    let planted = Planted { vote_at_once_after_restart: true, ..Planted::default() };
    breaks_a_lease(planted, 10, promise::restarts_with_a_shorter_promise);
}

#[test]
fn a_lease_through_a_transfer_is_found() {
    let planted = Planted { lease_through_transfer: true, ..Planted::default() };
    breaks_a_lease(planted, 10, promise::is_cut_off_after_its_order);
}

/// Runs a scenario of splits with the bug until it finds what is expected.
#[track_caller]
fn breaks_a_split(planted: Planted, seeds: u64, by: &str, scenario: impl Fn(u64, Config)) {
    let config = Config { planted, ..split::config() };
    finds(seeds, by, |seed| scenario(seed, config.clone()));
}

#[test]
fn a_lease_through_a_split_is_found() {
    let planted = Planted { lease_through_split: true, ..Planted::default() };
    breaks_a_split(planted, SEEDS_MAX, "serves a read of region", |seed, config| {
        split::leader_applies_late(seed, config);
    });
}

#[test]
fn a_snapshot_in_the_place_of_a_split_is_found() {
    let planted = Planted { snapshot_in_place_of_split: true, ..Planted::default() };
    breaks_a_split(planted, 100, "replicas do not become equal|agree on the region", |seed, config| {
        drop(split::run(seed, config))
    });
}

#[test]
fn a_leader_that_hibernates_through_requests_is_found() {
    let planted = Planted { hibernate_through_requests: true, ..Planted::default() };
    finds(SEEDS_MAX, "not within 20 s: an answer", |seed| {
        super::hibernation::lost_request(seed, Config { planted, ..super::hibernation::config() });
    });
}

#[test]
fn a_checksum_of_a_view_that_was_not_taken_between_two_rounds_is_found() {
    let planted = Planted { checksum_beside_applies: true, ..Planted::default() };
    let config = Config { planted, checksum_ticks_max: 30, ..random::hasty() };
    finds(SEEDS_MAX, "the view holds what is applied|the command ends its round", |seed| {
        super::consistency::run(seed, config.clone()).settle();
    });
}

/// Roles of replicas change at random.
#[track_caller]
fn breaks_roles(planted: Planted, by: &str) {
    finds(100, by, |seed| roles::at_random(seed, Config { planted, ..small_config() }).settle());
}

#[test]
fn a_joint_configuration_that_ends_at_once_is_found() {
    let planted = Planted { joint_left_at_once: true, ..Planted::default() };
    let config = Config { planted, ..small_config() };
    finds(SEEDS_MAX, "half of it|at the same time|committed entry|differs between replicas", |seed| {
        roles::half_is_cut_off(seed, config.clone())
    });
}

#[test]
fn a_learner_that_counts_for_a_lease_is_found() {
    let planted = Planted { learner_in_quorum: true, ..Planted::default() };
    breaks_roles(planted, "at the same time|stale read");
}

#[test]
fn a_learner_that_is_promoted_unseen_is_found() {
    let config = Config { planted: Planted { promote_unseen: true, ..Planted::default() }, ..small_config() };
    finds(1, "not a refusal", |seed| roles::promotion(seed, config.clone()));
}

#[test]
fn a_sole_voter_that_sends_before_its_term_is_durable_is_found() {
    let config =
        Config { planted: Planted { lead_before_vote_is_durable: true, ..Planted::default() }, ..small_config() };
    let by = "committed entry|differs between replicas|replicas differ|contradicts|the match index of";
    finds(SEEDS_MAX, by, |seed| roles::crash_of_a_sole_voter(seed, config.clone()));
}
