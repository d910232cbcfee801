use super::{RangeSet, range_bytes, successor};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn key(byte: u8) -> Bytes {
    Bytes::from(vec![byte])
}

fn ranges(set: &RangeSet) -> Vec<(Bytes, Option<Bytes>)> {
    set.iter().map(|(start, end)| (start.clone(), end.cloned())).collect()
}

#[test]
fn touching_ranges_become_one_and_empty_ones_nothing() {
    let mut set = RangeSet::default();
    set.insert(key(2), Some(key(4)));
    set.insert(key(6), Some(key(8)));
    set.insert(key(9), Some(key(9)));
    assert_eq!(ranges(&set), [(key(2), Some(key(4))), (key(6), Some(key(8)))]);
    set.insert(key(4), Some(key(6)));
    assert_eq!(ranges(&set), [(key(2), Some(key(8)))]);
    set.insert(Bytes::new(), Some(key(1)));
    set.insert(key(7), None);
    assert_eq!(ranges(&set), [(Bytes::new(), Some(key(1))), (key(2), None)]);
    assert!(set.contains(b"") && set.contains(&[200]) && !set.contains(&[1]));
}

#[test]
fn the_successor_is_the_next_key() {
    let next = successor(b"ab");
    assert!(next.as_ref() > &b"ab"[..] && next.as_ref() < &b"ab\x00\x00"[..] && next.as_ref() < &b"ab\x01"[..]);
}

proptest! {
    /// Against a set of single keys: the same members, disjoint ranges with gaps between, and undo restores.
    #[test]
    fn behaves_as_a_set_of_keys(inserts in prop::collection::vec((0u8..60, 0u8..62), 1..30)) {
        let mut set = RangeSet::default();
        let mut model: BTreeSet<u8> = BTreeSet::new();
        let mut undo = Vec::new();
        for (start, end) in inserts {
            // An end beyond every key stands for an unbounded one.
            let bound = (end < 60).then(|| key(end));
            undo.push((set.insert(key(start), bound), model.clone()));
            model.extend(start..end.min(60));
            for at in 0..60 {
                prop_assert_eq!(set.contains(&[at]), model.contains(&at));
            }
            let all = ranges(&set);
            prop_assert!(all.windows(2).all(|pair| pair[0].1.as_ref().is_some_and(|end| *end < pair[1].0)));
            prop_assert_eq!(set.bytes(), all.iter().map(|(start, end)| range_bytes(start, end.as_ref())).sum::<u64>());
        }
        while let Some((inserted, before)) = undo.pop() {
            set.undo_insert(inserted);
            for at in 0..60 {
                prop_assert_eq!(set.contains(&[at]), before.contains(&at));
            }
        }
        prop_assert!(set.is_empty() && set.bytes() == 0);
    }
}
