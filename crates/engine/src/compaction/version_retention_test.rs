use super::*;
use crate::types::SEQUENCE_NUMBER_MAX;
use crate::version::RangeTombstone;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn range(start: &str, end: &str, sequence: u64) -> RangeTombstone {
    let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
    RangeTombstone { start: key(start), end: key(end), sequence }
}

fn decide(retention: &mut VersionRetention<'_>, key: &str, sequence: u64, kind: Kind, is_bottom: bool) -> Decision {
    let stored = if kind.expires() { 1000u64.to_le_bytes().to_vec() } else { Vec::new() };
    retention.decide(KeyRef::new(key.as_bytes(), sequence), kind, &stored, || is_bottom).expect("well-formed")
}

#[test]
fn the_newest_version_stays_and_hides_the_others() {
    let ranges = RangeTombstones::default();
    let mut retention = VersionRetention::new(&ranges, 0, SEQUENCE_NUMBER_MAX);
    assert_eq!(decide(&mut retention, "k", 25, Kind::Put, true), Decision::Keep);
    assert_eq!(decide(&mut retention, "k", 20, Kind::Delete, true), Decision::Hidden);
    assert_eq!(decide(&mut retention, "k", 3, Kind::Put, true), Decision::Hidden);
    assert_eq!(decide(&mut retention, "l", 2, Kind::Put, true), Decision::Keep);
}

#[test]
fn a_tombstone_is_dropped_at_the_bottom_unless_a_transaction_may_read_it() {
    let ranges = RangeTombstones::default();
    let mut retention = VersionRetention::new(&ranges, 0, 10);
    assert_eq!(decide(&mut retention, "a", 10, Kind::Delete, true), Decision::SpentTombstone);
    assert_eq!(decide(&mut retention, "b", 10, Kind::Delete, false), Decision::Keep);
    assert_eq!(decide(&mut retention, "c", 11, Kind::Delete, true), Decision::Keep);
}

#[test]
fn an_expired_version_dies_like_a_delete() {
    let ranges = RangeTombstones::default();
    let mut early = VersionRetention::new(&ranges, 999, 10);
    assert_eq!(decide(&mut early, "a", 5, Kind::PutExpiring, true), Decision::Keep);
    let mut retention = VersionRetention::new(&ranges, 1000, 10);
    assert_eq!(decide(&mut retention, "a", 5, Kind::PutExpiring, true), Decision::Expired);
    assert_eq!(decide(&mut retention, "b", 5, Kind::PutExpiring, false), Decision::KeepAsDelete);
    assert_eq!(decide(&mut retention, "c", 11, Kind::PutExpiring, true), Decision::KeepAsDelete);
    assert_eq!(decide(&mut retention, "c", 4, Kind::Put, true), Decision::Hidden);
}

#[test]
fn what_a_range_tombstone_hides_goes_at_any_level() {
    let ranges = RangeTombstones::new(vec![range("c", "f", 10)]);
    let mut retention = VersionRetention::new(&ranges, 0, SEQUENCE_NUMBER_MAX);
    assert_eq!(decide(&mut retention, "b", 9, Kind::Put, false), Decision::Keep);
    assert_eq!(decide(&mut retention, "c", 9, Kind::Put, false), Decision::Covered);
    assert_eq!(decide(&mut retention, "d", 10, Kind::Put, false), Decision::Keep);
    assert_eq!(decide(&mut retention, "d", 9, Kind::Put, false), Decision::Hidden);
    assert_eq!(decide(&mut retention, "e", 2, Kind::Delete, false), Decision::Covered);
    assert_eq!(decide(&mut retention, "f", 2, Kind::Put, false), Decision::Keep);
}

#[test]
fn malformed_stored_bytes_are_an_error() {
    let ranges = RangeTombstones::default();
    let mut retention = VersionRetention::new(&ranges, 0, 0);
    assert!(retention.decide(KeyRef::new(b"k", 1), Kind::PutExpiring, &[1, 2], || true).is_err());
}

proptest! {
    /// Whatever is dropped from an upper part of a history, a reader of the present sees the same as before.
    #[test]
    fn no_reader_sees_a_difference(
        versions in prop::collection::btree_map((0u8..4, 1u64..40), 0u8..3, 0..40),
        lower in prop::collection::btree_set(0u8..4, 0..3),
        tombstones in prop::collection::vec((0u8..4, 1u8..3, 1u64..45), 0..3),
        oldest_reader in 0u64..50,
    ) {
        let key = |key: u8| Bytes::copy_from_slice(&[key]);
        let ranges = tombstones.iter().map(|&(start, length, sequence)| {
            RangeTombstone { start: key(start), end: key(start + length), sequence }
        });
        let ranges = RangeTombstones::new(ranges.collect());
        let kinds = [Kind::Delete, Kind::Put, Kind::PutExpiring];
        let mut retention = VersionRetention::new(&ranges, 5000, oldest_reader);
        let mut kept = BTreeMap::new();
        for user_key in 0u8..4 {
            for (&(_, sequence), &kind) in versions.range((user_key, 0)..(user_key + 1, 0)).rev() {
                let kind = kinds[usize::from(kind)];
                let stored = 1000u64.to_le_bytes();
                let stored = if kind.expires() { &stored[..] } else { &[] };
                let key = [user_key];
                let decision = retention.decide(KeyRef::new(&key, sequence), kind, stored, || !lower.contains(&user_key))?;
                match decision {
                    Decision::Keep => drop(kept.insert((user_key, sequence), kind)),
                    Decision::KeepAsDelete => drop(kept.insert((user_key, sequence), Kind::Delete)),
                    _ => {}
                }
            }
        }
        // What a reader finds: the newest of the versions and of the older one at sequence 0 in a deeper level.
        let read = |newest: Option<(u64, Kind)>, user_key: u8| {
            let below = lower.contains(&user_key).then_some((0, Kind::Put));
            let (sequence, kind) = newest.or(below)?;
            let covered = ranges.covering(&[user_key]).is_some_and(|covering| sequence < covering);
            (kind == Kind::Put && !covered).then_some(sequence)
        };
        for user_key in 0u8..4 {
            let all = versions.range((user_key, 0)..(user_key + 1, 0)).next_back();
            let all = all.map(|(&(_, sequence), &kind)| (sequence, kinds[usize::from(kind)]));
            let left: Vec<_> = kept.range((user_key, 0)..(user_key + 1, 0)).map(|(&(_, sequence), &kind)| (sequence, kind)).collect();
            prop_assert!(left.len() <= 1, "one version of a key stays");
            prop_assert_eq!(read(all, user_key), read(left.last().copied(), user_key));
            if let Some((sequence, Kind::Delete)) = left.last() {
                prop_assert!(lower.contains(&user_key) || *sequence > oldest_reader, "it still has a purpose");
            }
            if let Some((sequence, Kind::Delete)) = all && sequence > oldest_reader && ranges.covering(&[user_key]).is_none() {
                prop_assert_eq!(left.last(), Some(&(sequence, Kind::Delete)), "a transaction may need it");
            }
        }
    }
}
