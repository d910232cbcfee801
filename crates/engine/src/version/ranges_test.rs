//! Range tombstones of versions: how they come, go, and what an edit costs with many of them.

use super::edit::VersionEdit;
use super::manifest::{FORMAT_VERSION, ManifestWriter, manifest_path, read_current, write_current};
use super::tests::{DIR, add_file, advance, flush_ranges, open, range};
use super::*;
use crate::range::work;
use kontiki_env::SimMachine;
use kontiki_env::fs::OpenMode;
use proptest::prelude::*;
use std::path::Path;

/// A database with a table in level 1 from `smallest` to `largest`, and no range tombstones.
fn with_table(machine: &SimMachine, smallest: &str, largest: &str) -> VersionSet {
    let set = open(machine, 64 << 20).expect("a healthy disk");
    let mut edit = VersionEdit::new();
    edit.create_family(Family(0), "default");
    set.apply(edit).expect("a healthy disk");
    add_file(&set, machine, smallest, largest, (1, 5));
    set
}

fn small(i: u32, sequence: u64) -> RangeTombstone {
    range(&format!("{:08}", i * 5), &format!("{:08}", i * 5 + 2), sequence)
}

fn remove_all_tables(set: &VersionSet) -> Arc<Version> {
    let mut edit = VersionEdit::new();
    set.current().tables().for_each(|(_, level, table)| edit.remove_table(level, table));
    set.apply(edit).expect("a healthy disk")
}

#[test]
fn an_edit_costs_what_it_changes_however_many_range_tombstones_there_are() {
    let machine = SimMachine::from_seed(1);
    let count = 24_000;
    let set = with_table(&machine, "0", "9");
    let all: Vec<_> = (0..count).map(|i| small(i, u64::from(i) + 10)).collect();
    let (steps, version) = work::during(|| flush_ranges(&set, 30_000, &all));
    assert_eq!(version.range_tombstone_count(), count as usize);
    assert!(steps < 10 * u64::from(count), "{steps} steps of the flush that brings them");
    let (steps, _) = work::during(|| advance(&set, 30_001).expect("a healthy disk"));
    assert!(steps < 10, "{steps} steps of an edit without any");
    let (steps, version) = work::during(|| flush_ranges(&set, 30_002, &[range("00000003", "00000004", 30_002)]));
    assert_eq!(version.range_tombstone_count(), count as usize + 1);
    assert!(steps < 3_000, "{steps} steps of a flush with one");
    let (steps, version) = work::during(|| remove_all_tables(&set));
    assert_eq!(version.range_tombstone_count(), 0);
    assert!(steps < 10 * u64::from(count), "{steps} steps of an edit that ends all");
    drop(set);
    let (steps, set) = work::during(|| open(&machine, 64 << 20).expect("a healthy disk"));
    assert_eq!(set.current().range_tombstone_count(), 0);
    assert!(steps < 20 * u64::from(count), "{steps} steps of a replay");
}

#[test]
fn a_table_that_nothing_of_the_old_can_be_under_makes_no_edit_look_at_it() {
    let machine = SimMachine::from_seed(2);
    let set = with_table(&machine, "0", "9");
    let all: Vec<_> = (0..10_000).map(|i| small(i, u64::from(i) + 10)).collect();
    flush_ranges(&set, 30_000, &all);
    let young = add_file(&set, &machine, "91", "92", (30_001, 30_001));
    let table = set.current().tables().find(|(_, _, table)| table.meta().number == young).expect("added").2.clone();
    let mut edit = VersionEdit::new();
    edit.remove_table(1, &table);
    let (steps, version) = work::during(|| set.apply(edit).expect("a healthy disk"));
    assert_eq!(version.range_tombstone_count(), 10_000);
    assert!(steps < 300, "{steps} steps");
}

#[test]
fn what_is_spent_when_it_comes_leaves_no_trace() {
    let machine = SimMachine::from_seed(3);
    let set = with_table(&machine, "x", "y");
    let version = flush_ranges(&set, 20, &[range("a", "c", 9), range("x", "z", 10), range("b", "d", 11)]);
    assert_eq!(version.range_tombstone_count(), 1);
    drop(set);
    let set = open(&machine, 64 << 20).expect("a healthy disk");
    assert_eq!(set.current().range_tombstone_count(), 1);
    assert_eq!(set.current().covering_sequence(Family(0), b"x", 20), Some(10));
}

#[test]
fn what_a_transaction_held_back_before_a_restart_goes_after_it() {
    let machine = SimMachine::from_seed(4);
    let set = with_table(&machine, "x", "y");
    set.horizon().set_transactions(6);
    let version = flush_ranges(&set, 20, &[range("a", "b", 7), range("d", "f", 5), range("x", "z", 8)]);
    assert_eq!(version.range_tombstone_count(), 2, "one is held, one hides something");
    drop(set);
    let set = open(&machine, 64 << 20).expect("a healthy disk");
    assert_eq!(set.current().range_tombstone_count(), 2);
    let version = advance(&set, 21).expect("a healthy disk");
    assert_eq!(version.range_tombstone_count(), 1);
    assert_eq!(version.covering_sequence(Family(0), b"x", 21), Some(8));
}

#[test]
fn an_edit_copies_only_the_families_that_it_touches() {
    let machine = SimMachine::from_seed(5);
    let set = open(&machine, 64 << 20).expect("a healthy disk");
    for family in 0..300 {
        let mut edit = VersionEdit::new();
        edit.create_family(Family(family), &format!("family {family}"));
        set.apply(edit).expect("a healthy disk");
    }
    let before = set.current();
    add_file(&set, &machine, "a", "b", (1, 5));
    let after = set.current();
    let shared = |family: &Family| {
        std::ptr::eq(before.family(*family).expect("created"), after.family(*family).expect("created"))
    };
    let copied: Vec<_> = after.families().keys().filter(|family| !shared(family)).collect();
    assert_eq!(copied, [Family(0)]);
    drop(set);
    let set = open(&machine, 64 << 20).expect("a healthy disk");
    assert_eq!(set.current().families().len(), 300);
}

/// Writes another format version into a manifest's header.
fn write_format(machine: &SimMachine, number: u64, format: u32) {
    let path = manifest_path(Path::new(DIR), number);
    let file = machine.env().fs.open(&path, OpenMode::ReadWrite).expect("there");
    let mut header = b"KONTIMAN".to_vec();
    header.extend_from_slice(&format.to_le_bytes());
    header.extend_from_slice(&kontiki_env::codec::checksum32(&[&header]).to_le_bytes());
    file.write_at(&header, 0).expect("a healthy disk");
}

/// A manifest as builds before the newest-only lists wrote it: a tombstone is removed by naming it as it was added.
#[test]
fn a_manifest_of_an_older_build_means_what_it_meant() {
    let machine = SimMachine::from_seed(6);
    drop(with_table(&machine, "c", "m")); // Makes the directories and the table's file.
    let set = open(&machine, 64 << 20).expect("a healthy disk");
    let first = VersionEdit { next_file: Some(100), ..set.current().as_edit() };
    drop(set);
    let family = |ranges: &[RangeTombstone]| ranges.iter().map(|range| (Family(0), range.clone())).collect::<Vec<_>>();
    let flush = VersionEdit {
        flushed_sequence: Some(20),
        added_ranges: family(&[range("d", "h", 10), range("e", "f", 10), range("c", "d", 12), range("k", "l", 9)]),
        ..VersionEdit::new()
    };
    // One that lies in another of the same batch was superfluous; one that was spent is dropped.
    let removal =
        VersionEdit { removed_ranges: family(&[range("e", "f", 10), range("k", "l", 9)]), ..VersionEdit::new() };
    let unknown = VersionEdit { removed_ranges: family(&[range("d", "g", 10)]), ..VersionEdit::new() };
    let (env, dir) = (machine.env(), Path::new(DIR));
    for (number, edits) in [(50, vec![&flush, &removal]), (51, vec![&flush, &removal, &unknown])] {
        let mut writer = ManifestWriter::create(&env, dir, number, &first).expect("a healthy disk");
        for edit in &edits {
            assert!(writer.append(edit).is_ok(), "a healthy disk");
        }
        write_format(&machine, number, 1);
        write_current(&env, dir, number).expect("a healthy disk");
        let opened = open(&machine, 64 << 20);
        if edits.len() > 2 {
            assert!(matches!(opened, Err(crate::Error::Corruption { what, .. }) if what.contains("not there")));
            continue;
        }
        let covering = |set: &VersionSet, key: &[u8]| set.current().covering_sequence(Family(0), key, 30);
        let set = opened.expect("a healthy disk");
        for (key, expected) in [("c", Some(12)), ("e", Some(10)), ("g", Some(10)), ("h", None), ("k", None)] {
            assert_eq!(covering(&set, key.as_bytes()), expected, "{key}");
        }
        // The present build continues in it.
        flush_ranges(&set, 30, &[range("g", "k", 25)]);
        drop(set);
        let contents = read_current(&env, dir).expect("readable").expect("there");
        assert!(
            contents.format == FORMAT_VERSION && contents.number > number,
            "it was replaced by one of today's format"
        );
        let set = open(&machine, 64 << 20).expect("a healthy disk");
        assert_eq!((covering(&set, b"e"), covering(&set, b"g"), covering(&set, b"k")), (Some(10), Some(25), None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Tables, tombstones and transactions that come and go: a tombstone is there exactly as long as it is needed, but
    /// for those that a newer one covers, and a restart changes nothing.
    #[test]
    fn a_tombstone_stays_exactly_while_it_is_needed(
        steps in prop::collection::vec((0u8..6, 0u8..20, 1u8..8, 0u64..12), 1..40),
    ) {
        let machine = SimMachine::from_seed(7);
        let set = with_table(&machine, "c", "f");
        let key = |at: u8| char::from(b'a' + at).to_string();
        let oldest = |set: &VersionSet| set.horizon().transactions();
        let mut flushed = 10u64;
        for (what, at, length, number) in steps {
            flushed += 2;
            match what {
                0..=2 => {
                    flush_ranges(&set, flushed, &[range(&key(at), &key(at + length), flushed - 1)]);
                }
                3 => {
                    let free = set.current().tables().all(|(_, _, table)| {
                        let meta = table.meta();
                        meta.largest_key < key(at).as_bytes() || meta.smallest_key > key(at).as_bytes()
                    });
                    if free {
                        add_file(&set, &machine, &key(at), &key(at), (1 + number, flushed));
                    }
                }
                4 => {
                    let old = oldest(&set);
                    let next = if old == u64::MAX { flushed.saturating_sub(number) } else { u64::MAX };
                    set.horizon().set_transactions(next);
                }
                _ => {
                    let tables: Vec<_> = set.current().tables().map(|(_, level, table)| (level, table.clone())).collect();
                    if let Some((level, table)) = tables.get(usize::from(at) % tables.len().max(1)) {
                        let mut edit = VersionEdit::new();
                        edit.remove_table(*level, table);
                        set.apply(edit).expect("a healthy disk");
                    }
                }
            }
            let version = advance(&set, flushed).expect("a healthy disk");
            let Some(levels) = version.family(Family(0)) else { continue };
            for tombstone in levels.range_tombstones.iter() {
                let needed = version.tables().any(|(_, _, table)| table.is_under(tombstone));
                prop_assert!(needed || tombstone.sequence > oldest(&set), "{:?} is of no use", tombstone);
            }
        }
        let there: Vec<_> = set.current().family(Family(0)).expect("created").range_tombstones.iter().cloned().collect();
        drop(set);
        let set = open(&machine, 64 << 20).expect("a healthy disk");
        let again: Vec<_> = set.current().family(Family(0)).expect("created").range_tombstones.iter().cloned().collect();
        prop_assert_eq!(there, again);
    }
}
