//! Failures.

use super::Stats;
use super::metric::Unit::None as No;
use super::metric::{MetricKind, Sample, Subsystem};
use crate::db::Core;
use std::sync::atomic::Ordering::Relaxed;

/// Failures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthStats {
    /// Why writes have stopped, if they have.
    pub stopped: Option<String>,
    /// The task of a thread that panicked, if one has: the name of a background job, or a step of a commit. That stops
    /// writes.
    pub panicked: Option<String>,
    /// What writers wait for, if a hard bound is reached now: the work, its subject, and the option with the
    /// bound.
    pub stalled: Option<String>,
    /// Flushes that failed and are tried again, counted.
    pub failed_flushes: u64,
    /// Compactions that failed and are tried again, counted.
    pub failed_compactions: u64,
    /// The present error of flush or compaction that is being retried, if any.
    pub background_error: Option<String>,
    /// Times that there was no descriptor to open a file with, counted; most of them ended by closing open tables.
    pub descriptors_refused: u64,
    /// Checkpoints and backups that gave up with [`Error::Busy`](crate::Error::Busy), counted.
    pub copies_refused: u64,
}

pub(super) fn collect(core: &Core) -> HealthStats {
    let progress = core.shared().progress.get();
    HealthStats {
        stopped: core.shared().health.why_stopped(),
        panicked: core.shared().health.what_panicked(),
        stalled: core.write.what_writers_wait_for(),
        failed_flushes: progress.failed_flushes,
        failed_compactions: progress.failed_compactions,
        background_error: progress.error().map(|error| error.to_string()),
        descriptors_refused: core.shared().counters.descriptors_refused.load(Relaxed),
        copies_refused: core.shared().counters.copies_refused.load(Relaxed),
    }
}

impl Stats {
    pub(super) fn describe_health(&self, subsystem: &mut Subsystem<'_>) {
        let health = &self.health;
        let reason = |reason: &Option<String>| {
            let labels = reason.iter().map(|reason| ("reason", reason.clone())).collect();
            vec![Sample { labels, value: u64::from(reason.is_some()).into() }]
        };
        let help = "1 while writes are refused until the database is opened again";
        subsystem.labelled(MetricKind::Gauge, "stopped", No, help, reason(&health.stopped));
        let help = "1 if a thread that worked for the database has panicked, which stops writes";
        subsystem.labelled(MetricKind::Gauge, "panicked", No, help, reason(&health.panicked));
        let help = "1 while writers are stopped at a bound, with what they wait for";
        subsystem.labelled(MetricKind::Gauge, "stalled", No, help, reason(&health.stalled));
        let help = "1 while a failure of flush or compaction is waited out";
        subsystem.labelled(MetricKind::Gauge, "background_error", No, help, reason(&health.background_error));
        subsystem.counter("failed_flushes", No, "Flushes that failed and are tried again", health.failed_flushes);
        subsystem.counter("failed_compactions", No, "Compactions that failed likewise", health.failed_compactions);
        let help = "Times that there was no descriptor to open a file with";
        subsystem.counter("descriptors_refused", No, help, health.descriptors_refused);
        let help = "Checkpoints and backups that gave up waiting for stalled writers";
        subsystem.counter("copies_refused", No, help, health.copies_refused);
    }
}
