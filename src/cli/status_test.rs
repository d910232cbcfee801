use super::*;

fn store(id: u64, silent: Duration) -> Store {
    Store { id, version: "8.5.0".into(), silent_ms: silent.as_millis() as u64, ..Store::default() }
}

#[test]
fn a_store_that_does_not_report_is_not_up() {
    let states = [
        (Duration::ZERO, "up"),
        (DISCONNECTED_AFTER, "up"),
        (DISCONNECTED_AFTER + Duration::from_millis(1), "disconnected"),
        (DOWN_AFTER, "disconnected"),
        (DOWN_AFTER + Duration::from_millis(1), "down"),
    ];
    for (silent, expected) in states {
        assert_eq!(state_name(&store(1, silent)), expected, "{silent:?}");
    }
    assert_eq!(state_name(&Store { lost: true, ..store(1, Duration::ZERO) }), "lost");
    let removed = Store { state: StoreState::Tombstone as i32, ..store(1, DOWN_AFTER * 2) };
    assert_eq!(state_name(&removed), "removed", "a reported state is shown");
}

#[test]
fn the_version_is_that_of_the_program() {
    assert_eq!(version(&store(1, Duration::ZERO)), "8.5.0", "an older placement leader reports no other");
    assert_eq!(version(&Store { program_version: "0.1.0".into(), ..store(1, Duration::ZERO) }), "0.1.0");
}

#[test]
fn the_region_of_placement_counts_as_any_other() {
    let peers = vec![metapb::Peer { store_id: 1, ..Default::default() }];
    let data = metapb::Region { id: 2, peers: peers.clone(), ..Default::default() };
    let data = Region { region: Some(data), leader: Some(peers[0]), ..Default::default() };
    let picture = Picture {
        cluster_id: 7,
        placement_leader: "kontiki-2".into(),
        stores: vec![store(1, Duration::ZERO), store(2, Duration::ZERO)],
        regions: vec![placement_region(&[1, 2], Some(2)), data],
        logs: RaftLogs::new(),
    };
    let (held, led) = counts(&picture);
    assert_eq!((held[&1], held[&2]), (2, 1), "as in each node's metric `regions`");
    assert_eq!((led[&1], led[&2]), (1, 1));
}
