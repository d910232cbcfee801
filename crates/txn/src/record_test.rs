use super::*;
use proptest::prelude::*;

#[test]
fn version_one_is_these_bytes() {
    let write = Write {
        kind: WriteKind::Put,
        start_ts: TimeStamp(3),
        short_value: Some(Bytes::from_static(b"v")),
        overlapped_rollback: true,
    };
    let bytes = write.encode();
    assert_eq!(bytes, [1, b'P', 3, 3, 0, 0, 0, 0, 0, 0, 0, 1, b'v']);
    assert_eq!(Write::decode(&bytes).unwrap(), write);
    assert_eq!(Write::rollback(TimeStamp(3)).encode(), [1, b'R', 0, 3, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn damage_is_refused() {
    let bytes = Write::rollback(TimeStamp(1)).encode();
    for cut in 0..bytes.len() {
        assert!(Write::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for (position, value) in [(0, 2), (1, b'X'), (2, 4), (2, 2)] {
        let mut wrong = bytes.clone();
        wrong[position] = value;
        assert!(Write::decode(&wrong).is_err(), "byte {position}");
    }
    assert!(Write::decode(&[bytes, vec![0]].concat()).is_err(), "trailing bytes");
}

#[test]
fn a_record_at_a_wrong_timestamp_is_corruption() {
    let commit = Write { kind: WriteKind::Delete, ..Write::rollback(TimeStamp(5)) };
    assert!(Write::decode_at(TimeStamp(6), &commit.encode()).is_ok());
    assert!(Write::decode_at(TimeStamp(5), &commit.encode()).is_err(), "a commit is later than its start");
    let rollback = Write::rollback(TimeStamp(5));
    assert!(Write::decode_at(TimeStamp(5), &rollback.encode()).is_ok());
    assert!(Write::decode_at(TimeStamp(6), &rollback.encode()).is_err(), "a rollback stands at its start");
}

proptest! {
    #[test]
    fn round_trip(kind in 0..4, start: u64, overlapped: bool, value in prop::option::of(prop::collection::vec(any::<u8>(), 0..256))) {
        let kind = [WriteKind::Put, WriteKind::Delete, WriteKind::Lock, WriteKind::Rollback][kind as usize];
        let short_value = value.filter(|_| kind == WriteKind::Put).map(Bytes::from);
        let write = Write { kind, start_ts: TimeStamp(start), short_value, overlapped_rollback: overlapped };
        prop_assert_eq!(Write::decode(&write.encode()).unwrap(), write);
    }

    #[test]
    fn decoding_anything_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..40), honest: bool) {
        if honest && let Some(first) = bytes.first_mut() { *first = VERSION }
        if let Ok(write) = Write::decode(&bytes) {
            prop_assert_eq!(Write::decode(&write.encode()).unwrap(), write);
        }
    }
}
