use super::*;
use proptest::prelude::*;

fn record(number: u64, offset: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_record(&mut out, number, offset, Family(7), key, value);
    out
}

#[test]
fn a_record_is_laid_out_as_documented() {
    let bytes = record(3, 32, b"key", b"value");
    assert_eq!(bytes.len(), 32);
    assert_eq!(&bytes[4..8], checksum32(&[b"value"]).to_le_bytes());
    assert_eq!(&bytes[8..16], [5, 0, 0, 0, 3, 0, 0, 1]);
    assert_eq!(&bytes[16..20], [7, 0, 0, 0]);
    assert_eq!(&bytes[20..24], checksum32(&[b"key"]).to_le_bytes());
    assert_eq!(&bytes[24..], b"valuekey");
    let place = [3u64.to_le_bytes(), 32u64.to_le_bytes()].concat();
    assert_eq!(&bytes[..4], checksum32(&[&place, &bytes[4..24]]).to_le_bytes());
}

#[test]
fn file_headers_survive_and_damage_is_distinguished_from_a_newer_version() {
    let path = Path::new("/db/vlog/000009.vlog");
    for kind in [ValueFileKind::Segment, ValueFileKind::Relocated] {
        let header = encode_file_header(9, kind);
        assert_eq!(check_file_header(path, 9, &header).expect("sound"), kind);
        assert!(matches!(check_file_header(path, 8, &header), Err(Error::Corruption { offset: 12, .. })));
        for at in 0..header.len() {
            let mut damaged = header.clone();
            damaged[at] ^= 4;
            assert!(matches!(check_file_header(path, 9, &damaged), Err(Error::Corruption { .. })), "byte {at}");
            assert!(check_file_header(path, 9, &header[..at]).is_err());
        }
    }
    let mut newer = encode_file_header(9, ValueFileKind::Segment);
    newer[8] = 2;
    let checksum = checksum32(&[&newer[..28]]);
    newer[28..].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(check_file_header(path, 9, &newer), Err(Error::UnsupportedFormat { .. })));
}

#[test]
fn names_are_the_ones_that_are_made() {
    assert_eq!(parse_value_file_name("000012.vlog"), Some(12));
    assert_eq!(parse_value_file_name("1234567.vlog"), Some(1_234_567));
    for stranger in ["12.vlog", "000012.vlog.tmp", "000012.sst", "0000012.vlog", "+00012.vlog", ".vlog", ""] {
        assert_eq!(parse_value_file_name(stranger), None, "{stranger}");
    }
}

#[test]
fn a_skip_covers_its_place() {
    let mut bytes = Vec::new();
    encode_header(&mut bytes, 1, 64, ValueRecordHeader::Skip { bytes: 40 });
    let header = decode_header(1, 64, &bytes).expect("whole");
    assert_eq!((header, header.stride()), (ValueRecordHeader::Skip { bytes: 40 }, 64));
    assert_eq!(decode_header(1, 72, &bytes), None, "of another place");
    assert_eq!(decode_record(1, 64, &bytes), None, "no value");
}

proptest! {
    #[test]
    fn records_survive_and_no_flipped_bit_passes(
        key in proptest::collection::vec(any::<u8>(), 0..20),
        value in proptest::collection::vec(any::<u8>(), 0..60),
        bit in 0usize..8,
    ) {
        let bytes = record(5, 80, &key, &value);
        prop_assert_eq!(bytes.len() as u64, record_stride(key.len(), value.len()));
        let (header, found_value, found_key) = decode_record(5, 80, &bytes).expect("whole");
        prop_assert_eq!((found_value, found_key), (&value[..], &key[..]));
        prop_assert_eq!(header, ValueHeader::new(Family(7), &key, &value));
        let end = RECORD_HEADER_BYTES as usize + value.len();
        prop_assert!(check_value(5, 80, value.len() as u32, &bytes[..end]).is_some());
        prop_assert!(check_value(5, 80, value.len() as u32 + 1, &bytes[..end]).is_none());
        prop_assert!(check_value(5, 88, value.len() as u32, &bytes[..end]).is_none());
        prop_assert!(check_value(6, 80, value.len() as u32, &bytes[..end]).is_none());
        for at in 0..RECORD_HEADER_BYTES as usize + key.len() + value.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            prop_assert!(decode_record(5, 80, &damaged).is_none(), "byte {}", at);
            if at < end {
                prop_assert!(check_value(5, 80, value.len() as u32, &damaged[..end]).is_none());
            }
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = decode_header(1, 32, &bytes);
        let _ = decode_record(1, 32, &bytes);
        let _ = check_file_header(Path::new("f"), 1, &bytes);
        let _ = check_value(1, 32, 4, &bytes);
    }
}
