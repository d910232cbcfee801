use super::*;
use proptest::prelude::*;

#[test]
fn a_footer_survives_its_encoding_and_no_flip_passes() {
    let handle = |offset| BlockHandle { offset, length: 10 };
    let footer = Footer { filter: handle(0), properties: handle(100), index: handle(200) };
    let bytes = encode_footer(&footer);
    let file = Path::new("t.sst");
    assert_eq!(decode_footer(&bytes, file, 215).expect("whole"), footer);
    assert!(decode_footer(&bytes, file, 214).is_err(), "the index would reach into the footer");
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(decode_footer(&bad, file, 215), Err(Error::Corruption { offset: 215, .. })), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(decode_footer(&bytes[..length], file, 215).is_err());
    }
}

#[test]
fn a_newer_table_is_refused_with_a_remedy() {
    let mut bytes = MAGIC.to_vec();
    put_u32(&mut bytes, FORMAT_VERSION + 1);
    let checksum = checksum32(&[&bytes]);
    put_u32(&mut bytes, checksum);
    let error = check_header(&bytes, Path::new("t.sst")).expect_err("refused").to_string();
    assert!(error.contains("t.sst") && error.contains("version 3") && error.contains("newer kontiki"), "{error}");
    assert!(check_header(&encode_header(), Path::new("t.sst")).is_ok());
}

proptest! {
    #[test]
    fn a_block_survives_its_encoding_at_its_place_only(
        raw in prop::collection::vec(0u8..4, 0..500), offset in any::<u64>(), compression in 0..3,
    ) {
        let mut stored = Vec::new();
        let compression = [Compression::None, Compression::Lz4, Compression::Zstd][compression as usize];
        encode_block(&raw, offset, compression, &mut stored);
        prop_assert!(stored.len() <= raw.len() + TRAILER_BYTES);
        prop_assert_eq!(decode_block(stored.clone(), offset), Ok(raw));
        prop_assert!(decode_block(stored, offset ^ 4096).is_err());
    }

    #[test]
    fn decoding_anything_never_panics(payload in prop::collection::vec(any::<u8>(), 0..100), kind in 0u8..4) {
        prop_assert!(decode_block(payload.clone(), 0).is_err());
        // The same with a matching checksum: only then the payload is looked at.
        let checksum = checksum32(&[&payload, &[kind], &0u64.to_le_bytes()]);
        let mut stored = payload;
        stored.push(kind);
        put_u32(&mut stored, checksum);
        let _ = decode_block(stored, 0);
    }
}
