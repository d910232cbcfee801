use super::*;
use crate::table::BlockCache;
use crate::types::{Compression, Cursor, Found, KeyRef, Kind, SEQUENCE_NUMBER_MAX, TableOptions};
use crate::{Direction, Error};
use kontiki_env::SimMachine;
use kontiki_env::fs::{OpenMode, read_all};
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

fn options(block_bytes: usize, bits: usize, compression: Compression) -> TableOptions {
    TableOptions { block_bytes, filter_bits_per_key: bits, compression, ..TableOptions::default() }
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
        (options(1, 10, Compression::None), 0),
        (options(90, 10, Compression::Lz4), 500),
        (options(300, 0, Compression::Lz4), 1 << 20),
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
    let table = write(&machine, &versions, options(60, 10, Compression::Lz4));
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
    assert_eq!((cache.hits(), cache.misses()), (2, 2), "a partition of the index and a data block");
    assert!(cache.used_bytes() > 0);
}

/// Predecessor defect 2: a search returned the oldest version of a key.
#[test]
fn a_lookup_returns_the_newest_version_at_or_below_its_sequence_number() {
    let versions: Versions = (1..=500u64)
        .map(|sequence| ((b"key".to_vec(), std::cmp::Reverse(sequence)), Some(vec![sequence as u8])))
        .collect();
    for block_bytes in [1, 200, 4096] {
        let machine = machine();
        let table = write(&machine, &versions, options(block_bytes, 10, Compression::None));
        let reader = read(&machine, &table, 1 << 20);
        for sequence in 1..=500 {
            assert_eq!(
                reader.get(b"key", sequence).expect("whole"),
                Some(found_of(sequence, &Some(vec![sequence as u8])))
            );
        }
        assert_eq!(reader.get(b"key", SEQUENCE_NUMBER_MAX).expect("whole").map(|found| found.sequence), Some(500));
        assert_eq!(reader.get(b"key", 0).expect("whole"), None);
    }
}

/// A machine whose table 7 has `bytes`.
fn machine_with(bytes: &[u8]) -> SimMachine {
    let machine = machine();
    let file = machine.env().fs.open(&table_path(Path::new(DIR), 7), OpenMode::CreateNew).expect("a healthy disk");
    file.write_at(bytes, 0).expect("a healthy disk");
    machine
}

/// Reads everything, in every way: what a table gives, or the first error.
fn read_all_ways(machine: &SimMachine, meta: &TableMeta, keys: &Versions) -> crate::Result<Versions> {
    let cache = Arc::new(BlockCache::new(1 << 20));
    let reader = Arc::new(TableReader::open(&machine.env(), Path::new(DIR), meta, cache)?);
    let mut met = Versions::new();
    for direction in [Direction::Forward, Direction::Backward] {
        let mut cursor = TableCursor::new(reader.clone(), direction);
        cursor.seek_to_first()?;
        while cursor.valid() {
            let value = (!cursor.kind().is_delete()).then(|| cursor.stored().to_vec());
            met.insert((cursor.key().user_key.to_vec(), std::cmp::Reverse(cursor.key().sequence)), value);
            cursor.advance()?;
        }
    }
    for ((key, sequence), value) in keys {
        assert_eq!(reader.get(key, sequence.0)?, Some(found_of(sequence.0, value)), "a wrong answer");
    }
    Ok(met)
}

#[test]
fn a_flipped_bit_anywhere_is_an_error_that_names_the_file() {
    let versions: Versions = sample().into_iter().take(40).collect();
    for compression in [Compression::None, Compression::Lz4] {
        let whole = machine();
        let table = write(&whole, &versions, options(300, 10, compression));
        let path = table_path(Path::new(DIR), 7);
        let bytes = read_all(&*whole.env().fs, &path).expect("readable");
        assert_eq!(read_all_ways(&whole, table.meta(), &versions).expect("whole"), versions);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match read_all_ways(&machine_with(&bad), table.meta(), &versions) {
                Err(Error::Corruption { file, .. } | Error::UnsupportedFormat { file, .. }) => assert_eq!(file, path),
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }
}

/// Content that no writer makes, behind checksums that match.
#[test]
fn keys_out_of_order_are_corruption_and_not_a_wrong_answer() {
    let versions: Versions = (0..60u32)
        .map(|i| ((format!("key{i:03}").into_bytes(), std::cmp::Reverse(1)), Some(format!("value{i:03}").into_bytes())))
        .collect();
    let whole = machine();
    let table = write(&whole, &versions, options(200, 0, Compression::None));
    let bytes = read_all(&*whole.env().fs, &table_path(Path::new(DIR), 7)).expect("readable");
    let reader = read(&whole, &table, 1 << 20);
    let partition = reader.partition(0).expect("whole");
    let handles: Vec<_> =
        (0..partition.len()).map(|at| super::index::handle_of(&partition, at).expect("whole")).collect();
    assert!(handles.len() > 3 && handles[1].length == handles[2].length, "{handles:?}");
    let block = |at: usize| &bytes[handles[at].offset as usize..][..handles[at].length as usize];
    let replaced = |at: usize, payload: &[u8]| {
        let mut stored = Vec::new();
        format::encode_block(payload, handles[at].offset, Compression::None, &mut stored);
        let mut bytes = bytes.clone();
        bytes[handles[at].offset as usize..][..stored.len()].copy_from_slice(&stored);
        bytes
    };
    // Another block of the same length in its place: in order itself, but not where it stands.
    for bad in [replaced(1, block(2)), replaced(2, block(1))] {
        let error = read_all_ways(&machine_with(&bad), table.meta(), &versions).expect_err("refused");
        assert!(
            matches!(&error, Error::Corruption { what, .. } if what.contains("outside of what the index says")),
            "{error}"
        );
    }
    // Every byte of a block changed to every neighbouring value: an error, or what the block then says in order.
    let (payload, mut refused) = (block(1).to_vec(), 0);
    for at in 0..payload.len() {
        for change in [1, 2, 0x80, 0xff] {
            let mut bad = payload.clone();
            bad[at] = bad[at].wrapping_add(change);
            let machine = machine_with(&replaced(1, &bad));
            match read_all_ways(&machine, table.meta(), &Versions::new()) {
                Ok(met) => assert_eq!(met.len(), versions.len(), "as many versions, each once"),
                Err(Error::Corruption { offset, .. }) => {
                    assert_eq!(offset, handles[1].offset);
                    refused += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(refused > payload.len(), "{refused} of {} changes were refused", payload.len() * 4);
}

/// Counts reads from now on.
pub(crate) fn count_reads(machine: &SimMachine) -> impl Fn() -> u64 + use<> {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    machine.fs.fail_next(kontiki_env::fs::Op::Read, u64::MAX, move |_| {
        counter.fetch_add(1, Relaxed);
        false
    });
    move || count.load(Relaxed)
}

#[test]
fn a_get_that_is_not_cached_is_one_read_and_a_walk_reads_ahead() {
    let machine = machine();
    let versions: Versions =
        (0..4000u32).map(|i| ((i.to_be_bytes().to_vec(), std::cmp::Reverse(1)), Some(vec![i as u8; 100]))).collect();
    let table = write(&machine, &versions, options(1000, 10, Compression::None));
    let reader = read(&machine, &table, 100_000);
    let reads = count_reads(&machine);
    // From here on both partitions of the index are in memory.
    for i in [0u32, 3999] {
        reader.get(&i.to_be_bytes(), 1).expect("whole").expect("there");
    }
    for i in [1000u32, 2000, 50, 3999, 0] {
        let before = reads();
        reader.get(&i.to_be_bytes(), 1).expect("whole").expect("there");
        assert!(reads() - before <= 1, "key {i}");
    }
    for (direction, most) in [(Direction::Forward, 12), (Direction::Backward, 12)] {
        let before = reads();
        let mut cursor = TableCursor::new(read(&machine, &table, 0), direction);
        cursor.seek_to_first().expect("whole");
        while cursor.valid() {
            cursor.advance().expect("whole");
        }
        let count = reads() - before;
        assert!(count <= 5 + most, "{count} reads for {} blocks", reader.block_count());
    }
}

#[test]
fn a_scan_of_a_prefix_that_is_not_there_passes_by() {
    let versions: Versions = (0..1000u32)
        .map(|i| ((format!("{:04}/{i}", i / 10 * 2).into_bytes(), std::cmp::Reverse(1)), Some(Vec::new())))
        .collect();
    for (filter_prefix_bytes, absent_max) in [(5, 10), (0, 100)] {
        let machine = machine();
        let options = TableOptions { filter_prefix_bytes, ..TableOptions::default() };
        let table = write(&machine, &versions, options);
        let reader = read(&machine, &table, 1 << 20);
        for (key, _) in versions.keys() {
            assert!(reader.may_contain(key));
            assert!((0..key.len()).all(|length| reader.may_contain_prefix(&key[..length])));
        }
        let passed = (0..100u32).filter(|i| reader.may_contain_prefix(format!("{:04}/", i * 2 + 1).as_bytes())).count();
        assert!(passed <= absent_max && (filter_prefix_bytes > 0 || passed == 100), "{passed} pass");
    }
}

/// A table built outside, whose versions count as written at a number given later.
#[test]
fn a_global_sequence_number_counts_for_all_versions() {
    let machine = machine();
    let versions: Versions = (0..50u32)
        .map(|i| ((vec![i as u8], std::cmp::Reverse(INGESTED_SEQUENCE)), (i % 5 > 0).then(|| vec![i as u8])))
        .collect();
    let table = write(&machine, &versions, options(60, 10, Compression::None));
    let mut meta = table.meta().clone();
    (meta.smallest_sequence, meta.largest_sequence, meta.global_sequence) = (70, 70, Some(70));
    assert!(meta.is_plausible());
    let open = |meta: &TableMeta| {
        TableReader::open(&machine.env(), Path::new(DIR), meta, Arc::new(BlockCache::new(1 << 20))).map(Arc::new)
    };
    let reader = open(&meta).expect("whole");
    for ((key, _), value) in &versions {
        assert_eq!(reader.get(key, 69).expect("whole"), None, "not written yet");
        for sequence in [70, 71, SEQUENCE_NUMBER_MAX] {
            assert_eq!(reader.get(key, sequence).expect("whole"), Some(found_of(70, value)));
        }
        for (direction, sequence, expected) in [
            (Direction::Forward, 71, Some(key[0])),
            (Direction::Forward, 70, Some(key[0])),
            (Direction::Forward, 69, key[0].checked_add(1).filter(|next| *next < 50)),
            (Direction::Backward, 69, Some(key[0])),
            (Direction::Backward, 70, Some(key[0])),
            (Direction::Backward, 71, key[0].checked_sub(1)),
        ] {
            let mut cursor = TableCursor::new(reader.clone(), direction);
            cursor.seek(KeyRef::new(key, sequence)).expect("whole");
            let found = cursor.valid().then(|| (cursor.key().user_key[0], cursor.key().sequence));
            assert_eq!(found, expected.map(|key| (key, 70)), "{direction:?} from {key:?} at {sequence}");
        }
    }
    // A table of the database itself cannot pass for one.
    let own: Versions = [((b"a".to_vec(), std::cmp::Reverse(3)), None)].into();
    let machine = self::machine();
    let mut meta = write(&machine, &own, TableOptions::default()).meta().clone();
    (meta.smallest_sequence, meta.largest_sequence, meta.global_sequence) = (70, 70, Some(70));
    let opened = TableReader::open(&machine.env(), Path::new(DIR), &meta, Arc::new(BlockCache::new(0)));
    assert!(matches!(opened.err(), Some(Error::Corruption { .. })));
}

#[test]
fn many_keys_at_once_are_each_found_as_alone() {
    let machine = machine();
    let versions = sample();
    for shape in [options(1, 10, Compression::None), options(120, 10, Compression::Lz4), TableOptions::default()] {
        let table = write(&machine, &versions, shape);
        let reader = read(&machine, &table, 1 << 20);
        let mut keys: Vec<Vec<u8>> = versions.keys().map(|(key, _)| key.clone()).collect();
        keys.extend((0..50u8).map(|i| vec![b'a', i, 3]));
        keys.extend([vec![0xff; 5], Vec::new()]);
        keys.sort();
        for sequence in [0, 1, 50, SEQUENCE_NUMBER_MAX] {
            let wanted: Vec<LookupKey<'_>> =
                keys.iter().map(|user_key| LookupKey { user_key, hash: filter_hash(user_key) }).collect();
            let found = reader.get_many(&wanted, sequence).expect("whole");
            let alone: Vec<_> = keys.iter().map(|key| reader.get(key, sequence).expect("whole")).collect();
            assert_eq!(found, alone);
        }
        machine.env().fs.remove(&table_path(Path::new(DIR), 7)).expect("a healthy disk");
    }
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
fn the_format_does_not_change_unnoticed() {
    let versions: Versions = (0..40u32)
        .map(|i| {
            let value = (i % 7 != 0).then(|| format!("value of {i}, value of {i}").into_bytes());
            ((format!("key{:03}", i / 2).into_bytes(), std::cmp::Reverse(u64::from(i % 2) + 1)), value)
        })
        .collect();
    let machine = machine();
    write(&machine, &versions, options(256, 10, Compression::None));
    let path = table_path(Path::new(DIR), 7);
    let bytes = read_all(&*machine.env().fs, &path).expect("readable");
    assert_eq!((bytes.len(), kontiki_env::codec::checksum32(&[&bytes])), FROZEN);
}

const FROZEN: (usize, u32) = (1534, 739_543_908);
