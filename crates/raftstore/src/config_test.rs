use super::*;

#[test]
fn the_default_is_valid_and_its_lease_is_below_the_election_timeout() {
    let config = Config::default();
    config.validate().expect("the default is valid");
    let election = config.tick_interval * config.election_ticks as u32;
    assert!(config.lease_duration() < election, "{:?}", config.lease_duration());
    assert!(config.lease_duration() > config.tick_interval * 4);
}

#[test]
fn a_lease_holds_for_the_slowest_leader_and_the_fastest_follower() {
    for drift in [0, 1, 5, 10, 20] {
        let config = Config { clock_drift_percent_max: drift, ..Config::default() };
        let lease = config.lease_duration().as_secs_f64();
        let true_lease = lease / (1.0 - f64::from(drift) / 100.0);
        let election = config.tick_interval.as_secs_f64() * (config.election_ticks - 1) as f64;
        let true_election = election / (1.0 + f64::from(drift) / 100.0);
        assert!(true_lease <= true_election + 1e-6, "drift {drift}: {true_lease} > {true_election}");
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
