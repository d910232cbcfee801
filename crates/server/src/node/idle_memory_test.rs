use super::*;

#[test]
fn memory_is_returned_once_in_each_idle_time() {
    let mut watch = Watch::default();
    let looks = [(5, false), (9, false), (9, true), (9, false), (9, false), (10, false), (10, true), (10, false)];
    for (persists, expected) in looks {
        assert_eq!(watch.has_become_idle(persists), expected, "at {persists}");
    }
    // A start without a write.
    let mut watch = Watch::default();
    assert!(watch.has_become_idle(0) && !watch.has_become_idle(0));
}
