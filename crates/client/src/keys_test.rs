use super::*;

#[test]
fn open_bounds_stay_open() {
    assert_eq!(Mode::Txn.user_key(&Bytes::new()).unwrap(), "");
    assert_eq!(Mode::Raw.position(b"k"), "k");
    assert_eq!(Mode::Txn.user_key(&Mode::Txn.position(b"k")).unwrap(), "k");
}
