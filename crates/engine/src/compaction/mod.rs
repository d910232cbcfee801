//! Flush and compaction: how versions move from memory into tables and down the levels, and when they die.
//!
//! Planning ([`mod@plan`]) is pure: functions of table metadata. Execution ([`run()`]) merges what a plan names, drops what
//! nobody can see ([`retention`]), writes tables, and applies one edit.
//!
//! For `db/`, from the `flush` and `compact` tasks (one job each, so at most one flush and one compaction run at a
//! time; they may overlap each other):
//!
//! ```text
//! let context = compaction::Context { env, versions, tables, table_options, options, stop, oldest_transaction_start };
//! compaction::flush(&context, &memtables, flushed_sequence, oldest_segment)?;   // frozen memtables, oldest first
//! compaction::step(&context)?;                    // Ok(true): did one unit, there may be more
//! compaction::compact_all(&context, family)?;     // Db::compact, per family
//! context.versions.remove_obsolete(&context.tables)?;
//! ```
//!
//! Snapshots take no part: they pin the version they read, so the newest version of each key is enough. After a failed
//! call nothing has changed and the same call may be made again; `Error::Closed` means `stop` was set.

mod expiry;
mod flush;
mod output;
pub mod plan;
pub mod retention;
mod run;

pub use flush::flush;
pub use plan::{CompactionOptions, Plan, plan};
pub use run::{compact_all, run, step};

use crate::SequenceNumber;
use crate::cache::TableCache;
use crate::table::TableOptions;
use crate::version::VersionSet;
use crate::vlog::ValueLog;
use kontiki_env::Env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What flush and compaction work with.
#[derive(Clone)]
pub struct Context {
    /// The machine.
    pub env: Env,
    /// Where edits are applied.
    pub versions: Arc<VersionSet>,
    /// Where large values are.
    pub(crate) values: Arc<ValueLog>,
    /// How input tables are opened.
    pub tables: Arc<TableCache>,
    /// How tables are written.
    pub table_options: TableOptions,
    /// When to compact.
    pub options: CompactionOptions,
    /// Set to make a running flush or compaction give up with `Error::Closed`.
    pub stop: Arc<AtomicBool>,
    /// The sequence number at which the oldest open transaction reads, `u64::MAX` while none is open. Flush and compaction
    /// keep a tombstone that is newer, whatever it hides: the transaction may ask whether the key was written since.
    pub oldest_transaction_start: Arc<AtomicU64>,
}

impl Context {
    /// Tombstones above it stay. To be asked after the inputs are fixed: a transaction that is registered later reads at
    /// or above everything in them.
    fn oldest_transaction(&self) -> SequenceNumber {
        self.oldest_transaction_start.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
#[path = "compaction_test.rs"]
mod tests;
