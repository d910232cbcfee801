use super::*;
use crate::MutationOp;
use crate::testing::{MapStore, prewrite, put};

fn entries(store: &MapStore, lower: &str, upper: &str, reverse: bool) -> Vec<(String, String)> {
    let mut scan = CommittedReader::new(store).scan(lower.as_bytes(), upper.as_bytes(), reverse).unwrap();
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let mut found = Vec::new();
    while let Some((key, value)) = scan.next_entry().unwrap() {
        found.push((text(key), text(value)));
    }
    found
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Both directions and point reads return the same.
fn holds(store: &MapStore, expected: &[(&str, &str)]) {
    assert_eq!(entries(store, "", "", false), pairs(expected));
    let reversed: Vec<_> = pairs(expected).into_iter().rev().collect();
    assert_eq!(entries(store, "", "", true), reversed);
    for key in ["a", "b", "c", "d", "p", "x"] {
        let found = CommittedReader::new(store).get(key.as_bytes()).unwrap();
        let wanted = expected.iter().find(|(expected, _)| *expected == key);
        assert_eq!(found.as_deref(), wanted.map(|(_, value)| value.as_bytes()), "{key}");
    }
}

#[test]
fn the_newest_committed_values_are_read_and_bounds_are_kept() {
    let mut store = MapStore::default();
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        store.committed(key, value, 5, 6);
    }
    store.committed("b", "newer", 7, 8);
    store.prewrite(&prewrite(&[("c", MutationOp::Delete)], "c", 9)).unwrap();
    store.commit(&["c"], 9, 10).unwrap();
    holds(&store, &[("a", "1"), ("b", "newer")]);
    assert_eq!(entries(&store, "b", "", false), pairs(&[("b", "newer")]));
    assert_eq!(entries(&store, "a", "b", true), pairs(&[("a", "1")]));
    assert_eq!(entries(&store, "x", "b", false), [], "an empty range");
}

#[test]
fn a_transaction_that_was_under_way_is_seen_whole_or_not_at_all() {
    let long = "x".repeat(1_000); // Longer than a lock holds.
    let mut store = MapStore::default();
    store.committed("a", "1", 5, 6);
    store.committed("d", "4", 5, 6);
    // Primary p; a and x are secondaries, d is deleted.
    let writes = [("p", put("new p")), ("a", put(&long)), ("x", put("new x")), ("d", MutationOp::Delete)];
    store.prewrite(&prewrite(&writes, "p", 7)).unwrap();
    holds(&store, &[("a", "1"), ("d", "4")]);
    let mut rolled_back = store.clone();
    rolled_back.rollback(&["p"], 7).unwrap();
    holds(&rolled_back, &[("a", "1"), ("d", "4")]);
    store.commit(&["p"], 7, 8).unwrap();
    holds(&store, &[("a", &long), ("p", "new p"), ("x", "new x")]);
}
