use super::*;

#[test]
fn files_that_are_kept_open_fit_the_limit_of_the_process() {
    let limits = |descriptors| OpenLimits::fitting(descriptors, 1000);
    assert_eq!(limits(None), OpenLimits { tables: 1000, value_files: 256 });
    assert_eq!(limits(Some(1 << 20)), OpenLimits { tables: 1000, value_files: 256 });
    assert_eq!(limits(Some(1024)), OpenLimits { tables: 470, value_files: 234 });
    assert_eq!(limits(Some(256)), OpenLimits { tables: 86, value_files: 42 });
    assert_eq!(limits(Some(0)), OpenLimits { tables: TABLES_MIN, value_files: VALUE_FILES_MIN });
    for descriptors in 200..2000 {
        let OpenLimits { tables, value_files } = limits(Some(descriptors));
        let used = (tables + value_files) as u64 + OTHER_FILES + descriptors / REST_PART;
        assert!(used <= descriptors, "{descriptors}: {used}");
    }
}
