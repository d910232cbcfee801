use super::*;
use kontiki_proto::kvrpcpb::ApiVersion;
use kontiki_raftstore::{Epoch, RegionId, Space};

fn context(version: ApiVersion) -> Option<Context> {
    Some(Context { api_version: version as i32, ..Default::default() })
}

#[test]
fn each_version_and_column_family_has_its_own_place() {
    let of = |version, family| RawSpace::of(&context(version), family).map(|space| space.family);
    assert_eq!(of(ApiVersion::V1, ""), Ok(DEFAULT));
    assert_eq!(of(ApiVersion::V1ttl, "default"), Ok(DEFAULT));
    assert_eq!(of(ApiVersion::V1, "lock"), Ok(RAW_LOCK));
    assert_eq!(of(ApiVersion::V1, "write"), Ok(RAW_WRITE));
    assert_eq!(of(ApiVersion::V2, ""), Ok(RAW_V2));
    let Err(Refusal::Text(text)) = of(ApiVersion::V1, "raft") else { panic!("refused") };
    assert!(["`raft`", "`default`", "`lock`", "`write`"].iter().all(|name| text.contains(name)), "{text}");
    let Err(Refusal::Text(text)) = of(ApiVersion::V2, "lock") else { panic!("refused") };
    assert!(text.contains("`lock`") && text.contains("version 2"), "{text}");
}

fn region(start_key: &[u8], end_key: &[u8]) -> Region {
    Region {
        id: RegionId(2),
        start_key: Bytes::copy_from_slice(start_key),
        end_key: Bytes::copy_from_slice(end_key),
        epoch: Epoch { conf_version: 1, version: 1 },
        peers: Vec::new(),
        roles: Default::default(),
        gc_safe_point: 0,
        merges: Default::default(),
        space: Space::Data,
    }
}

#[test]
fn keys_of_version_2_are_stored_in_the_order_of_their_boundaries() {
    let space = RawSpace::of(&context(ApiVersion::V2), "").expect("served");
    let keys = ["r\0\0\0", "r\0\0\0a", "r\0\0\0a\0", "r\0\0\0abcdefgh", "r\0\0\0b"].map(Bytes::from);
    let stored: Vec<Bytes> = keys.iter().map(|key| space.stored(key)).collect();
    assert!(stored.is_sorted());
    for (key, stored) in keys.iter().zip(&stored) {
        assert_eq!(space.key_of(stored.clone()).expect("an encoding"), key);
    }
    assert!(matches!(space.key_of(Bytes::from_static(b"r\0\0\0")), Err(Failure::Corrupt { .. })));
    // Every boundary is an encoding.
    let region = region(&stored[1], &stored[4]);
    let range = space.range(&region, &keys[0], &Bytes::from_static(b"r\0\0\x01"));
    let owned: Vec<bool> = stored.iter().map(|key| range.contains(key)).collect();
    assert_eq!(owned, [false, true, true, true, false]);
    assert!(space.range(&region, &keys[4], &Bytes::from_static(b"s")).is_empty());
}

#[test]
fn a_range_is_clipped_to_the_region() {
    let space = RawSpace::of(&None, "").expect("served");
    let bounds = |start: &'static [u8], end: &'static [u8]| {
        let range = space.range(&region(b"c", b"m"), &Bytes::from_static(start), &Bytes::from_static(end));
        let is_empty = range.is_empty();
        (range.start.unwrap_or_default(), range.end.unwrap_or_default(), is_empty)
    };
    assert_eq!(bounds(b"", b""), (Bytes::from("c"), Bytes::from("m"), false));
    assert_eq!(bounds(b"d", b"e"), (Bytes::from("d"), Bytes::from("e"), false));
    assert!([bounds(b"m", b""), bounds(b"", b"c"), bounds(b"e", b"d")].iter().all(|(_, _, is_empty)| *is_empty));
}

#[test]
fn times_to_live_become_moments_and_back() {
    assert_eq!(expires_at_ms(5, 0), Ok(None));
    assert_eq!(expires_at_ms(5, 2), Ok(Some(2_005)));
    assert_eq!((ttl_s(5, 2_005), ttl_s(6, 2_005), ttl_s(2_004, 2_005)), (2, 2, 1));
    for beyond in [u64::MAX, u64::MAX / 1_000] {
        let error = expires_at_ms(1_000_000, beyond).expect_err("refused").to_string();
        assert!(error.contains(&beyond.to_string()), "{error}");
    }
}
