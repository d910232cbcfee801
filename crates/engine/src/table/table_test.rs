use super::*;
use crate::cache::BlockCache;
use crate::iterator::{Cursor, Found, KeyRef, SEQUENCE_NUMBER_MAX};
use crate::kind::Kind;
use crate::{Direction, Error};
use kontiki_env::SimMachine;
use kontiki_env::fs::read_all;
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

const DIR: &str = "/tables";

type Versions = BTreeMap<(Vec<u8>, std::cmp::Reverse<u64>), Option<Vec<u8>>>;

fn found_of(sequence: u64, value: &Option<Vec<u8>>) -> Found {
    let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
    Found { sequence, kind, stored: value.clone().unwrap_or_default().into() }
}

fn machine() -> SimMachine {
    let machine = SimMachine::from_seed(1);
    machine.env().fs.create_dir_all(Path::new(DIR)).expect("a healthy disk");
    machine
}

fn write(machine: &SimMachine, versions: &Versions, options: TableOptions) -> FinishedTable {
    let env = machine.env();
    let mut writer = TableWriter::create(&env, Path::new(DIR), 7, Family(3), options).expect("a healthy disk");
    for ((key, sequence), value) in versions {
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        writer.add(KeyRef::new(key, sequence.0), kind, value.as_deref().unwrap_or_default()).expect("a healthy disk");
    }
    writer.finish().expect("a healthy disk")
}

fn read(machine: &SimMachine, table: &FinishedTable, cache_bytes: u64) -> Arc<TableReader> {
    let cache = Arc::new(BlockCache::new(cache_bytes));
    Arc::new(TableReader::open(&machine.env(), Path::new(DIR), table.meta(), cache).expect("whole"))
}

fn options(block_bytes: usize, restart_interval: usize, bits: usize, compression: Compression) -> TableOptions {
    TableOptions { block_bytes, restart_interval, filter_bits_per_key: bits, compression }
}

/// Keys that are prefixes of each other, and some with more versions than fit into a block.
fn sample() -> Versions {
    let mut rng = Rng::new(9);
    let mut versions = Versions::new();
    for i in 0..60u64 {
        let mut key = vec![b'a'; (i % 5) as usize];
        key.extend_from_slice(&i.to_be_bytes()[7 - (i % 2) as usize..]);
        let count = if i % 10 == 3 { 30 } else { rng.range(1..4) };
        for _ in 0..count {
            let value = rng.chance(3, 4).then(|| vec![i as u8; rng.below(30) as usize]);
            versions.insert((key.clone(), std::cmp::Reverse(rng.range(1..100))), value);
        }
    }
    versions.insert((Vec::new(), std::cmp::Reverse(5)), Some(b"the empty key".to_vec()));
    versions
}

#[test]
fn every_seek_and_lookup_agrees_with_a_map() {
    let versions = sample();
    let entries: Vec<_> = versions.iter().collect();
    let mut targets: Vec<(Vec<u8>, u64)> = vec![(vec![0xff; 9], 1)];
    for (key, sequence) in versions.keys() {
        let longer = [key.as_slice(), &[0]].concat();
        targets.extend([0, sequence.0, sequence.0 + 1, SEQUENCE_NUMBER_MAX].map(|sequence| (key.clone(), sequence)));
        targets.push((longer, SEQUENCE_NUMBER_MAX));
    }
    for (shape, cache_bytes) in [
        (options(1, 1, 10, Compression::None), 0),
        (options(50, 3, 10, Compression::Lz4), 500),
        (options(300, 16, 0, Compression::Lz4), 1 << 20),
        (TableOptions::default(), 1 << 24),
    ] {
        let machine = machine();
        let table = write(&machine, &versions, shape);
        assert_eq!(table.meta().entries, versions.len() as u64);
        let reader = read(&machine, &table, cache_bytes);
        for (key, sequence) in &targets {
            let target = KeyRef::new(key, *sequence);
            let forward = entries.iter().find(|((key, at), _)| KeyRef::new(key, at.0) >= target);
            let backward = entries.iter().rev().find(|((key, at), _)| KeyRef::new(key, at.0) <= target);
            for (direction, expected) in [(Direction::Forward, forward), (Direction::Backward, backward)] {
                let mut cursor = TableCursor::new(reader.clone(), direction);
                cursor.seek(target).expect("whole");
                let found = cursor.valid().then(|| (cursor.key(), cursor.kind().is_delete(), cursor.stored()));
                let expected = expected.map(|((key, at), value)| {
                    (
                        KeyRef::new(key, at.0),
                        value.is_none(),
                        Bytes::copy_from_slice(value.as_deref().unwrap_or_default()),
                    )
                });
                assert_eq!(found, expected, "{direction:?} from {target:?}");
            }
            let expected = forward.filter(|((found, _), _)| found == key).map(|((_, at), value)| found_of(at.0, value));
            assert_eq!(reader.get(key, *sequence).expect("whole"), expected, "{target:?}");
        }
    }
}

#[test]
fn walks_in_both_directions_meet_every_version() {
    let machine = machine();
    let versions = sample();
    let table = write(&machine, &versions, options(60, 4, 10, Compression::Lz4));
    let reader = read(&machine, &table, 0);
    let walk = |direction| {
        let mut cursor = TableCursor::new(reader.clone(), direction);
        cursor.seek_to_first().expect("whole");
        let mut met = Vec::new();
        while cursor.valid() {
            met.push((cursor.key().user_key.to_vec(), std::cmp::Reverse(cursor.key().sequence)));
            cursor.advance().expect("whole");
        }
        met
    };
    let expected: Vec<_> = versions.keys().cloned().collect();
    assert_eq!(walk(Direction::Forward), expected);
    let mut backward = walk(Direction::Backward);
    backward.reverse();
    assert_eq!(backward, expected);
}

#[test]
fn the_largest_keys_and_large_values_fit() {
    let machine = machine();
    let mut versions = Versions::new();
    for i in 0..4u8 {
        let mut key = vec![7; crate::KEY_BYTES_MAX];
        *key.last_mut().expect("not empty") = i;
        versions.insert((key, std::cmp::Reverse(1)), Some(vec![i; 1 << 20]));
    }
    let table = write(&machine, &versions, TableOptions::default());
    let reader = read(&machine, &table, 1 << 20);
    for ((key, _), value) in &versions {
        let found = reader.get(key, 9).expect("whole").expect("there");
        assert_eq!(found, found_of(found.sequence, value));
    }
    assert_eq!(reader.get(&[7; 100], 9).expect("whole"), None);
}

#[test]
fn a_cached_block_is_not_read_again_and_values_share_it() {
    let machine = machine();
    let versions = sample();
    let table = write(&machine, &versions, TableOptions::default());
    let cache = Arc::new(BlockCache::new(1 << 20));
    let reader = TableReader::open(&machine.env(), Path::new(DIR), table.meta(), cache.clone()).expect("whole");
    let first = reader.get(b"", 9).expect("whole").expect("there").stored;
    machine.fs.fail_next(kontiki_env::fs::Op::Read, u64::MAX, |_| true);
    let second = reader.get(b"", 9).expect("from the cache").expect("there").stored;
    assert_eq!(first.as_ptr(), second.as_ptr(), "both are slices of the cached block");
    assert_eq!((cache.hits(), cache.misses()), (1, 1));
    assert!(cache.used_bytes() > 0);
}

#[test]
fn an_abandoned_table_leaves_nothing_and_an_unfinished_one_a_temporary_name() {
    let machine = machine();
    let env = machine.env();
    let create = || TableWriter::create(&env, Path::new(DIR), 7, Family(3), TableOptions::default());
    let writer = create().expect("a healthy disk");
    assert_eq!(env.fs.list(Path::new(DIR)).expect("listed"), ["000007.sst.tmp"]);
    assert!(matches!(create(), Err(Error::Io { kind: std::io::ErrorKind::AlreadyExists, .. })));
    writer.abandon();
    assert!(env.fs.list(Path::new(DIR)).expect("listed").is_empty());
}

/// The bytes of an uncompressed table are frozen.
#[test]
fn format_version_1_stays_readable() {
    let versions: Versions = (0..40u32)
        .map(|i| {
            let value = (i % 7 != 0).then(|| format!("value of {i}, value of {i}").into_bytes());
            ((format!("key{:03}", i / 2).into_bytes(), std::cmp::Reverse(u64::from(i % 2) + 1)), value)
        })
        .collect();
    let machine = machine();
    write(&machine, &versions, options(256, 4, 10, Compression::None));
    let path = table_path(Path::new(DIR), 7);
    let bytes = read_all(&*machine.env().fs, &path).expect("readable");
    assert_eq!((bytes.len(), kontiki_env::codec::checksum32(&[&bytes])), FROZEN);
}

const FROZEN: (usize, u32) = (1434, 705_884_142);
