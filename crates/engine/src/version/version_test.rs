use super::edit::VersionEdit;
use super::files::ObsoleteFiles;
use super::manifest::{manifest_path, parse_manifest};
use super::*;
use crate::Error;
use crate::table::{BlockCache, TABLES_DIR, TableMeta};
use crate::version::TableCache;
use bytes::Bytes;
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Op, OpenMode, read_all};
use proptest::prelude::*;
use std::path::Path;

pub(super) const DIR: &str = "/db";

pub(super) fn open(machine: &SimMachine, rewrite_bytes: u64) -> crate::Result<VersionSet> {
    let dir = Path::new(DIR);
    machine.env().fs.create_dir_all(dir).map_err(|error| Error::io(dir, &error))?;
    VersionSet::open(&machine.env(), dir, ManifestOptions { rewrite_bytes })
}

pub(super) fn advance(set: &VersionSet, sequence: u64) -> crate::Result<Arc<Version>> {
    let mut edit = VersionEdit::new();
    edit.set_flushed_sequence(sequence);
    set.apply(edit)
}

fn meta(number: u64, smallest: &str, largest: &str, sequences: (u64, u64)) -> TableMeta {
    TableMeta {
        number,
        file_bytes: 100,
        smallest_key: Bytes::copy_from_slice(smallest.as_bytes()),
        largest_key: Bytes::copy_from_slice(largest.as_bytes()),
        smallest_sequence: sequences.0,
        largest_sequence: sequences.1,
        entries: 1,
        tombstones: 0,
        global_sequence: None,
    }
}

fn added(level: usize, meta: TableMeta) -> AddedTable {
    AddedTable { family: Family(0), level, meta, facts: TableFacts::default() }
}

#[test]
fn a_reopened_directory_is_at_its_last_edit() {
    let machine = SimMachine::from_seed(1);
    let set = open(&machine, 1 << 20).expect("a healthy disk");
    let mut edit = VersionEdit::new();
    edit.create_family(Family(4), "meta");
    edit.set_oldest_segment(3);
    set.apply(edit).expect("a healthy disk");
    advance(&set, 17).expect("a healthy disk");
    let number = set.new_file_number();
    advance(&set, 18).expect("a healthy disk");
    drop(set);
    let set = open(&machine, 1 << 20).expect("a healthy disk");
    let version = set.current();
    assert_eq!((version.flushed_sequence(), version.oldest_segment()), (18, 3));
    assert_eq!(version.family(Family(4)).map(|levels| levels.name.as_str()), Some("meta"));
    assert!(set.new_file_number() > number);
}

#[test]
fn a_grown_manifest_is_replaced() {
    let machine = SimMachine::from_seed(2);
    let set = open(&machine, 200).expect("a healthy disk");
    for sequence in 1..100 {
        advance(&set, sequence).expect("a healthy disk");
    }
    assert!(set.obsolete_count() > 2);
    drop(set);
    let set = open(&machine, 200).expect("a healthy disk");
    assert_eq!(set.current().flushed_sequence(), 99);
}

#[test]
fn a_full_disk_during_the_replacement_is_harmless() {
    for free_bytes in 0..120 {
        let machine = SimMachine::from_seed(free_bytes);
        let set = open(&machine, 100).expect("a healthy disk");
        machine.fs.set_quota(Some(machine.fs.used_bytes() + free_bytes));
        let mut reached = 0;
        while reached < 40 && advance(&set, reached + 1).is_ok() {
            reached += 1;
        }
        assert!(!set.is_stopped(), "a full disk is not final");
        machine.fs.set_quota(None);
        advance(&set, reached + 1).expect("there is space again");
        machine.fs.crash(CrashMode::LoseUnsynced);
        assert_eq!(open(&machine, 100).expect("a healthy disk").current().flushed_sequence(), reached + 1);
    }
}

#[test]
fn a_manifest_in_use_is_never_taken_for_one_that_a_failed_replacement_left() {
    let machine = SimMachine::from_seed(1);
    let set = open(&machine, 1 << 20).expect("a healthy disk");
    drop(set);
    // What a crash in the middle of a replacement leaves.
    let fs = machine.env().fs;
    fs.open(&manifest_path(Path::new(DIR), 2), OpenMode::CreateNew).expect("a healthy disk");
    let tables = Path::new(DIR).join(TABLES_DIR);
    let cache = TableCache::new(&machine.env(), &tables, Arc::new(BlockCache::new(0)), 1 << 20, 16);
    let set = open(&machine, 100).expect("a healthy disk");
    let mut reached = 0;
    while set.obsolete_count() < 2 {
        reached += 1;
        advance(&set, reached).expect("a healthy disk"); // until the manifest has been replaced
    }
    assert_eq!(set.remove_obsolete(&cache).expect("a healthy disk"), 2);
    drop(set);
    assert_eq!(open(&machine, 100).expect("nothing was lost").current().flushed_sequence(), reached);
}

#[test]
fn power_loss_at_any_operation_of_edits_and_replacements_loses_no_edit() {
    for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Random] {
        for at in 0.. {
            let machine = SimMachine::from_seed(at);
            machine.env().fs.create_dir_all(Path::new(DIR)).expect("a healthy disk");
            machine.fs.power_off_after(at);
            let mut reached = 0;
            if let Ok(set) = open(&machine, 100) {
                while reached < 20 && advance(&set, reached + 1).is_ok() && !set.is_stopped() {
                    reached += 1;
                }
            }
            let finished = !machine.fs.is_off();
            machine.fs.crash(mode);
            let set = open(&machine, 100).unwrap_or_else(|error| panic!("{mode:?} after {at} operations: {error}"));
            let found = set.current().flushed_sequence();
            assert!(found == reached || found == reached + 1, "{found} after {reached} were acknowledged");
            advance(&set, found + 1).expect("the manifest continues");
            drop(set);
            assert_eq!(open(&machine, 100).expect("a healthy disk").current().flushed_sequence(), found + 1);
            if finished {
                break;
            }
        }
    }
}

#[test]
fn a_torn_last_append_is_cut_and_damage_before_it_is_corruption() {
    let machine = SimMachine::from_seed(3);
    let set = open(&machine, 1 << 20).expect("a healthy disk");
    for sequence in 1..4 {
        advance(&set, sequence).expect("a healthy disk");
    }
    let path = manifest_path(Path::new(DIR), 1);
    let bytes = read_all(&*machine.env().fs, &path).expect("readable");
    let whole = parse_manifest(&bytes, 1, &path).expect("sound");
    assert_eq!((whole.edits.len(), whole.torn), (4, false));
    let last = whole.edits[3].0 as usize;
    // Bytes after the last record's start that a torn append may leave, without its mark.
    for cut in last + 1..bytes.len() - 8 {
        let mut torn = bytes[..cut].to_vec();
        let contents = parse_manifest(&torn, 1, &path).expect("a torn tail is no error");
        assert_eq!((contents.edits.len(), contents.torn, contents.end as usize), (3, true, last));
        torn.resize(bytes.len() + 100, 0);
        let contents = parse_manifest(&torn, 1, &path).expect("nor is one in a file that was extended");
        assert_eq!((contents.edits.len(), contents.end as usize), (3, last));
    }
    // The mark behind a damaged record shows that it had been whole.
    let mut damaged = bytes.clone();
    damaged[last + 8] ^= 1;
    match parse_manifest(&damaged, 1, &path) {
        Err(Error::Corruption { file, offset, .. }) => assert_eq!((file, offset), (path.clone(), last as u64)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_newer_format_is_refused_with_a_remedy() {
    let machine = SimMachine::from_seed(4);
    drop(open(&machine, 100).expect("a healthy disk"));
    let path = manifest_path(Path::new(DIR), 1);
    let file = machine.env().fs.open(&path, OpenMode::ReadWrite).expect("there");
    let mut header = b"KONTIMAN".to_vec();
    header.extend_from_slice(&4u32.to_le_bytes());
    header.extend_from_slice(&kontiki_env::codec::checksum32(&[&header]).to_le_bytes());
    file.write_at(&header, 0).expect("a healthy disk");
    let error = open(&machine, 100).err().expect("refused");
    assert!(matches!(&error, Error::UnsupportedFormat { .. }), "{error}");
    assert!(error.to_string().contains("version 4") && error.to_string().contains("newer kontiki"), "{error}");
}

#[test]
fn edits_that_break_an_invariant_are_refused() {
    let version = version_of(vec![(Family(0), 1, meta(1, "c", "f", (1, 5)))]);
    let wrap = |added: &AddedTable| Arc::new(added.wrap(&Arc::new(ObsoleteFiles::default())));
    let refused = |edit: VersionEdit| version.after(&edit, &wrap).expect_err("refused");
    let add = |level, meta| VersionEdit { added: vec![added(level, meta)], ..VersionEdit::new() };
    assert!(refused(add(1, meta(2, "f", "g", (6, 6)))).contains("overlap"));
    assert!(refused(add(0, meta(1, "x", "y", (6, 6)))).contains("twice"));
    assert!(refused(add(LEVEL_COUNT, meta(2, "x", "y", (6, 6)))).contains("level"));
    assert!(refused(add(0, meta(2, "y", "x", (6, 6)))).contains("no table can have"));
    let remove = VersionEdit { removed: vec![(Family(0), 2, 1)], ..VersionEdit::new() };
    assert!(refused(remove).contains("not there"));
    let unknown = VersionEdit { removed: vec![(Family(9), 2, 1)], ..VersionEdit::new() };
    assert!(refused(unknown).contains("family 9"));
    let mut created = VersionEdit::new();
    created.create_family(Family(0), "again");
    assert!(refused(created).contains("created twice"));
    let flush =
        |flushed, sequences| VersionEdit { flushed_sequence: Some(flushed), ..add(0, meta(2, "a", "z", sequences)) };
    let (version, _) = version.after(&flush(9, (1, 9)), &wrap).expect("a first flush");
    assert!(version.after(&flush(12, (9, 12)), &wrap).expect_err("refused").contains("9 to 12"));
    assert!(version.after(&flush(8, (10, 12)), &wrap).expect_err("refused").contains("decreases"));
}

#[test]
fn an_edit_may_name_only_files_that_exist() {
    let machine = SimMachine::from_seed(5);
    let set = open(&machine, 100).expect("a healthy disk");
    let mut edit = VersionEdit::new();
    edit.create_family(Family(0), "default");
    let number = set.new_file_number();
    edit.added.push(added(0, meta(number, "a", "b", (1, 1))));
    assert!(matches!(set.apply(edit), Err(Error::Bug(what)) if what.contains("does not exist")));
    advance(&set, 1).expect("nothing was written");
}

#[test]
fn a_failed_append_is_cut_before_it_may_be_tried_again() {
    let machine = SimMachine::from_seed(6);
    let set = open(&machine, 1 << 20).expect("a healthy disk");
    machine.fs.fail_next(Op::Write, 1, |path| path.to_string_lossy().contains("MANIFEST"));
    assert!(matches!(advance(&set, 5), Err(Error::Io { .. })));
    assert!(!set.is_stopped());
    machine.fs.crash(CrashMode::KeepUnsynced);
    assert_eq!(open(&machine, 1 << 20).expect("a healthy disk").current().flushed_sequence(), 0);
}

prop_compose! {
    fn any_meta()(
        number in any::<u64>(), file_bytes in any::<u64>(), keys in any::<(Vec<u8>, Vec<u8>)>(),
        sequences in any::<(u64, u64)>(), counts in any::<(u64, u64)>(),
        global in any::<Option<u64>>(),
    ) -> TableMeta {
        TableMeta {
            number, file_bytes, smallest_key: keys.0.into(), largest_key: keys.1.into(),
            smallest_sequence: sequences.0, largest_sequence: sequences.1, entries: counts.0, tombstones: counts.1,
            global_sequence: global.filter(|global| *global > 0),
        }
    }
}

prop_compose! {
    fn any_facts()(numbers in any::<[u64; 4]>()) -> TableFacts {
        let [ranges_applied, created_at_ms, first_expires_at_ms, half_expired_at_ms] = numbers;
        TableFacts { ranges_applied, created_at_ms, first_expires_at_ms, half_expired_at_ms }
    }
}

prop_compose! {
    fn any_range()(start in any::<Vec<u8>>(), end in any::<Vec<u8>>(), sequence in any::<u64>()) -> RangeTombstone {
        RangeTombstone { start: start.into(), end: end.into(), sequence }
    }
}

proptest! {
    #[test]
    fn an_edit_survives_its_encoding(
        created in prop::collection::vec((any::<u32>().prop_map(Family), ".*"), 0..3),
        added in prop::collection::vec((any::<u32>().prop_map(Family), 0usize..9, any_meta(), any_facts()), 0..4),
        ranges in prop::collection::vec((any::<u32>().prop_map(Family), any_range()), 0..6),
        removed in prop::collection::vec((any::<u32>().prop_map(Family), 0usize..9, any::<u64>()), 0..4),
        numbers in any::<(Option<u64>, Option<u64>, Option<u64>)>(),
        is_snapshot in any::<bool>(),
    ) {
        let added = added.into_iter().map(|(family, level, meta, facts)| AddedTable { family, level, meta, facts });
        let [added_ranges, removed_ranges, spent_ranges] =
            [0, 1, 2].map(|kind| ranges.iter().skip(kind).step_by(3).cloned().collect());
        let edit = VersionEdit {
            created, added: added.collect(), removed, added_ranges, removed_ranges, spent_ranges,
            flushed_sequence: numbers.0, oldest_segment: numbers.1, next_file: numbers.2, is_snapshot,
            ..VersionEdit::default()
        };
        prop_assert_eq!(VersionEdit::decode(&edit.encode()), Ok(edit));
    }

    #[test]
    fn decoding_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = VersionEdit::decode(&bytes);
        prop_assert!(parse_manifest(&bytes, 1, Path::new("m")).is_err(), "random bytes have no header");
    }
}

pub(super) fn range(start: &str, end: &str, sequence: u64) -> RangeTombstone {
    let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
    RangeTombstone { start: key(start), end: key(end), sequence }
}

/// A flush of these range tombstones, and of a table from `smallest` to `largest` written at once.
pub(super) fn flush_ranges(set: &VersionSet, flushed: u64, ranges: &[RangeTombstone]) -> Arc<Version> {
    let mut edit = VersionEdit::new();
    edit.set_flushed_sequence(flushed);
    for tombstone in ranges {
        edit.add_range_tombstone(Family(0), tombstone.clone());
    }
    set.apply(edit).expect("a healthy disk")
}

/// Adds a table to L1 whose file is empty.
pub(super) fn add_file(
    set: &VersionSet,
    machine: &SimMachine,
    smallest: &str,
    largest: &str,
    sequences: (u64, u64),
) -> u64 {
    let number = set.new_file_number();
    let path = crate::table::table_path(set.tables_dir(), number);
    machine.env().fs.open(&path, OpenMode::CreateNew).expect("a healthy disk");
    let mut edit = VersionEdit::new();
    edit.added.push(added(1, meta(number, smallest, largest, sequences)));
    set.apply(edit).expect("a healthy disk");
    number
}

#[test]
fn range_tombstones_live_in_the_manifest_while_they_hide_anything() {
    let machine = SimMachine::from_seed(7);
    let set = open(&machine, 300).expect("a healthy disk");
    let mut edit = VersionEdit::new();
    edit.create_family(Family(0), "default");
    set.apply(edit).expect("a healthy disk");
    let number = add_file(&set, &machine, "c", "m", (1, 5));
    let version = flush_ranges(&set, 20, &[range("a", "b", 9), range("d", "f", 10), range("d", "e", 8)]);
    assert_eq!(version.range_tombstone_count(), 1, "one hides nothing, one lies in a newer one");
    assert_eq!(version.covering_sequence(Family(0), b"e", 20), Some(10));
    assert_eq!(version.covering_sequence(Family(0), b"f", 20), None);
    assert_eq!(version.covering_sequence(Family(1), b"e", 20), None);
    for sequence in 21..40 {
        advance(&set, sequence).expect("a healthy disk"); // The manifest is replaced meanwhile.
    }
    drop(set);
    let set = open(&machine, 300).expect("a healthy disk");
    assert_eq!(set.current().covering_sequence(Family(0), b"d", 40), Some(10));
    let table = set.current().tables().next().expect("one").2.clone();
    assert_eq!(table.meta().number, number);
    let mut edit = VersionEdit::new();
    edit.remove_table(1, &table);
    set.apply(edit).expect("a healthy disk");
    assert_eq!(set.current().range_tombstone_count(), 0, "with the table it has nothing to hide");
    drop(set);
    assert_eq!(open(&machine, 300).expect("a healthy disk").current().range_tombstone_count(), 0);
}

#[test]
fn a_range_tombstone_stays_while_an_older_transaction_is_open() {
    let machine = SimMachine::from_seed(8);
    let set = open(&machine, 1 << 20).expect("a healthy disk");
    let horizon = set.horizon();
    horizon.set_transactions(6);
    let mut edit = VersionEdit::new();
    edit.create_family(Family(0), "default");
    set.apply(edit).expect("a healthy disk");
    let version = flush_ranges(&set, 20, &[range("a", "b", 5), range("d", "f", 7)]);
    assert_eq!(version.range_tombstone_count(), 1);
    assert_eq!(version.covering_sequence(Family(0), b"d", 20), Some(7));
    assert_eq!(horizon.dropped_through(), 5, "what went");
    horizon.set_transactions(7);
    assert_eq!(advance(&set, 21).expect("a healthy disk").range_tombstone_count(), 0);
}

#[test]
fn a_table_that_was_written_under_a_tombstone_holds_nothing_for_it() {
    let mut version = version_of(vec![(Family(0), 1, meta(1, "c", "f", (1, 5)))]);
    let obsolete = Arc::new(ObsoleteFiles::default());
    let wrap = |added: &AddedTable| Arc::new(added.wrap(&obsolete));
    let edit = VersionEdit {
        flushed_sequence: Some(20),
        added_ranges: vec![(Family(0), range("d", "e", 10))],
        ..VersionEdit::new()
    };
    (version, _) = version.after(&edit, &wrap).expect("a tombstone comes");
    version.look_at_all_ranges();
    assert!(version.spent_ranges(&edit, &[], u64::MAX).is_empty());
    let facts = TableFacts { ranges_applied: 10, ..TableFacts::default() };
    let rewritten = AddedTable { facts, ..added(2, meta(2, "c", "f", (1, 5))) };
    let edit = VersionEdit { removed: vec![(Family(0), 1, 1)], added: vec![rewritten], ..VersionEdit::new() };
    let (mut version, touched) = version.after(&edit, &wrap).expect("a compaction");
    assert_eq!(version.spent_ranges(&edit, &touched.removed, u64::MAX), [(Family(0), range("d", "e", 10))]);
    let pieces = vec![(Family(0), range("d", "f", 10)), (Family(0), range("a", "b", 10))];
    let out_of_order = VersionEdit { spent_ranges: pieces, ..VersionEdit::new() };
    assert!(version.after(&out_of_order, &wrap).expect_err("refused").contains("out of order"));
    let upside_down = VersionEdit { added_ranges: vec![(Family(0), range("f", "d", 10))], ..VersionEdit::new() };
    assert!(version.after(&upside_down, &wrap).expect_err("refused").contains("is invalid"));
}
