//! Keys that are read or written most.

use super::metric::Unit::None as No;
use super::metric::{MetricKind, Sample, Subsystem};
use super::{HotKey, Stats};

impl Stats {
    pub(super) fn describe_hot_keys(&self, subsystem: &mut Subsystem<'_>) {
        let hot_keys = &self.hot_keys;
        let samples = |keys: &[HotKey]| {
            let sample = |key: &HotKey| {
                let cut = if key.truncated { ".." } else { "" };
                let labels =
                    vec![("family", self.family_name(key.family)), ("key", format!("{}{cut}", key.key.escape_ascii()))];
                Sample { labels, value: key.per_second.into() }
            };
            keys.iter().map(sample).collect()
        };
        let help = "Reads a second of the keys that are read most, estimated";
        subsystem.labelled(MetricKind::Gauge, "reads_per_second", No, help, samples(&hot_keys.reads));
        let help = "Writes a second of the keys that are written most, estimated";
        subsystem.labelled(MetricKind::Gauge, "writes_per_second", No, help, samples(&hot_keys.writes));
        subsystem.counter("throttled", No, "Commits refused because a key was written too often", hot_keys.throttled);
        subsystem.counter("promoted", No, "Reads of hot keys that improved a place in a cache", hot_keys.promoted);
    }
}
