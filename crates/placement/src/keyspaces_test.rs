use super::*;

fn create(catalogue: &mut Catalogue, call: u64, name: &str) -> Result<Option<Keyspace>, RefusalCode> {
    create_with(catalogue, call, name, 0)
}

fn create_with(catalogue: &mut Catalogue, call: u64, name: &str, nonce: u64) -> Result<Option<Keyspace>, RefusalCode> {
    let ask = CreateKeyspace { name: name.into(), nonce };
    catalogue.create(CallId(call), ask, Ok(()), 1_000 + call).map_err(|refusal| refusal.code())
}

fn set(catalogue: &mut Catalogue, id: u32, state: KeyspaceState) -> Result<Option<Keyspace>, RefusalCode> {
    let ask = SetKeyspaceState { id, state: state as i32 };
    catalogue.set_state(CallId(99), ask, Ok(()), 9_000).map_err(|refusal| refusal.code())
}

fn write(catalogue: &mut Catalogue) -> Vec<(u64, u32)> {
    catalogue.take_unwritten().for_each(drop);
    catalogue.written().into_iter().map(|(call, keyspace)| (call.0, keyspace.id)).collect()
}

#[test]
fn the_default_keyspace_exists_from_the_start() {
    let catalogue = Catalogue::new(Vec::new());
    let found = catalogue.by_name("DEFAULT").unwrap();
    assert_eq!((found.id, found.state()), (0, KeyspaceState::Enabled));
    let refusal = catalogue.by_name("default").unwrap_err();
    assert_eq!(refusal.code(), RefusalCode::UnknownKeyspace);
    assert!(refusal.message.contains("\"default\""));
}

#[test]
fn a_keyspace_is_visible_when_it_is_durable_and_not_before() {
    let mut catalogue = Catalogue::new(Vec::new());
    create(&mut catalogue, 1, "a").unwrap();
    assert!(catalogue.by_name("a").is_err());
    assert_eq!(create(&mut catalogue, 2, "a"), Err(RefusalCode::Busy));
    create(&mut catalogue, 3, "b").unwrap();
    assert_eq!(write(&mut catalogue), [(1, 1), (3, 2)]);
    let found = catalogue.by_name("a").unwrap();
    assert_eq!((found.id, found.created_ms), (1, 1_001));
    assert_eq!(create(&mut catalogue, 4, "a"), Err(RefusalCode::KeyspaceExists));
    let names: Vec<_> = catalogue.list(List { first_id: 1, limit: 1 }).into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(catalogue.list(List::default()).len(), 3);
}

#[test]
fn a_write_that_failed_is_repeated_unchanged_and_before_later_ones() {
    let mut catalogue = Catalogue::new(Vec::new());
    create(&mut catalogue, 1, "a").unwrap();
    let first: Vec<Keyspace> = catalogue.take_unwritten().cloned().collect();
    create(&mut catalogue, 2, "b").unwrap();
    catalogue.failed();
    assert_eq!(catalogue.waiting().collect::<Vec<_>>(), [CallId(1), CallId(2)]);
    let second: Vec<Keyspace> = catalogue.take_unwritten().cloned().collect();
    assert_eq!(second[..1], first[..]);
    assert_eq!((second.len(), second[1].id), (2, 2));
    assert_eq!(catalogue.written().len(), 2);
    assert_eq!(catalogue.waiting().count(), 0);
}

#[test]
fn a_keyspace_moves_through_its_states_in_order() {
    use KeyspaceState::{Archived, Disabled, Enabled, Tombstone};
    let mut catalogue = Catalogue::new(Vec::new());
    create(&mut catalogue, 1, "a").unwrap();
    write(&mut catalogue);
    assert_eq!(set(&mut catalogue, 1, Archived), Err(RefusalCode::Invalid));
    for state in [Disabled, Enabled, Disabled, Archived, Tombstone] {
        assert_eq!(set(&mut catalogue, 1, state), Ok(None));
        let other = if state == Enabled { Disabled } else { Enabled };
        assert_eq!(set(&mut catalogue, 1, other), Err(RefusalCode::Busy), "one change at a time");
        write(&mut catalogue);
        assert_eq!(catalogue.by_name("a").unwrap().state(), state);
        assert_eq!(set(&mut catalogue, 1, state).unwrap().map(|found| found.id), Some(1), "nothing to change");
    }
    assert_eq!(set(&mut catalogue, 1, Enabled), Err(RefusalCode::Invalid));
    assert_eq!(create(&mut catalogue, 5, "a"), Err(RefusalCode::KeyspaceExists), "a name is not used again");
    assert_eq!(set(&mut catalogue, 0, Disabled), Err(RefusalCode::Invalid));
    assert_eq!(set(&mut catalogue, 7, Disabled), Err(RefusalCode::UnknownKeyspace));
    let ask = SetKeyspaceState { id: 1, state: 9 };
    assert_eq!(catalogue.set_state(CallId(1), ask, Ok(()), 0).unwrap_err().code(), RefusalCode::Invalid);
}

#[test]
fn names_and_numbers_are_bounded() {
    let mut catalogue = Catalogue::new(Vec::new());
    for name in ["", "with space", "a/b", "ä", "a234567890123456789012"] {
        assert_eq!(create(&mut catalogue, 1, name), Err(RefusalCode::Invalid), "{name}");
    }
    assert_eq!(create(&mut catalogue, 1, "DEFAULT"), Err(RefusalCode::KeyspaceExists));
    for number in 1..KEYSPACES_MAX {
        create(&mut catalogue, 1, &format!("k{number}")).unwrap();
    }
    assert_eq!(create(&mut catalogue, 1, "more"), Err(RefusalCode::Busy));
}

#[test]
fn a_creation_that_arrives_again_is_the_same_one() {
    let mut catalogue = Catalogue::new(Vec::new());
    assert_eq!(create_with(&mut catalogue, 1, "a", 7), Ok(None));
    assert_eq!(create_with(&mut catalogue, 2, "a", 7), Ok(None), "while it waits");
    assert_eq!(create_with(&mut catalogue, 3, "a", 8), Err(RefusalCode::Busy), "another call");
    assert_eq!(catalogue.take_unwritten().count(), 1);
    assert_eq!(create_with(&mut catalogue, 4, "a", 7), Ok(None), "while it is in flight");
    catalogue.failed();
    assert_eq!(create_with(&mut catalogue, 5, "a", 7), Ok(None), "after a failure");
    assert_eq!(catalogue.waiting().map(|call| call.0).collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert_eq!(write(&mut catalogue), [(1, 1), (2, 1), (4, 1), (5, 1)]);
    let found = create_with(&mut catalogue, 6, "a", 7).unwrap().expect("what the first one created");
    assert_eq!((found.id, found.created_ms), (1, 1_001));
    assert_eq!(create_with(&mut catalogue, 7, "a", 8), Err(RefusalCode::KeyspaceExists));
    assert_eq!(create(&mut catalogue, 8, "a"), Err(RefusalCode::KeyspaceExists), "without a nonce none is the same");
    // With the keyspace's record it outlives the leader, and a change of state.
    assert_eq!(set(&mut catalogue, 1, KeyspaceState::Disabled), Ok(None));
    write(&mut catalogue);
    let mut next = Catalogue::new(catalogue.list(List { first_id: 1, limit: 0 }));
    assert_eq!(create_with(&mut next, 9, "a", 7).unwrap().map(|found| found.id), Some(1));
    assert_eq!(create_with(&mut next, 10, "a", 0), Err(RefusalCode::KeyspaceExists));
}

#[test]
fn a_change_of_state_that_arrives_again_waits_for_the_first_one() {
    let mut catalogue = Catalogue::new(Vec::new());
    create(&mut catalogue, 1, "a").unwrap();
    write(&mut catalogue);
    assert_eq!(set(&mut catalogue, 1, KeyspaceState::Disabled), Ok(None));
    assert_eq!(set(&mut catalogue, 1, KeyspaceState::Disabled), Ok(None));
    assert_eq!(set(&mut catalogue, 1, KeyspaceState::Archived), Err(RefusalCode::Busy));
    assert_eq!(write(&mut catalogue), [(99, 1), (99, 1)], "both are answered, by one write");
    assert_eq!(set(&mut catalogue, 1, KeyspaceState::Disabled).unwrap().map(|found| found.id), Some(1));
}

/// What was done already needs no place to wait.
#[test]
fn a_full_table_of_calls_refuses_changes_only() {
    let mut catalogue = Catalogue::new(Vec::new());
    create_with(&mut catalogue, 1, "a", 7).unwrap();
    write(&mut catalogue);
    let full = || Err(Refusal::new(RefusalCode::Busy, "full"));
    let mut create = |name: &str| {
        let ask = CreateKeyspace { name: name.into(), nonce: 7 };
        catalogue.create(CallId(2), ask, full(), 0).map(|found| found.is_some()).map_err(|refusal| refusal.code())
    };
    assert_eq!(create("a"), Ok(true));
    assert_eq!(create("b"), Err(RefusalCode::Busy));
    let mut set = |state: KeyspaceState| {
        let ask = SetKeyspaceState { id: 1, state: state as i32 };
        catalogue.set_state(CallId(3), ask, full(), 0).map(|found| found.is_some()).map_err(|refusal| refusal.code())
    };
    assert_eq!(set(KeyspaceState::Enabled), Ok(true));
    assert_eq!(set(KeyspaceState::Disabled), Err(RefusalCode::Busy));
}

#[test]
fn the_refusal_of_a_long_name_is_short() {
    let refusal = Catalogue::new(Vec::new()).by_name(&"\u{7}".repeat(1 << 20)).unwrap_err();
    assert_eq!(refusal.code(), RefusalCode::UnknownKeyspace);
    assert!(refusal.message.len() < 1_000, "{} bytes", refusal.message.len());
}
