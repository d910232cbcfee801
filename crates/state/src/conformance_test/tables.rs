//! Tables that are built beside the data.

use super::*;

const RANGE: (&[u8], &[u8]) = (b"b", b"x");

/// A range is deleted and replaced by tables, and the process is killed: the new contents are there, without any of the
/// old ones, and so is what was committed before.
fn tables_replace_a_range(node: &mut Node, seed: u64) -> Found {
    let mut rng = Rng::new(seed);
    let mut before = WriteBatch::new();
    for family in [Family::DEFAULT, OTHER] {
        (b'a'..=b'z').for_each(|key| before.put(family, [key], b"old"));
    }
    node.engine().commit(before, Durability::Derived).expect("written");
    if rng.chance(1, 2) {
        node.engine().flush().expect("flushed");
    }
    let earlier = node.engine().snapshot();
    let folder = node.folder();
    let Some(mut tables) = node.engine().build_tables(&folder, 100) else { return Ok(()) };
    let mut expected = BTreeMap::new();
    for family in [Family::DEFAULT, OTHER] {
        for number in 0..20 {
            let (key, value) = (format!("c{number:02}").into_bytes(), format!("{seed} {number}").into_bytes());
            if tables.takes(family, value.len()) {
                let end = (number == 3).then_some(LATER_MS);
                tables.add(family, &key, &value, end).expect("added");
                expected.insert((family, key), (value, end));
            }
        }
    }
    let mut clear = WriteBatch::new();
    [Family::DEFAULT, OTHER].iter().for_each(|family| clear.delete_range(*family, Range::region(RANGE.0, RANGE.1)));
    node.engine().commit(clear, Durability::Derived).expect("written");
    if rng.chance(1, 2) {
        // Then nothing in memory is in the range of a table.
        node.engine().flush().expect("flushed");
    }
    let mut last = WriteBatch::new();
    last.put(META, b"before", b"the tables");
    node.engine().commit(last, Durability::Derived).expect("written");
    if tables.ingest().expect("taken in") == 0 {
        return Err("no bytes were taken in".into());
    }
    drop(tables);
    let old = earlier.get(OTHER, b"c").expect("readable");
    if old.as_deref() != Some(b"old") || earlier.get(OTHER, b"c03").expect("readable").is_some() {
        return Err("a view has changed".into());
    }
    drop(earlier);
    for is_again in [false, true] {
        let view = node.engine().snapshot();
        for family in [Family::DEFAULT, OTHER] {
            let found = read(&view, family, &Range::region(RANGE.0, RANGE.1), Direction::Forward);
            let model = Model(expected.clone()).read(family, &Range::all());
            if found != model {
                return Err(format!("{family:?}, again: {is_again}: {found:?}, not {model:?}"));
            }
            if view.get(family, b"a").expect("readable").is_none() {
                return Err(format!("{family:?}: a key beside the range is lost, again: {is_again}"));
            }
        }
        if view.get(META, b"before").expect("readable").is_none() {
            return Err("what was committed before the tables is lost".into());
        }
        if !is_again {
            drop(view);
            node.restart();
        }
    }
    Ok(())
}

#[test]
fn tables_replace_a_range_as_one_write_behind_all_that_was_committed() {
    every_engine(tables_replace_a_range);
    is_found(Bug::IngestBeforeFlush, tables_replace_a_range);
}

#[test]
fn tables_that_are_given_up_change_nothing_and_leave_no_file() {
    every_engine(|node, _| {
        let folder = node.folder();
        let Some(mut tables) = node.engine().build_tables(&folder, 100) else { return Ok(()) };
        (b'a'..=b'z').for_each(|key| tables.add(OTHER, &[key], &[key; 50], None).expect("added"));
        drop(tables);
        assert!(read(&node.engine().snapshot(), OTHER, &Range::all(), Direction::Forward).is_empty());
        assert!(node.machine.fs.list(&folder).expect("there").is_empty());
        Ok(())
    });
}
