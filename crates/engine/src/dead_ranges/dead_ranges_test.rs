use super::lists::KNOWN_MAX;
use super::*;
use kontiki_env::rng::Rng;
use std::collections::BTreeSet;

const OF: Family = Family(3);

fn proof(start: &[u8], end: &[u8], sequence: u64) -> Proof {
    let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
    Proof { family: OF, start, end, sequence, now_ms: 0, versions: 1, is_last: true }
}

/// Compared with a set of all keys that are dead.
#[test]
fn lists_hold_what_was_learnt_and_not_taken_out() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let (mut lists, mut dead, mut pending) = (Lists::default(), BTreeSet::new(), None);
        for id in 1..60 {
            let (a, b) = (rng.below(60) as u8, rng.below(60) as u8);
            let (start, end) = ([a.min(b)], [a.max(b) + 1]);
            match rng.below(4) {
                0 if pending.is_none() => {
                    assert!(lists.announce(id, &proof(&start, &end, id)));
                    pending = Some((id, start[0]..end[0]));
                }
                1 => {
                    if let Some((id, range)) = pending.take() {
                        let holds = rng.chance(3, 4);
                        assert_eq!(lists.settle(id, holds).is_some(), holds);
                        dead.extend(range.filter(|_| holds));
                    }
                }
                _ => {
                    let end = if rng.chance(2, 3) { [start[0] + 1] } else { end };
                    lists.take_out(OF, &start, Some(&end));
                    dead.retain(|key| !(start[0]..end[0]).contains(key));
                    if let Some((id, _)) = pending.take_if(|(_, range)| range.start < end[0] && start[0] < range.end) {
                        assert!(lists.settle(id, true).is_none(), "a pending range is removed as a whole");
                    }
                }
            }
            assert!(lists.known.len() <= KNOWN_MAX);
            let announced = |key| pending.as_ref().is_some_and(|(_, range)| range.contains(&key));
            for key in 0..62 {
                assert_eq!(lists.has(OF, &[key]), dead.contains(&key) || announced(key), "seed {seed}, key {key}");
                assert!(!lists.has(Family(2), &[key]) && !lists.has(Family(4), &[key]));
            }
        }
    }
}

#[test]
fn the_oldest_ranges_go_when_there_are_too_many() {
    let mut lists = Lists::default();
    for id in 0..2 * KNOWN_MAX as u8 {
        assert!(lists.announce(u64::from(id), &proof(&[id, 0], &[id, 9], 1)));
        assert!(lists.settle(u64::from(id), true).is_some());
    }
    assert_eq!(lists.known.len(), KNOWN_MAX);
    assert!(!lists.has(OF, &[0, 1]) && lists.has(OF, &[2 * KNOWN_MAX as u8 - 1, 1]));
    // A cut makes two of one.
    lists.take_out(OF, &[100, 4], Some(&[100, 5]));
    assert_eq!(lists.known.len(), KNOWN_MAX);
    assert!(lists.has(OF, &[100, 3]) && !lists.has(OF, &[100, 4]) && lists.has(OF, &[100, 5]));
}

#[test]
fn a_range_counts_for_those_who_read_at_or_above_it() {
    let mut lists = Lists::default();
    assert!(lists.announce(1, &Proof { now_ms: 50, ..proof(b"c", b"f", 7) }));
    assert!(lists.settle(1, true).is_some());
    let lists = Arc::new(lists);
    let skips = |sequence, now_ms| Skips { lists: lists.clone(), of_family: lists.of_family(OF), sequence, now_ms };
    assert!(skips(6, 50).around(b"d").is_none() && skips(7, 49).around(b"d").is_none());
    let of = |range: Option<(Bytes, Bytes)>| range.map(|(start, end)| (start.to_vec(), end.to_vec()));
    let whole = Some((b"c".to_vec(), b"f".to_vec()));
    for key in [b"c", b"d"] {
        assert_eq!(of(skips(7, 50).around(key)), whole);
    }
    for end in [b"d", b"f"] {
        assert_eq!(of(skips(8, 60).below(end)), whole);
    }
    for key in [b"b", b"f"] {
        assert_eq!(of(skips(8, 60).around(key)), None);
    }
    for end in [b"c", b"g"] {
        assert_eq!(of(skips(8, 60).below(end)), None);
    }
}
