use super::*;

#[test]
fn every_accepted_lease_outlives_a_heartbeat_and_none_its_promise() {
    for heartbeat_ticks in [1, 2, 7, 1000] {
        for election_ticks in [2 * heartbeat_ticks + 1, 5 * heartbeat_ticks, 100_000] {
            for clock_drift_percent_max in [0, 5, 30] {
                let config = Config { heartbeat_ticks, election_ticks, clock_drift_percent_max, ..Config::default() };
                config.validate().expect("accepted");
                assert!(config.lease_duration() <= config.promise_duration(), "{config:?}");
                let heartbeat = config.tick_interval * heartbeat_ticks as u32;
                assert!(config.lease_duration() > heartbeat, "{config:?}");
            }
        }
    }
}

#[test]
fn a_lease_holds_for_the_slowest_leader_and_the_fastest_follower() {
    for drift in [0, 1, 5, 10, 20, 30] {
        let config = Config { clock_drift_percent_max: drift, ..Config::default() };
        let lease = config.lease_duration().as_secs_f64();
        let true_lease = lease / (1.0 - f64::from(drift) / 100.0);
        let true_promise = config.promise_duration().as_secs_f64() / (1.0 + f64::from(drift) / 100.0);
        assert!(true_lease <= true_promise + 1e-9, "drift {drift}: {true_lease} > {true_promise}");
    }
}

#[test]
fn a_refusal_names_the_field_the_value_and_what_is_accepted() {
    let config = Config { election_ticks: 4, ..Config::default() };
    let text = config.validate().expect_err("too small").to_string();
    assert!(text.contains("election_ticks = 4") && text.contains("twice heartbeat_ticks"), "{text}");
    let config = Config { unapplied_bytes_max: 5, ..Config::default() };
    assert_eq!(config.validate().expect_err("too small").field, "unapplied_bytes_max");
}
