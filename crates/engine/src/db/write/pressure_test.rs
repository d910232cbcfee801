use super::*;

const HARD: Debts = Debts { memtable_bytes: 1000, level0_tables: 24, compaction_bytes: 1 << 40, value_bytes: 1 << 30 };

fn of(debts: Debts) -> Pressure {
    Pressure::of(debts, HARD, 50)
}

#[test]
fn there_is_none_up_to_the_soft_bound_and_all_of_it_at_the_hard_one() {
    let below = Debts { memtable_bytes: 500, level0_tables: 12, compaction_bytes: 1 << 39, value_bytes: 1 << 29 };
    assert_eq!(of(below), Pressure::default());
    assert_eq!(of(Debts { memtable_bytes: 1000, ..below }).level, 1.0);
    assert_eq!(of(Debts { memtable_bytes: u64::MAX, ..below }).level, 1.0);
}

#[test]
fn the_worst_debt_counts_and_is_named() {
    let debts = Debts { memtable_bytes: 600, level0_tables: 18, ..Debts::default() };
    assert_eq!(of(debts), Pressure { level: 0.5, reason: Some(DelayReason::Level0) });
    let debts = Debts { value_bytes: (1 << 30) - 1, ..debts };
    assert_eq!(of(debts).reason, Some(DelayReason::ValueGarbage));
}

#[test]
fn it_grows_with_the_debt_and_the_rate_falls() {
    let (mut level, mut rate) = (0.0, f64::INFINITY);
    for memtable_bytes in 501..1000 {
        let pressure = of(Debts { memtable_bytes, ..Debts::default() });
        let slower = pressure.rate(1e9).expect("under pressure there is a limit");
        assert!(pressure.level > level && slower < rate, "{pressure:?}");
        (level, rate) = (pressure.level, slower);
    }
    assert_eq!(of(Debts { memtable_bytes: 750, ..Debts::default() }).rate(1e9), Some(1e9), "half way: the drain");
}

#[test]
fn with_both_bounds_in_one_place_writers_are_only_stopped() {
    let of = |memtable_bytes| Pressure::of(Debts { memtable_bytes, ..Debts::default() }, HARD, 100).level;
    assert_eq!((of(999), of(1000)), (0.0, 1.0));
}

#[test]
fn the_drain_is_what_was_got_through() {
    let mut drain = Drain::default();
    let at = Duration::from_millis;
    assert_eq!(drain.bytes_per_second(), DRAIN_UNKNOWN);
    for i in 0..100u64 {
        drain.sample(at(200 * i), 10_000_000 * i as i64);
    }
    let known = drain.bytes_per_second();
    assert!((49e6..51e6).contains(&known), "{known}");
    // An hour in which no writer was slowed, and little work was due, proves nothing.
    drain.sample(at(3_600_000), 1_000_000_001);
    assert_eq!(drain.bytes_per_second(), known);
    // Nor does the estimate ever say that nothing gets through.
    for i in 1..1000 {
        drain.sample(at(3_600_000 + 200 * i), 0);
    }
    assert_eq!(drain.bytes_per_second(), DRAIN_MIN);
}

#[test]
fn the_first_flush_replaces_the_estimate() {
    let mut drain = Drain::default();
    drain.note_flush(64 << 20, Duration::from_millis(500));
    assert_eq!(drain.bytes_per_second(), f64::from(128 << 20));
    drain.note_flush(64 << 20, Duration::from_secs(5));
    assert_eq!(drain.bytes_per_second(), f64::from(128 << 20), "what was sampled since is better");
}
