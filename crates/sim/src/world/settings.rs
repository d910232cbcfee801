//! The faults and delays of a world, drawn from the seed (swarm testing). Most worlds lack most faults, so that each
//! fault also occurs in worlds in which no other fault hides its effects.

use kontiki_env::rng::Rng;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// How a network treats packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Latency of an ordinary packet, microseconds.
    pub latency_us: Range<u64>,
    /// Stragglers per million packets.
    pub stragglers_ppm: u64,
    /// How late a straggler is at most, microseconds.
    pub straggle_us_max: u64,
    /// Lost packets per million.
    pub loss_ppm: u64,
    /// Packets between nodes that arrive twice, per million.
    pub duplicates_ppm: u64,
    /// Whether packets of a link arrive in order, as over one connection.
    pub is_ordered: bool,
}

/// The faults that the nemesis can inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Cut the nodes into two parts, for a while.
    Partition,
    /// Cut one direction between two nodes, for a while.
    OneWay,
    /// Hold back what is sent over a link, for a while.
    LinkDelay,
    /// Power loss between two operations of the disk, and a restart.
    Crash,
    /// Power loss within an operation of the disk, and a restart.
    CrashInOperation,
    /// The process is killed and started again.
    Kill,
    /// The process is paused for a while.
    Pause,
    /// A clock runs at another rate.
    Drift,
    /// A wall clock jumps.
    WallJump,
    /// The network's parameters change.
    NetworkChange,
    /// A disk is full, for a while.
    DiskFull,
    /// A disk stalls, for a while: syncs and background work wait.
    DiskStall,
    /// A sync fails; the node that notices it stops, and starts again later.
    SyncError,
    /// A read of the disk fails, with the same effect.
    ReadError,
    /// Committed entries become visible late at one node, for a while.
    SlowApply,
    /// A leader is ordered to transfer its leadership.
    Transfer,
    /// Two nodes cannot communicate.
    Sever,
    /// A node, preferably a leader, is disconnected from the others one after the other, and some of them are killed,
    /// paused or stalled at that moment.
    Isolate,
    /// A node hands its leadership over, as before a clean stop, and its process ends a moment later. No world draws it
    /// by itself: some clusters add it.
    Stop,
    /// A disk is slow, for a while. No world draws it by itself: some clusters add it.
    DiskSlow,
    /// A region is split by its leader. Not a fault, and no world draws it by itself: some clusters add it.
    Split,
    /// A region is merged into its neighbour by its leader. The same.
    Merge,
    /// The leader of a region changes its replicas or their roles. The same.
    ChangeMembers,
}

impl Fault {
    /// Those that worlds draw.
    pub const ALL: [Fault; 18] = [
        Fault::Partition,
        Fault::OneWay,
        Fault::LinkDelay,
        Fault::Crash,
        Fault::CrashInOperation,
        Fault::Kill,
        Fault::Pause,
        Fault::Drift,
        Fault::WallJump,
        Fault::NetworkChange,
        Fault::DiskFull,
        Fault::DiskStall,
        Fault::SyncError,
        Fault::ReadError,
        Fault::SlowApply,
        Fault::Transfer,
        Fault::Sever,
        Fault::Isolate,
    ];
}

/// The parameters of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The network.
    pub network: NetworkSettings,
    /// The faults of the nemesis; empty: it is off.
    pub faults: Vec<Fault>,
    /// Time between two actions of the nemesis, milliseconds.
    pub fault_interval_ms: Range<u64>,
    /// How long a partition, delayed link, pause or outage lasts, milliseconds.
    pub fault_length_ms: Range<u64>,
    /// Percentage of actions that are followed by the next one after `burst_ms`.
    pub burst_percent: u64,
    /// Time to the next action within a burst, milliseconds.
    pub burst_ms: Range<u64>,
    /// Percentage of node faults that are aimed at a leader, if there is one.
    pub aim_percent: u64,
    /// How long a killed or crashed node is down, milliseconds; absent: as long as other faults last.
    pub outage_ms: Option<Range<u64>>,
    /// Maximum number of nodes that are down at a time. With intact disks this may be all.
    pub down_max: usize,
    /// Clocks run fast or slow by at most this, parts per million. Must stay within the bound that leases assume.
    pub drift_ppm_max: u64,
    /// A clock drifts by the maximum, or not at all: violations of conditions with a small margin are visible only
    /// then.
    pub is_drift_extreme: bool,
    /// How long it takes until a node with pending work does it, microseconds.
    pub step_us: Range<u64>,
    /// How long a step takes from reading the clock to its effects, microseconds: messages that arrive meanwhile are
    /// handled with an outdated time.
    pub stale_us: Range<u64>,
    /// One in this many steps takes the time `stale_us`.
    pub stale_one_in: u64,
    /// How long a unit of work of the slow jobs takes (see [`super::SimNode::is_slow`]), microseconds.
    pub slow_job_us: Range<u64>,
    /// How long an apply takes at a node with [`Fault::SlowApply`], milliseconds.
    pub slow_apply_ms: Range<u64>,
    /// How much longer a unit of background work takes at a node with [`Fault::DiskSlow`], milliseconds.
    pub slow_disk_ms: Range<u64>,
    /// Wall clocks are ahead or behind by at most this, milliseconds, all the time.
    pub wall_skew_ms_max: u64,
    /// How long one unit of background work takes (such as one group commit with its sync), microseconds.
    pub background_us: Range<u64>,
    /// One in this many units of background work takes the time `background_tail_us`; 0: none.
    pub background_tail_one_in: u64,
    /// How long such a slow unit of background work takes, microseconds.
    pub background_tail_us: Range<u64>,
    /// Ticks: the longest time between two steps of a node, by its own clock.
    pub tick: Duration,
    /// The nemesis stops after so many actions, counted from its first; absent: it does not.
    pub actions_max: Option<u64>,
    /// The actions of these numbers, from 0 on, are drawn but do not happen.
    pub actions_left_out: BTreeSet<u64>,
}

impl Settings {
    /// A world without faults.
    pub fn calm() -> Settings {
        Settings {
            network: NetworkSettings {
                latency_us: 100..500,
                stragglers_ppm: 0,
                straggle_us_max: 0,
                loss_ppm: 0,
                duplicates_ppm: 0,
                is_ordered: true,
            },
            faults: Vec::new(),
            fault_interval_ms: 1000..2000,
            fault_length_ms: 500..1500,
            burst_percent: 0,
            burst_ms: 0..1,
            aim_percent: 0,
            outage_ms: None,
            down_max: 1,
            drift_ppm_max: 0,
            is_drift_extreme: false,
            step_us: 1..50,
            stale_us: 0..1,
            stale_one_in: 1,
            slow_job_us: 50..500,
            slow_apply_ms: 10..100,
            slow_disk_ms: 5..100,
            wall_skew_ms_max: 3_000,
            background_us: 50..500,
            background_tail_one_in: 0,
            background_tail_us: 0..1,
            tick: Duration::from_millis(10),
            actions_max: None,
            actions_left_out: BTreeSet::new(),
        }
    }

    /// The world of a seed. Drifts stay within `drift_ppm_max`.
    pub fn draw(rng: &mut Rng, nodes: usize, drift_ppm_max: u64) -> Settings {
        let mut faults = Vec::new();
        let one_in = 2 + rng.below(4);
        for fault in Fault::ALL {
            if rng.chance(1, one_in) {
                faults.push(fault);
            }
        }
        let calm = Settings::calm();
        let interval_ms = 200 << rng.below(5);
        let length_ms = 50 << rng.below(7);
        let slow_disk = rng.chance(1, 5);
        Settings {
            network: NetworkSettings::draw(rng),
            faults,
            fault_interval_ms: interval_ms..2 * interval_ms,
            fault_length_ms: length_ms / 2..2 * length_ms,
            down_max: if rng.chance(1, 4) { nodes } else { nodes.saturating_sub(1) / 2 },
            drift_ppm_max: if rng.chance(1, 2) { drift_ppm_max } else { 0 },
            step_us: 1..(10 << rng.below(8)),
            stale_us: if rng.chance(1, 2) { 0..1 } else { 0..(10 << rng.below(14)) },
            slow_job_us: 50..(500 << rng.below(12)),
            slow_apply_ms: 10..(20 << rng.below(6)),
            wall_skew_ms_max: 10 << rng.below(11),
            background_us: if slow_disk { 2_000..20_000 } else { 20..(100 << rng.below(6)) },
            ..calm
        }
    }
}

impl NetworkSettings {
    /// Some network.
    pub fn draw(rng: &mut Rng) -> NetworkSettings {
        let latency_us = 50 << rng.below(6);
        let mut sometimes = |numerator, ppm: u64| if rng.chance(numerator, 10) { ppm } else { 0 };
        let stragglers_ppm = sometimes(4, 20_000);
        let loss_ppm = sometimes(5, 1_000) * 50;
        let duplicates_ppm = sometimes(4, 20_000);
        NetworkSettings {
            latency_us: latency_us..latency_us * 4,
            stragglers_ppm,
            straggle_us_max: 200_000,
            loss_ppm: if loss_ppm == 0 { 0 } else { 1 + rng.below(loss_ppm) },
            duplicates_ppm,
            is_ordered: rng.chance(1, 2),
        }
    }
}
