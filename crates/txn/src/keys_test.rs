use super::*;

#[test]
fn newer_versions_come_first_and_stay_inside_their_key() {
    let newer = write_key(b"k", TimeStamp(9));
    let older = write_key(b"k", TimeStamp(8));
    assert!(newer < older);
    assert!(older < write_key(b"k\0", TimeStamp::MAX));
    assert!(lock_key(b"k") < newer);
    assert_eq!(split_versioned(&newer).unwrap(), (lock_key(b"k").as_slice(), TimeStamp(9)));
    let range = version_range(b"k", TimeStamp(9), TimeStamp::ZERO);
    assert!(range.contains(&newer) && range.contains(&older) && range.contains(&write_key(b"k", TimeStamp::ZERO)));
    assert!(!range.contains(&write_key(b"k", TimeStamp(10))) && !range.contains(&write_key(b"k\0", TimeStamp(1))));
}

#[test]
fn a_user_range_is_clipped_to_its_region() {
    let region = Range::region(&lock_key(b"c"), &lock_key(b"m"));
    let clipped = user_range(&region, b"a", b"d");
    assert_eq!((clipped.start.unwrap(), clipped.end.unwrap()), (lock_key(b"c").into(), lock_key(b"d").into()));
    let clipped = user_range(&region, b"d", b"");
    assert_eq!((clipped.start.unwrap(), clipped.end.unwrap()), (lock_key(b"d").into(), lock_key(b"m").into()));
    assert_eq!(user_range(&Range::all(), b"", b""), Range::all());
    assert!(is_empty(&user_range(&region, b"x", b"")));
}

#[test]
fn a_short_physical_key_is_refused() {
    assert!(split_versioned(b"1234567").is_err());
}
