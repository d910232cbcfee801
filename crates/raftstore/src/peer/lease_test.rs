use super::*;

const MS: Duration = Duration::from_millis(1);
const LEASE: Duration = Duration::from_millis(900);

fn ack(from: u64, sent_ms: u64, void_through: u64) -> HeartbeatAck {
    let sent_at = Duration::from_millis(sent_ms);
    HeartbeatAck { from: PeerId(from), sent_at, void_through, promise: 1000 * MS }
}

#[test]
fn the_latest_send_time_counts_and_none_from_the_future() {
    let mut lease = Lease::default();
    lease.confirm(ack(1, 50, 0), 60 * MS, LEASE);
    lease.confirm(ack(1, 20, 0), 70 * MS, LEASE);
    lease.confirm(ack(1, 5000, 0), 80 * MS, LEASE);
    assert_eq!((lease.until(PeerId(1)), lease.confirmed_at(PeerId(1))), (950 * MS, Some(50 * MS)));
    assert_eq!((lease.until(PeerId(2)), lease.confirmed_at(PeerId(2))), (Duration::ZERO, None));
}

#[test]
fn after_an_order_only_those_count_that_know_every_transfer_to_be_void() {
    let mut lease = Lease::default();
    let (one, two, three) = (PeerId(1), PeerId(2), PeerId(3));
    lease.confirm(ack(3, 10, 0), 10 * MS, LEASE);
    assert_eq!((lease.order(one), lease.void_through()), (1, 0));
    assert_eq!(lease.order(one), 1, "sent again, it is the same transfer");
    assert_eq!(lease.until(three), Duration::ZERO, "what was confirmed before may be broken");
    lease.confirm(ack(3, 20, 0), 20 * MS, LEASE);
    assert_eq!(lease.until(three), Duration::ZERO, "it may still vote for the target");
    // A second transfer takes the first one's place: both must be known to be void.
    assert!(lease.give_up(Some(two)));
    assert_eq!((lease.order(two), lease.void_through()), (2, 1));
    lease.confirm(ack(3, 30, 1), 30 * MS, LEASE);
    assert_eq!(lease.until(three), Duration::ZERO);
    assert!(!lease.give_up(Some(two)), "it is under way");
    assert!(lease.give_up(None) && !lease.give_up(None));
    assert_eq!(lease.void_through(), 2);
    lease.confirm(ack(3, 40, 2), 40 * MS, LEASE);
    assert_eq!(lease.until(three), 940 * MS);
    assert_eq!(lease.confirmed_at(three), Some(40 * MS));
    assert_eq!(lease.order(two), 3, "another transfer to the same store is another one");
}
