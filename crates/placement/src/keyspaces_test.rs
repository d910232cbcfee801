use super::*;

fn create(catalogue: &mut Catalogue, call: u64, name: &str) -> Result<(), RefusalCode> {
    let ask = CreateKeyspace { name: name.into() };
    catalogue.create(CallId(call), ask, 1_000 + call).map_err(|refusal| refusal.code())
}

fn set(catalogue: &mut Catalogue, id: u32, state: KeyspaceState) -> Result<Option<Keyspace>, RefusalCode> {
    let ask = SetKeyspaceState { id, state: state as i32 };
    catalogue.set_state(CallId(99), ask, 9_000).map_err(|refusal| refusal.code())
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
        assert_eq!(set(&mut catalogue, 1, Enabled), Err(RefusalCode::Busy), "one change at a time");
        write(&mut catalogue);
        assert_eq!(catalogue.by_name("a").unwrap().state(), state);
        assert_eq!(set(&mut catalogue, 1, state).unwrap().map(|found| found.id), Some(1), "nothing to change");
    }
    assert_eq!(set(&mut catalogue, 1, Enabled), Err(RefusalCode::Invalid));
    assert_eq!(create(&mut catalogue, 5, "a"), Err(RefusalCode::KeyspaceExists), "a name is not used again");
    assert_eq!(set(&mut catalogue, 0, Disabled), Err(RefusalCode::Invalid));
    assert_eq!(set(&mut catalogue, 7, Disabled), Err(RefusalCode::UnknownKeyspace));
    let ask = SetKeyspaceState { id: 1, state: 9 };
    assert_eq!(catalogue.set_state(CallId(1), ask, 0).unwrap_err().code(), RefusalCode::Invalid);
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
