use super::*;

#[test]
fn what_the_system_writes_is_understood() {
    assert_eq!(parse_total("MemTotal:       24601234 kB\nMemFree: 1 kB\n"), Some(24_601_234 << 10));
    assert_eq!(parse_total("MemFree: 1 kB\n"), None);
    assert_eq!(parse_limit("536870912\n"), Some(512 << 20));
    assert_eq!(parse_limit("max\n"), None);
}

#[test]
fn this_machine_has_a_size() {
    let size = machine_size();
    assert!(size.cores >= 1);
    assert!(size.memory_bytes.is_none_or(|bytes| bytes > 1 << 20), "{size:?}");
}

#[test]
fn a_process_may_open_some_files() {
    assert!(descriptors_max().is_none_or(|count| count > 16));
}
