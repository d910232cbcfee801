use super::*;
use crate::region::{PeerId, Space, StoreId};
use bytes::Bytes;
use std::cell::Cell;

fn publication(leads: bool, readable: bool, term: u64) -> Publication {
    let peer = Peer { id: PeerId(11), store: StoreId(1) };
    let region = Region {
        id: RegionId(1),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: Epoch { conf_version: 1, version: 1 },
        peers: vec![peer],
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    };
    Publication { region: Arc::new(region), term, leader: Some(peer), readable, leads }
}

const EPOCH: Epoch = Epoch { conf_version: 1, version: 1 };

fn second(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn added(readers: &Readers, publication: Publication) -> Arc<Slot> {
    let slot = readers.add(publication);
    readers.show_added();
    slot
}

#[test]
fn a_view_is_served_only_within_the_lease() {
    let readers = Readers::default();
    let slot = added(&readers, publication(true, true, 5));
    let read = |at| readers.read(RegionId(1), EPOCH, || second(at), || 7).map(|readable| readable.view);
    assert_eq!(read(1), Err(ReadRefusal::NoLease));
    slot.set_lease(Some(second(3)));
    assert_eq!(read(2), Ok(7));
    assert_eq!(read(3), Err(ReadRefusal::NoLease), "the end is exclusive");
    slot.set_lease(None);
    assert_eq!(read(2), Err(ReadRefusal::NoLease));
}

#[test]
fn the_clock_is_read_after_the_view_is_taken() {
    let readers = Readers::default();
    added(&readers, publication(true, true, 5)).set_lease(Some(second(3)));
    let clock = Cell::new(1);
    // Taking the view takes five seconds (a paused process): the lease was good before, not after.
    let result = readers.read(RegionId(1), EPOCH, || second(clock.get()), || clock.set(6));
    assert_eq!(result.expect_err("expired meanwhile"), ReadRefusal::NoLease);
}

#[test]
fn a_view_taken_before_the_replica_became_readable_is_refused() {
    let readers = Readers::default();
    let slot = added(&readers, publication(true, true, 5));
    slot.set_lease(Some(second(3)));
    let result = readers.read(
        RegionId(1),
        EPOCH,
        || second(1),
        || {
            slot.publish(publication(true, true, 6));
            slot.set_lease(Some(second(9)));
        },
    );
    assert_eq!(result.expect_err("another publication"), ReadRefusal::NoLease);
}

#[test]
fn refusals_come_in_the_order_of_the_wire_contract() {
    let readers = Readers::default();
    let refusal = |epoch| readers.read(RegionId(1), epoch, || second(1), || ()).map(|_| ()).expect_err("refused");
    assert!(matches!(refusal(EPOCH), ReadRefusal::Region(RegionError::RegionNotFound { .. })));
    let slot = added(&readers, publication(false, false, 5));
    let other = Epoch { version: EPOCH.version + 1, ..EPOCH };
    assert!(matches!(refusal(other), ReadRefusal::Region(RegionError::NotLeader { leader: Some(_), .. })));
    slot.publish(publication(true, true, 5));
    assert!(
        matches!(refusal(other), ReadRefusal::Region(RegionError::EpochNotMatch { current }) if current.len() == 1)
    );
    // A change of the members moves no key.
    let members_changed = Epoch { conf_version: EPOCH.conf_version + 1, ..EPOCH };
    assert!(matches!(refusal(members_changed), ReadRefusal::NoLease));
}

#[test]
fn a_leader_that_is_probably_dead_is_not_named() {
    let readers = Readers::default();
    added(&readers, publication(false, false, 5));
    let named = || readers.region(RegionId(1)).expect("it was added").1.map(|leader| leader.store);
    let refusal = || readers.read(RegionId(1), EPOCH, || second(1), || ()).map(|_| ()).expect_err("refused");
    assert_eq!(named(), Some(StoreId(1)));
    readers.set_silent([StoreId(1), StoreId(2)].into());
    assert_eq!(named(), None);
    assert_eq!(readers.regions()[0].1, None);
    assert!(matches!(refusal(), ReadRefusal::Region(RegionError::NotLeader { leader: None, .. })));
    readers.set_silent([StoreId(2)].into());
    assert_eq!(named(), Some(StoreId(1)));
}

/// A follower of the region in this version.
fn follower(version: u64) -> Publication {
    let mut publication = publication(false, false, 5);
    let region = Region { epoch: Epoch { version, ..EPOCH }, ..Region::clone(&publication.region) };
    publication.region = Arc::new(region);
    publication
}

fn read_at(readers: &Readers, ts: u64, take: impl FnOnce()) -> Result<(), RegionError> {
    readers.read_at(StoreId(1), RegionId(1), EPOCH, ts, take).map(|_| ())
}

fn not_ready(safe_ts: u64) -> Result<(), RegionError> {
    Err(RegionError::DataIsNotReady { region: RegionId(1), peer: PeerId(11), safe_ts })
}

#[test]
fn a_replica_is_read_up_to_its_safe_timestamp() {
    let readers = Readers::default();
    let slot = added(&readers, follower(1));
    assert_eq!(read_at(&readers, 0, || ()), not_ready(0), "nothing is known of it");
    slot.raise_safe_ts(7);
    slot.raise_safe_ts(6);
    assert_eq!((read_at(&readers, 7, || ()), read_at(&readers, 8, || ())), (Ok(()), not_ready(7)));
    assert_eq!(readers.take_stale_reads(), [(RegionId(1), 7)].into());
    assert!(readers.take_stale_reads().is_empty(), "each region once");
    assert_eq!(readers.safe_ts(b"", b""), Some(7));
    // Another term is no other version.
    slot.publish(Publication { term: 6, ..follower(1) });
    assert_eq!(read_at(&readers, 7, || ()), Ok(()));
    slot.publish(Publication { term: 6, ..follower(2) });
    assert!(matches!(read_at(&readers, 7, || ()), Err(RegionError::EpochNotMatch { .. })));
    assert_eq!(readers.safe_ts(b"", b""), None, "it was about another range");
}

#[test]
fn a_view_beside_a_change_of_the_range_or_an_install_is_refused() {
    let readers = Readers::default();
    let slot = added(&readers, follower(1));
    slot.raise_safe_ts(7);
    let whole = |take: &dyn Fn()| readers.view_of_replica(RegionId(1), take).is_some();
    assert!(whole(&|| ()) && read_at(&readers, 7, || ()).is_ok());
    assert!(!whole(&|| slot.install_begins()), "it begins meanwhile");
    assert!(!whole(&|| ()) && read_at(&readers, 7, || ()) == not_ready(0), "it is under way");
    slot.install_begins();
    assert!(!whole(&|| ()), "its file was lost, and another one takes its place");
    slot.install_ended();
    assert!(whole(&|| ()) && read_at(&readers, 7, || ()).is_ok());
    let all_of_it = || {
        slot.install_begins();
        slot.install_ended();
    };
    assert!(!whole(&all_of_it), "a part of it is in the view");
    assert!(whole(&|| ()));
    let changes = read_at(&readers, 7, || slot.publish(follower(2)));
    assert!(matches!(changes, Err(RegionError::EpochNotMatch { .. })), "{changes:?}");
    assert!(!whole(&|| readers.remove(RegionId(1))), "the replica ends");
}

#[test]
fn a_view_of_whole_regions_leaves_out_those_that_a_snapshot_reaches_meanwhile() {
    let readers = Readers::default();
    let slot = added(&readers, publication(false, false, 5));
    let regions = |take: &dyn Fn()| readers.view_of_whole(take).1.len();
    assert_eq!(regions(&|| {}), 1);
    assert_eq!(regions(&|| slot.install_begins()), 0, "it begins while the view is taken");
    assert_eq!(regions(&|| {}), 0, "it has begun");
    assert_eq!(regions(&|| slot.install_ended()), 0, "the view may hold a part");
    assert_eq!(regions(&|| {}), 1);
    assert_eq!(regions(&|| readers.remove(RegionId(1))), 0, "its replica ends");
}
