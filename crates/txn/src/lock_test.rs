use super::*;
use proptest::prelude::*;

fn lock() -> Lock {
    Lock {
        kind: LockKind::Put,
        start_ts: TimeStamp(0x0102),
        primary: Bytes::from_static(b"p"),
        ttl_ms: 3000,
        short_value: Some(Bytes::from_static(b"v")),
        for_update_ts: TimeStamp::ZERO,
        min_commit_ts: TimeStamp(5),
        txn_size: 1,
        use_async_commit: false,
        secondaries: Vec::new(),
    }
}

#[test]
fn version_one_is_these_bytes() {
    let bytes = lock().encode();
    assert_eq!(bytes, [1, b'P', 2, 2, 1, 0, 0, 0, 0, 0, 0, 0xb8, 0x17, 0, 5, 1, 1, b'p', 1, b'v', 0]);
    assert_eq!(Lock::decode(&bytes).unwrap(), lock());
}

#[test]
fn damage_is_refused() {
    let bytes = lock().encode();
    for cut in 0..bytes.len() {
        assert!(Lock::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for (position, value) in [(0, 2), (1, b'X'), (2, 0x82)] {
        let mut wrong = bytes.clone();
        wrong[position] = value;
        assert!(Lock::decode(&wrong).is_err(), "byte {position}");
    }
    assert!(Lock::decode(&[bytes, vec![0]].concat()).is_err(), "trailing bytes");
}

#[test]
fn the_time_to_live_is_physical_milliseconds() {
    // An earlier implementation compared it in timestamp units, where 3000 is a few microseconds.
    let lock = Lock { start_ts: TimeStamp::compose(1000, 7), ttl_ms: 3000, ..lock() };
    assert!(!lock.is_expired(TimeStamp::compose(1000, 5000)));
    assert!(!lock.is_expired(TimeStamp::compose(4000, 0)));
    assert!(lock.is_expired(TimeStamp::compose(4001, 0)));
    assert!(lock.is_expired(TimeStamp::MAX));
    let zero = Lock { ttl_ms: 0, ..lock };
    assert!(zero.is_expired(TimeStamp::compose(1001, 0)), "a time to live of 0 does expire");
}

proptest! {
    #[test]
    fn round_trip(kind in 0..4, start: u64, ttl: u64, fut: u64, min: u64, size: u64, asynchronous: bool,
        primary in prop::collection::vec(any::<u8>(), 0..20), value in prop::option::of(prop::collection::vec(any::<u8>(), 0..256)),
        secondaries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..4)) {
        let kind = [LockKind::Put, LockKind::Delete, LockKind::Lock, LockKind::Pessimistic][kind as usize];
        let lock = Lock {
            kind, start_ts: TimeStamp(start), primary: primary.into(), ttl_ms: ttl,
            short_value: value.filter(|_| kind == LockKind::Put).map(Bytes::from),
            for_update_ts: TimeStamp(fut), min_commit_ts: TimeStamp(min), txn_size: size, use_async_commit: asynchronous,
            secondaries: secondaries.into_iter().map(Bytes::from).collect(),
        };
        prop_assert_eq!(Lock::decode(&lock.encode()).unwrap(), lock);
    }

    #[test]
    fn decoding_anything_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..80), honest: bool) {
        if honest && let Some(first) = bytes.first_mut() { *first = VERSION }
        if let Ok(lock) = Lock::decode(&bytes) {
            prop_assert_eq!(Lock::decode(&lock.encode()).unwrap(), lock);
        }
    }
}
