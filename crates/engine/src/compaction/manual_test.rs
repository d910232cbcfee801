use super::super::harness::{Layer, Sizes};
use super::*;
use crate::table::TableMeta;
use kontiki_env::rng::Rng;

const FAMILY: Family = Family(0);

/// Every level's tables, as number and bounds.
fn tables(layer: &Layer) -> Vec<(usize, TableMeta)> {
    let version = layer.context.versions.current();
    let found = version.tables().filter(|(family, ..)| *family == FAMILY);
    found.map(|(_, level, table)| (level, table.meta().clone())).collect()
}

fn write(layer: &mut Layer, round: u32) {
    for number in 0..60 {
        layer.put(format!("{number:02}").as_bytes(), &[b"value".as_slice(), &round.to_be_bytes()].concat());
    }
    layer.flush().expect("a healthy disk");
}

/// Whether a table above the last level holds something at or below the number.
fn is_above(layer: &Layer, newest: SequenceNumber) -> bool {
    tables(layer).iter().any(|(level, meta)| *level < LEVEL_COUNT - 1 && meta.smallest_sequence <= newest)
}

/// Else it would never end while a writer's next table arrives before the last one is compacted.
#[test]
fn tables_that_came_after_it_began_are_left_alone() {
    let mut layer = Layer::new(1, Sizes::tiny());
    write(&mut layer, 0);
    let began = layer.sequence;
    assert!(is_above(&layer, began));
    compact_through(&layer.context, FAMILY, &Range::all(), began).expect("a healthy disk");
    assert!(!is_above(&layer, began));
    write(&mut layer, 1);
    let before = tables(&layer);
    compact_through(&layer.context, FAMILY, &Range::all(), began).expect("a healthy disk");
    assert_eq!(tables(&layer), before, "all that is above the last level is newer");
    compact_range(&layer.context, FAMILY, &Range::all()).expect("a healthy disk");
    assert!(!is_above(&layer, layer.sequence), "what was there when it began comes down");
    layer.check_now(&mut Rng::new(1)).expect("a healthy disk");
}

/// The same with what other compactions have made of old and new tables meanwhile.
#[test]
fn what_is_old_comes_down_wherever_it_is_and_whatever_it_is_mixed_with() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let mut layer = Layer::new(seed, Sizes::tiny());
        let mut began = 0;
        for round in 0..8 {
            write(&mut layer, round);
            for _ in 0..rng.below(6) {
                layer.compact_step().expect("a healthy disk");
            }
            if round < 5 {
                began = layer.sequence;
            }
        }
        compact_through(&layer.context, FAMILY, &Range::all(), began).expect("a healthy disk");
        assert!(!is_above(&layer, began), "seed {seed}");
        (0..5).for_each(|_| layer.check_now(&mut rng).expect("a healthy disk"));
    }
}
