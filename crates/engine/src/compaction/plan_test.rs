use super::*;
use crate::table::TableMeta;
use crate::version::version_of;
use bytes::Bytes;
use proptest::prelude::*;

fn meta(number: u64, smallest: u8, largest: u8, bytes: u64) -> TableMeta {
    TableMeta {
        number,
        file_bytes: bytes,
        smallest_key: Bytes::copy_from_slice(&[smallest]),
        largest_key: Bytes::copy_from_slice(&[largest]),
        smallest_sequence: number,
        largest_sequence: number,
        entries: 1,
        tombstones: 0,
    }
}

fn options() -> CompactionOptions {
    CompactionOptions { level0_tables: 2, level1_bytes: 100, level_factor: 10, table_bytes: 50 }
}

const F: Family = Family(7);

#[test]
fn nothing_is_due_below_the_targets() {
    let version =
        version_of(vec![(F, 0, meta(9, 0, 9, 1000)), (F, 1, meta(1, 0, 3, 99)), (F, 6, meta(2, 0, 9, 1 << 50))]);
    assert!(plan(&version, &options()).is_none());
}

#[test]
fn level_0_takes_what_is_connected_with_its_oldest_table() {
    let version = version_of(vec![
        (F, 0, meta(11, 10, 20, 1)),
        (F, 0, meta(12, 40, 50, 1)),
        (F, 0, meta(13, 20, 30, 1)),
        (F, 0, meta(14, 28, 29, 1)),
        (F, 1, meta(1, 0, 9, 1)),
        (F, 1, meta(2, 12, 14, 1)),
        (F, 1, meta(3, 30, 39, 1)),
        (F, 1, meta(4, 45, 46, 1)),
    ]);
    let plan = plan(&version, &options()).expect("four tables are due");
    let numbers = |tables: &[Arc<Table>]| {
        let mut numbers: Vec<_> = tables.iter().map(|table| table.meta().number).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(numbers(&plan.inputs), [11, 13, 14]);
    assert_eq!(numbers(&plan.overlaps), [2, 3]);
    assert!(!plan.is_move());
}

#[test]
fn a_table_alone_in_its_range_moves() {
    let version = version_of(vec![(F, 1, meta(5, 10, 20, 200)), (F, 2, meta(1, 21, 30, 1))]);
    let plan = plan(&version, &options()).expect("level 1 is over its target");
    assert!(plan.is_move() && (plan.from, plan.to) == (1, 2));
}

#[test]
fn the_most_urgent_level_of_all_families_comes_first() {
    let other = Family(8);
    let version = version_of(vec![
        (F, 1, meta(1, 0, 9, 150)),
        (other, 0, meta(2, 0, 9, 1)),
        (other, 0, meta(3, 0, 9, 1)),
        (other, 0, meta(4, 0, 9, 1)),
        (other, 0, meta(5, 0, 9, 1)),
    ]);
    let plan = plan(&version, &options()).expect("both are due");
    assert_eq!((plan.family, plan.from, plan.inputs.len()), (other, 0, 4));
}

/// Levels with random tables: overlapping in L0, disjoint below.
fn any_levels() -> impl Strategy<Value = Vec<(Family, usize, TableMeta)>> {
    let level0 = prop::collection::vec((any::<u8>(), 0u8..40), 0..8);
    let deeper = prop::collection::vec(prop::collection::btree_set(any::<u8>(), 0..20), 4);
    (level0, deeper, 1u64..80).prop_map(|(level0, deeper, bytes)| {
        let mut tables = Vec::new();
        let mut number = 1;
        for (level, bounds) in deeper.iter().enumerate() {
            let bounds: Vec<u8> = bounds.iter().copied().collect();
            for pair in bounds.chunks_exact(2) {
                tables.push((F, level + 1, meta(number, pair[0], pair[1], bytes)));
                number += 1;
            }
        }
        for (start, length) in level0 {
            tables.push((F, 0, meta(number, start, start.saturating_add(length), bytes)));
            number += 1;
        }
        tables
    })
}

proptest! {
    #[test]
    fn every_plan_takes_all_that_it_must(tables in any_levels()) {
        let version = version_of(tables);
        let levels = version.family(F);
        if let Some(plan) = plan(&version, &options()) {
            let levels = levels.expect("planned for it");
            assert_whole(&plan, levels);
            prop_assert!(score(levels, plan.from, &options()) >= 1.0);
        }
        let Some(levels) = levels else { return Ok(()) };
        for level in 0..LEVEL_COUNT - 1 {
            if let Some(plan) = plan_level(F, levels, level) {
                assert_whole(&plan, levels);
            }
        }
        if let Some(plan) = plan_all(F, levels) {
            assert_whole(&plan, levels);
            prop_assert_eq!(plan.inputs.len(), levels.levels[plan.from].len());
        } else {
            prop_assert!(levels.levels.iter().filter(|tables| !tables.is_empty()).count() <= 1);
            prop_assert!(levels.levels[0].is_empty());
        }
    }
}
