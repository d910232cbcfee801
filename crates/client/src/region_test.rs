use super::*;

fn region(id: u64, start: &'static str, end: &'static str, version: u64) -> Region {
    let peer = |store| metapb::Peer { id: id * 10 + store, store_id: store, ..Default::default() };
    let meta = metapb::Region {
        id,
        start_key: start.into(),
        end_key: end.into(),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
        peers: (1..4).map(peer).collect(),
    };
    Region::new(meta, None).unwrap()
}

fn ids(cache: &RegionCache) -> Vec<u64> {
    cache.by_start.lock().values().map(|region| region.id()).collect()
}

#[test]
fn keys_find_their_region_in_both_directions() {
    let cache = RegionCache::default();
    cache.insert(region(1, "", "g", 1));
    cache.insert(region(2, "g", "", 1));
    let at = |key: &str| cache.locate(key.as_bytes()).map(|region| region.id());
    let below = |key: &str| cache.locate_below(key.as_bytes()).map(|region| region.id());
    assert_eq!((at(""), at("f"), at("g"), at("z")), (Some(1), Some(1), Some(2), Some(2)));
    assert_eq!((below("a"), below("g"), below("h"), below("")), (Some(1), Some(1), Some(2), Some(2)));
    cache.remove(2);
    assert_eq!((at("g"), below("h"), below("")), (None, None, None));
}

#[test]
fn a_split_displaces_what_it_overlaps_and_old_news_is_ignored() {
    let cache = RegionCache::default();
    cache.insert(region(1, "", "", 1));
    cache.insert(region(2, "g", "", 2));
    assert_eq!(ids(&cache), [2], "1 overlapped");
    cache.insert(region(1, "", "g", 2));
    assert_eq!(ids(&cache), [1, 2]);
    cache.insert(region(1, "", "", 1)); // Older than what is known.
    assert_eq!(ids(&cache), [1, 2]);
    assert_eq!(cache.locate(b"a").unwrap().meta.end_key, "g");
}

#[test]
fn leaders_are_named_or_tried_in_turn() {
    let cache = RegionCache::default();
    cache.insert(region(1, "", "", 1));
    let leader = || cache.locate(b"k").map(|region| region.leader.store_id);
    assert_eq!(leader(), Some(1));
    cache.set_leader(1, &metapb::Peer { id: 13, store_id: 3, ..Default::default() });
    assert_eq!(leader(), Some(3));
    let asked = cache.locate(b"k").unwrap();
    cache.try_next_peer(&asked);
    assert_eq!(leader(), Some(1));
    cache.try_next_peer(&asked);
    assert_eq!(leader(), Some(1), "the failure of 3 is known already");
    cache.try_next_peer(&cache.locate(b"k").unwrap());
    assert_eq!(leader(), Some(2));
    cache.try_next_peer(&cache.locate(b"k").unwrap());
    assert_eq!(leader(), None, "a whole round without success");
    cache.insert(region(1, "", "", 1));
    cache.set_leader(1, &metapb::Peer { id: 99, store_id: 9, ..Default::default() });
    assert_eq!(leader(), None, "an unknown peer: the members have changed");
}
