use super::*;
use std::ops::Bound::{Excluded, Included, Unbounded};

/// The range expression, and which of these keys it has.
fn found(range: impl Into<Range>) -> Vec<&'static str> {
    let range = range.into();
    ["a", "a\0", "b", "c", "c\0", "d"].into_iter().filter(|key| range.contains(key.as_bytes())).collect()
}

#[test]
fn range_expressions_have_the_keys_that_they_say() {
    assert_eq!(found(..), ["a", "a\0", "b", "c", "c\0", "d"]);
    assert_eq!(found("a".."c"), ["a", "a\0", "b"]);
    assert_eq!(found("a"..="c"), ["a", "a\0", "b", "c"]);
    assert_eq!(found("c"..), ["c", "c\0", "d"]);
    assert_eq!(found(.."b"), ["a", "a\0"]);
    assert_eq!(found(..="b"), ["a", "a\0", "b"]);
    assert_eq!(found((Excluded("a"), Included("c"))), ["a\0", "b", "c"]);
    assert_eq!(found((Unbounded, Excluded("b"))), ["a", "a\0"]);
    assert_eq!(found((Excluded("c"), Unbounded)), ["c\0", "d"]);
    assert_eq!(found(Range::prefix("c")), ["c", "c\0"]);
    assert_eq!(found(vec![b'b']..vec![b'd']), ["b", "c", "c\0"]);
}

#[test]
fn an_empty_end_is_the_end_of_the_family_and_a_reversed_range_has_no_keys() {
    assert_eq!(found("c"..""), ["c", "c\0", "d"]);
    assert_eq!(found("d".."a"), [] as [&str; 0]);
    assert_eq!(found("b".."b"), [] as [&str; 0]);
    assert!(Range::from("d".."a").is_empty() && !Range::from("a".."").is_empty());
}
