use super::*;
use crate::read::{MvccReader, TxnRecord};
use crate::testing::{MapStore, prewrite, put};
use crate::{MutationOp, write_key};
use kontiki_env::rng::Rng;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn whole(safe_point: u64) -> SafePoints {
    SafePoints::new([(Range::all(), TimeStamp(safe_point))])
}

/// The entries of a family that a pass over those for which `sees` holds calls dead.
fn dead(store: &MapStore, pass: GcPass<MapStore>, mut sees: impl FnMut() -> bool) -> Vec<Bytes> {
    let mut pass = pass;
    let entries = store.family(pass.family).into_iter().filter(|_| sees());
    entries.filter(|(key, value)| pass.is_dead(key, Some(value)).unwrap()).map(|(key, _)| key).collect()
}

fn drop_dead(store: &mut MapStore, family: Family, safe_point: u64, sees: impl FnMut() -> bool) -> usize {
    let keys = dead(store, GcPass::over_some(family, whole(safe_point), store.clone()), sees);
    keys.iter().for_each(|key| store.remove_raw(family, key));
    keys.len()
}

/// What is left when everything that may ever be dropped is.
fn live(store: &MapStore, safe_point: u64) -> Vec<(Family, Bytes, Bytes)> {
    let mut live = Vec::new();
    for family in [TXN_WRITE, TXN_DEFAULT] {
        let dead = dead(store, GcPass::over_all(family, whole(safe_point), store.clone()), || true);
        let left = store.family(family).into_iter().filter(|(key, _)| !dead.contains(key));
        live.extend(left.map(|(key, value)| (family, key, value)));
    }
    live
}

fn timestamps(store: &MapStore, family: Family) -> Vec<u64> {
    store.family(family).iter().map(|(key, _)| split_versioned(key).unwrap().1.0).collect()
}

#[test]
fn of_a_key_the_newest_version_at_the_safe_point_stays() {
    let mut store = MapStore::default();
    store.committed("k", "one", 10, 11);
    store.committed("k", "two", 20, 21);
    store.committed("k", "three", 30, 31);
    assert_eq!(drop_dead(&mut store, TXN_WRITE, 25, || true), 1);
    assert_eq!(timestamps(&store, TXN_WRITE), [31, 21]);
    for (ts, seen) in [(25, "two"), (30, "two"), (31, "three")] {
        assert_eq!(store.get_at("k", ts).unwrap().as_deref(), Some(seen));
    }
    assert_eq!(drop_dead(&mut store, TXN_WRITE, 31, || true), 1);
    assert_eq!(timestamps(&store, TXN_WRITE), [31], "a put that is seen at the safe point");
}

#[test]
fn a_delete_stays_as_long_as_it_hides_something() {
    let mut store = MapStore::default();
    store.committed("k", "one", 10, 11);
    store.prewrite(&prewrite(&[("k", MutationOp::Delete)], "k", 20)).unwrap();
    store.commit(&["k"], 20, 21).unwrap();
    let marker = write_key(b"k", TimeStamp(21));
    let value = View::get(&store, TXN_WRITE, &marker).unwrap().unwrap();
    let mut pass = GcPass::over_some(TXN_WRITE, whole(30), store.clone());
    assert!(!pass.is_dead(&marker, Some(&value)).unwrap(), "the value below it is still stored");
    assert_eq!(drop_dead(&mut store, TXN_WRITE, 30, || true), 1);
    assert_eq!(drop_dead(&mut store, TXN_WRITE, 30, || true), 1);
    assert_eq!(store.family(TXN_WRITE), []);
}

#[test]
fn records_of_rollbacks_and_locks_go_when_their_transactions_cannot_prewrite_any_more() {
    let mut store = MapStore::default();
    store.committed("k", "one", 5, 6);
    store.rollback(&["k"], 10).unwrap();
    store.prewrite(&prewrite(&[("k", MutationOp::Lock)], "k", 11)).unwrap();
    store.commit(&["k"], 11, 12).unwrap();
    assert_eq!(drop_dead(&mut store, TXN_WRITE, 10, || true), 0, "a transaction at the safe point may prewrite");
    assert_eq!(drop_dead(&mut store, TXN_WRITE, 12, || true), 1);
    assert_eq!(drop_dead(&mut store, TXN_WRITE, 13, || true), 1);
    assert_eq!(store.get_at("k", 13).unwrap().as_deref(), Some("one"));
}

#[test]
fn a_long_value_goes_with_its_record_and_not_before() {
    let long = "x".repeat(1_000);
    let mut store = MapStore::default();
    store.committed("k", &long, 10, 11);
    store.committed("k", &long, 20, 21);
    store.prewrite(&prewrite(&[("k", put(&long))], "k", 30)).unwrap();
    assert_eq!(drop_dead(&mut store, TXN_DEFAULT, 40, || true), 1, "dead before its record is gone");
    assert_eq!(timestamps(&store, TXN_DEFAULT), [30, 20], "the lock's, and what is seen at the safe point");
    store.rollback(&["k"], 30).unwrap();
    assert_eq!(timestamps(&store, TXN_DEFAULT), [20]);
    store.put_raw(TXN_DEFAULT, crate::default_key(b"k", TimeStamp(35)), b"left by an earlier version");
    assert_eq!(drop_dead(&mut store, TXN_DEFAULT, 35, || true), 0);
    assert_eq!(drop_dead(&mut store, TXN_DEFAULT, 36, || true), 1);
}

#[test]
fn only_ranges_with_a_safe_point_are_collected() {
    let mut store = MapStore::default();
    for key in ["a", "m", "z"] {
        store.committed(key, "one", 10, 11);
        store.committed(key, "two", 20, 21);
    }
    let at = |key: &str| Some(Bytes::from(crate::lock_key(key.as_bytes())));
    let range = |start: &str, end: &str| Range { start: at(start), end: at(end) };
    let points = SafePoints::new([(range("m", "n"), TimeStamp(30)), (range("z", "zz"), TimeStamp::ZERO)]);
    let found = dead(&store, GcPass::over_some(TXN_WRITE, points, store.clone()), || true);
    assert_eq!(found, [Bytes::from(write_key(b"m", TimeStamp(11)))]);
}

/// A random history of transactions one after the other, some of which stay prewritten.
fn history(rng: &mut Rng) -> MapStore {
    let mut store = MapStore::default();
    let long = "x".repeat(300);
    for round in 1..40u64 {
        let (start_ts, key) = (round * 10, KEYS[rng.below(5) as usize]);
        let op = match rng.below(6) {
            0 => MutationOp::Delete,
            1 => MutationOp::Lock,
            2 => put(&long),
            _ => put(&format!("v{round}")),
        };
        if store.prewrite(&prewrite(&[(key, op)], key, start_ts)).is_err() {
            continue;
        }
        match rng.below(8) {
            0 => store.rollback(&[key], start_ts).unwrap(),
            1 => {}
            _ => drop(store.commit(&[key], start_ts, start_ts + 1 + rng.below(9)).unwrap()),
        }
        if rng.chance(1, 6) {
            // A transaction that came to nothing, at a time that may be that of a commit.
            store.rollback(&[key], start_ts + 1 + rng.below(9)).unwrap();
        }
    }
    store
}

#[test]
fn reads_at_and_above_the_safe_point_never_change_and_replicas_agree_on_what_is_live() {
    let mut dropped = 0;
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let before = history(&mut rng);
        let (mut store, safe_point) = (before.clone(), 50 + rng.below(350));
        let expected = live(&before, safe_point);
        for _ in 0..6 {
            // As compactions do it: some of the entries, of either family, in any order.
            let share = 1 + rng.below(4);
            let family = if rng.chance(1, 2) { TXN_WRITE } else { TXN_DEFAULT };
            dropped += drop_dead(&mut store, family, safe_point, || rng.chance(share, 4));
            assert_eq!(live(&store, safe_point), expected, "seed {seed}: what is left depends on what is gone");
            for key in KEYS {
                for ts in (safe_point..410).step_by(3).chain([u64::MAX]) {
                    let (was, is) = (before.get_at(key, ts), store.get_at(key, ts));
                    assert_eq!(was, is, "seed {seed}: {key} at {ts}, safe point {safe_point}");
                }
                for start_ts in (safe_point..410).step_by(3) {
                    let record = |store: &MapStore| -> TxnRecord {
                        MvccReader::new(store).record_of(key.as_bytes(), TimeStamp(start_ts)).unwrap()
                    };
                    let same = record(&before) == record(&store);
                    assert!(same, "seed {seed}: the outcome of {start_ts} on {key}, safe point {safe_point}");
                }
            }
        }
    }
    assert!(dropped > 600, "the test did little: {dropped}");
}

#[test]
fn the_planted_bug_is_found() {
    planted::set(Some(Bug::DropNeededVersion));
    let found = std::panic::catch_unwind(of_a_key_the_newest_version_at_the_safe_point_stays).is_err();
    planted::set(None);
    assert!(found);
}
