//! Many point reads at once.

use super::{Found, ReadState, live_value};
use crate::version::LEVEL_COUNT;
use crate::{Family, Result, SequenceNumber};
use bytes::Bytes;

impl ReadState {
    /// The values of keys at a sequence number, in the order of `keys`. The keys are looked up in key order, source by
    /// source, so those that lie in one table follow each other.
    pub(crate) fn multi_get_at(
        &self,
        family: Family,
        keys: &[&[u8]],
        sequence: SequenceNumber,
        now_ms: u64,
    ) -> Result<Vec<Option<Bytes>>> {
        let values = self.version.values();
        let show = |found: Option<Found>| match found {
            Some(found) => live_value(found.kind, found.stored, || now_ms, values),
            None => Ok(None),
        };
        self.find_all(family, keys, sequence)?.into_iter().map(show).collect()
    }

    /// For each key what [`ReadState::find`] gives.
    fn find_all(&self, family: Family, keys: &[&[u8]], sequence: SequenceNumber) -> Result<Vec<Option<Found>>> {
        let levels = self.levels(family)?;
        let mut all: Vec<Option<Found>> = vec![None; keys.len()];
        // The keys, as indices in key order, to which no source has given an answer.
        let mut open: Vec<usize> = (0..keys.len()).collect();
        open.sort_by_key(|&index| keys[index]);
        open.retain(|&index| match self.find_in_memtables(family, keys[index], sequence) {
            Some(answer) => {
                all[index] = answer;
                false
            }
            None => true,
        });
        let in_tables = open.clone();
        for table in &levels.levels[0] {
            let meta = table.meta();
            let first = open.partition_point(|&index| meta.smallest_key > keys[index]);
            let mut reader = None;
            for &index in open.get(first..).unwrap_or_default() {
                if meta.largest_key < keys[index] {
                    break;
                }
                let before = all[index].as_ref().map(|found| found.sequence);
                if meta.smallest_sequence > sequence || before >= Some(meta.largest_sequence) {
                    continue;
                }
                let reader = match &reader {
                    Some(reader) => reader,
                    None => reader.insert(self.tables.reader(table)?),
                };
                let found = reader.get(keys[index], sequence)?;
                if found.as_ref().map(|found| found.sequence) > before {
                    all[index] = found;
                }
            }
        }
        open.retain(|&index| all[index].is_none());
        for level in 1..LEVEL_COUNT {
            let mut last = None;
            for &index in &open {
                let Some(table) = levels.table_for(level, keys[index]) else { continue };
                let reader = match last.take_if(|(number, _)| *number == table.meta().number) {
                    Some((_, reader)) => reader,
                    None => self.tables.reader(table)?,
                };
                all[index] = reader.get(keys[index], sequence)?;
                last = Some((table.meta().number, reader));
            }
            open.retain(|&index| all[index].is_none());
        }
        if !levels.range_tombstones.is_empty() {
            for index in in_tables {
                let covered = levels.range_tombstones.covering(keys[index]);
                all[index] = all[index].take().filter(|found| covered.is_none_or(|covered| found.sequence >= covered));
            }
        }
        Ok(all)
    }
}
