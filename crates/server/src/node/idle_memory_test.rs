use super::*;

#[test]
fn memory_is_returned_once_in_each_idle_time() {
    let mut watch = Watch::default();
    // The work done before each look.
    let looks = [(500, false), (51, false), (50, true), (0, false), (50, false), (51, false), (3, true), (0, false)];
    let mut total = 0;
    for (work, expected) in looks {
        total += work;
        assert_eq!(watch.has_become_idle(total), expected, "after {work}");
    }
    // A start without work.
    let mut watch = Watch::default();
    assert!(watch.has_become_idle(0) && !watch.has_become_idle(0));
}
