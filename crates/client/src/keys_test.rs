use super::*;

#[test]
fn memcomparable_keys() {
    assert_eq!(encode(b""), [0, 0, 0, 0, 0, 0, 0, 0, 0xf7]);
    assert_eq!(encode(b"abcdefgh"), *b"abcdefgh\xff\0\0\0\0\0\0\0\0\xf7");
    for key in [&b""[..], b"a", b"abcdefgh", b"abcdefghi", b"\0\0", &[0xff; 17]] {
        assert_eq!(decode(&encode(key)).unwrap(), key);
    }
    for wrong in [&b""[..], b"abc", b"abcdefgh\xff", b"abcdefgh\xf6", b"abc\0\0\0\0\x01\xfa", b"abc\0\0\0\0\0\xfax"] {
        assert_eq!(decode(wrong), None, "{wrong:?}");
    }
    assert!(encode(b"a") < encode(b"a\0") && encode(b"a\0") < encode(b"b"));
}

#[test]
fn open_bounds_stay_open() {
    assert_eq!(Mode::Txn.user_key(&Bytes::new()).unwrap(), "");
    assert_eq!(Mode::Raw.position(b"k"), "k");
    assert_eq!(Mode::Txn.user_key(&Mode::Txn.position(b"k")).unwrap(), "k");
}
