//! The settings, and the constraints between them.

use std::time::Duration;

/// Which snapshots the owner of a store takes in as tables, and not key by key ([`crate::snapshot::install`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTables {
    /// Bytes of the smallest file of which tables are built. Tables cost a flush of the memtables, some syncs, and
    /// files. Default 8 MiB: below that the batches fill an eighth of a memtable. `u64::MAX`: never.
    pub file_bytes_min: u64,
    /// Bytes of keys and values of the smallest family of which tables are built: smaller ones are written by batches,
    /// which costs no file. They are kept in memory until it is known. Default 1 MiB.
    pub family_bytes_min: u64,
    /// Bytes of a table. Default 64 MiB.
    pub table_bytes: u64,
}

impl Default for SnapshotTables {
    fn default() -> SnapshotTables {
        SnapshotTables { file_bytes_min: 8 << 20, family_bytes_min: 1 << 20, table_bytes: 64 << 20 }
    }
}

/// When the log of a store counts as slow: then other stores lead, where they can ([`crate::Store::log_speed`]). The
/// times are measured while ticks come, so a window is at least a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowLog {
    /// The time over which writes are averaged. Default 200 ms.
    pub window: Duration,
    /// A log is not slow while its writes take at most so long. Default 50 ms: less than that costs a client little
    /// compared with a change of leader.
    pub write_min: Duration,
    /// Nor while they take at most so many times as long as those of other stores. Default 5: the averages of equal
    /// disks with equal work differ by less.
    pub factor: u32,
    /// Windows above both limits, in a row, after which it is slow. At least 1. Default 5 (a second).
    pub slow_windows: u32,
    /// Windows of at most half of the limit, and no slow one among them, after which it is not slow any more: many, so
    /// that a disk that is slow again and again does not get and lose leaders each time. At least 1. Default 50 (ten
    /// seconds).
    pub fast_windows: u32,
}

impl Default for SlowLog {
    fn default() -> SlowLog {
        SlowLog {
            window: Duration::from_millis(200),
            write_min: Duration::from_millis(50),
            factor: 5,
            slow_windows: 5,
            fast_windows: 50,
        }
    }
}

/// Configuration of a [`crate::Store`]. Replicas may use different times: each acknowledgement says for how long it
/// supports a lease. They must agree on `clock_drift_percent_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Length of a raft tick. Default 100 ms: heartbeats every 200 ms, elections after 1 to 2 s.
    pub tick_interval: Duration,
    /// Ticks without a message from a leader before an election; drawn from `[n, 2n)`. Also how long a follower's
    /// promise lasts ([`Config::promise_duration`]). More than twice `heartbeat_ticks`. Default 10.
    pub election_ticks: usize,
    /// Ticks between heartbeats, each of which renews the lease. Default 2.
    pub heartbeat_ticks: usize,
    /// By how much the rate of any monotonic clock may deviate from true time, in percent. Default 5. The lease is
    /// shortened so that the slowest leader and the fastest follower still agree.
    pub clock_drift_percent_max: u32,
    /// Largest encoded proposal, in bytes; beyond it `RaftEntryTooLarge`. Default 8 MiB, which keeps one entry below
    /// gRPC's and the transport's message limits.
    pub proposal_bytes_max: usize,
    /// Bytes a region may have proposed, or as a follower taken from its leader, and not yet applied. Beyond it
    /// proposals are refused as `ServerIsBusy`, and appends are not taken. Default 64 MiB.
    pub unapplied_bytes_max: usize,
    /// Bytes that the logs of all regions may take in memory; see [`crate::MemoryStatus`]. Default 512 MiB.
    pub memory_bytes_max: usize,
    /// The share of that budget, in percent, above which applied entries are evicted from memory, the oldest first;
    /// what followers still need of them is read back. 0: as soon as they are applied. At most 75. Default 75.
    pub memory_evict_percent: usize,
    /// Bytes of entries that may be read back at the same time, over all regions; they count for the budget. One read,
    /// of four times `append_bytes_max` at most or of one entry, may be beyond it. Default 16 MiB.
    pub reading_bytes_max: usize,
    /// Bytes of the logs of all regions, in memory or not, above which no log is retained for followers any more, the
    /// largest first: those that need what is gone get a snapshot. On disk they may take twice as much for a while.
    /// Default 1 GiB.
    pub stored_bytes_max: usize,
    /// Bytes of committed entries, over all regions, that may be in flight to the engine; the rest waits in the logs.
    /// Each region may have one apply round in flight. Default 32 MiB.
    pub applying_bytes_max: usize,
    /// Bytes of entries in one append message (at least one entry). Default 1 MiB.
    pub append_bytes_max: usize,
    /// Proposals wait for others, to form a larger group, only while a round of replication takes at most this long
    /// (`peer/gather.rs`). Zero: they never wait. Default 5 ms: loaded stores in one network need less; replicas that
    /// are farther apart lose more by waiting than they save.
    pub gather_round_max: Duration,
    /// Whether a commit is announced to followers at once, and not with the next entries or heartbeat, whichever comes
    /// first. It makes the replicas that do not lead follow more closely, and costs two messages more for each of them
    /// and round. Commands that change the region are announced at once in any case, and so is what a read at a replica
    /// waits for. Default false.
    pub announce_commits: bool,
    /// Append messages in flight to one follower before the leader waits for its answers. Default 256.
    pub inflight_appends_max: usize,
    /// Bytes of entries in flight to one follower of a region before the leader waits for its answers; one append may
    /// be beyond it. At least `append_bytes_max`. Default 32 MiB: half of what is queued for a connection.
    pub inflight_bytes_max: usize,
    /// Bytes of committed entries that one region hands to one apply round. Default 4 MiB.
    pub apply_bytes_max: usize,
    /// Ticks between looks at whether the log can be truncated. Default 10.
    pub truncate_ticks: u64,
    /// Truncate only if this removes at least so many entries: each truncation costs a log record. Default 256.
    pub truncate_entries_min: u64,
    /// A learner is promoted only if it lacks at most so many committed entries.
    pub promotion_lag_entries_max: u64,
    /// Bytes of log above which truncation no longer waits for slow followers (they will need a snapshot).
    /// Default 64 MiB.
    pub log_bytes_max: usize,
    /// Ticks without an answer after which the log is no longer retained for a follower. Default 600 (one minute).
    pub follower_dead_ticks: u64,
    /// Bytes of log that a follower may lack; beyond them, or if it needs a snapshot, it lags. Nothing but reports
    /// depends on it. Default 32 MiB: as much as may be in flight to one that keeps up (`inflight_bytes_max`).
    pub lag_warn_bytes: usize,
    /// Ticks for which a follower may lag before it is reported. Default 600 (one minute; half with a node's tick of
    /// 50 ms): elections, restarts and short stalls are over by then.
    pub lag_warn_ticks: u64,
    /// Size in bytes of a region's log above which it no longer retains the entries that follow a snapshot in flight to
    /// a follower: that follower will need another snapshot. At least `log_bytes_max`. Default 256 MiB.
    pub snapshot_log_bytes_max: usize,
    /// Ticks for which the log is retained for a follower that has its snapshot and whose log makes no progress.
    /// Default 6000 (ten minutes: installing a large region takes a while).
    pub snapshot_catch_up_ticks_max: u64,
    /// Ticks for which a view that was taken for a snapshot is kept when no follower asks for it. Default 50 (5 s).
    pub snapshot_idle_ticks: u64,
    /// Which snapshots are taken in as tables.
    pub snapshot_tables: SnapshotTables,
    /// Ticks without anything to do after which a region hibernates: without ticks and heartbeats until something
    /// happens. 0: never; then stores exchange no signs of life, and a dead leader is named to clients until the next
    /// election. Default 100 (10 s).
    pub hibernate_ticks: u64,
    /// Replicas that wake up with each tick when their leaders' store is silent, or get their first tick after a start,
    /// and transfers of leadership that this store begins by itself with each tick: a bound of the elections that begin
    /// at once. At least 1. Default 128.
    pub wake_regions_per_tick_max: usize,
    /// Ticks in which every replica that hibernates asks its leader once whether it is still a member: it may have been
    /// removed while it was away. At least 1. Default 6000 (ten minutes; five with a node's tick of 50 ms).
    pub member_check_ticks: u64,
    /// Leaders move to the store with the highest priority among those that are able to lead. Default 0.
    pub leader_priority: i32,
    /// Ticks for which a replica leads before it transfers its leadership to a store with a higher priority: one that
    /// fails again and again becomes leader at most once in this time. Default 200 (20 s).
    pub settled_ticks: u64,
    /// When the log is slow.
    pub slow_log: SlowLog,
    /// Ticks for which a leader waits for the checksums of its followers when replicas are compared. At least 1.
    /// Default 6000 (ten minutes; five with a node's tick of 50 ms): a large region is read slowly.
    pub checksum_ticks_max: u64,
    /// Ticks between two advances of the safe timestamps of the regions that are read at timestamps. 0: never. Default
    /// 10 (1 s).
    pub safe_ts_ticks: u64,
    /// Ticks since the last such read of a region after which its safe timestamp is no longer advanced. At least
    /// `safe_ts_ticks`. Default 600 (one minute; half with a node's tick of 50 ms).
    pub safe_ts_wanted_ticks: u64,
    /// Planted bugs, for tests of the tests. Default none.
    #[cfg(feature = "planted-bugs")]
    pub planted: crate::planted::Planted,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            tick_interval: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 2,
            clock_drift_percent_max: 5,
            proposal_bytes_max: 8 << 20,
            unapplied_bytes_max: 64 << 20,
            memory_bytes_max: 512 << 20,
            memory_evict_percent: 75,
            reading_bytes_max: 16 << 20,
            stored_bytes_max: 1 << 30,
            applying_bytes_max: 32 << 20,
            append_bytes_max: 1 << 20,
            gather_round_max: Duration::from_millis(5),
            announce_commits: false,
            inflight_appends_max: 256,
            inflight_bytes_max: 32 << 20,
            apply_bytes_max: 4 << 20,
            truncate_ticks: 10,
            truncate_entries_min: 256,
            promotion_lag_entries_max: 1_000,
            log_bytes_max: 64 << 20,
            follower_dead_ticks: 600,
            lag_warn_bytes: 32 << 20,
            lag_warn_ticks: 600,
            snapshot_log_bytes_max: 256 << 20,
            snapshot_catch_up_ticks_max: 6000,
            snapshot_idle_ticks: 50,
            snapshot_tables: SnapshotTables::default(),
            hibernate_ticks: 100,
            wake_regions_per_tick_max: 128,
            member_check_ticks: 6000,
            leader_priority: 0,
            settled_ticks: 200,
            slow_log: SlowLog::default(),
            checksum_ticks_max: 6000,
            safe_ts_ticks: 10,
            safe_ts_wanted_ticks: 600,
            #[cfg(feature = "planted-bugs")]
            planted: crate::planted::Planted::default(),
        }
    }
}

/// A configuration that cannot work: the field, its value and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value} is not accepted: {accepted}")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is accepted.
    pub accepted: &'static str,
}

impl Config {
    /// Checks every field against its range and the others.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |ok: bool, field: &'static str, value: &dyn std::fmt::Display, accepted: &'static str| {
            let error = || ConfigError { field, value: value.to_string(), accepted };
            if ok { Ok(()) } else { Err(error()) }
        };
        let tick_ms = self.tick_interval.as_millis();
        check((1..=10_000).contains(&tick_ms), "tick_interval", &format!("{tick_ms} ms"), "1 ms to 10 s")?;
        check((1..=1000).contains(&self.heartbeat_ticks), "heartbeat_ticks", &self.heartbeat_ticks, "1 to 1000")?;
        let elections = self.heartbeat_ticks.saturating_mul(2).saturating_add(1)..=100_000;
        check(
            elections.contains(&self.election_ticks),
            "election_ticks",
            &self.election_ticks,
            "more than twice heartbeat_ticks, at most 100000",
        )?;
        check(self.clock_drift_percent_max <= 30, "clock_drift_percent_max", &self.clock_drift_percent_max, "0 to 30")?;
        check(
            (1 << 10..=64 << 20).contains(&self.proposal_bytes_max),
            "proposal_bytes_max",
            &self.proposal_bytes_max,
            "1 KiB to 64 MiB",
        )?;
        check(
            self.unapplied_bytes_max >= self.proposal_bytes_max,
            "unapplied_bytes_max",
            &self.unapplied_bytes_max,
            "at least proposal_bytes_max",
        )?;
        let memory = self.memory_bytes_max;
        check(memory >= self.unapplied_bytes_max, "memory_bytes_max", &memory, "at least unapplied_bytes_max")?;
        check(
            self.snapshot_log_bytes_max >= self.log_bytes_max,
            "snapshot_log_bytes_max",
            &self.snapshot_log_bytes_max,
            "at least log_bytes_max",
        )?;
        check(self.applying_bytes_max > 0, "applying_bytes_max", &self.applying_bytes_max, "more than 0")?;
        check(self.append_bytes_max > 0, "append_bytes_max", &self.append_bytes_max, "more than 0")?;
        check(
            (1..=1 << 16).contains(&self.inflight_appends_max),
            "inflight_appends_max",
            &self.inflight_appends_max,
            "1 to 65536",
        )?;
        check(
            self.inflight_bytes_max >= self.append_bytes_max,
            "inflight_bytes_max",
            &self.inflight_bytes_max,
            "at least append_bytes_max",
        )?;
        check(self.memory_evict_percent <= 75, "memory_evict_percent", &self.memory_evict_percent, "0 to 75")?;
        check(self.reading_bytes_max > 0, "reading_bytes_max", &self.reading_bytes_max, "more than 0")?;
        check(self.stored_bytes_max > 0, "stored_bytes_max", &self.stored_bytes_max, "more than 0")?;
        check(self.apply_bytes_max > 0, "apply_bytes_max", &self.apply_bytes_max, "more than 0")?;
        check(self.truncate_ticks > 0, "truncate_ticks", &self.truncate_ticks, "more than 0")?;
        check(self.truncate_entries_min > 0, "truncate_entries_min", &self.truncate_entries_min, "more than 0")?;
        let wake = self.wake_regions_per_tick_max;
        check(wake > 0, "wake_regions_per_tick_max", &wake, "more than 0")?;
        let SlowLog { window, factor, slow_windows, fast_windows, .. } = self.slow_log;
        check(!window.is_zero(), "slow_log.window", &window.as_millis(), "more than 0")?;
        check(factor > 0, "slow_log.factor", &factor, "more than 0")?;
        check(slow_windows > 0, "slow_log.slow_windows", &slow_windows, "more than 0")?;
        check(fast_windows > 0, "slow_log.fast_windows", &fast_windows, "more than 0")?;
        check(self.checksum_ticks_max > 0, "checksum_ticks_max", &self.checksum_ticks_max, "more than 0")?;
        let wanted = self.safe_ts_wanted_ticks;
        check(wanted >= self.safe_ts_ticks, "safe_ts_wanted_ticks", &wanted, "at least safe_ts_ticks")?;
        check(self.member_check_ticks > 0, "member_check_ticks", &self.member_check_ticks, "more than 0")
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn planted(&self) -> crate::planted::Planted {
        self.planted
    }

    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) fn planted(&self) -> crate::planted::Planted {
        crate::planted::Planted::default()
    }

    /// For how long, from each heartbeat that it answers, a follower votes for no other replica: the shortest election
    /// timeout, so that elections after a failure do not wait for it much longer than for their timeouts.
    ///
    /// It is measured in clock time, so any tick and election timeout is safe. That leases outlive the heartbeats which
    /// renew them follows from the ranges of [`Config::validate`]: with `election_ticks > 2 * heartbeat_ticks` and
    /// clocks off by at most 30 percent, the lease is longer than a heartbeat's interval.
    pub fn promise_duration(&self) -> Duration {
        self.tick_interval.saturating_mul(u32::try_from(self.election_ticks).unwrap_or(u32::MAX))
    }

    /// Ticks after which a store is taken for dead if nothing at all was heard of it: midway between two heartbeats and
    /// an election timeout. Only answers to clients depend on it.
    pub fn silence_ticks_max(&self) -> u32 {
        u32::try_from((self.election_ticks + 2 * self.heartbeat_ticks).div_ceil(2)).unwrap_or(u32::MAX)
    }

    /// The same as a duration.
    pub fn silence_max(&self) -> Duration {
        self.tick_interval.saturating_mul(self.silence_ticks_max())
    }

    /// How long, by its own clock, a leader may count on a promise of `promise` by another's clock: with rates off by a
    /// fraction `d` each, `promise * (1 - d) / (1 + d)`.
    pub fn lease_of(&self, promise: Duration) -> Duration {
        let drift = self.clock_drift_percent_max.min(99);
        promise.saturating_mul(100 - drift) / (100 + drift)
    }

    /// How long after the send time of a quorum-confirmed heartbeat a leader may serve reads without a quorum, at most:
    /// a follower that promises less counts for less.
    pub fn lease_duration(&self) -> Duration {
        self.lease_of(self.promise_duration())
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
