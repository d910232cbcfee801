use super::*;
use crate::{Epoch, PeerRole};

fn region(id: u64, start: &'static str, end: &'static str, version: u64) -> Region {
    Region {
        id,
        start_key: Bytes::from_static(start.as_bytes()),
        end_key: Bytes::from_static(end.as_bytes()),
        epoch: Epoch { conf_ver: 1, version },
        peers: vec![peer(id, 1), peer(id, 2)],
        system: false,
    }
}

fn peer(region_id: u64, store_id: u64) -> Peer {
    Peer { id: region_id * 1000 + store_id, store_id, role: PeerRole::Voter as i32 }
}

fn report(region: Region, store_id: u64, term: u64) -> RegionHeartbeat {
    RegionHeartbeat { leader: peer(region.id, store_id), region, term, ..RegionHeartbeat::default() }
}

fn system() -> Region {
    Region { system: true, ..region(1, "", "", 1) }
}

fn at<'a>(regions: &'a Regions, key: &str) -> Option<&'a RegionInfo> {
    regions.by_key(key.as_bytes()).ok()
}

fn scan_ids(regions: &Regions, start: &'static str, end: &'static str, limit: u32) -> Vec<u64> {
    let scan = ScanRegions { start_key: start.into(), end_key: end.into(), limit };
    regions.scan(&scan).iter().map(|info| info.region.id).collect()
}

#[test]
fn the_floor_routes_before_any_report() {
    let regions = Regions::new(vec![system(), region(2, "", "m", 1), region(3, "m", "", 1)]);
    assert_eq!(at(&regions, "").unwrap().region.id, 2);
    assert_eq!(at(&regions, "lzz").unwrap().region.id, 2);
    let last = at(&regions, "m").unwrap();
    assert_eq!((last.region.id, last.leader), (3, None));
    assert_eq!(regions.by_id(1).unwrap().region, system());
    assert_eq!(regions.system_peers().len(), 2);
}

#[test]
fn the_leader_of_a_newer_term_is_believed_and_an_older_one_is_not() {
    let mut regions = Regions::new(vec![region(2, "", "", 1)]);
    regions.heartbeat(report(region(2, "", "", 1), 2, 6)).unwrap();
    regions.heartbeat(report(region(2, "", "", 1), 1, 5)).unwrap();
    let info = at(&regions, "k").unwrap();
    assert_eq!((info.leader, info.term), (Some(peer(2, 2)), 6));
    regions.heartbeat(report(region(2, "", "", 1), 1, 7)).unwrap();
    assert_eq!(at(&regions, "k").unwrap().leader, Some(peer(2, 1)));
}

#[test]
fn an_older_epoch_changes_nothing_even_with_a_newer_term() {
    let mut regions = Regions::new(vec![region(2, "", "m", 5)]);
    regions.heartbeat(report(region(2, "", "", 4), 1, 9)).unwrap();
    let info = at(&regions, "a").unwrap();
    assert_eq!((info.region.end_key.as_ref(), info.term), (b"m".as_ref(), 0));
}

#[test]
fn a_split_is_taken_whichever_half_reports_first() {
    for right_first in [true, false] {
        let mut regions = Regions::new(vec![region(2, "", "", 1)]);
        let mut halves = [report(region(2, "", "k", 2), 1, 5), report(region(9, "k", "", 2), 1, 6)];
        if right_first {
            halves.reverse();
        }
        for half in halves {
            regions.heartbeat(half).unwrap();
        }
        // The reports of the parent's deposed leader are older than both.
        regions.heartbeat(report(region(2, "", "", 1), 2, 9)).unwrap();
        assert_eq!(scan_ids(&regions, "", "", 0), [2, 9], "right half first: {right_first}");
        assert_eq!(at(&regions, "k").unwrap().region.id, 9);
    }
}

#[test]
fn an_unknown_region_with_an_old_range_does_not_displace_newer_ones() {
    let mut regions = Regions::new(vec![region(2, "", "k", 3), region(3, "k", "", 3)]);
    regions.heartbeat(report(region(8, "c", "z", 2), 1, 5)).unwrap();
    assert_eq!(scan_ids(&regions, "", "", 0), [2, 3]);
    regions.heartbeat(report(region(8, "c", "z", 4), 1, 5)).unwrap();
    assert_eq!(scan_ids(&regions, "", "", 0), [8]);
    assert!(at(&regions, "a").is_none(), "a gap until its leader reports");
}

#[test]
fn previous_needs_a_neighbour_without_a_gap() {
    let regions = Regions::new(vec![region(2, "", "g", 1), region(3, "g", "m", 1), region(4, "p", "", 1)]);
    assert_eq!(regions.previous(b"h").unwrap().region.id, 2);
    assert!(regions.previous(b"a").is_err(), "nothing is before the first");
    assert!(regions.previous(b"q").is_err(), "a gap is before it");
    assert!(regions.previous(b"n").is_err(), "in the gap");
}

#[test]
fn a_scan_starts_inside_a_region_and_ends_before_its_bound() {
    let regions = Regions::new(vec![region(2, "", "g", 1), region(3, "g", "m", 1), region(4, "p", "", 1)]);
    assert_eq!(scan_ids(&regions, "", "", 0), [2, 3, 4]);
    assert_eq!(scan_ids(&regions, "h", "", 0), [3, 4]);
    assert_eq!(scan_ids(&regions, "n", "", 0), [4], "from a gap on to the next");
    assert_eq!(scan_ids(&regions, "a", "g", 0), [2], "the end is exclusive");
    assert_eq!(scan_ids(&regions, "a", "ga", 0), [2, 3]);
    assert_eq!(scan_ids(&regions, "", "", 2), [2, 3]);
}

#[test]
fn the_placement_group_never_answers_for_a_key() {
    let mut regions = Regions::new(vec![system()]);
    regions.heartbeat(report(system(), 2, 3)).unwrap();
    assert!(at(&regions, "a").is_none());
    assert!(scan_ids(&regions, "", "", 0).is_empty());
    assert_eq!(regions.by_id(1).unwrap().leader, Some(peer(1, 2)));
}

#[test]
fn reports_that_contradict_themselves_are_refused() {
    let mut regions = Regions::default();
    for bad in [report(region(0, "", "", 1), 1, 1), report(region(2, "m", "b", 1), 1, 1), {
        let mut stranger = report(region(2, "", "", 1), 1, 1);
        stranger.leader.store_id = 3;
        stranger
    }] {
        assert_eq!(regions.heartbeat(bad).unwrap_err().code(), RefusalCode::Invalid);
    }
    assert_eq!(regions.len(), 0);
}
