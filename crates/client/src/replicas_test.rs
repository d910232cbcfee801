use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn region() -> Region {
    let peer = |store_id| metapb::Peer { id: 100 + store_id, store_id, ..Default::default() };
    let meta = metapb::Region {
        id: 2,
        peers: (1..=3).map(peer).collect(),
        region_epoch: Some(metapb::RegionEpoch::default()),
        ..Default::default()
    };
    Region::new(meta, None).unwrap()
}

fn chosen(replicas: &Replicas, options: &Options, now: Duration) -> Vec<u64> {
    let store = |_| replicas.choose(&region(), options, now).map_or(0, |peer| peer.store_id);
    (0..4).map(store).collect()
}

fn labels(zone: &str) -> Vec<metapb::StoreLabel> {
    vec![metapb::StoreLabel { key: "zone".into(), value: zone.into() }]
}

#[test]
fn replicas_take_turns() {
    assert_eq!(chosen(&Replicas::default(), &Options::default(), SECOND), [1, 2, 3, 1]);
}

#[test]
fn the_closest_are_chosen_and_others_only_in_their_place() {
    let (replicas, options) =
        (Replicas::default(), Options { labels: vec![("zone".into(), "a".into())], ..Options::default() });
    assert_eq!(replicas.unknown(&region(), &options), [1, 2, 3]);
    assert_eq!(replicas.unknown(&region(), &Options::default()), [0; 0], "without labels none is asked for");
    for (store, zone) in [(1, "b"), (2, "a"), (3, "a")] {
        replicas.know(store, labels(zone));
    }
    assert_eq!(replicas.unknown(&region(), &options), [0; 0]);
    assert_eq!(chosen(&replicas, &options, SECOND), [2, 3, 2, 3]);
    replicas.avoid(2, SECOND);
    replicas.avoid(3, SECOND);
    assert_eq!(chosen(&replicas, &options, 2 * SECOND), [1; 4]);
    assert_eq!(chosen(&replicas, &options, 6 * SECOND), [2, 3, 2, 3], "after a while they are tried again");
}

#[test]
fn without_a_store_that_answers_the_leader_is_left() {
    let replicas = Replicas::default();
    (1..=3).for_each(|store| replicas.avoid(store, SECOND));
    assert_eq!(chosen(&replicas, &Options::default(), SECOND), [0; 4]);
}
