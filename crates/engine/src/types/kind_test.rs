use super::*;

#[test]
fn kinds_have_the_numbers_of_the_format() {
    for byte in 0..=u8::MAX {
        match Kind::from_byte(byte) {
            Some(kind) => assert_eq!(kind.to_byte(), byte),
            None => assert!(byte > 4),
        }
    }
    assert_eq!(u32::from(Kind::PointerExpiring.to_byte()).next_power_of_two(), 1 << (KIND_BITS - 1));
}

#[test]
fn stored_bytes_come_apart_as_they_were_put_together() {
    let pointer = ValuePointer { segment: 7, offset: 1 << 40, length: 99 };
    let mut stored = 5000u64.to_le_bytes().to_vec();
    pointer.encode(&mut stored);
    let decoded = Decoded::new(Kind::PointerExpiring, &stored).expect("it is whole");
    assert_eq!(decoded, Decoded { expires_at_ms: Some(5000), content: Content::Pointer(pointer) });
    assert!(!decoded.expired(4999) && decoded.expired(5000));
    assert_eq!(stored.len(), EXPIRY_BYTES + VALUE_POINTER_BYTES);
    let value = Decoded::new(Kind::Put, b"v").expect("it is whole");
    assert_eq!(value, Decoded { expires_at_ms: None, content: Content::Value(b"v") });
    assert!(!value.expired(u64::MAX));
}

#[test]
fn malformed_stored_bytes_are_refused() {
    assert!(Decoded::new(Kind::Delete, b"x").is_err());
    assert!(Decoded::new(Kind::PutExpiring, b"1234567").is_err());
    for length in 0..40 {
        let bytes = vec![1; length];
        assert_eq!(Decoded::new(Kind::Pointer, &bytes).is_ok(), length == VALUE_POINTER_BYTES);
        assert_eq!(Decoded::new(Kind::PointerExpiring, &bytes).is_ok(), length == 28);
    }
    assert_eq!(inline_value(Kind::PutExpiring, Bytes::from_static(b"short")), None);
}
