//! Many point reads at once.

use super::value::decode;
use super::{ReadState, live_value};
use crate::table::{LookupKey, filter_hash};
use crate::types::{Content, Found, LEVEL_COUNT, ValuePointer};
use crate::version::{FamilyLevels, Shard, Table};
use crate::{Family, Result, SequenceNumber};
use bytes::Bytes;
use std::sync::Arc;

/// The answers so far, and the keys without one.
struct Search<'a> {
    /// In the order of the keys as they were given.
    found: Vec<Option<Found>>,
    /// In key order.
    open: Vec<Open<'a>>,
    sequence: SequenceNumber,
}

struct Open<'a> {
    wanted: LookupKey<'a>,
    /// The index of the answer.
    index: usize,
}

impl ReadState {
    /// The values of keys at a sequence number, in the order of `keys`. The keys are looked up in key order, source by
    /// source: the keys that may be in a table are looked up together, and blocks are read once for all of them.
    pub(crate) fn multi_get_at(
        &self,
        family: Family,
        keys: &[&[u8]],
        sequence: SequenceNumber,
        now_ms: u64,
    ) -> Result<Vec<Option<Bytes>>> {
        let found = self.find_all(family, keys, sequence)?;
        let mut values = vec![None; keys.len()];
        let mut pointers: Vec<(ValuePointer, usize)> = Vec::new();
        for (index, found) in found.into_iter().enumerate() {
            let Some(found) = found else { continue };
            if !found.kind.is_pointer() {
                values[index] = live_value(found.kind, found.stored, || now_ms, self.version.values())?;
                continue;
            }
            let decoded = decode(found.kind, &found.stored)?;
            if let (Content::Pointer(pointer), false) = (&decoded.content, decoded.expired(now_ms)) {
                pointers.push((*pointer, index));
            }
        }
        // In the order in which they were written: neighbours share pages, and nearby blocks of the disk.
        pointers.sort_unstable();
        for (pointer, index) in pointers {
            values[index] = Some(self.version.values().read(pointer)?);
        }
        Ok(values)
    }

    /// For each key what [`ReadState::find`] gives.
    fn find_all(&self, family: Family, keys: &[&[u8]], sequence: SequenceNumber) -> Result<Vec<Option<Found>>> {
        let levels = self.levels(family)?;
        let mut search = Search { found: vec![None; keys.len()], open: Vec::with_capacity(keys.len()), sequence };
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|&index| keys[index]);
        for index in order {
            match self.find_in_memtables(family, keys[index], sequence) {
                Some(answer) => search.found[index] = answer,
                None => {
                    let wanted = LookupKey { user_key: keys[index], hash: filter_hash(keys[index]) };
                    search.open.push(Open { wanted, index });
                }
            }
        }
        let tombstones = &levels.range_tombstones;
        let covered = |open: &Open<'_>| Some((open.index, tombstones.covering(open.wanted.user_key)?));
        let covered: Vec<_> =
            if tombstones.is_empty() { Vec::new() } else { search.open.iter().filter_map(covered).collect() };
        for shard in levels.shards() {
            self.search_shard(shard, &mut search)?;
        }
        search.close_found();
        for level in 1..LEVEL_COUNT {
            if search.open.is_empty() {
                break;
            }
            self.search_level(levels, level, &mut search)?;
            search.close_found();
        }
        for (index, sequence) in covered {
            search.found[index].take_if(|found| found.sequence < sequence);
        }
        Ok(search.found)
    }

    /// Looks up keys in a shard's tables, newest first. A key that has an answer is also looked up in those that may
    /// have a newer one.
    fn search_shard(&self, shard: &Shard, search: &mut Search<'_>) -> Result<()> {
        let within = search.within(&shard.smallest_key, &shard.largest_key);
        if within.is_empty() {
            return Ok(());
        }
        for table in &shard.tables {
            let meta = table.meta();
            if meta.smallest_sequence > search.sequence {
                continue;
            }
            let newer = |at: &usize| {
                let found = search.found[search.open[*at].index].as_ref();
                found.is_none_or(|found| found.sequence < meta.largest_sequence)
            };
            let part = search.within(&meta.smallest_key, &meta.largest_key);
            let asked: Vec<usize> = part.filter(newer).collect();
            self.search_table(table, &asked, search)?;
        }
        Ok(())
    }

    /// Looks up keys in the tables of a level below L0.
    fn search_level(&self, levels: &FamilyLevels, level: usize, search: &mut Search<'_>) -> Result<()> {
        let mut at = 0;
        while let Some(next) = search.open.get(at) {
            let Some(table) = levels.table_for(level, next.wanted.user_key) else {
                at += 1;
                continue;
            };
            let end = at + search.open[at..].partition_point(|open| open.wanted.user_key <= &*table.meta().largest_key);
            let asked: Vec<usize> = (at..end).collect();
            self.search_table(table, &asked, search)?;
            at = end;
        }
        Ok(())
    }

    fn search_table(&self, table: &Arc<Table>, asked: &[usize], search: &mut Search<'_>) -> Result<()> {
        if asked.is_empty() {
            return Ok(());
        }
        let wanted: Vec<LookupKey<'_>> = asked.iter().map(|&at| search.open[at].wanted).collect();
        let answers = self.tables.hold(table)?.get_many(&wanted, search.sequence)?;
        for (&at, answer) in asked.iter().zip(answers) {
            let best = &mut search.found[search.open[at].index];
            if answer.as_ref().map(|found| found.sequence) > best.as_ref().map(|found| found.sequence) {
                *best = answer;
            }
        }
        Ok(())
    }
}

impl Search<'_> {
    /// The open keys from `smallest` to `largest`, both included.
    fn within(&self, smallest: &[u8], largest: &[u8]) -> std::ops::Range<usize> {
        let start = self.open.partition_point(|open| open.wanted.user_key < smallest);
        let end = self.open.partition_point(|open| open.wanted.user_key <= largest);
        start..end.max(start)
    }

    /// Removes the keys that have an answer.
    fn close_found(&mut self) {
        let found = &self.found;
        self.open.retain(|open| found[open.index].is_none());
    }
}
