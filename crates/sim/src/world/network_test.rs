use super::{Address, Network};
use crate::world::settings::{NetworkSettings, Settings};
use kontiki_env::rng::Rng;
use std::time::Duration;

const A: Address = Address::Node(1);
const B: Address = Address::Node(2);
const NOW: Duration = Duration::from_secs(1);

fn network(change: impl FnOnce(&mut NetworkSettings)) -> Network {
    let mut settings = Settings::calm().network;
    change(&mut settings);
    Network::new(Rng::new(1), settings)
}

#[test]
fn a_calm_network_delivers_once_in_order_and_in_time() {
    let mut network = network(|_| {});
    let mut last = NOW;
    for _ in 0..100 {
        let [arrival] = network.arrivals((A, B), NOW, true)[..] else { panic!("exactly once") };
        assert!(arrival >= last && arrival < NOW + Duration::from_micros(500));
        last = arrival;
    }
}

#[test]
fn packets_are_lost_repeated_and_reordered_as_told() {
    let mut network = network(|settings| {
        settings.loss_ppm = 100_000;
        settings.duplicates_ppm = 100_000;
        settings.is_ordered = false;
    });
    let runs: Vec<Vec<Duration>> = (0..1000).map(|_| network.arrivals((A, B), NOW, true)).collect();
    let count = |copies| runs.iter().filter(|run| run.len() == copies).count();
    assert!((50..200).contains(&count(0)) && (50..200).contains(&count(2)), "{} {}", count(0), count(2));
    assert!(!runs.iter().flatten().is_sorted());
    assert!((0..1000).all(|_| network.arrivals((A, B), NOW, false).len() < 2), "requests are not repeated");
}

#[test]
fn a_cut_is_one_way_until_joined() {
    let mut network = network(|_| {});
    network.cut(A, B);
    assert!(network.arrivals((A, B), NOW, true).is_empty());
    assert_eq!(network.arrivals((B, A), NOW, true).len(), 1);
    network.join(A, B);
    assert_eq!(network.arrivals((A, B), NOW, true).len(), 1);
}

#[test]
fn a_delayed_link_holds_packets_back_until_healed() {
    let mut network = network(|_| {});
    network.delay_link(A, B, 2 * NOW);
    assert!(network.arrivals((A, B), NOW, true)[0] > 2 * NOW);
    assert!(network.arrivals((B, A), NOW, true)[0] < 2 * NOW);
    network.configure(NetworkSettings { is_ordered: false, ..Settings::calm().network });
    network.heal();
    assert!(network.arrivals((A, B), NOW, true)[0] < 2 * NOW);
}
