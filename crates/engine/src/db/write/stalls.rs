//! Text for what writers wait for when they are stopped.

use super::WritePath;
use super::capacity::FullReason;
use super::pressure::DelayReason;

impl WritePath {
    /// What a new writer would wait for, with the bound that is reached; `None` if it would not be stopped.
    pub(crate) fn what_writers_wait_for(&self) -> Option<String> {
        let what = match self.memtables.full_reason() {
            Some(FullReason::Ingest) => "an ingest, which holds commits off for a moment".to_string(),
            Some(FullReason::Level0) => self.deepest_level0(),
            Some(FullReason::Memtables) => {
                let (count, bytes) = self.memtables.memory();
                let max = self.shared.options.memtables_max;
                format!("the flush of a memtable: {count} hold {bytes} bytes, memtables_max is {max}")
            }
            None => self.what_debt_stops()?,
        };
        Some(match self.shared.progress.error() {
            Some(error) => format!("{what}; it failed and is tried again: {error}"),
            None => what,
        })
    }

    fn deepest_level0(&self) -> String {
        let version = self.shared.context.versions.current();
        let deepest = version.families().iter().max_by_key(|(_, levels)| levels.level0_depth());
        let (number, name, depth) =
            deepest.map_or((0, "", 0), |(family, levels)| (family.0, levels.name.as_str(), levels.level0_depth()));
        let max = self.shared.options.level0_tables_max;
        format!(
            "the compaction of level 0 of family {number} ({name}): {depth} tables may hold one key, level0_tables_max \
             is {max}"
        )
    }

    fn what_debt_stops(&self) -> Option<String> {
        let delays = self.write_delays();
        if delays.pressure_percent < 100 {
            return None;
        }
        match delays.reason? {
            DelayReason::CompactionDebt => {
                let (debt, max) = (self.shared.context.debt_bytes(), self.shared.options.compaction_debt_bytes_max);
                Some(format!("compactions: {debt} bytes are due, compaction_debt_bytes_max is {max}"))
            }
            DelayReason::ValueGarbage => {
                let (debt, max) = (self.shared.context.values.debt_bytes(), self.shared.options.value_debt_percent_max);
                Some(format!(
                    "the collection of garbage in the value log: {debt} bytes are beyond its share, \
                     value_debt_percent_max is {max}"
                ))
            }
            // These stop where numbers are assigned, which was checked above.
            DelayReason::Memtables | DelayReason::Level0 => None,
        }
    }
}
