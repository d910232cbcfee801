use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[test]
fn the_newest_of_each_stratum_stays() {
    let mut retention = Retention::new(&[10, 20]);
    let mut judge = |sequence, tombstone| retention.judge(b"k", sequence, tombstone, || true);
    assert_eq!(judge(25, false), Verdict::Keep);
    assert_eq!(judge(21, false), Verdict::Hidden);
    assert_eq!(judge(20, true), Verdict::Keep);
    assert_eq!(judge(11, false), Verdict::Hidden);
    assert_eq!(judge(10, true), Verdict::SpentTombstone);
    assert_eq!(judge(3, false), Verdict::Hidden);
}

proptest! {
    /// Whatever is dropped, every snapshot and the present read the same as before.
    #[test]
    fn no_reader_sees_a_difference(
        versions in prop::collection::btree_map((0u8..3, 1u64..40), any::<bool>(), 0..40),
        mut snapshots in prop::collection::vec(0u64..45, 0..4),
    ) {
        snapshots.sort_unstable();
        let mut retention = Retention::new(&snapshots);
        let mut kept = BTreeMap::new();
        for key in 0u8..3 {
            for (&(_, sequence), &tombstone) in versions.range((key, 0)..(key + 1, 0)).rev() {
                if retention.judge(&[key], sequence, tombstone, || true) == Verdict::Keep {
                    kept.insert((key, sequence), tombstone);
                }
            }
        }
        let read = |versions: &BTreeMap<(u8, u64), bool>, key, at| {
            let newest = versions.range((key, 0)..=(key, at)).next_back();
            newest.filter(|(_, tombstone)| !**tombstone).map(|(&(_, sequence), _)| sequence)
        };
        for key in 0u8..3 {
            for at in snapshots.iter().copied().chain([u64::MAX]) {
                prop_assert_eq!(read(&versions, key, at), read(&kept, key, at));
            }
            if snapshots.is_empty() {
                let left: Vec<_> = kept.range((key, 0)..(key + 1, 0)).collect();
                prop_assert!(left.len() <= 1 && left.iter().all(|(_, tombstone)| !**tombstone));
            }
        }
    }
}
