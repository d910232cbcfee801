use super::*;

#[test]
fn varints_round_trip_at_every_width() {
    for shift in 0..64 {
        for value in [1u64 << shift, (1u64 << shift).wrapping_sub(1), !0 >> shift] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut input = out.as_slice();
            assert_eq!(get_varint(&mut input), Ok(value));
            assert!(input.is_empty());
            for cut in 0..out.len() {
                let mut short = &out[..cut];
                assert_eq!(get_varint(&mut short), Err(Truncated));
                assert_eq!(short.len(), cut, "a failed read leaves the input as it was");
            }
        }
    }
}

#[test]
fn an_overlong_varint_is_refused() {
    let mut input: &[u8] = &[0xff; 11];
    assert_eq!(get_varint(&mut input), Err(Truncated));
    let mut input: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
    assert_eq!(get_varint(&mut input), Err(Truncated));
}

#[test]
fn a_slice_longer_than_the_input_is_refused() {
    let mut out = Vec::new();
    put_slice(&mut out, b"hello");
    let mut input = out.as_slice();
    assert_eq!(get_slice(&mut input), Ok(&b"hello"[..]));
    let mut short = &out[..4];
    assert_eq!(get_slice(&mut short), Err(Truncated));
    assert_eq!(short.len(), 4);
}
