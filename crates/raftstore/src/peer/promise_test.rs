use super::*;

const MS: Duration = Duration::from_millis(1);

fn config(election_ticks: usize) -> Config {
    Config { election_ticks, tick_interval: 100 * MS, ..Config::default() }
}

/// A replica whose bound is already recorded.
fn recorded(config: &Config) -> Promise {
    let mut promise = Promise::recovered(Duration::ZERO, Planted::default());
    promise.make(3, 0, Duration::ZERO, Duration::ZERO, config);
    let length = promise.due_record(Duration::ZERO, config).expect("the bound was too low");
    promise.record(length, PersistId(4));
    promise.persisted(PersistId(4));
    promise
}

#[test]
fn nothing_is_promised_before_its_length_is_durable() {
    let config = config(10);
    let mut promise = Promise::recovered(Duration::ZERO, Planted::default());
    assert!(promise.never_made() && promise.due_record(Duration::ZERO, &config).is_none(), "no leader asked");
    assert_eq!(promise.length(&config), Duration::ZERO);
    promise.make(3, 0, 5 * MS, Duration::ZERO, &config);
    assert!(!promise.holds(6 * MS, true));
    assert_eq!(promise.due_record(6 * MS, &config), Some(1000 * MS));
    promise.record(1000 * MS, PersistId(7));
    assert_eq!((promise.to_state(), promise.length(&config)), (1_000_000_000, Duration::ZERO));
    promise.persisted(PersistId(6));
    assert_eq!(promise.length(&config), Duration::ZERO, "an earlier persist");
    promise.persisted(PersistId(7));
    assert_eq!(promise.length(&config), 1000 * MS);
}

#[test]
fn a_promise_holds_until_its_time_whether_the_leader_is_known_or_not() {
    let config = config(10);
    let mut promise = recorded(&config);
    promise.make(3, 0, 50 * MS, promise.length(&config), &config);
    for _ in 0..100 {
        promise.tick();
    }
    assert!(promise.holds(1049 * MS, false) && promise.holds(1049 * MS, true));
    assert!(!promise.holds(1050 * MS, true));
    // An older time does not shorten it.
    promise.make(3, 0, 20 * MS, promise.length(&config), &config);
    assert!(promise.holds(1049 * MS, true));
    promise.release();
    assert!(!promise.holds(60 * MS, true));
}

#[test]
fn only_the_promised_leaders_transfers_that_are_not_void_are_excepted() {
    let config = config(10);
    let mut promise = recorded(&config);
    let transfer = |term, number| Transfer { term, number };
    promise.make(5, 2, Duration::ZERO, promise.length(&config), &config);
    assert!(promise.excepts(transfer(5, 3)) && !promise.excepts(transfer(5, 2)) && promise.knows_void(transfer(5, 2)));
    assert!(!promise.excepts(transfer(4, 9)) && !promise.excepts(transfer(6, 1)));
    // A late heartbeat does not revive one.
    promise.make(5, 0, Duration::ZERO, promise.length(&config), &config);
    assert!(!promise.excepts(transfer(5, 2)));
    promise.make(6, 0, Duration::ZERO, promise.length(&config), &config);
    assert!(promise.excepts(transfer(6, 1)), "another leader counts anew");
}

#[test]
fn a_restart_keeps_what_may_have_been_promised_from_its_first_moment_on() {
    let config = config(10);
    let mut promise = Promise::recovered(3000 * MS, Planted::default());
    assert!(promise.holds(70_000 * MS, false));
    assert!(!promise.excepts(Transfer { term: 0, number: 1 }), "it knows of no transfer");
    // The shorter promises of now are recorded when no longer one is left.
    promise.make(8, 0, 70_100 * MS, promise.length(&config), &config);
    assert_eq!(promise.due_record(71_999 * MS, &config), None);
    assert!(promise.holds(72_999 * MS, false) && !promise.holds(73_000 * MS, false));
    assert_eq!(promise.due_record(72_000 * MS, &config), Some(1000 * MS));
    promise.record(1000 * MS, PersistId(2));
    assert_eq!((promise.to_state(), promise.length(&config)), (1_000_000_000, 1000 * MS));
}
