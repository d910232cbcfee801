//! `kontiki compact`, tested from outside: which tables it has rewritten, and which it has not changed.

use super::{fails, json, kontiki, succeeds};
use kontiki::{Db, Family, FamilySpec, Options, WriteBatch};
use serde_json::Value;
use std::path::Path;

const CREW: Family = Family(7);
const CARGO: Family = Family(9);

/// Initials of keys. The tables of each contain no keys of the others.
const INITIALS: [char; 4] = ['a', 'b', 'c', 'd'];
/// So few that each initial has one table in the last level: eight small neighbours would become one by themselves when
/// the command opens the directory with its own, larger size of tables.
const KEYS: u32 = 12;

fn options() -> Options {
    let families = vec![FamilySpec::new(CREW, "crew"), FamilySpec::new(CARGO, "cargo")];
    let mut options = Options { families, ..Options::default() };
    options.compaction.table_bytes = 1 << 10;
    options
}

fn key(initial: char, number: u32) -> String {
    format!("{initial}{number:03}")
}

/// Sixty characters without any pattern, so that tables are no smaller than what is in them.
fn value(round: u32, number: u32) -> String {
    let mut state = u64::from(round) << 32 | u64::from(number) << 1 | 1;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        char::from(b'a' + (state >> 40) as u8 % 26)
    };
    (0..60).map(|_| next()).collect()
}

/// Writes the keys of one initial to both families, as one table of level 0 in each.
fn write_table(db: &Db, initial: char, round: u32) {
    let mut batch = WriteBatch::new();
    for number in 0..KEYS {
        for family in [CREW, CARGO] {
            // Every other key of the second round is a deletion.
            if round == 1 && number % 2 == 1 {
                batch.delete(family, key(initial, number).as_bytes());
            } else {
                batch.put(family, key(initial, number).as_bytes(), value(round, number).as_bytes());
            }
        }
    }
    db.write(batch, kontiki::Durability::Sync).expect("writes");
    db.flush().expect("flushes");
}

/// A closed directory: in both families several tables in the last level, and above them one table of level 0 for each
/// initial.
fn directory_of_tables(folder: &Path) {
    let db = Db::open(folder, options()).expect("opens");
    INITIALS.iter().for_each(|initial| write_table(&db, *initial, 0));
    db.compact().expect("compacts");
    INITIALS.iter().for_each(|initial| write_table(&db, *initial, 1));
    db.close().expect("closes");
}

/// Tables of a family, those with keys of these initials only.
fn tables(folder: &Path, family: Family, initials: &[char]) -> Vec<Value> {
    let all = json(folder, &["tables", "--json"]);
    let initial = |table: &Value, bound: &str| table[bound].as_str().and_then(|key| key.chars().next());
    let wanted = |table: &&Value| {
        let smallest = initial(table, "smallest_key").expect("a key of text");
        let largest = initial(table, "largest_key").expect("a key of text");
        table["family"] == family.0 && initials.iter().any(|wanted| (smallest..=largest).contains(wanted))
    };
    all.as_array().expect("a list").iter().filter(wanted).cloned().collect()
}

fn of_level(tables: &[Value], level: u64) -> usize {
    tables.iter().filter(|table| table["level"] == level).count()
}

/// Everything is what the second round wrote, in both families.
fn check_contents(folder: &Path) {
    let db = Db::open(folder, options()).expect("opens");
    let snapshot = db.snapshot();
    for family in [CREW, CARGO] {
        for initial in INITIALS {
            for number in 0..KEYS {
                let expected = (number % 2 == 0).then(|| value(1, number).into_bytes());
                let found = kontiki::View::get(&snapshot, family, key(initial, number).as_bytes()).expect("readable");
                assert_eq!(found.map(|value| value.to_vec()), expected, "{family:?} {initial}{number}");
            }
        }
    }
    drop(snapshot);
    db.close().expect("closes");
}

#[test]
fn compact_rewrites_the_tables_of_a_range_of_a_family_and_no_others() {
    let scratch = tempfile::tempdir().expect("a directory");
    let folder = scratch.path().join("db");
    directory_of_tables(&folder);
    let (inside, outside) = (['b', 'c'], ['a', 'd']);
    let before_inside = tables(&folder, CREW, &inside);
    let before_outside = tables(&folder, CREW, &outside);
    let before_cargo = tables(&folder, CARGO, &INITIALS);
    assert_eq!(of_level(&before_inside, 0), 2, "{before_inside:#?}");
    assert_eq!(of_level(&before_outside, 0), 2, "{before_outside:#?}");
    let last = before_outside.iter().filter_map(|table| table["level"].as_u64()).max().expect("tables");
    assert!(last > 0 && of_level(&before_inside, last) >= 2, "several tables in the last level: {before_inside:#?}");
    assert!(before_inside.iter().all(|table| !before_outside.contains(table)), "no table of level 0 is in both");

    let said = succeeds(&folder, &["compact", "--family", "crew", "--from", "b", "--to", "d"]);
    assert!(said.contains(folder.to_str().expect("text")) && said.contains("bytes before"), "{said}");

    assert_eq!(tables(&folder, CARGO, &INITIALS), before_cargo, "the other family");
    assert_eq!(tables(&folder, CREW, &outside), before_outside, "beside the range");
    let after = tables(&folder, CREW, &inside);
    assert_eq!(of_level(&after, last), after.len(), "all are in the last level: {after:#?}");
    let versions: u64 = after.iter().filter_map(|table| table["versions"].as_u64()).sum();
    assert_eq!(versions, u64::from(KEYS), "half of the keys of two initials are left, once each: {after:#?}");
    assert!(after.iter().all(|table| table["tombstones"] == 0), "{after:#?}");
    let numbers: Vec<&Value> = before_inside.iter().map(|table| &table["number"]).collect();
    assert!(after.iter().all(|table| !numbers.contains(&&table["number"])), "all had something dead: {after:#?}");
    check_contents(&folder);

    succeeds(&folder, &["compact", "--family", "crew", "--from", "b", "--to", "d"]);
    assert_eq!(tables(&folder, CREW, &inside), after, "nothing is dead in them, so they are left alone");
    succeeds(&folder, &["compact", "--family", "crew", "--from", "d"]);
    assert_eq!(of_level(&tables(&folder, CREW, &['d']), 0), 0, "an end that is left out is the last key");
    assert_eq!(of_level(&tables(&folder, CREW, &['a']), 0), 1);
    succeeds(&folder, &["compact", "--family", "crew"]);
    assert_eq!(of_level(&tables(&folder, CREW, &INITIALS), 0), 0);
    assert_eq!(tables(&folder, CARGO, &INITIALS), before_cargo, "the other family");
    succeeds(&folder, &["compact"]);
    assert_eq!(of_level(&tables(&folder, CARGO, &INITIALS), 0), 0);
    check_contents(&folder);
    let checked = kontiki(&["check", "--data-dir", folder.to_str().expect("text")]);
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn compact_says_what_it_cannot_do_and_what_would_help() {
    let scratch = tempfile::tempdir().expect("a directory");
    let folder = scratch.path().join("db");
    directory_of_tables(&folder);
    let before = json(&folder, &["tables", "--json"]);
    let data = folder.to_str().expect("text");

    let complaint = fails(2, &["compact", "--data-dir", data, "--family", "crow"]);
    assert!(complaint.contains(data) && complaint.contains("--family \"crow\""), "{complaint}");
    assert!(complaint.contains("it has \"default\" (0), \"crew\" (7), \"cargo\" (9)"), "the remedy: {complaint}");
    let complaint = fails(2, &["compact", "--data-dir", data, "--family", "crew", "--from", "c", "--to", "b"]);
    assert!(complaint.contains("--from \"c\" comes after --to \"b\": exchange them"), "{complaint}");
    for part in ["--from", "--to"] {
        let complaint = fails(2, &["compact", "--data-dir", data, part, "b"]);
        assert!(complaint.contains("--family <FAMILY>"), "a range of which family? {complaint}");
    }
    let complaint = fails(2, &["compact", "--family", "crew"]);
    assert!(complaint.contains("--data-dir <DIR>"), "{complaint}");

    let absent = scratch.path().join("absent");
    let complaint = fails(2, &["compact", "--data-dir", absent.to_str().expect("text")]);
    assert!(complaint.contains(absent.to_str().expect("text")) && complaint.contains("there is no directory"));
    assert!(complaint.contains("check --data-dir"), "the remedy: {complaint}");
    assert!(!absent.exists());

    let db = Db::open(&folder, options()).expect("opens");
    let complaint = fails(1, &["compact", "--data-dir", data, "--family", "crew", "--from", "a", "--to", "b"]);
    assert!(complaint.contains(data) && complaint.contains("is in use"), "{complaint}");
    assert!(complaint.contains(&std::process::id().to_string()), "the holder is this process: {complaint}");
    assert!(complaint.contains("stop that process"), "the remedy: {complaint}");
    db.close().expect("closes");
    assert_eq!(json(&folder, &["tables", "--json"]), before, "no table has changed");
}
