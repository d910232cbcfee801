use super::*;

#[test]
fn a_prefix_ends_before_its_successor() {
    assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
    assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
    assert_eq!(after_prefix(b"\xff"), None, "nothing comes after");
    assert_eq!(after_prefix(b""), None, "every key starts with nothing");
}
