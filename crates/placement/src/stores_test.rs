use super::*;

fn heartbeat(id: u64, address: &str) -> StoreHeartbeat {
    let store = Store { id, address: address.into(), status_address: "a:2".into(), version: "8.5.0".into() };
    StoreHeartbeat { store, stats: StoreStats { capacity_bytes: 100, region_count: 3, ..StoreStats::default() } }
}

const NOW: Duration = Duration::from_secs(5);

#[test]
fn a_store_is_known_from_its_first_report_and_written_once() {
    let mut stores = Stores::new(Vec::new(), NOW);
    stores.heartbeat(heartbeat(1, "a:1"), NOW).unwrap();
    let info = stores.get(1, NOW + Duration::from_millis(1_500)).unwrap();
    assert_eq!(info.stats.unwrap().region_count, 3);
    assert_eq!(info.silent_ms, Some(1_500));
    assert_eq!(stores.take_unwritten(), [info.store]);
    stores.heartbeat(heartbeat(1, "a:1"), NOW).unwrap();
    assert!(!stores.has_unwritten(), "nothing changed");
    stores.heartbeat(heartbeat(1, "b:1"), NOW).unwrap();
    assert_eq!(stores.take_unwritten()[0].address, "b:1");
}

#[test]
fn a_record_whose_write_failed_is_written_again() {
    let mut stores = Stores::new(Vec::new(), NOW);
    stores.heartbeat(heartbeat(4, "a:1"), NOW).unwrap();
    assert_eq!(stores.take_unwritten().len(), 1);
    assert!(!stores.has_unwritten());
    stores.failed(&[4]);
    assert_eq!(stores.take_unwritten()[0].id, 4);
}

#[test]
fn a_loaded_store_has_no_report_yet_and_is_silent_since_this_leader_began() {
    let stores = Stores::new(vec![heartbeat(9, "a:1").store], NOW);
    let info = stores.get(9, NOW + Duration::from_secs(40)).unwrap();
    assert_eq!((info.stats, info.silent_ms), (None, Some(40_000)));
    assert!(!stores.has_unwritten());
}

#[test]
fn the_text_for_an_unknown_store_is_what_clients_look_for() {
    let refusal = Stores::new(Vec::new(), NOW).get(7, NOW).unwrap_err();
    assert_eq!(refusal.code(), RefusalCode::UnknownStore);
    assert!(refusal.message.contains("invalid store ID") && refusal.message.contains("not found"), "{refusal}");
}

#[test]
fn impossible_reports_are_refused_and_name_the_value() {
    let mut stores = Stores::new(Vec::new(), NOW);
    for (bad, named) in [
        (heartbeat(0, "a:1"), "not 0"),
        (heartbeat(1, ""), "\"\""),
        (heartbeat(1, "http://a:1"), "http://a:1"),
        (heartbeat(1, &"a".repeat(513)), "513"),
    ] {
        let refusal = stores.heartbeat(bad, NOW).unwrap_err();
        assert_eq!(refusal.code(), RefusalCode::Invalid);
        assert!(refusal.message.contains(named), "{refusal}");
    }
    assert_eq!(stores.len(), 0);
}

#[test]
fn the_number_of_stores_is_bounded() {
    let mut stores = Stores::new(Vec::new(), NOW);
    for id in 1..=STORES_MAX as u64 {
        stores.heartbeat(heartbeat(id, "a:1"), NOW).unwrap();
    }
    assert_eq!(stores.heartbeat(heartbeat(5_000, "a:1"), NOW).unwrap_err().code(), RefusalCode::Busy);
    stores.heartbeat(heartbeat(1, "b:1"), NOW).unwrap();
}
