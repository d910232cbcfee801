//! Level 0 by key range.
//!
//! A *shard* is a group of level-0 tables that are connected by overlaps; no key lies in two shards. Flushes cut their
//! tables at fixed user keys (see `compaction::guards`), so in a database that has data the shards are that many equal
//! parts of it. Each is drained into the levels below, or merged within itself, independently: level 0 is the sharded
//! ingest buffer of the base level, and a table arrives in its shard without even an edit that would move it.
//!
//! **Newest wins.** Of two tables of level 0 that overlap, one holds sequence numbers above all of the other's: flushes
//! take memtables in order, ingested tables have one number, and a merge within a shard takes every table between its
//! oldest and its newest. So a search of a shard's tables, newest first, may stop at the first hit that is as new as
//! the next table. A repaired directory, whose tables all begin in level 0, is the exception: there numbers interleave,
//! and so readers compare numbers instead of trusting the order, and merges take whatever interleaves.

use super::Table;
use bytes::Bytes;
use std::sync::Arc;

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Smallest user key of its tables.
    pub smallest_key: Bytes,
    /// Largest user key of its tables.
    pub largest_key: Bytes,
    /// Newest first. Not empty.
    pub tables: Vec<Arc<Table>>,
    /// The largest number of tables that one key may be in: the cost of a read.
    pub depth: usize,
}

impl Shard {
    /// Bytes of its tables.
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.meta().file_bytes).sum()
    }
}

/// The shards of level 0, by key.
pub(super) fn shards(level0: &[Arc<Table>]) -> Vec<Shard> {
    let mut by_key: Vec<&Arc<Table>> = level0.iter().collect();
    by_key.sort_by(|a, b| a.meta().smallest_key.cmp(&b.meta().smallest_key));
    let mut shards: Vec<Shard> = Vec::new();
    for table in by_key {
        let meta = table.meta();
        match shards.last_mut().filter(|shard| shard.largest_key >= meta.smallest_key) {
            Some(shard) => {
                shard.largest_key = std::cmp::max(&shard.largest_key, &meta.largest_key).clone();
                shard.tables.push(table.clone());
            }
            None => shards.push(Shard {
                smallest_key: meta.smallest_key.clone(),
                largest_key: meta.largest_key.clone(),
                tables: vec![table.clone()],
                depth: 1,
            }),
        }
    }
    for shard in &mut shards {
        shard.depth = depth(&shard.tables);
        newest_first(&mut shard.tables);
    }
    debug_assert!(shards.windows(2).all(|pair| pair[0].largest_key < pair[1].smallest_key));
    shards
}

/// The order of level 0.
pub(super) fn newest_first(tables: &mut [Arc<Table>]) {
    tables.sort_by_key(|table| std::cmp::Reverse((table.meta().largest_sequence, table.meta().number)));
}

/// The largest number of tables over one key; `tables` are sorted by smallest key.
fn depth(tables: &[Arc<Table>]) -> usize {
    let mut open: Vec<&Bytes> = Vec::new();
    let mut deepest = 0;
    for table in tables {
        open.retain(|end| **end >= table.meta().smallest_key);
        open.push(&table.meta().largest_key);
        deepest = deepest.max(open.len());
    }
    deepest
}

#[cfg(test)]
#[path = "shards_test.rs"]
mod tests;
