//! Scenarios of worlds. Worlds that draw everything independently do not reach a conjunction of several rare events, so
//! some worlds have a scenario, which makes the events of one kind frequent and close to each other, and their sizes
//! small:
//!
//! - [`Scenario::Leases`]: short election timeouts; cuts, kills, pauses, transfers and stalled disks about one timeout
//!   apart, at leaders; clocks at the bounds that leases permit; clients that read and write at one node, whether it
//!   leads or not.
//! - [`Scenario::Snapshots`]: raft logs of one or two KiB, installs of seconds, late removals, followers that are
//!   repeatedly unavailable.
//! - [`Scenario::Placement`]: short windows of timestamps and ids, and faults at the leader of placement; clients that
//!   ask all nodes.
//! - [`Scenario::Flow`]: budgets of memory for a few entries, many writes, applies that take long, disks that are full
//!   for a moment.

use super::DRIFT_PPM_MAX;
use super::node::{Sizes, UNREACHED_LOG_FACTOR};
use super::watch::REGIONS;
use crate::world::{Fault, NetworkSettings, Settings};
use kontiki_env::rng::Rng;
use kontiki_raftstore::RegionId;
use std::time::Duration;

/// The scenario of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Scenario {
    /// No scenario: each fault is absent from most worlds.
    Plain,
    /// Elections, leases and read barriers.
    Leases,
    /// Slow followers behind truncated logs.
    Snapshots,
    /// Timestamps and ids.
    Placement,
    /// Memory of raft logs, slow applies, full disks.
    Flow,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 5] =
        [Scenario::Plain, Scenario::Leases, Scenario::Snapshots, Scenario::Placement, Scenario::Flow];

    /// The scenario of a seed, for a cluster of this number of nodes: a single node has neither followers nor
    /// elections.
    pub fn draw(rng: &mut Rng, nodes: u64) -> Scenario {
        match rng.below(20) {
            0..18 if nodes == 1 => Scenario::Plain,
            0..5 => Scenario::Plain,
            5 => Scenario::Flow,
            6..13 => Scenario::Leases,
            13..16 => Scenario::Snapshots,
            16..18 => Scenario::Placement,
            _ => Scenario::Flow,
        }
    }

    /// Whether regions are split in a world.
    pub fn splits(self, rng: &mut Rng) -> bool {
        self != Scenario::Placement && rng.chance(1, 3)
    }

    /// The leaders that its faults prefer.
    pub fn focus(self) -> &'static [RegionId] {
        match self {
            Scenario::Placement => &REGIONS[..1],
            Scenario::Leases | Scenario::Plain => &REGIONS,
            Scenario::Snapshots | Scenario::Flow => &REGIONS[1..2],
        }
    }

    /// Sizes and times of its nodes.
    pub fn sizes(self, sizes: Sizes, rng: &mut Rng) -> Sizes {
        match self {
            Scenario::Plain => sizes,
            Scenario::Leases => Sizes {
                tick: Duration::from_millis(20 + rng.below(20)),
                election_ticks: 3 + rng.below(2) as u32,
                heartbeat_ticks: 1,
                raft_log_bytes: 1 << 20,
                hang_ups_percent: 0,
                ..sizes
            },
            Scenario::Snapshots => Sizes {
                memtable_bytes: 8 << 10,
                tick: Duration::from_millis(20),
                raft_log_bytes: (1 << 10) << rng.below(2),
                snapshot_log_factor: if rng.chance(1, 3) { UNREACHED_LOG_FACTOR } else { 2 << rng.below(3) },
                truncate_entries_min: 1 << rng.below(3),
                ..sizes
            },
            Scenario::Placement => Sizes {
                tick: Duration::from_millis(20),
                election_ticks: 5 + rng.below(8) as u32,
                timestamp_window_ms: 4 << rng.below(7),
                ids_per_write: 1 + rng.below(20),
                ..sizes
            },
            Scenario::Flow => Sizes {
                log_segment_bytes: 8 << 10,
                round_bytes: 1 << (8 + rng.below(4)),
                entry_bytes_max: 4 << 10,
                unapplied_bytes_max: (8 << 10) << rng.below(2),
                memory_bytes_max: (64 << 10) << rng.below(2),
                applying_bytes_max: (1 << 10) << rng.below(4),
                stored_bytes_max: (64 << 10) << rng.below(6),
                ..sizes
            },
        }
    }

    /// Faults and times of its worlds, from those of a plain one.
    pub fn settings(self, settings: Settings, sizes: &Sizes, rng: &mut Rng) -> Settings {
        match self {
            Scenario::Plain => settings,
            Scenario::Leases => leases(settings, sizes, rng),
            Scenario::Snapshots => Settings {
                faults: [
                    vec![Fault::Kill, Fault::Kill, Fault::Sever, Fault::Transfer],
                    some_of(&[Fault::Crash, Fault::Partition, Fault::Isolate, Fault::DiskStall], rng),
                ]
                .concat(),
                fault_interval_ms: 100..(400 << rng.below(3)),
                fault_length_ms: 100..1_500,
                down_max: 1,
                slow_job_us: 1_000..(400_000 << rng.below(4)),
                background_tail_one_in: 2 << rng.below(4),
                background_tail_us: 10_000..100_000,
                outage_ms: rng.chance(1, 2).then_some(0..100),
                ..settings
            },
            Scenario::Placement => Settings {
                faults: [
                    some_of(&[Fault::Partition, Fault::Pause, Fault::Kill, Fault::Crash, Fault::WallJump], rng),
                    some_of(&[Fault::DiskFull, Fault::DiskStall, Fault::SlowApply, Fault::Transfer], rng),
                ]
                .concat(),
                fault_interval_ms: 50..600,
                fault_length_ms: 50..1_000,
                burst_percent: 50,
                burst_ms: 0..50,
                aim_percent: 75,
                slow_apply_ms: 10..100,
                ..settings
            },
            Scenario::Flow => Settings {
                faults: [
                    vec![Fault::SlowApply, Fault::SlowApply, Fault::DiskFull, Fault::DiskFull],
                    some_of(&[Fault::DiskStall, Fault::Kill, Fault::Crash, Fault::Transfer, Fault::Sever], rng),
                ]
                .concat(),
                fault_interval_ms: 50..500,
                fault_length_ms: 50..(1_000 << rng.below(3)),
                aim_percent: 75,
                slow_apply_ms: 50..(400 << rng.below(4)),
                ..settings
            },
        }
    }
}

/// Faults about one election timeout apart, in bursts, on a network that is fast most of the time.
fn leases(settings: Settings, sizes: &Sizes, rng: &mut Rng) -> Settings {
    let tick_us = sizes.tick.as_micros() as u64;
    let election_ms = sizes.tick.as_millis() as u64 * u64::from(sizes.election_ticks);
    let cuts = [Fault::Partition, Fault::Sever, Fault::OneWay, Fault::Isolate, Fault::Isolate, Fault::Isolate];
    let others = [Fault::Kill, Fault::Pause, Fault::Transfer, Fault::LinkDelay, Fault::SlowApply, Fault::Drift];
    let latency_us = 50 << rng.below(5);
    let hasty = Settings {
        network: NetworkSettings { latency_us: latency_us..4 * latency_us, loss_ppm: 0, ..settings.network.clone() },
        faults: cuts.to_vec(),
        fault_interval_ms: election_ms / 4..2 * election_ms,
        fault_length_ms: election_ms / 8..3 * election_ms,
        burst_percent: 60,
        burst_ms: 0..election_ms / 2,
        aim_percent: 60,
        outage_ms: Some(0..1 + election_ms / 2),
        down_max: 1,
        drift_ppm_max: DRIFT_PPM_MAX,
        tick: Duration::from_millis(5),
        step_us: 1..(10 << rng.below(5)),
        stale_us: 0..1,
        background_us: 20..(50 << rng.below(3)),
        slow_apply_ms: 1..(4 << rng.below(5)),
        ..settings
    };
    match rng.below(8) {
        // Everything.
        0 => Settings {
            faults: [cuts.to_vec(), some_of(&others, rng), vec![Fault::DiskStall]].concat(),
            step_us: 1..(10 << rng.below(7)),
            ..hasty
        },
        // Threads that are delayed by most of a tick between reading the clock and acting, and clocks as fast and as
        // slow as permitted.
        1..4 => Settings {
            faults: [cuts.to_vec(), vec![Fault::Drift; 3]].concat(),
            is_drift_extreme: true,
            stale_us: tick_us / 2..tick_us,
            stale_one_in: 4 << rng.below(2),
            ..hasty
        },
        // Leaders that are cut off for about as long as an election takes, and disks that are fast except for a sync
        // now and then, or stall for as long: votes and refusals arrive when their receivers have found another leader.
        4..7 => {
            let stall = rng.chance(1, 2).then_some(Fault::DiskStall);
            let others = [Fault::Partition, Fault::Isolate, Fault::Drift].into_iter().chain(stall).chain(stall);
            Settings {
                faults: [Fault::Partition; 2].into_iter().chain(others).collect(),
                is_drift_extreme: true,
                fault_interval_ms: election_ms..3 * election_ms,
                fault_length_ms: election_ms..2 * election_ms,
                burst_percent: 30,
                aim_percent: if stall.is_some() { 50 } else { 90 },
                background_tail_one_in: if stall.is_some() { 6 } else { 2 + rng.below(3) },
                background_tail_us: 300 * election_ms..1_500 * election_ms,
                ..hasty
            }
        }
        // Disks so slow, by up to half an election timeout, that messages that wait for them are late.
        _ => Settings {
            faults: [cuts.to_vec(), vec![Fault::Partition, Fault::Sever, Fault::DiskStall, Fault::DiskStall]].concat(),
            fault_length_ms: election_ms / 2..4 * election_ms,
            background_us: 20..500 * election_ms,
            ..hasty
        },
    }
}

/// About two of three, at least one.
fn some_of(faults: &[Fault], rng: &mut Rng) -> Vec<Fault> {
    let mut some: Vec<Fault> = faults.iter().copied().filter(|_| rng.chance(2, 3)).collect();
    if some.is_empty() {
        some.extend(rng.pick(faults));
    }
    some
}
