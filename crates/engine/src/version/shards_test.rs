use super::super::version_of;
use super::*;
use crate::Family;
use crate::table::TableMeta;
use proptest::prelude::*;

fn meta(number: u64, smallest: u8, largest: u8, sequences: (u64, u64)) -> TableMeta {
    TableMeta {
        number,
        file_bytes: 100,
        smallest_key: Bytes::copy_from_slice(&[smallest]),
        largest_key: Bytes::copy_from_slice(&[largest]),
        smallest_sequence: sequences.0,
        largest_sequence: sequences.1,
        entries: 1,
        tombstones: 0,
        global_sequence: None,
    }
}

fn numbers(tables: &[Arc<Table>]) -> Vec<u64> {
    tables.iter().map(|table| table.meta().number).collect()
}

/// Ingest buffers of the predecessor were sharded by a constant prefix of the key, so one shard got everything.
#[test]
fn defect_12_shards_are_ranges_of_user_keys() {
    let version = version_of(vec![
        (Family(0), 0, meta(1, 0, 63, (1, 9))),
        (Family(0), 0, meta(2, 64, 127, (1, 9))),
        (Family(0), 0, meta(3, 128, 255, (1, 9))),
        (Family(0), 0, meta(4, 64, 100, (10, 19))),
    ]);
    let levels = version.family(Family(0)).expect("there");
    let shards = levels.shards();
    assert_eq!(shards.iter().map(|shard| numbers(&shard.tables)).collect::<Vec<_>>(), [vec![1], vec![4, 2], vec![3]]);
    assert_eq!(shards.iter().map(|shard| shard.depth).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(numbers(levels.level0_for(&[70])), [4, 2]);
    assert_eq!(levels.level0_depth(), 2);
}

/// The predecessor's searches of level 0 and of ingest buffers returned the oldest match.
#[test]
fn defect_2_tables_over_a_key_come_newest_first() {
    let version = version_of(vec![
        (Family(0), 0, meta(7, 0, 50, (1, 9))),
        (Family(0), 0, meta(3, 0, 50, (20, 29))),
        (Family(0), 0, meta(5, 0, 50, (10, 19))),
    ]);
    let levels = version.family(Family(0)).expect("there");
    assert_eq!(numbers(levels.level0_for(&[20])), [3, 5, 7]);
}

proptest! {
    #[test]
    fn a_key_is_in_the_tables_of_its_shard_only(bounds in prop::collection::vec((any::<u8>(), 0u8..50), 0..12)) {
        let tables: Vec<_> = (1u64..).zip(&bounds).map(|(number, &(start, length))| {
            (Family(0), 0, meta(number, start, start.saturating_add(length), (number * 10, number * 10 + 5)))
        }).collect();
        let version = version_of(tables);
        let Some(levels) = version.family(Family(0)) else { return Ok(()) };
        let mut deepest = 0;
        for key in 0..=255u8 {
            let over: Vec<_> = levels.levels[0].iter().filter(|table| table.meta().spans(&[key])).cloned().collect();
            let found: Vec<_> =
                levels.level0_for(&[key]).iter().filter(|table| table.meta().spans(&[key])).cloned().collect();
            prop_assert_eq!(numbers(&found), numbers(&over), "the same tables in the same order");
            deepest = deepest.max(over.len());
        }
        prop_assert_eq!(levels.level0_depth(), deepest);
        let in_shards: usize = levels.shards().iter().map(|shard| shard.tables.len()).sum();
        prop_assert_eq!(in_shards, bounds.len());
    }
}
