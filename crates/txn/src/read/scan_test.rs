use super::*;
use crate::keys::user_range;
use crate::testing::{MapStore, prewrite, put, ready};
use crate::{MutationOp, NoYield, read};
use kontiki_env::rng::Rng;
use std::collections::BTreeSet;

fn keys_of(store: &MapStore, lower: &str, upper: &str, limit: usize, reverse: bool, ts: u64) -> Vec<String> {
    let range = user_range(&Range::all(), lower.as_bytes(), upper.as_bytes());
    let pairs = ready(scan(
        store,
        &Scan { range, limit, key_only: true, reverse },
        &ReadOptions::at(TimeStamp(ts)),
        &mut NoYield,
    ))
    .unwrap();
    pairs
        .iter()
        .map(|pair| {
            let key = String::from_utf8(pair.key.to_vec()).unwrap();
            match &pair.outcome {
                Ok(version) => {
                    assert!(version.value.is_empty(), "key only");
                    key
                }
                Err(lock) => {
                    assert_eq!(lock.key, pair.key, "clients take the key from the lock");
                    format!("!{key}")
                }
            }
        })
        .collect()
}

fn store() -> MapStore {
    let mut store = MapStore::default();
    for key in ["a", "b", "c", "d"] {
        store.committed(key, "1", 5, 6);
    }
    store.prewrite(&prewrite(&[("b", MutationOp::Delete), ("x", put("new"))], "b", 7)).unwrap();
    store.prewrite(&prewrite(&[("c", MutationOp::Delete)], "c", 7)).unwrap();
    store.commit(&["c"], 7, 8).unwrap();
    store
}

#[test]
fn bounds_limits_and_directions() {
    let store = store();
    assert_eq!(keys_of(&store, "", "", 10, false, 6), ["a", "b", "c", "d"]);
    assert_eq!(keys_of(&store, "", "", 10, true, 6), ["d", "c", "b", "a"]);
    assert_eq!(keys_of(&store, "b", "d", 10, false, 6), ["b", "c"]);
    assert_eq!(keys_of(&store, "b", "d", 10, true, 6), ["c", "b"]);
    assert_eq!(keys_of(&store, "", "", 2, false, 6), ["a", "b"]);
    assert_eq!(keys_of(&store, "", "", 2, true, 6), ["d", "c"]);
    assert_eq!(keys_of(&store, "", "", 0, false, 6), [""; 0]);
    assert_eq!(keys_of(&store, "x", "b", 10, false, 6), [""; 0], "an empty range");
}

#[test]
fn locked_keys_are_pairs_in_order_and_count() {
    let store = store();
    assert_eq!(keys_of(&store, "", "", 10, false, 9), ["a", "!b", "d", "!x"], "x has a lock and no version");
    assert_eq!(keys_of(&store, "", "", 10, true, 9), ["!x", "d", "!b", "a"]);
    assert_eq!(keys_of(&store, "", "", 2, false, 9), ["a", "!b"]);
}

#[test]
fn a_scan_is_not_cut_short_by_bytes() {
    let mut store = MapStore::default();
    let big = "x".repeat(1 << 20);
    for key in ["a", "b", "c", "d", "e", "f"] {
        store.committed(key, &big, 5, 6);
    }
    let wanted = Scan { range: Range::all(), limit: 6, key_only: false, reverse: false };
    let pairs = ready(scan(&store, &wanted, &ReadOptions::at(TimeStamp(9)), &mut NoYield)).unwrap();
    assert_eq!(pairs.iter().map(|pair| pair.outcome.as_ref().unwrap().value.len()).sum::<usize>(), 6 << 20);
}

#[test]
fn locks_are_listed_by_version_and_limit() {
    let store = store();
    let list = |max_version, limit| {
        let wanted = ScanLock { range: Range::all(), max_version: TimeStamp(max_version), limit };
        ready(scan_lock(&store, &wanted, &mut NoYield))
            .unwrap()
            .into_iter()
            .map(|lock| lock.key)
            .collect::<Vec<Bytes>>()
    };
    assert_eq!(list(7, 0), ["b", "x"]);
    assert_eq!(list(7, 1), ["b"]);
    assert_eq!(list(6, 0), [""; 0]);
}

/// Scans must see exactly what point reads see, in both directions, for any content of the families.
#[test]
fn scans_agree_with_point_reads() {
    let names = ["", "a", "a\0", "aaaaaaaa", "aaaaaaaab", "b", "ba", "c"];
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut store = MapStore::default();
        let mut ts = 10;
        for _ in 0..80 {
            ts += 1 + rng.below(3);
            let key = *rng.pick(&names).unwrap();
            let op = match rng.below(4) {
                0 => MutationOp::Delete,
                1 => MutationOp::Lock,
                2 => put(&"v".repeat(rng.below(400) as usize)),
                _ => put(&ts.to_string()),
            };
            let primary = *rng.pick(&names).unwrap();
            if store.prewrite(&prewrite(&[(key, op)], primary, ts)).is_err() {
                continue;
            }
            match rng.below(8) {
                0 => store.rollback(&[key], ts).unwrap(),
                1 => continue,
                _ => drop(store.commit(&[key], ts, ts + 1).unwrap()),
            }
            ts += 1;
        }
        for _ in 0..30 {
            let mut bounds = [*rng.pick(&names).unwrap(), *rng.pick(&names).unwrap()];
            bounds.sort_unstable();
            let [lower, upper] = bounds;
            let isolation = if rng.chance(1, 4) { Isolation::ReadCommitted } else { Isolation::Snapshot };
            let at = if rng.chance(1, 8) { TimeStamp::MAX } else { TimeStamp(rng.range(5..ts + 5)) };
            let options = ReadOptions { isolation, ..ReadOptions::at(at) };
            let limit = 1 + rng.below(9) as usize;
            let reverse = rng.chance(1, 2);
            let inside: BTreeSet<&str> =
                names.iter().copied().filter(|key| *key >= lower && (upper.is_empty() || *key < upper)).collect();
            let mut keys: Vec<Bytes> = inside.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
            if reverse {
                keys.reverse();
            }
            let mut expected = ready(read::batch_get(&store, &keys, &options, &mut NoYield)).unwrap();
            expected.truncate(limit);
            let range = user_range(&Range::all(), lower.as_bytes(), upper.as_bytes());
            let found =
                ready(scan(&store, &Scan { range, limit, key_only: false, reverse }, &options, &mut NoYield)).unwrap();
            assert_eq!(found, expected, "seed {seed}, {lower:?}..{upper:?} at {at} reverse {reverse}");
        }
    }
}
