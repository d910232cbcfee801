use super::*;
use proptest::prelude::*;

fn record(number: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_record(&mut out, number, offset, RecordKind::Commit, 32, 9, payload);
    out
}

#[test]
fn the_bytes_are_as_documented() {
    let header = encode_segment_header(0x0102, 0x1000);
    assert_eq!(&header[..28], b"KTKWALOG\x01\0\0\0\x02\x01\0\0\0\0\0\0\0\x10\0\0\0\0\0\0");
    let bytes = record(7, 40, b"pay");
    let mut covered = Vec::new();
    covered.extend_from_slice(&7u64.to_le_bytes());
    covered.extend_from_slice(&40u64.to_le_bytes());
    covered.extend_from_slice(&checksum32(&[b"pay"]).to_le_bytes());
    covered.extend_from_slice(b"\x03\0\0\0\x01\x20\0\0\0\x09\0\0\0\0\0\0\0");
    assert_eq!(&bytes[..4], checksum32(&[&covered]).to_le_bytes());
    assert_eq!(&bytes[4..25], &covered[16..]);
    assert_eq!(&bytes[25..], b"pay");
}

#[test]
fn a_record_is_valid_in_its_place_only() {
    let bytes = record(7, 40, b"payload");
    let decoded = decode_record(7, &bytes, 0, 40).expect("whole");
    assert_eq!((decoded.kind, decoded.durable_offset, decoded.payload), (RecordKind::Commit, 32, &b"payload"[..]));
    assert_eq!((decoded.bytes(), decoded.sequence), (bytes.len() as u64, 9));
    assert_eq!(claim_at(7, &[vec![0; 40], bytes.clone()].concat(), 40), Some(32));
    assert_eq!(decode_record(8, &bytes, 0, 40), None, "another segment");
    assert_eq!(decode_record(7, &bytes, 0, 41), None, "another offset");
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_record_is_noticed() {
    let bytes = record(7, 40, b"payload");
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_record(7, &damaged, 0, 40), None, "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert_eq!(decode_record(7, &bytes[..cut], 0, 40), None, "cut at {cut}");
    }
}

#[test]
fn a_damaged_header_is_corruption_and_a_newer_one_is_named() {
    let path = Path::new("wal/000003.wal");
    let header = encode_segment_header(3, 4096);
    assert_eq!(check_segment_header(path, 3, &header).expect("good"), 4096);
    for bit in 0..header.len() * 8 {
        let mut damaged = header.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = check_segment_header(path, 3, &damaged).expect_err("damaged");
        assert!(matches!(error, Error::Corruption { .. }), "bit {bit}: {error}");
    }
    let other = check_segment_header(path, 4, &header).expect_err("renamed");
    assert!(matches!(other, Error::Corruption { offset: 12, .. }), "{other}");
    let mut newer = header[..28].to_vec();
    newer[8] = 2;
    let checksum = checksum32(&[&newer]);
    put_u32(&mut newer, checksum);
    let error = check_segment_header(path, 3, &newer).expect_err("newer");
    let text = error.to_string();
    assert!(matches!(error, Error::UnsupportedFormat { .. }) && text.contains("format 2"), "{text}");
}

#[test]
fn only_our_names_are_segments() {
    assert_eq!(segment_number("000042.wal"), Some(42));
    assert_eq!(segment_number(&segment_name(12_345_678)), Some(12_345_678));
    for name in ["42.wal", "000042.wal.tmp", "0000042.wal", "000042.sst", "+00042.wal", ""] {
        assert_eq!(segment_number(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn decoding_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100), at in 0usize..120, offset: u64) {
        prop_assert_eq!(decode_record(1, &bytes, at, offset), None);
        prop_assert!(check_segment_header(Path::new("x"), 1, &bytes).is_err());
    }
}
