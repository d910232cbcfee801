use super::*;

fn context(version: i32) -> Option<Context> {
    Some(Context { api_version: version, ..Default::default() })
}

#[test]
fn versions_1_and_2_are_served() {
    assert_eq!(is_v2(&None), Ok(false));
    assert_eq!(is_v2(&context(ApiVersion::V1ttl as i32)), Ok(false));
    assert_eq!(is_v2(&context(ApiVersion::V2 as i32)), Ok(true));
    for other in [ApiVersion::V3 as i32, 99] {
        assert!(is_v2(&context(other)).expect_err("refused").contains(&other.to_string()));
    }
}

#[test]
fn a_key_has_the_prefix_of_its_mode() {
    assert_eq!(KeyMode::Raw.check_key(b"r\0\0\x01key"), Ok(()));
    assert_eq!(KeyMode::Raw.check_key(b"r\0\0\x01"), Ok(()), "the empty key of a keyspace");
    assert_eq!(KeyMode::Txn.check_key(b"x\0\0\0k"), Ok(()));
    for wrong in [&b""[..], b"r\0\0", b"x\0\0\x01key", b"key"] {
        let error = KeyMode::Raw.check_key(wrong).expect_err("refused");
        assert!(error.contains("raw") && error.contains(&wrong.escape_ascii().to_string()), "{error}");
    }
    assert_eq!(KeyMode::of(b"x\0\0\0k"), Some(KeyMode::Txn));
    assert_eq!((KeyMode::of(b"k"), KeyMode::of(b"x")), (None, None));
    assert!(KeyMode::Txn.check_key(&[b'k'; 70_000]).expect_err("refused").len() < 300, "a text for people");
}

#[test]
fn a_range_stays_within_the_keys_of_its_mode() {
    let check = |lower: &[u8], upper: &[u8]| KeyMode::Raw.check_range(lower, upper);
    assert_eq!(check(b"r\0\0\x01", b"r\0\0\x02"), Ok(()), "a whole keyspace");
    for end in [&b"s"[..], b"s\0\0\0"] {
        assert_eq!(check(b"r\xff\xff\xff", end), Ok(()), "the last keyspace");
    }
    assert!(check(b"", b"r\0\0\x02").expect_err("refused").contains("start"));
    for end in [&b""[..], b"s\0\0\x01", b"s\0\0\0\0", b"x\0\0\x01"] {
        assert!(check(b"r\0\0\x01", end).expect_err("refused").contains("end"));
    }
}
