//! Flush and compaction: how versions move from memory into tables and down the levels, and when they are dropped.
//!
//! Planning ([`mod@plan`]) is pure: functions of table metadata and of what is in flight ([`mod@in_flight`]). Execution
//! ([`step`]) merges what a plan names, in pieces if it is large, drops what no reader can see ([`version_retention`]),
//! writes tables, and applies one edit.
//!
//! For `db/`, from the `flush` task (one) and the `compact` tasks (`CompactionOptions::background_jobs_max`):
//!
//! ```text
//! let state = Arc::new(CompactionState::new(limit));
//! let context = CompactionContext { env, versions, tables, .., state };
//! context.state.set_wake(..);                     // once the tasks are there
//! compaction::flush(&context, &memtables, flushed_sequence, oldest_segment)?;   // frozen memtables, oldest first
//! compaction::step(&context)?;                    // Ok(true): did one unit, there may be more
//! compaction::compact_range(&context, family, &range)?;   // Db::compact_range; waits for what is in its way
//! context.debt_bytes(); context.state.limiter.take(..); context.state.stats.levels();
//! context.versions.remove_obsolete(&context.tables)?;
//! ```
//!
//! Snapshots take no part: they pin the version they read, so the newest version of each key is enough. After a failed
//! call nothing has changed (of a manual compaction: a part is done) and the same call may be made again;
//! `Error::Closed` means `stop` was set.

mod expiry;
mod family_options;
mod flush;
mod guards;
pub mod in_flight;
mod level_work;
mod manual;
mod merge;
mod output;
mod pieces;
pub mod plan;
mod plan_dead;
mod plan_small;
mod rate;
mod run;
mod state;
mod targets;
pub mod version_retention;

pub(crate) use expiry::ExpirySample;
pub use family_options::FamilyTable;
pub use flush::flush;
pub use level_work::LevelWork;
pub(crate) use manual::keep_away;
pub use manual::{compact_all, compact_range};
pub use plan::debt_bytes;
pub use run::step;
pub use state::CompactionState;
pub use targets::Targets;

use crate::types::{CompactionOptions, FilterHandle, FilterPass, TableOptions};
use crate::version::{TableCache, VersionSet};
use crate::vlog::ValueLog;
use crate::{Family, SequenceNumber};
use kontiki_env::Env;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What flush and compaction work with.
#[derive(Clone)]
pub struct CompactionContext {
    /// The machine.
    pub env: Env,
    /// Where edits are applied.
    pub versions: Arc<VersionSet>,
    /// Where large values are.
    pub(crate) values: Arc<ValueLog>,
    /// How input tables are opened.
    pub tables: Arc<TableCache>,
    /// How tables are written, where the family says nothing else.
    pub table_options: TableOptions,
    /// The options of families.
    pub families: Arc<FamilyTable>,
    /// When to compact.
    pub options: CompactionOptions,
    /// What the layer above drops.
    pub filter: Option<FilterHandle>,
    /// What flush and compactions share; one for a database.
    pub state: Arc<CompactionState>,
    /// Set to make a running flush or compaction give up with `Error::Closed`.
    pub stop: Arc<AtomicBool>,
}

impl CompactionContext {
    /// When to compact a family.
    pub fn options_of(&self, family: Family) -> CompactionOptions {
        family_options::compaction_of(&self.families.all(), &self.options, family).clone()
    }

    /// How a family's tables of a level are written.
    pub fn table_options_of(&self, family: Family, level: usize) -> TableOptions {
        match self.families.all().get(family) {
            Some(options) => self.table_options.for_family(options, level),
            None => self.table_options.clone(),
        }
    }

    /// The bytes that must be compacted for all levels to be within their targets.
    pub fn debt_bytes(&self) -> u64 {
        debt_bytes(&self.versions.current(), |family| self.options_of(family))
    }

    /// Begins a pass of the filter over a part of a family.
    fn filter_pass(&self, family: Family) -> Option<Box<dyn FilterPass>> {
        self.filter.as_ref().and_then(|filter| filter.0.begin(family))
    }

    /// Whether the layer above may drop entries of a family at any time.
    fn is_filtered(&self, family: Family) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.0.filters(family))
    }

    /// Tombstones above it stay. Read after the inputs are fixed: a transaction that begins later, and a
    /// snapshot that is taken later, reads at or above everything in them.
    fn oldest_reader(&self) -> SequenceNumber {
        self.versions.horizon().oldest()
    }
}

#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
#[path = "compaction_test.rs"]
mod tests;
