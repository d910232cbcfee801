use super::*;

#[test]
fn the_newest_read_is_remembered_but_never_max() {
    let manager = ConcurrencyManager::new();
    manager.observe(TimeStamp(7));
    manager.observe(TimeStamp(5));
    manager.observe(TimeStamp::MAX);
    assert_eq!(manager.max_ts(), TimeStamp(7));
}
