use super::crc64;

/// The check value that catalogues of checksums give for CRC-64/XZ.
#[test]
fn it_is_the_checksum_of_that_name() {
    assert_eq!(crc64(&[b"123456789"]), 0x995D_C9BB_DF19_39FA);
    assert_eq!(crc64(&[]), 0);
}

#[test]
fn parts_are_taken_together() {
    assert_eq!(crc64(&[b"1234", b"", b"56789"]), crc64(&[b"123456789"]));
    assert_ne!(crc64(&[b"key", b"value"]), crc64(&[b"value", b"key"]));
}
