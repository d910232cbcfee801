//! Commits, and writers that are stopped or slowed.

use super::metric::Subsystem;
use super::metric::Unit::{Bytes, None as No, Seconds};
use super::{Stats, seconds};
use crate::db::Core;
use std::sync::atomic::Ordering::Relaxed;

/// Commits, counted by their durability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitStats {
    /// With `Sync`.
    pub sync: u64,
    /// With `Buffered`.
    pub buffered: u64,
    /// With `Derived`.
    pub derived: u64,
    /// Submitted commits that wait now.
    pub waiting: u64,
}

/// Writers that were stopped or slowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallStats {
    /// Times that a writer found full memory, a full level 0 or another hard bound and had to wait, counted.
    pub waits: u64,
    /// Callers that wait there now. [`HealthStats::stalled`](super::HealthStats::stalled) gives the reason.
    pub waiting: u64,
    /// How writers are slowed before that.
    pub delays: crate::WriteDelays,
}

pub(super) fn collect(core: &Core) -> CommitStats {
    let counters = &core.shared().counters;
    CommitStats {
        sync: counters.commits_sync.load(Relaxed),
        buffered: counters.commits_buffered.load(Relaxed),
        derived: counters.commits_derived.load(Relaxed),
        waiting: core.write.queue.len() as u64,
    }
}

impl Stats {
    pub(super) fn describe_commits(&self, subsystem: &mut Subsystem<'_>) {
        let commits = &self.commits;
        subsystem.counter("sync", No, "Commits that were to survive power loss", commits.sync);
        subsystem.counter("buffered", No, "Commits that were to survive a killed process", commits.buffered);
        subsystem.counter("derived", No, "Commits that are logged elsewhere", commits.derived);
        subsystem.gauge("waiting", No, "Submitted commits that wait for their turn", commits.waiting);
        subsystem.gauge("visible_sequence", No, "The newest sequence number that readers see", self.visible_sequence);
        subsystem.histogram("latency", "Commits from call to answer, sampled", &self.latency.write);
        subsystem.histogram(
            "wait",
            "Commits from their place in the log to visible, sampled",
            &self.latency.commit_wait,
        );
    }

    pub(super) fn describe_stalls(&self, subsystem: &mut Subsystem<'_>) {
        subsystem.counter("waits", No, "Times that a writer waited for flush or compaction", self.stalls.waits);
        subsystem.gauge("waiting", No, "Callers that wait for flush or compaction now", self.stalls.waiting);
        let delays = &self.stalls.delays;
        subsystem.counter("delays", No, "Writes that were slowed, short of a stop", delays.delayed);
        let times = [
            (
                "delayed_by_memtables",
                "Time that writes were slowed because memtables waited for flush",
                delays.memtables_us,
            ),
            ("delayed_by_level0", "Time that writes were slowed because level 0 was deep", delays.level0_us),
            ("delayed_by_debt", "Time that writes were slowed because of compaction debt", delays.compaction_debt_us),
            (
                "delayed_by_garbage",
                "Time that writes were slowed because of garbage in values",
                delays.value_garbage_us,
            ),
        ];
        for (name, help, us) in times {
            subsystem.counter(name, Seconds, help, seconds(us));
        }
        let help = "Where the worst debt is between its soft bound (0) and its hard one (100)";
        subsystem.gauge("pressure_percent", No, help, delays.pressure_percent);
        subsystem.gauge(
            "write_rate",
            Bytes,
            "What writers may bring a second, 0 for no limit",
            delays.bytes_per_second,
        );
        let help = "What background work gets through a second, by the latest estimate";
        subsystem.gauge("drain_rate", Bytes, help, delays.drain_bytes_per_second);
    }
}
