//! Small tables next to each other become one.
//!
//! Each flush makes a table of whatever a family has in the memtable, and tables that overlap nothing move down as they
//! are. So a family with few writes next to a busy one would have as many tables as there were flushes.

use super::plan::{Plan, Planner, rewrite};
use crate::Family;
use crate::types::LEVEL_COUNT;
use crate::version::{FamilyLevels, Table};
use std::sync::Arc;

/// So many small neighbours are merged for their number alone.
const TABLES_MIN: usize = 8;
/// None of them has more than one in so many bytes of the run: so a table that has grown is merged again only with
/// three times as much, and each byte as often as the logarithm of a table's size.
const LARGEST_ONE_IN: u64 = 4;
/// Tables of a run at most: bounds the search.
const TABLES_MAX: usize = 64;

impl Planner<'_> {
    /// A run of small tables in a level below 0.
    pub(super) fn plan_small(&self, family: Family, levels: &FamilyLevels) -> Option<Plan> {
        let table_bytes = self.options(family).table_bytes;
        let is_worth = |run: &[Arc<Table>]| {
            let bytes = run.iter().map(|table| table.meta().file_bytes);
            let (largest, sum) = (bytes.clone().max().unwrap_or(0), bytes.sum::<u64>());
            run.len() >= TABLES_MIN && largest.saturating_mul(LARGEST_ONE_IN) <= sum
        };
        (1..LEVEL_COUNT).find_map(|level| {
            let tables = &levels.levels[level];
            (0..tables.len()).find_map(|first| {
                let from_here = tables.get(first..).unwrap_or_default();
                let within = from_here.get(..from_here.len().min(TABLES_MAX)).unwrap_or_default();
                let run = small_run(within, table_bytes, |_| true);
                if is_worth(run) { self.free(rewrite(family, level, run)) } else { None }
            })
        })
    }
}

/// The tables that a list begins with, as long as each has less than half of `table_bytes`, they have no more than that
/// together, and all qualify.
pub(super) fn small_run(tables: &[Arc<Table>], table_bytes: u64, wanted: impl Fn(&Table) -> bool) -> &[Arc<Table>] {
    let mut sum = 0u64;
    let mut fits = |table: &Arc<Table>| {
        let bytes = table.meta().file_bytes;
        sum = sum.saturating_add(bytes);
        bytes < table_bytes / 2 && sum <= table_bytes && wanted(table)
    };
    let count = tables.iter().position(|table| !fits(table)).unwrap_or(tables.len());
    tables.get(..count).unwrap_or_default()
}
